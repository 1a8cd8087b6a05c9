"""What a framework traces has no values to look at. Here NumPy plays blind, so that all of it is
tested quickly: right input gives the same, and what would raise is NaN, in its row and no other.
"""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

import laws
import softhot
from batches import N, run
from cases import BINARY, CASES, batch_with, can_combine, make_batch
from softhot import Bernoulli, Online, Others, PerSample, Prior, Similarity, Teacher, Uniform
from softhot.core import binary, losses, targets
from softhot.core.losses import _valid

OPTIONS = [(), ("soft", "allowed", "where"), ("masked", "ignored", "weight"), ("class weight",)]
HALF = np.full((3, 3), 0.5) - 0.5 * np.eye(3)


@pytest.fixture
def blind(monkeypatch):
    for module in (binary, losses, targets):
        monkeypatch.setattr(module, "is_concrete", lambda *arrays: False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_right_input_gives_the_same(case, blind, monkeypatch):
    for names in OPTIONS:
        if can_combine(case, names):
            batch = batch_with(case, names)
            with monkeypatch.context() as seeing:
                for module in (losses, targets):
                    seeing.setattr(module, "is_concrete", lambda *arrays: True)
                wanted = run(case.rule, batch)
            laws.same(run(case.rule, batch), wanted, 1e-15)


@pytest.fixture(params=[False, True], ids=["rows", "grid"])
def batch(request):
    """In two layouts: also with the class axis between two others."""
    return replace(make_batch(CASES[0]), middle=request.param)


def only(loss, gradient, bad):
    """NaN in these rows, in loss and gradient, and numbers in the others."""
    assert np.flatnonzero(np.isnan(loss)).tolist() == bad
    assert np.isnan(gradient).all(axis=-1).nonzero()[0].tolist() == bad
    assert np.isfinite(np.delete(gradient, bad, axis=0)).all()


@pytest.mark.parametrize("rule", [Uniform(0.1), Others(0.1), Prior(0.1, (1, 1, 2, 2, 4))], ids=repr)
def test_what_would_raise_is_nan(rule, batch, blind):
    labels = batch.labels.copy()
    labels[[1, 4]] = -1, 5
    only(*run(rule, replace(batch, labels=labels)), [1, 4])
    rows = np.eye(5)[batch.labels]
    rows[2] *= 1.5
    rows[3, 0] -= 0.25
    rows[5, 1] = np.nan
    only(*run(rule, replace(batch, labels=rows)), [2, 3, 5])
    masked = batch.logits.copy()
    masked[6, batch.labels[6]] = -np.inf
    only(*run(rule, replace(batch, logits=masked)), [6])
    allowed = np.ones((N, 5), bool)
    allowed[7, batch.labels[7]] = False
    only(*run(rule, replace(batch, allowed=allowed)), [7])
    # With weights, too: what is wrong stays in its row.
    weighted = replace(batch, labels=labels, weight=np.arange(1.0, 6.0))
    only(*run(rule, weighted), [1, 4])


def test_labels_alone_may_be_out_of_sight(batch, monkeypatch):
    """As where a framework traces them beside logits that are there."""
    for module in (binary, losses, targets):
        seen = lambda *arrays: all(a is None or a.dtype.kind != "i" for a in arrays)  # noqa: E731  # a name for one expression
        monkeypatch.setattr(module, "is_concrete", seen)
    labels = batch.labels.copy()
    labels[[1, 4]] = -1, 5
    only(*run(Uniform(0.1), replace(batch, labels=labels)), [1, 4])


@pytest.mark.parametrize("rule", [Uniform(PerSample()), Teacher(PerSample())], ids=repr)
def test_an_alpha_out_of_range_is_nan(rule, batch, blind):
    alpha = np.full(N, 0.25)
    alpha[[0, 3, 4]] = -0.1, 1.5, np.nan
    if isinstance(rule, Teacher):
        batch = replace(batch, prior=np.full((N, 5), 0.2), by_row=True)
    only(*run(rule, replace(batch, alpha=alpha)), [0, 3, 4])


@pytest.mark.parametrize(("name", "rule", "rows"), BINARY[:5], ids=[b[0] for b in BINARY[:5]])
def test_binary_labels_out_of_range_are_nan(name, rule, rows, blind):
    labels = np.array(rows) * 0.0 + [[0, 1, 0, 0.5, 1], [1, 0, 0, 1, 0]]
    z = np.linspace(-2, 2, 10).reshape(2, 5)
    wanted = softhot.binary_cross_entropy_and_gradient(z, labels, rule, validate=False)
    laws.same(softhot.binary_cross_entropy_and_gradient(z, labels, rule), wanted, 0)
    if name != "mass-preserving":
        labels[0, :3] = -1, 1.5, np.nan
        loss, gradient = softhot.binary_cross_entropy_and_gradient(z, labels, rule)
        bad = [[True, True, True, False, False], [False] * 5]
        assert np.isnan(loss).tolist() == bad
        assert np.isnan(gradient).tolist() == bad


def test_rows_are_valid_where_the_checks_would_pass():
    logits = np.zeros((4, 3))
    logits[3, 2] = -np.inf
    allowed = np.array([[True, True, True]] * 3 + [[False, True, True]])

    def valid(labels, allowed=None):
        labels = np.array(labels)
        return _valid(np, labels, labels.ndim == 2, logits, allowed).tolist()

    assert valid([0, 2, 1, 0]) == [True] * 4
    assert valid([-1, 3, 1, 2]) == [False, False, True, False]
    assert valid([0, 1, 2, 0], allowed) == [True, True, True, False]
    assert valid([0, 1, 2, 1], allowed) == [True] * 4
    third = 1 / 3
    rows = [[1, 0, 0], [third, third, third], [0.5, 0.5, 1e-3], [0.5, 0.5, 0.0]]
    assert valid(rows) == [True, True, False, True]
    assert valid(rows, allowed) == [True, True, False, False]
    rows = [[1.5, -0.5, 0], [np.nan, 1, 0], [0, 1 + 1e-6, 0], [0.0, 0.9, 0.1]]
    assert valid(rows) == [False, False, True, False]
    assert valid([[0, 1 + 3e-6, 0], [0.0, 1.0, 0], [1.0, 0, 0], [0, 1, 0]])[0] is False


@pytest.mark.parametrize("k", [2, 16, 100])
def test_a_row_may_be_off_one_by_rounding_and_no_more(k):
    """By the square root of K in millionths, and four times the epsilon of the dtype."""
    half = 2.0**-10
    for dtype, off, passes in (
        (np.float64, 0.99e-6 * k**0.5, True),
        (np.float64, 1.01e-6 * k**0.5, False),
        (np.float16, 4 * half, True),
        (np.float16, 5 * half, False),
    ):
        row = np.eye(k, dtype=dtype)[:1]
        row[0, 0] += off
        assert _valid(np, row, True, np.zeros((1, k)), None).tolist() == [passes]
        with nullcontext() if passes else pytest.raises(softhot.InputError):
            softhot.smooth_labels(row, 0.0, num_classes=k)


Z = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]])
TRUSTED = {
    "NaN logits": {"logits": Z * [[1.0], [np.nan]]},
    "rows that sum to 2": {"labels": np.ones((2, 3)) * 2 / 3},
    "a negative share": {"labels": np.array([[1.5, -0.5, 0.0], [1, 0, 0]])},
    "labels smoothed already": {"labels": np.full((2, 3), 0.1) + 0.7 * np.eye(3)[:2]},
    "a negative weight": {"weight": [1.0, -1.0, 1.0]},
    "weights that move the optimum": {"weight": [1.0, 1.0, 99.0], "weighting": "class"},
    "an alpha of 1": {"rule": Uniform(PerSample()), "alpha": [0.1, 1.0]},
    "a teacher's logits": {"rule": Teacher(), "prior": Z + 2.0},
    "a matrix of means": {"rule": Online(), "prior": np.eye(3) * 3},
    "a prior without mass": {"rule": Similarity(0.5, HALF), "allowed": np.eye(3, dtype=bool)[:2]},
    "too much for two classes": {"rule": Others(0.5), "allowed": np.array([True, True, False])},
}


@pytest.mark.parametrize("why", TRUSTED)
def test_without_validation_values_are_trusted(why):
    right = {"logits": Z, "labels": np.array([0, 1]), "rule": Uniform(0.1)}
    given = right | TRUSTED[why]
    loss, gradient = softhot.cross_entropy_and_gradient(**given, validate=False)
    assert loss.shape == (2,)
    assert gradient.shape == (2, 3)
    with pytest.raises((softhot.InputError, softhot.SofthotWarning)):
        softhot.cross_entropy(**given)


def test_without_validation_binary_values_are_trusted():
    for given in (
        {"labels": [[2, 0, 0], [0, 1, 1]]},
        {"logits": np.full((2, 3), np.inf)},
        {"pos_weight": -1.0},
    ):
        right = {"logits": Z, "labels": np.eye(3)[:2], "rule": Bernoulli(0.1)} | given
        assert softhot.binary_cross_entropy(**right, validate=False).shape == (2, 3)
        with pytest.raises(softhot.InputError):
            softhot.binary_cross_entropy(**right)
