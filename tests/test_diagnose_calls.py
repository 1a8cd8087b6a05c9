"""How diagnose finds out to call what it is given, and what it says of it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foreign import (
    FixedClasses,
    TorchSmoothed,
    log_softmax,
    names,
    uniform,
)
from softhot import InputError
from softhot.core.diagnosis.diagnose import diagnose

# How it is called


def test_a_module_of_torch_is_given_tensors_only():
    seen = set()

    class Watched(TorchSmoothed):
        def forward(self, z, y):
            seen.add(type(z))
            return super().forward(z, y)

    Watched.__module__ = "numpy.lookalike"
    assert diagnose(Watched()).alpha == 0.1
    assert seen == {torch.Tensor}


def test_a_function_of_torch_is_given_tensors_only():
    seen = set()

    def watched(z, y):
        seen.add(type(z))
        return torch.nn.functional.cross_entropy(z, y, label_smoothing=0.1)

    watched.__module__ = "torch.nn.lookalike"
    assert diagnose(watched).alpha == 0.1
    assert seen == {torch.Tensor}


def test_a_loss_of_keras_is_given_labels_first_only(monkeypatch):
    class Loss:
        pass

    class Watched(Loss):
        def __call__(self, a, b):
            seen.add(b.dtype.kind)
            return result(b, a)

    keras = SimpleNamespace(losses=SimpleNamespace(Loss=Loss))
    monkeypatch.setitem(sys.modules, "keras", keras)
    seen, result = set(), uniform
    found = diagnose(Watched(), inputs="numpy")
    assert "called with class ids and logits, numpy float64" in found.notes
    assert "smooths in evaluation" in names(found)
    result = lambda z, y: np.zeros(len(z))  # noqa: E731 - no loss, so that every way is tried
    assert diagnose(Watched(), inputs="numpy", takes="ids").form == ""
    assert seen == {"f"}, "ids never come second"


@pytest.mark.parametrize(
    ("loss", "options", "words"),
    [
        (uniform, {}, "logits and class ids, numpy float64"),
        (lambda labels, z: uniform(z, labels), {}, "class ids and logits, numpy float64"),
        (lambda a, b: uniform(b, a), {}, "class ids and logits, numpy float64"),
        (lambda a, b: uniform(b, a), {"order": "labels_first"}, "class ids and logits, numpy"),
        (
            lambda z, y: -(y * log_softmax(z)).sum(axis=1),
            {"takes": "one_hot"},
            "logits and one-hot rows, numpy float64",
        ),
        (
            lambda p, y: -np.log(p)[np.arange(len(y)), y],
            {},
            "probabilities and class ids, numpy float64",
        ),
        (
            lambda log_p, y: -log_p[np.arange(len(y)), y],
            {},
            "log-probabilities and class ids, numpy float64",
        ),
        (
            lambda p, y: -(y * np.log(p) + (1 - y) * np.log(1 - p)),
            {},
            "sigmoid probabilities and one-hot rows, numpy float64",
        ),
        (
            lambda log_p, y: -((0.9 * y + 0.01) * log_p).sum(axis=1),
            {},
            "log-probabilities and one-hot rows, numpy float64",
        ),
        (
            lambda a, b: -(a * log_softmax(b)).sum(axis=1),  # runs the other way round, too
            {},
            "one-hot rows and logits, numpy float64",
        ),
        (
            torch.nn.CrossEntropyLoss(),  # takes both
            {"takes": "one_hot"},
            "logits and one-hot rows, torch float64",
        ),
        (torch.nn.NLLLoss(), {}, "log-probabilities and class ids, torch float64"),
        (torch.nn.BCELoss(), {}, "sigmoid probabilities and one-hot rows, torch float64"),
        (
            torch.nn.CrossEntropyLoss(torch.ones(10)),
            {"inputs": "torch"},
            "logits and class ids, torch float32",
        ),
    ],
)
def test_finds_out_how_to_call_it(loss, options, words):
    found = diagnose(loss, **options)
    assert any(words in note for note in found.notes)
    assert found.convention == "uniform" if loss is uniform else True
    assert found.form.endswith("cross entropy")


def test_a_small_epsilon_in_the_logarithm_is_noticed():
    found = diagnose(lambda p, y: -np.log(p + 1e-7)[np.arange(len(y)), y])
    assert found.convention == "none"
    assert "an epsilon of 1e-07 is added inside the logarithm" in found.notes
    found = diagnose(lambda z, y: uniform(z, y) + 2e-5 * np.sin(z).sum(axis=1))
    assert any("fits nearly" in note for note in found.notes)
    assert found.uniform == pytest.approx(0.1, abs=1e-2)


def test_a_module_for_other_classes_says_so():
    with pytest.raises(InputError, match="num_classes="):
        diagnose(torch.nn.CrossEntropyLoss(torch.ones(7)))
    assert diagnose(torch.nn.CrossEntropyLoss(torch.ones(7)), num_classes=7).convention == "none"
    found = diagnose(FixedClasses(7), num_classes=7)
    assert (found.convention, found.alpha) == ("others", 0.1)


def test_the_report_reads_well():
    found = diagnose(lambda z, y: uniform(z, np.where(y < 0, 10, y)))
    assert str(found).splitlines() == [
        "cross entropy: uniform, alpha = 0.1",
        "  targets   0.91 true, 0.01 other (K = 10)",
        "  same as   others 0.09, classy_vision 0.111111, kept 0.9",
        f"  residual  {found.residual:.0e}",
        "  note      called with logits and class ids, numpy float64",
        "  MISTAKE   masked class gives inf: a logit of -inf makes the loss inf.",
        "            Take softhot.cross_entropy or softhot.torch.CrossEntropyLoss: no mass where a "
        "logit is -inf.",
    ]
