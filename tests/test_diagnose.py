"""What diagnose finds: every convention with its alpha, every known mistake, and nothing else."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import softhot
import softhot.torch
from softhot import CONVENTIONS, InputError
from softhot.core.diagnose import Diagnosis, diagnose
from softhot.core.mistakes import CHECKS

ROOT = Path(__file__).parent.parent
SOFTMAX = ("uniform", "others", "classy_vision", "kept", "skip_pad")
SIGMOID = ("binary_half", "binary_full", "sigmoid_over_classes", "one_sided")


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def targets_of(name, e, k, labels):
    """Targets by the formula of the table, written out."""
    rows = np.full((len(labels), k), CONVENTIONS[name].off(e, k))
    rows[np.arange(len(labels)), labels] = CONVENTIONS[name].on(e, k)
    if name == "skip_pad":
        rows[:, 0] = 0
        rows[labels == 0] = 0
    return rows


def loss_of(name, e, reduce=lambda rows: rows):
    if name in SOFTMAX:

        def softmax_loss(z, y):
            return reduce(-(targets_of(name, e, z.shape[1], y) * log_softmax(z)).sum(axis=1))

        return softmax_loss

    def sigmoid_loss(z, y):
        q = targets_of(name, e, z.shape[1], y)
        return reduce((np.logaddexp(0, z) - q * z).mean(axis=1))

    return sigmoid_loss


def names(found: Diagnosis) -> set[str]:
    return {mistake.name for mistake in found.mistakes}


# Every convention, with its alpha


@pytest.mark.parametrize("k", [2, 3, 10, 100])
@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("name", [n for n in CONVENTIONS if n != "skip_pad"])
def test_names_a_loss_with_its_alpha(name, alpha, k):
    e = 1 - alpha if name == "kept" else alpha
    # What differs in nothing but the name is decided by whoever knows the argument.
    told = {"argument": e} if name in ("kept", "binary_full") else {}
    found = diagnose(loss_of(name, e), num_classes=k, **told)
    if alpha == 0 and name != "kept":
        assert (found.convention, found.alpha) == ("none", 0)
    else:
        assert (found.convention, found.alpha) == (name, pytest.approx(e, abs=1e-6))
        assert found.on == pytest.approx(CONVENTIONS[name].on(e, k), abs=1e-6)
        assert found.off == pytest.approx(CONVENTIONS[name].off(e, k), abs=1e-6)
    if CONVENTIONS[name].to_uniform and alpha:
        assert found.uniform == pytest.approx(CONVENTIONS[name].to_uniform(e, k), abs=1e-6)
    assert found.residual < 1e-9


@pytest.mark.parametrize("k", [3, 10, 100])
@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.3])
def test_names_the_convention_that_skips_padding(alpha, k):
    found = diagnose(loss_of("skip_pad", alpha), num_classes=k, ignore_index=0)
    assert (found.convention, found.alpha) == ("skip_pad", pytest.approx(alpha, abs=1e-6))
    assert "class 0 has no mass, as padding" in found.notes
    assert names(found) == {"label -1 accepted", "masked class gives inf"}
    assert found.residual < 1e-9


def test_the_convention_that_skips_padding_has_no_target_for_two_classes():
    with pytest.raises(InputError, match="ZeroDivisionError"):
        diagnose(loss_of("skip_pad", 0.1), num_classes=2)


@settings(max_examples=40)
@given(
    alpha=st.floats(0.001, 0.45),
    k=st.integers(2, 12),
    name=st.sampled_from(["uniform", "others", "binary_half", "sigmoid_over_classes", "one_sided"]),
    mean=st.booleans(),
)
def test_finds_an_alpha_that_is_not_round(alpha, k, name, mean):
    loss = loss_of(name, alpha, np.mean if mean else lambda rows: rows)
    found = diagnose(loss, num_classes=k)
    names = [found.convention, *(other for other, _ in found.also)]
    assert name in names
    values = {found.convention: found.alpha, **dict(found.also)}
    assert values[name] == pytest.approx(alpha, abs=1e-6)


@settings(max_examples=40)
@given(alpha=st.floats(0.01, 0.4), k=st.integers(2, 12))
def test_a_second_number_of_classes_tells_conventions_apart(alpha, k):
    assert diagnose(loss_of("others", alpha), num_classes=k).convention == "others"
    # The same for every K, these two only differ in what is passed.
    same = ("uniform", "classy_vision")
    assert diagnose(loss_of("uniform", alpha), num_classes=k).convention in same


@pytest.mark.parametrize(
    ("name", "k"),
    [
        (name, k)
        for name in ("uniform", "others", "classy_vision", "skip_pad")
        for k in (2, 3, 10, 100)
        if (name, k) != ("skip_pad", 2)
    ],
)
def test_names_a_target_array_and_a_target_function(name, k):
    labels = np.tile(np.arange(k), 3)
    array = targets_of(name, 0.1, k, labels)
    kept = labels != (0 if name == "skip_pad" else -1)
    for found in (
        diagnose(array[kept], argument=0.1),
        diagnose(array[kept].astype(np.float32), labels=labels[kept], argument=0.1),
        diagnose(torch.from_numpy(array[kept]), argument=0.1),
        diagnose(lambda y: targets_of(name, 0.1, k, y), num_classes=k, argument=0.1),
    ):
        assert (found.convention, found.alpha) == (name, pytest.approx(0.1, abs=1e-6))


def test_a_target_function_may_take_the_number_of_classes_as_well():
    found = diagnose(lambda labels, k: targets_of("others", 0.07, k, labels))
    assert (found.kind, found.convention, found.alpha) == ("target function", "others", 0.07)
    assert not found.also or "uniform" in dict(found.also)


@pytest.mark.parametrize(
    ("q", "labels", "expected"),
    [
        ([[0.95, 0.05], [0.95, 0.95]], None, ("binary_half", 0.1)),
        ([0.95, 0.05, 0.95], None, ("binary_half", 0.1)),
        ([0.95, 0.05, 0.95], [1, 0, 1], ("binary_half", 0.1)),
        ([[0.925, 0.025, 0.925, 0.025]], None, ("sigmoid_over_classes", 0.1)),
        ([[0.9, 0, 0.9]], None, ("one_sided", 0.1)),
        ([[0.95, 0.05, 0.95, 0.05], [0.925, 0.025, 0.025, 0.025]], "?", ("mass_preserving", 0.1)),
        ([[0.9, 0.2, 0.7]], [[1, 0, 1]], ("unknown", None)),
        (np.eye(3, dtype=int), None, ("none", 0)),
        ([[0.8, 0.15, 0.05], [0.05, 0.9, 0.05], [0.2, 0, 0.8]], None, ("by_class", None)),
        ([[0.8, 0.15, 0.05], [0.05, 0.9, 0.05]], None, ("prior", 0.25)),
        ([[0.9, 0.1], [0.8, 0.2]], [0, 0], ("unknown", None)),
        ([[0.91, 0.09]], [[1, 0]], ("unknown", None)),
    ],
)
def test_names_arrays(q, labels, expected):
    labels = (np.array(q) > 0.5).astype(int) if labels == "?" else labels
    if expected == ("unknown", None) and labels == [[1, 0]]:
        expected = ("binary_half", 0.18)
    found = diagnose(np.array(q), labels=labels)
    assert (found.convention, found.alpha) == expected


# softhot's own

K = 10
OWN = {
    "Uniform": (softhot.Uniform(0.1), "uniform", 0.1),
    "Others": (softhot.Others(0.1), "others", 0.1),
    "hard": (softhot.Uniform(0.0), "none", 0.0),
    "Prior": (softhot.Prior(0.1, counts=tuple(range(1, K + 1))), "prior", 0.1),
    "Ordinal": (softhot.Ordinal(0.1), "by_class", None),
    "NegativeUniform": (softhot.NegativeUniform(-0.25), "uniform", -0.25),
    "MaxSup": (softhot.MaxSup(0.1), "none", 0.0),
    "penalised": (softhot.Uniform(0.1) + softhot.ConfidencePenalty(0.2), "uniform", 0.1),
    "Focal": (softhot.Focal(2.0), "unknown", None),
    "Margin": (softhot.Margin(0.1, margin=1.0), "unknown", None),
}


@pytest.mark.parametrize("name", OWN)
def test_own_losses_are_clean(name):
    rule, convention, alpha = OWN[name]
    found = diagnose(lambda z, y: softhot.cross_entropy(z, y, rule), num_classes=K)
    assert (found.convention, found.alpha, found.mistakes) == (convention, alpha, ())
    if convention == "unknown":
        assert found.residual > 1e-3
        assert found.form == ""
        assert "not a smoothed cross entropy" in str(found)


@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_own_module_is_clean_in_every_reduction(reduction, weighted, k):
    weight = torch.arange(1.0, k + 1, dtype=torch.float64) if weighted else None
    loss = softhot.torch.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=0.1)
    loss.eval()
    found = diagnose(loss, num_classes=k, argument=0.1)
    assert (found.convention, found.alpha, found.mistakes) == ("uniform", 0.1, ())
    assert not loss.training, "it gets its mode back"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (softhot.Bernoulli(0.1), ("binary_half", 0.1)),
        (softhot.OneSided(0.1), ("one_sided", 0.1)),
        (softhot.MassPreserving(0.1), ("mass_preserving", 0.1)),
        (softhot.Prevalence(0.1, rates=tuple(np.linspace(0.01, 0.2, K))), ("prior", 0.1)),
        (softhot.Platt((5.0,) * K, tuple(np.arange(K) + 9.0)), ("by_class", None)),
    ],
)
def test_own_binary_rules_are_clean(rule, expected):
    found = diagnose(lambda z, y: softhot.binary_cross_entropy(z, y, rule))
    assert (found.convention, found.alpha, found.mistakes) == (*expected, ())
    function = diagnose(lambda y: softhot.smooth_binary_labels(y, rule), takes="multi_hot")
    assert (function.convention, function.alpha, function.mistakes) == (*expected, ())


def test_own_target_functions_are_clean():
    found = diagnose(lambda y: softhot.smooth_labels(y, 0.1, num_classes=10))
    assert (found.convention, found.alpha, found.mistakes) == ("uniform", 0.1, ())


# The mistakes: every row of the table, on something that makes it


def uniform(z, y, e=0.1):
    return -(targets_of("uniform", e, z.shape[1], y) * log_softmax(z)).sum(axis=1)


def torch_uniform(z, y, e=0.1):
    return F.cross_entropy(z, y, label_smoothing=e)


def masked_loss(mask_smooth_term=True, inverted=False, divide=True):
    def loss(z, y):
        log_p = z.log_softmax(1)
        keep = (y != -100) ^ inverted
        nll = -log_p.gather(1, y.clamp(min=0)[:, None])[:, 0] * keep
        rest = -log_p.mean(1) * (keep if mask_smooth_term else 1)
        count = keep.sum() if divide else len(y)
        return (
            (0.9 * nll.sum() + 0.1 * rest.sum()) / count.clip(1)
            if divide
            else (0.9 * nll + 0.1 * rest).mean()
        )

    return loss


def k_from_batch(z, y):
    k = len(np.unique(y))
    return uniform(z, y, 0.1) + 0 * k if k > 1 else uniform(z, y, 0.0)


def first_label_only(z, y):
    value = uniform(z, y)
    value[y == 3] = np.nan
    return value


def in_place(z, y):
    z -= z.max(axis=1, keepdims=True)
    return uniform(z, y)


def full_like_integers(rows):
    out = rows.copy()
    out[rows == 1] = 0.9
    out[rows == 0] = 0.1
    return out


def slip_loss(on, off):
    def loss(z, y):
        k = z.shape[1]
        q = np.full(z.shape, off(k))
        q[np.arange(len(y)), y] = on(k)
        return -(q * log_softmax(z)).sum(axis=1).mean()

    return loss


class TorchSmoothed(torch.nn.Module):
    def forward(self, z, y):
        return torch_uniform(z, y)


class FixedClasses(torch.nn.Module):
    """The hand-written module: K is an argument, the target is built in forward."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, pred, target):
        pred = pred.log_softmax(dim=-1)
        q = torch.full_like(pred, 0.1 / (self.classes - 1))
        q.scatter_(1, target.unsqueeze(1), 0.9)
        return torch.mean(torch.sum(-q * pred, dim=-1))


BY_MISTAKE = {
    "rows do not sum to 1": (lambda: np.array([[0.9, 0.5, 0.5]]), {}),
    "e for every other class": (lambda: slip_loss(lambda k: 0.9, lambda k: 0.1), {}),
    "true class without its e/K": (lambda: slip_loss(lambda k: 0.9, lambda k: 0.1 / k), {}),
    "1/K without e": (lambda: slip_loss(lambda k: 0.9 + 1 / k, lambda k: 1 / k), {}),
    "e/(K - 1) for the true class too": (
        lambda: slip_loss(lambda k: 0.9 + 0.1 / (k - 1), lambda k: 0.1 / (k - 1)),
        {},
    ),
    "mean over classes": (
        lambda: lambda z, y: F.kl_div(z.log_softmax(1), 0.9 * F.one_hot(y, z.shape[1]) + 0.01),
        {},
    ),
    "e/K on sigmoids": (lambda: loss_of("sigmoid_over_classes", 0.1), {}),
    "wrong class on top": (lambda: loss_of("others", 0.95), {}),
    "negative target": (lambda: np.array([[1.2, -0.3, 0.1]]), {}),
    "labels read from 1": (lambda: lambda z, y: uniform(z, y - 1), {}),
    "class weights inside the target": (
        lambda: torch.nn.CrossEntropyLoss(torch.tensor([1.0, 20.0]), label_smoothing=0.1),
        {"num_classes": 2, "argument": 0.1},
    ),
    "a label fails": (lambda: first_label_only, {}),
    "arithmetic on class ids": (lambda: lambda y: 0.9 * y + 0.1 / 10, {}),
    "integer targets": (lambda: full_like_integers, {}),
    "writes to its input": (lambda: in_place, {}),
    "K from the batch": (lambda: k_from_batch, {}),
    "label -1 accepted": (lambda: uniform, {}),
    "label K accepted": (
        lambda: lambda y: 0.9 * (y[:, None] == np.arange(10)) + 0.01,
        {},
    ),
    "soft labels change": (
        lambda: lambda z, y: -(np.where(y > 0, 0.91, 0.01) * log_softmax(z)).sum(1),
        {},
    ),
    "ids and one-hot rows differ": (
        lambda: (
            lambda z, y: (
                torch_uniform(z, y) if y.ndim == 1 else F.cross_entropy(z, y, label_smoothing=0.0)
            )
        ),
        {},
    ),
    "argument without effect": (lambda: torch.nn.CrossEntropyLoss(), {"argument": 0.1}),
    "argument is the share kept": (lambda: loss_of("kept", 0.9), {"argument": 0.9}),
    "smoothed twice": (
        lambda: lambda z, y: torch_uniform(z, 0.9 * F.one_hot(y, z.shape[1]) + 0.1 / z.shape[1]),
        {"argument": 0.1},
    ),
    "bad argument accepted": (
        lambda: torch.nn.CrossEntropyLoss(label_smoothing=0.1),
        {"make": lambda e: torch.nn.CrossEntropyLoss(label_smoothing=e)},
    ),
    "smooths predictions": (
        lambda: (
            lambda z, y: (
                -np.log(
                    np.take_along_axis(
                        0.9 * np.exp(log_softmax(z)) + 0.1 / z.shape[1], y[:, None], 1
                    )
                )
            )
        ),
        {},
    ),
    "softmax twice": (lambda: lambda z, y: torch_uniform(z.softmax(1), y), {}),
    "sigmoid twice": (
        lambda: lambda z, y: F.binary_cross_entropy_with_logits(z.sigmoid(), 0.9 * y + 0.05),
        {},
    ),
    "a shift changes the loss": (
        lambda: (
            lambda z, y: np.log(np.exp(z).sum(1)) - 0.9 * np.take_along_axis(z, y[:, None], 1)[:, 0]
        ),
        {},
    ),
    "masked class gives inf": (lambda: torch_uniform, {}),
    "float16 overflows": (lambda: torch_uniform, {}),
    "smooths in evaluation": (TorchSmoothed, {}),
    "ignored rows count": (lambda: masked_loss(mask_smooth_term=False), {}),
    "mask inverted": (lambda: masked_loss(inverted=True), {}),
    "mean over ignored rows": (lambda: masked_loss(divide=False), {}),
    "no row left gives NaN": (lambda: torch.nn.CrossEntropyLoss(), {}),
    "class axis": (
        lambda: (
            lambda z, y: (
                -(
                    0.9 * z.log_softmax(-1).gather(-1, y.unsqueeze(1)).squeeze(1)
                    + 0.1 * z.log_softmax(-1).mean(-1)
                ).mean()
            )
        ),
        {},
    ),
}


def test_every_mistake_of_the_table_has_an_example():
    assert set(BY_MISTAKE) == set(CHECKS)


@pytest.mark.parametrize("name", BY_MISTAKE)
def test_sees_the_mistake(name):
    make, options = BY_MISTAKE[name]
    found = diagnose(make(), **options)
    assert name in names(found)
    mistake = next(mistake for mistake in found.mistakes if mistake.name == name)
    assert mistake.evidence.endswith(".")
    assert mistake.remedy in str(found)
    assert name in str(found)


# The public losses of docs/diagnosis.md


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("diagnosis", ROOT / "docs" / "diagnosis.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["diagnosis"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


EXPECTED = {
    "`CrossEntropyLoss`, torch": ("uniform", 0.1),
    "`CrossEntropyLoss(weight=...)`, weights 1:20, torch": ("uniform", 0.1),
    "`CategoricalCrossentropy`, Keras": ("uniform", 0.1),
    "`CategoricalCrossentropy(from_logits=True)`, Keras": ("uniform", 0.1),
    "`CategoricalCrossentropy(axis=1)`, Keras": ("uniform", 0.1),
    "`BinaryCrossentropy`, Keras": ("binary_half", 0.1),
    "`CategoricalFocalCrossentropy`, Keras": ("unknown", None),
    "`softmax_cross_entropy` of `smooth_labels`, optax": ("uniform", 0.1),
    "`smooth_labels`, optax": ("uniform", 0.1),
    "timm 1.0 `LabelSmoothingCrossEntropy`": ("uniform", 0.1),
    "timm 1.0 `BinaryCrossEntropy`": ("sigmoid_over_classes", 0.1),
    "Hugging Face transformers 5 `LabelSmoother`": ("uniform", 0.1),
    "fairseq, e/K version, padding 1": ("uniform", 0.1),
    "fairseq, e/(K - 1) version, padding 1": ("others", 0.1),
    "OpenNMT-py, padding 0": ("skip_pad", 0.1),
    "ClassyVision": ("classy_vision", 0.1),
    "Megatron-LM": ("others", 0.1),
    "segmentation_models `SoftCrossEntropyLoss`": ("uniform", 0.1),
    "segmentation_models `SoftBCEWithLogitsLoss`": ("binary_full", 0.1),
    "mmpretrain `LabelSmoothLoss`, multi-label": ("binary_full", 0.1),
    "YOLOv5 class loss": ("binary_half", 0.1),
    "ConvE": ("unknown", 0.1),
    "slides, 1: smooth the labels": ("unknown", 0.05),
    "slides, 3: the definition": ("uniform", 0.1),
    "slides, 5: a PyTorch loss": ("others", 0.1),
    "slides, 7: smooth the softmax": ("uniform", 0.1),
    "slides, 8: multi-label": ("sigmoid_over_classes", 0.1),
    "post: `np.where`": ("unknown", 0.1),
    "post: `remap`": ("unknown", 0.1),
    'newsletter: "to all other classes"': ("others", 0.1),
}
MUST_SEE = {
    "`CrossEntropyLoss(weight=...)`, weights 1:20, torch": {
        "class weights inside the target",
        "ids and one-hot rows differ",
    },
    "timm 1.0 `LabelSmoothingCrossEntropy`": {"class axis"},
    "timm 1.0 `BinaryCrossEntropy`": {"e/K on sigmoids", "ids and one-hot rows differ"},
    "Hugging Face transformers 5 `LabelSmoother`": {"label -1 accepted"},
    "segmentation_models `SoftCrossEntropyLoss`": {"mean over ignored rows"},
    "mmpretrain `LabelSmoothLoss`, multi-label": {"soft labels change"},
    "ConvE": {"1/K without e"},
    "slides, 1: smooth the labels": {
        "arithmetic on class ids",
        "K from the batch",
        "rows do not sum to 1",
    },
    "slides, 5: a PyTorch loss": {"class axis"},
    "slides, 7: smooth the softmax": {"smooths predictions"},
    "slides, 8: multi-label": {"e/K on sigmoids"},
    "post: `np.where`": {
        "e for every other class",
        "rows do not sum to 1",
        "integer targets",
        "writes to its input",
    },
    "post: `remap`": {
        "e for every other class",
        "rows do not sum to 1",
        "labels read from 1",
        "label -1 accepted",
    },
}


@pytest.fixture(scope="module")
def public(page):
    return {subject: subject.diagnose() for subject in page.SUBJECTS}


def test_public_losses_are_what_they_say(public):
    found = {s.title: (d.convention, d.alpha) for s, d in public.items() if s.group != "softhot"}
    assert found == EXPECTED
    seen = {s.title: names(d) for s, d in public.items()}
    missed = {title: must - seen[title] for title, must in MUST_SEE.items() if must - seen[title]}
    assert not missed
    assert not [s.title for s, d in public.items() if s.group == "softhot" and d.mistakes]


def test_the_page_is_up_to_date(page, public):
    """Every line about a subject of the version installed is there, and no other such line."""
    text = page.PAGE.read_text()
    assert page.INTRO in text
    written = text.splitlines()
    for subject, found in public.items():
        table = [line for line in written if line.startswith(f"| {subject.name} |")]
        other_version = subject.distribution and subject.title in text and not table
        if not other_version:
            assert table == [page.row(subject, found)]
            below = sorted(line for line in written if line.startswith(f"- {subject.name}: "))
            assert below == sorted(f"- {subject.name}: {m.evidence}" for m in found.mistakes)
    assert {line[4:] for line in written if line.startswith("### ")} <= set(CHECKS)


# What else can be handed in


class Raises:
    def __call__(self, z, y):
        raise RuntimeError("no")


def random_loss(z, y, rng=np.random.default_rng(0)):  # noqa: B008
    return uniform(z, y) + rng.normal()


HOSTILE = {
    "None": None,
    "text": "cross entropy",
    "number": 0.1,
    "an object": object(),
    "a class": torch.nn.CrossEntropyLoss,
    "an exception": Raises(),
    "no arguments": lambda: 1.0,
    "three arguments": lambda a, b, c: 1.0,
    "a built-in": dict.fromkeys,
    "another built-in": max,
    "gives None": lambda z, y: None,
    "gives text": lambda z, y: "0.5",
    "gives NaN": lambda z, y: float("nan"),
    "gives NaN rows": lambda z, y: np.full(len(z), np.nan),
    "gives inf": lambda z, y: np.inf,
    "gives a complex number": lambda z, y: 1j,
    "gives a boolean": lambda z, y: True,
    "gives a pair": lambda z, y: (uniform(z, y), 0),
    "gives objects": lambda z, y: np.array([None] * len(z)),
    "gives records": lambda z, y: np.zeros(len(z), dtype=[("a", float)]),
    "gives one row too many": lambda z, y: np.zeros(len(z) + 1),
    "gives a table": lambda z, y: np.zeros((len(z), 3)),
    "gives another each time": random_loss,
    "targets of NaN": lambda y: np.full((len(y), 10), np.nan),
    "targets too short": lambda y: np.zeros((3, 10)),
    "targets of text": lambda y: "targets",
    "array of NaN": np.array([[np.nan, 1.0]]),
    "array of text": np.array([["a", "b"]]),
    "empty array": np.zeros((0, 3)),
    "array in three dimensions": np.zeros((2, 3, 4)),
    "array of no dimension": np.float64(0.5),
    "ragged list": [[0.9, 0.1], [1.0]],
    "complex array": np.array([[1j, 0]]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_diagnosed_is_an_input_error(name):
    with pytest.raises(InputError, match="subject must be"):
        diagnose(HOSTILE[name])


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: np.zeros(len(z)),
        lambda z, y: 1.0,
        lambda z, y: (z**2).sum(axis=1),
        lambda z, y: 1e300 * np.abs(z).sum(axis=1),
        lambda z, y: np.abs(z[np.arange(len(z)), y % 10]),
        lambda z, y: np.exp(100 * z).sum(axis=1),
        lambda z, y: y.astype(float),
        lambda z, y: -(z[np.arange(len(z)), y] ** 3),
        lambda z, y: np.float32(z.mean()),
    ],
)
def test_numbers_that_are_no_cross_entropy_are_unknown(loss):
    found = diagnose(loss, inputs="numpy")
    assert (found.convention, found.alpha, found.form) == ("unknown", None, "")
    assert not found.residual < 1e-3


@given(
    st.lists(st.lists(st.floats(-2, 2), min_size=3, max_size=3), min_size=1, max_size=5),
    st.booleans(),
)
def test_any_array_has_a_diagnosis(rows, with_labels):
    labels = np.zeros(len(rows), dtype=int) if with_labels else None
    found = diagnose(np.array(rows), labels=labels)
    sums = np.array(rows).sum(axis=1)
    if found.convention in ("uniform", "others", "classy_vision", "prior", "by_class"):
        assert np.allclose(sums, sums[0], atol=1e-5)
    assert str(found).startswith("targets: ")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"kind": "model"}, "kind"),
        ({"inputs": "tensorflow"}, "inputs"),
        ({"order": "labels"}, "order"),
        ({"takes": "soft"}, "takes"),
        ({"argument": 1.5}, "argument"),
        ({"argument": math.nan}, "argument"),
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 10.0}, "num_classes"),
        ({"ignore_index": None}, "ignore_index"),
    ],
)
def test_bad_options_are_input_errors(options, argument):
    with pytest.raises(InputError) as error:
        diagnose(uniform, **options)
    assert error.value.argument == argument


def test_labels_of_an_array_must_fit():
    rows = targets_of("uniform", 0.1, 3, np.arange(3))
    with pytest.raises(InputError, match="labels must be of shape"):
        diagnose(rows, labels=[0, 1])
    with pytest.raises(InputError, match="labels must be an integer"):
        diagnose(rows, labels=[0, 1, 3])


def test_a_framework_that_is_not_loaded_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(InputError, match="import keras"):
        diagnose(uniform, inputs="keras")
    assert "keras" not in sys.modules


SNIPPETS = {
    "ids as numbers, an array": (np.array([0.93, 0.03, 1.83]), {}, {"arithmetic on class ids"}),
    "ids as numbers, all the function takes": (
        lambda ids: 0.9 * ids[np.arange(len(ids))] + 0.1 * (ids.dtype.kind == "i"),
        {"takes": "ids"},
        {"arithmetic on class ids"},
    ),
    "K, and the shape, from the batch": (
        lambda ids: (
            0.9 * np.eye(len(set(ids.tolist())))[np.unique(ids, return_inverse=True)[1]]
            + 0.1 / len(set(ids.tolist()))
        ),
        {"takes": "ids"},
        {"K from the batch"},
    ),
    "in place, integers refused": (
        lambda rows: np.add(np.multiply(rows, 0.9, out=rows), 0.01, out=rows),
        {},
        {"writes to its input", "arithmetic on class ids"},
    ),
    "zeros instead of fractions": (
        np.zeros((3, 4), dtype=int),
        {"labels": [0, 1, 2]},
        {"integer targets", "rows do not sum to 1"},
    ),
    "rows from 1": (
        targets_of("uniform", 0.1, 4, np.arange(4)),
        {"labels": (np.arange(4) + 1) % 4},
        {"labels read from 1"},
    ),
    "soft labels made hard": (
        lambda rows: np.where(rows > 0, 0.9, 0.1 / 9),
        {},
        {"soft labels change"},
    ),
    "off value of a fill, forgotten on top": (
        lambda ids: np.where(ids[:, None] == np.arange(10), 0.9, 0.01),
        {},
        {"true class without its e/K", "rows do not sum to 1", "label -1 accepted"},
    ),
    "one-hot rows of any height": (
        lambda rows: rows * 0.9 + 0.1,
        {"argument": 0.1},
        {"rows do not sum to 1", "arithmetic on class ids"},
    ),
    "the share that stays, called smoothing": (
        lambda z, y: F.cross_entropy(z, y, label_smoothing=1 - 0.9),
        {"argument": 0.9},
        {"argument is the share kept"},
    ),
    "rows made of ids by themselves": (
        lambda rows: 0.9 * (rows if rows.ndim > 1 else np.eye(10)[rows.astype(int)]) + 0.01,
        {"takes": "one_hot"},
        set(),
    ),
    "NaN for what is ignored": (
        lambda z, y: np.where(y < 0, np.nan, uniform(z, np.maximum(y, 0))),
        {},
        {"label -1 accepted"},
    ),
    "an unbounded label": (uniform, {"ignore_index": -1}, {"masked class gives inf"}),
    "binary labels towards zero and one": (np.array([0.9, 0.1, 0.1]), {}, set()),
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_sees_what_is_wrong_with_a_snippet(name):
    subject, options, expected = SNIPPETS[name]
    assert names(diagnose(subject, **options)) >= expected


def test_the_second_argument_of_a_target_function_is_the_number_of_classes():
    def of_rows_and_alpha(rows, alpha):
        return (1 - alpha) * rows + alpha / rows.shape[-1]

    assert diagnose(of_rows_and_alpha).convention == "unknown"
    with pytest.raises(InputError, match="no targets of those labels"):
        diagnose(of_rows_and_alpha, kind="target function")
    assert diagnose(lambda rows: of_rows_and_alpha(rows, 0.1)).alpha == 0.1
    found = diagnose(lambda rows, k: np.abs(rows - 0.02) * (rows.shape[1] == k), takes="one_hot")
    assert (found.kind, names(found) >= {"rows do not sum to 1"}) == ("target function", True)


def test_the_parts_of_a_module_get_their_modes_back():
    loss = TorchSmoothed()
    loss.part = torch.nn.Dropout()
    loss.part.eval()
    diagnose(loss)
    assert (loss.training, loss.part.training) == (True, False)


# How it is called


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
    found = diagnose(lambda z, y: uniform(z, y) + 1e-4 * np.sin(z).sum(axis=1))
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
