"""What diagnose finds: every convention with its alpha, every known mistake, and nothing else."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import softhot
import softhot.torch
from foreign import (
    ON_OFF,
    UNIFORM,
    TorchSmoothed,
    log_softmax,
    loss_of,
    names,
    targets_of,
    uniform,
)
from softhot import CONVENTIONS, InputError
from softhot.core.diagnosis.diagnose import diagnose

# Every convention, with its alpha


def test_every_convention_has_a_formula_here():
    assert set(ON_OFF) == set(CONVENTIONS)


@pytest.mark.parametrize("k", [2, 3, 10, 100])
@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("name", [n for n in ON_OFF if n != "skip_pad"])
def test_names_a_loss_with_its_alpha(name, alpha, k):
    e = 1 - alpha if name == "kept" else alpha
    # What differs in nothing but the name is decided by whoever knows the argument.
    told = {"argument": e} if name in ("kept", "binary_full") else {}
    found = diagnose(loss_of(name, e), num_classes=k, **told)
    if alpha == 0 and name != "kept":
        assert (found.convention, found.alpha) == ("none", 0)
    else:
        assert (found.convention, found.alpha) == (name, pytest.approx(e, abs=1e-6))
        assert (found.on, found.off) == pytest.approx(ON_OFF[name](e, k), abs=1e-6)
        expected = UNIFORM[name](e, k) if name in UNIFORM else None
        assert found.uniform == (None if expected is None else pytest.approx(expected, abs=1e-6))
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


def test_targets_that_forgot_their_label_are_uniform_with_alpha_one():
    found = diagnose(lambda labels: np.full((len(labels), 10), 0.1))
    assert (found.on, found.off, found.uniform) == (0.1, 0.1, 1.0)


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


# What else can be handed in


class Raises:
    def __init__(self, *words):
        self.words = words

    def __call__(self, z, y):
        raise RuntimeError(*self.words)


def random_loss(z, y, rng=np.random.default_rng(0)):  # noqa: B008  # one generator for all calls
    return uniform(z, y) + rng.normal()


HOSTILE = {
    "None": None,
    "text": "cross entropy",
    "number": 0.1,
    "an object": object(),
    "a class": torch.nn.CrossEntropyLoss,
    "an exception": Raises("no"),
    "an exception without words": Raises(),
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
    "targets of no label": lambda y, k: np.ones((len(y), k)),
    "array of NaN": np.array([[np.nan, 1.0]]),
    "array of text": np.array([["a", "b"]]),
    "empty array": np.zeros((0, 3)),
    "array in three dimensions": np.zeros((2, 3, 4)),
    "array of no dimension": np.float64(0.5),
    "an integer fill, then fractions scattered": lambda ids: np.put_along_axis(
        np.full_like(ids, 0.01), ids[:, None], 0.9, axis=1
    ),
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
        lambda z, y: -1e4 * np.abs(z).sum(axis=1),
        lambda z, y: np.abs(z[np.arange(len(z)), y % 10]),
        lambda z, y: np.exp(100 * z).sum(axis=1),
        lambda z, y: y.astype(float),
        lambda z, y: -(z[np.arange(len(z)), y] ** 3),
        lambda z, y: np.float32(z.mean()),
        lambda z, y: 1 - np.exp(log_softmax(z))[np.arange(len(y)), y],
        lambda z, y: (1 / (1 + np.exp(-z)) * (1 - 2 * y)).sum(axis=1),
        lambda z, y: ((np.exp(log_softmax(z)) - targets_of("uniform", 0.1, 10, y)) ** 2).sum(
            axis=1
        ),
        lambda z, y: np.maximum(0, 1 + z - z[np.arange(len(y)), y][:, None]).sum(axis=1),
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
        ({"kind": "targets"}, "subject"),
        ({"labels": [0, 1]}, "labels"),
    ],
)
def test_bad_options_are_input_errors(options, argument):
    with pytest.raises(InputError) as error:
        diagnose(uniform, **options)
    assert error.value.argument == argument


def test_labels_of_an_array_must_fit():
    rows = targets_of("uniform", 0.1, 3, np.arange(3))
    with pytest.raises(InputError, match="a function from labels"):
        diagnose(rows, kind="target function")
    with pytest.raises(InputError, match="labels must be of shape"):
        diagnose(rows, labels=[0, 1])
    with pytest.raises(InputError, match="labels must be an integer"):
        diagnose(rows, labels=[0, 1, 3])
    with pytest.raises(InputError, match=r"labels must be real numbers; got \[1j, 0, 0\]"):
        diagnose(rows, labels=[1j, 0, 0])


def test_a_framework_that_is_not_loaded_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(InputError) as error:
        diagnose(uniform, inputs="keras")
    expected = "inputs must be a framework that is loaded; got 'keras'. import keras"
    assert str(error.value) == expected
    assert "keras" not in sys.modules


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
