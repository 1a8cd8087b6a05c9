"""Metrics against definitions written out row by row, scikit-learn, and laws."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import softhot.metrics as M
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions, aurc, reliability, score

INF = math.inf


@st.composite
def cases(draw, masks=False):
    """Logits and labels; small integers make ties of rows and of classes common."""
    n, k = draw(st.integers(1, 24)), draw(st.integers(2, 5))
    number = draw(st.sampled_from([st.integers(-3, 3), st.floats(-40, 40)]))
    logits = draw(hnp.arrays(np.float64, (n, k), elements=number))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    if masks:
        mask = draw(hnp.arrays(bool, (n, k)))
        mask[np.arange(n), draw(hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)))] = False
        logits[mask] = -INF
    return logits, labels


def binary(confidences, correct):
    """Rows of two classes with these confidences, right or wrong as told."""
    c = np.array(confidences, dtype=float)
    return Predictions.from_probs(np.stack([c, 1 - c], 1), np.where(correct, 0, 1))


# --- The table ---------------------------------------------------------------------------------


def test_table_is_keyed_by_name_and_complete():
    assert list(METRICS) == [
        "accuracy",
        "nll",
        "brier",
        "ece",
        "ece_mass",
        "gap",
        "confidence",
        "aurc",
    ]
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.label
        assert metric.best in {"high", "low", "zero", "none"}
        assert metric.function.__doc__


def test_no_framework_and_no_scipy_at_import():
    code = (
        "import sys, softhot.metrics, softhot.calibration, softhot.datasets\n"
        "print([m for m in ('torch', 'jax', 'sklearn', 'scipy', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@given(cases(masks=True))
def test_every_metric_is_finite_and_in_range(case):
    s = score(Predictions.from_logits(*case))
    assert list(s) == list(METRICS)
    assert all(type(v) is float and math.isfinite(v) for v in s.values())
    k = case[0].shape[1]
    assert 0 <= s["accuracy"] <= 1
    assert s["nll"] >= 0
    assert 0 <= s["brier"] <= 2 + 1e-12
    assert 1 / k - 1e-12 <= s["confidence"] <= 1
    assert 0 <= s["aurc"] <= 1
    assert s["gap"] == pytest.approx(s["confidence"] - s["accuracy"], abs=1e-12)
    for name in ("ece", "ece_mass"):
        assert abs(s["gap"]) - 1e-12 <= s[name] <= 1


@given(cases(masks=True), st.randoms(use_true_random=False))
def test_order_of_rows_never_matters(case, random):
    p = Predictions.from_logits(*case)
    order = list(range(len(p)))
    random.shuffle(order)
    q = p[order]
    assert score(q) == pytest.approx(score(p), abs=1e-12)
    for binning in ("width", "mass"):
        a, b = reliability(p, 7, binning), reliability(q, 7, binning)
        assert a.count.tolist() == b.count.tolist()
        assert a.upper.tolist() == b.upper.tolist()


@given(cases(), st.floats(-1e3, 1e3))
def test_adding_a_constant_to_the_logits_changes_nothing(case, constant):
    logits, labels = case
    moved = Predictions.from_logits(logits + constant, labels)
    assert M.nll(moved) == pytest.approx(M.nll(Predictions.from_logits(logits, labels)), abs=1e-9)


@given(cases(), st.sampled_from([-INF, np.finfo(np.float32).min, np.finfo(np.float64).min]))
def test_a_masked_class_is_a_class_that_is_not_there(case, mask):
    logits, labels = case
    more = np.column_stack([logits, np.full(len(logits), mask)])
    p, q = Predictions.from_logits(logits, labels), Predictions.from_logits(more, labels)
    assert score(q) == pytest.approx(score(p), abs=1e-12)
    assert (q.probs[:, -1] == 0).all()
    assert q.floored == 0


# --- Each metric against somebody else ---------------------------------------------------------


@given(cases())
def test_accuracy_nll_brier_agree_with_scikit_learn(case):
    logits, labels = case
    p = Predictions.from_logits(logits, labels)
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    classes = np.arange(logits.shape[1])
    s = score(p)
    assert s["accuracy"] == sklearn.metrics.accuracy_score(labels, logits.argmax(1))
    if probs.min() > 1e-15:  # scikit-learn clips at the float64 epsilon
        assert s["nll"] == pytest.approx(
            sklearn.metrics.log_loss(labels, probs, labels=classes), abs=1e-9
        )
    onehot = np.eye(len(classes))[labels]
    assert s["brier"] == pytest.approx(((probs - onehot) ** 2).sum(1).mean(), abs=1e-12)
    if len(classes) == 2 and len(set(labels)) == 2:
        half = sklearn.metrics.brier_score_loss(labels, probs[:, 1])
        assert s["brier"] == pytest.approx(2 * half, abs=1e-12)


def test_numbers_computed_by_hand():
    p = Predictions.from_probs([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.25, 0.25]], [0, 1, 0])
    s = score(p)
    assert s["accuracy"] == pytest.approx(2 / 3)
    assert s["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.5)) / 3)
    assert s["brier"] == pytest.approx((0.14 + 0.86 + 0.375) / 3)
    assert s["confidence"] == pytest.approx(0.6)
    assert s["gap"] == pytest.approx(0.6 - 2 / 3)
    assert s["ece"] == pytest.approx((0.3 + 0.6 + 0.5) / 3)  # three rows, three bins
    assert s["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def naive_width(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        inside = [
            i
            for i, c in enumerate(confidence)
            if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)
        ]
        if inside:
            total += abs(sum(confidence[i] - correct[i] for i in inside)) / len(confidence)
    return total


@given(cases(), st.integers(1, 20))
def test_ece_of_equal_width_is_the_definition(case, bins):
    p = Predictions.from_logits(*case)
    expected = naive_width(p.confidence.tolist(), p.correct.tolist(), bins)
    r = reliability(p, bins)
    assert r.ece == pytest.approx(expected, abs=1e-12)
    assert r.count.sum() == len(p)
    assert ((r.lower < r.confidence + 1e-12) & (r.confidence <= r.upper + 1e-12)).all()
    assert M.ece(p) == reliability(p, 15, "width").ece


def test_edges_belong_to_the_bin_below_and_one_to_the_last():
    p = Predictions.from_probs([[1.0, 0.0], [0.6, 0.4], [0.8, 0.2]], [0, 0, 0])
    r = reliability(p, 5)
    assert r.upper.tolist() == [0.6, 0.8, 1.0]
    assert r.count.tolist() == [1, 1, 1]


@given(st.integers(1, 60), st.integers(1, 20))
def test_equal_mass_without_ties_differs_by_one_row_at_most(n, bins):
    p = binary(np.linspace(0.55, 0.99, n), np.arange(n) % 3 > 0)
    r = reliability(p, bins, "mass")
    assert len(r.count) == min(n, bins)
    assert r.count.max() - r.count.min() <= 1
    order = np.argsort(p.confidence)
    groups = np.split(order, np.cumsum(r.count)[:-1])
    assert r.lower == pytest.approx([p.confidence[g].min() for g in groups])
    assert r.upper == pytest.approx([p.confidence[g].max() for g in groups])
    assert r.accuracy == pytest.approx([p.correct[g].mean() for g in groups])


@given(cases(), st.integers(1, 20))
def test_equal_mass_never_parts_equal_confidences(case, bins):
    p = Predictions.from_logits(*case)
    r = reliability(p, bins, "mass")
    assert r.count.sum() == len(p)
    assert (r.upper[:-1] < r.lower[1:]).all()
    assert r.ece >= abs(M.gap(p)) - 1e-12


def test_equal_mass_with_everything_tied_is_one_bin():
    p = binary([0.8] * 10, [True] * 6 + [False] * 4)
    assert reliability(p, 15, "mass").count.tolist() == [10]
    assert M.ece_mass(p) == pytest.approx(0.2)


def naive_aurc(confidence, wrong):
    """Mean over every order of rows that keeps confidence falling."""
    values = []
    for order in itertools.permutations(range(len(wrong))):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            errors = np.cumsum([wrong[i] for i in order])
            values.append((errors / np.arange(1, len(wrong) + 1)).mean())
    return np.mean(values)


@given(
    st.lists(st.tuples(st.sampled_from([0.6, 0.75, 1.0]), st.booleans()), min_size=1, max_size=6)
)
def test_aurc_averages_over_all_orders_of_ties(rows):
    confidence, correct = zip(*rows, strict=True)
    expected = naive_aurc(confidence, [not c for c in correct])
    assert aurc(binary(confidence, list(correct))) == pytest.approx(expected, abs=1e-12)


def test_aurc_at_its_ends():
    assert aurc(binary([0.9, 0.8, 0.7], [True] * 3)) == 0
    assert aurc(binary([0.9, 0.8, 0.7], [False] * 3)) == 1
    good = aurc(binary([0.9, 0.8, 0.7, 0.6], [True, True, False, False]))
    bad = aurc(binary([0.9, 0.8, 0.7, 0.6], [False, False, True, True]))
    assert good == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert bad == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


# --- Predictions -------------------------------------------------------------------------------


@given(cases(masks=True))
def test_rows_are_normalised_and_predictions_are_those_of_the_logits(case):
    logits, labels = case
    p = Predictions.from_logits(logits, labels)
    assert np.exp(p.log_probs).sum(1) == pytest.approx(1, abs=1e-12)
    assert p.predicted.tolist() == logits.argmax(1).tolist()
    assert p.correct.tolist() == (logits.argmax(1) == labels).tolist()
    assert p.confidence == pytest.approx(p.probs.max(1), abs=1e-12)
    assert p.floored == np.isneginf(logits[np.arange(len(labels)), labels]).sum()
    assert (len(p), p.num_classes) == logits.shape


@given(cases(masks=True))
def test_probabilities_give_what_logits_give(case):
    logits, labels = case
    p = Predictions.from_logits(logits, labels)
    q = Predictions.from_probs(p.probs, labels)
    assert M.nll(q) == pytest.approx(M.nll(p), rel=1e-9, abs=1e-12)
    assert M.brier(q) == pytest.approx(M.brier(p), abs=1e-12)


@given(cases(masks=True), st.data())
def test_selected_rows_score_as_if_built_from_them(case, data):
    logits, labels = case
    rows = data.draw(st.lists(st.integers(-len(labels), len(labels) - 1), min_size=1, max_size=30))
    selected = Predictions.from_logits(logits, labels)[np.array(rows)]
    built = Predictions.from_logits(logits[rows], labels[rows])
    assert selected.floored == built.floored
    assert score(selected) == score(built)


def test_rows_by_mask_slice_and_number():
    p = Predictions.from_logits(np.eye(4), [0, 1, 2, 0])
    assert p[[True, False, True, False]].labels.tolist() == [0, 2]
    assert p[1:3].labels.tolist() == [1, 2]
    assert p[-1].labels.tolist() == [0]


@pytest.mark.parametrize("rows", [[4], [], [0.5], [True], "a", slice(2, 2), [[0, 1]], None])
def test_bad_rows(rows):
    with pytest.raises(InputError, match="rows must be"):
        Predictions.from_logits(np.eye(4), [0, 1, 2, 0])[rows]


def test_near_ties_are_not_lost_in_the_logarithm():
    p = Predictions.from_logits(np.array([[0.0, 1e-30]]), [1])
    assert p.log_probs[0, 0] == p.log_probs[0, 1]
    assert p.predicted.tolist() == [1]
    assert p[[0]].correct.tolist() == [True]


def test_confidence_never_exceeds_one():
    assert Predictions(np.array([[1e-8, -INF]]), np.array([0])).confidence.tolist() == [1.0]


def test_arrays_are_read_only_and_the_input_is_not_touched():
    logits = np.array([[1.0, 2.0]])
    p = Predictions.from_logits(logits, [0])
    for array in (p.log_probs, p.labels, p.probs, p.confidence, p.predicted, p.correct):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert logits.tolist() == [[1, 2]]
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.labels = np.array([1])
    own = np.log([[0.5, 0.5]])
    Predictions(own, np.array([0]))
    own[0, 0] = 1  # the view is read-only, not the caller's array


@pytest.mark.parametrize(
    ("dtype", "floor"), [(np.float16, 2**-24), (np.float32, 2**-149), (np.float64, 2**-1074)]
)
def test_a_true_class_of_probability_zero_meets_the_floor_of_its_dtype(dtype, floor):
    probs = np.array([[0.0, 1.0], [0.5, 0.5]], dtype=dtype)
    with np.errstate(divide="ignore"):
        both = Predictions.from_probs(probs, [0, 0]), Predictions.from_logits(np.log(probs), [0, 0])
    for p in both:
        assert p.floored == 1
        assert p.log_probs[0, 0] == pytest.approx(math.log(floor))
        assert M.nll(p) == pytest.approx((math.log(2) - math.log(floor)) / 2)
        assert np.exp(p.log_probs).sum(1) == pytest.approx(1, abs=1e-12)
        assert p[[1]].floored == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble, np.int8, ">f4"])
@pytest.mark.parametrize("labels", [np.int8, np.uint64, ">i4"])
def test_dtypes_of_every_kind(dtype, labels):
    logits = np.array([[2, 0, 1], [0, 1, 0]])
    p = Predictions.from_logits(np.asfortranarray(logits.astype(dtype)), np.array([0, 2], labels))
    assert p.log_probs.dtype == np.float64
    assert p.labels.dtype == np.int64
    assert score(p) == score(Predictions.from_logits(logits.tolist(), [0, 2]))


def test_a_tensor_without_numbers():
    import torch

    z = torch.tensor([[2.0, 0.0]])
    assert M.nll(Predictions.from_logits(z, torch.tensor([0]))) == pytest.approx(
        math.log1p(math.exp(-2))
    )
    with pytest.raises(InputError, match="holds numbers"):
        Predictions.from_logits(z.to("meta"), [0])


def test_bfloat16_of_jax():
    import ml_dtypes

    p = Predictions.from_probs(np.array([[0, 1]], dtype=ml_dtypes.bfloat16), [0])
    assert p.log_probs[0, 0] == pytest.approx(-133 * math.log(2))


def test_perfect_rows_score_zero_and_not_minus_zero():
    s = score(Predictions.from_logits([[1e3, 0.0], [0.0, 1e3]], [0, 1]))
    assert [str(s[name]) for name in ("nll", "brier", "ece", "gap", "aurc")] == ["0.0"] * 5


def test_pickle_and_copy_keep_everything():
    p = Predictions.from_logits([[0.0, 1e-30], [0.0, -INF]], [1, 1])
    for q in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        assert score(q) == score(p)
        assert q[[1]].floored == 1


def test_one_row_one_class_present():
    s = score(Predictions.from_logits([[0.0, 0.0, 0.0]], [2]))
    assert s["nll"] == pytest.approx(math.log(3))
    assert s["accuracy"] == 0  # three equal classes: the lowest id is predicted
    assert s["aurc"] == 1


def test_a_vocabulary_of_classes_in_bounded_memory():
    import tracemalloc

    n, k = 48, 262_144
    logits = np.zeros((n, k), np.float32)
    labels = np.arange(n)
    logits[labels, labels] = 10
    tracemalloc.start()
    p = Predictions.from_logits(logits, labels)
    s = score(p)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert s["nll"] == pytest.approx(math.log1p((k - 1) * math.exp(-10)))
    assert peak < 1.5 * p.log_probs.nbytes


# --- What is refused ---------------------------------------------------------------------------

GOOD = [[1.0, 0.0], [0.0, 1.0]]
NAN = math.nan


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ([[1.0, NAN], [0, 0]], [0, 0], ["logits[0]", "NaN", "class 1"]),
        ([[1.0, 0], [INF, 0]], [0, 0], ["logits[1]", "+inf", "class 0"]),
        ([[1.0, 0], [-INF, -INF]], [0, 0], ["logits[1]", "at least one class"]),
        ([1.0, 2.0], [0, 0], ["logits", "(N, K)", "(2,)", "[0, z]"]),
        ([[1.0], [2.0]], [0, 0], ["K >= 2", "(2, 1)"]),
        ([[[1.0, 2.0]]], [0], ["(N, K)"]),
        (np.zeros((0, 3)), [], ["N >= 1", "(0, 3)"]),
        ([], [], ["N >= 1"]),
        (3.0, [0], ["(N, K)"]),
        ([[1.0, 2.0], [1.0]], [0, 0], ["logits", "unequal length"]),
        ([["a", "b"]], [0], ["array of numbers"]),
        ([[True, False]], [0], ["real numbers", "bool"]),
        ([[1j, 0]], [0], ["real numbers", "complex"]),
        (np.ma.masked_less([[-1.0, 1.0]], 0), [0], ["logits", "masked entries"]),
        ([[None, 1]], [0], ["array of numbers", "[[None, 1]]"]),
        (GOOD, [0, 2], ["labels[1]", "[0, 1]", "got 2"]),
        (GOOD, [0, -1], ["labels[1]", "got -1"]),
        (GOOD, [-100, 0], ["labels[0]", "-100", "ignore"]),
        (GOOD, np.array([0, 2**63], np.uint64), ["labels[1]", "9223372036854775808"]),
        (GOOD, [0.0, 1.0], ["labels", "integers", "float64"]),
        (GOOD, [True, False], ["labels", "integers", "bool"]),
        (GOOD, ["0", "1"], ["labels", "array of numbers"]),
        (GOOD, [0], ["labels", "(2,)", "(1,)"]),
        (GOOD, [[1.0, 0.0], [0.5, 0.6]], ["labels[1]", "distribution", "0.6"]),
        (GOOD, [[1.5, -0.5], [0.5, 0.5]], ["labels[0]", "distribution", "-0.5"]),
        (GOOD, [[1.0, NAN], [0.5, 0.5]], ["labels[0]", "distribution", "nan"]),
        (GOOD, [[1.0, 0.0, 0.0]] * 2, ["labels", "soft (2, 2)", "(2, 3)"]),
        (GOOD, [[1], [0]], ["labels", "ravel"]),
        (GOOD, 0, ["labels", "()"]),
    ],
)
def test_bad_logits_and_labels(logits, labels, words):
    with pytest.raises(InputError) as error:
        Predictions.from_logits(logits, labels)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("probs", "words"),
    [
        ([[0.5, 0.5], [0.5, 0.4]], ["probs[1].sum()", "0.9", "0.001"]),
        ([[1.1, -0.1]], ["probs[0]", "negative", "-0.1", "from_logits"]),
        ([[0.5, NAN]], ["probs[0]", "NaN"]),
        ([[0.0, 0.0]], ["probs[0].sum()", "0.0"]),
        ([0.5, 0.2], ["[1 - p, p]"]),
        ([[INF, 0.0]], ["+inf"]),
    ],
)
def test_bad_probabilities(probs, words):
    with pytest.raises(InputError) as error:
        Predictions.from_probs(probs, [0] * len(probs))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_rows_within_the_tolerance_are_rescaled():
    p = Predictions.from_probs([[0.5, 0.4]], [0], tolerance=0.2)
    assert p.probs[0] == pytest.approx([5 / 9, 4 / 9])


@pytest.mark.parametrize("tolerance", M.TOLERANCE.bad_values())
def test_bad_tolerance(tolerance):
    with pytest.raises(InputError, match="tolerance must be"):
        Predictions.from_probs([[0.5, 0.5]], [0], tolerance=tolerance)


@pytest.mark.parametrize(
    ("log_probs", "word"),
    [
        (GOOD, "normalised"),
        ([[1e4, 0.0]], "from_logits"),
        ([[-INF, 0.0]], "true class"),
        ([[0.0]], "K >= 2"),
    ],
)
def test_the_constructor_checks_too(log_probs, word):
    with pytest.raises(InputError, match=word):
        Predictions(np.array(log_probs), np.zeros(len(log_probs), int))


@pytest.mark.parametrize("bins", M.BINS.bad_values())
def test_bad_bins(bins):
    with pytest.raises(InputError, match="bins must be"):
        reliability(binary([0.9], [True]), bins)


@pytest.mark.parametrize("binning", M.BINNING.bad_values())
def test_bad_binning(binning):
    with pytest.raises(InputError, match="binning must be"):
        reliability(binary([0.9], [True]), 15, binning)


def test_what_is_not_predictions_is_refused():
    for function in (score, reliability):
        with pytest.raises(InputError, match="from_logits"):
            function(np.eye(3))
