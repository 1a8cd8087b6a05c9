"""Calibration errors, the Brier score in parts, tests and intervals: laws, definitions, oracles."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

import softhot.metrics as M
from softhot.core.check import InputError
from softhot.metrics import CATALOGUE, Predictions, bootstrap, brier_parts, calibration_tests


def drawn(seed=0, n=2000, k=5, scale=0.6, bend=1.0):
    """Labels drawn from softmax(z); the model says softmax(scale (z + bend sin 3z))."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    labels = (z + rng.gumbel(size=(n, k))).argmax(1)
    return Predictions.from_logits(scale * (z + bend * np.sin(3 * z)), labels)


def binary(confidences, correct):
    c = np.array(confidences, dtype=float)
    return Predictions.from_probs(np.stack([c, 1 - c], 1), np.where(correct, 0, 1))


@st.composite
def problems(draw):
    """A few rows; small integers make ties common. Soft labels one time in two."""
    n, k = draw(st.integers(1, 20)), draw(st.integers(2, 4))
    logits = draw(hnp.arrays(np.float64, (n, k), elements=st.integers(-3, 3)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    if draw(st.booleans()):
        counts = draw(hnp.arrays(np.int64, (n, k), elements=st.integers(0, 3)))
        counts[np.arange(n), labels] += 1
        labels = counts / counts.sum(1, keepdims=True)
    return Predictions.from_logits(logits, labels)


# --- ECE against other libraries ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bins", [10, 15])
def test_ece_is_that_of_torchmetrics_where_no_confidence_is_on_an_edge(seed, bins):
    p = drawn(seed, scale=2.0**seed / 2)
    theirs = multiclass_calibration_error(
        torch.tensor(p.probs), torch.tensor(p.labels), p.num_classes, n_bins=bins
    )
    assert M.reliability(p, bins).ece == pytest.approx(float(theirs), abs=1e-6)  # it sums float32


def test_torchmetrics_puts_confidence_one_into_a_bin_of_its_own():
    p = binary([1.0, 1.0, 0.97, 0.95], [True, False, True, True])
    data = torch.tensor(p.probs), torch.tensor(p.labels)
    theirs = multiclass_calibration_error(*data, 2, n_bins=15)
    assert M.ece(p) == pytest.approx(abs(0.75 - 3.92 / 4))  # all four are in (14/15, 1]
    assert float(theirs) == pytest.approx((2 * 0.5 + 2 * 0.04) / 4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classwise", [False, True])
def test_ece_is_that_of_mapie(seed, classwise):
    from mapie.metrics.calibration import expected_calibration_error

    p = drawn(seed)
    if classwise:
        each = [
            binary_calibration_error(
                torch.tensor(p.probs[:, k]), torch.tensor(p.labels == k).int(), n_bins=15
            )
            for k in range(p.num_classes)
        ]
        assert M.ece_classwise(p) == pytest.approx(float(np.mean(each)), abs=1e-6)
    else:
        theirs = expected_calibration_error(
            p.correct.astype(float), p.confidence, num_bins=16, split_strategy="uniform"
        )  # it counts edges, not bins
        assert M.ece(p) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("scale", "bend"), [(0.3, 0.0), (0.6, 1.0), (1.0, 0.0), (3.0, 2.0)])
def test_smooth_ece_is_that_of_relplot(seed, scale, bend):
    import relplot

    p = drawn(seed, scale=scale, bend=bend)
    theirs = relplot.smECE(p.confidence, p.correct.astype(float))
    assert M.smooth_ece(p) == pytest.approx(theirs, abs=2e-3)


def naive_smooth(confidence, residual, bandwidth):
    """The definition: every residual, its reflections, a fine grid."""
    t = (np.arange(20_000) + 0.5) / 20_000
    centres = np.concatenate([2 * m + s * confidence for m in range(-3, 4) for s in (1, -1)])
    weights = np.tile(residual, 14)
    curve = sum(
        w * np.exp(-((t - c) ** 2) / (2 * bandwidth**2))
        for w, c in zip(weights, centres, strict=True)
    )
    return np.abs(curve).mean() / (bandwidth * math.sqrt(2 * math.pi)) / len(confidence)


@pytest.mark.parametrize("seed", range(3))
def test_smooth_ece_is_the_fixed_point_of_its_definition(seed):
    p = drawn(seed, n=40, k=2 + seed)
    found = M.smooth_ece(p)
    definition = naive_smooth(p.confidence, p.correct - p.confidence, found)
    assert definition == pytest.approx(found, abs=2e-4)


def test_smooth_ece_at_its_ends():
    assert M.smooth_ece(binary([1.0, 1.0], [True, True])) == pytest.approx(0, abs=1e-5)
    assert M.smooth_ece(binary([1.0, 1.0], [False, False])) == pytest.approx(1)
    assert M.smooth_ece(binary([0.75] * 4, [True] * 3 + [False])) == pytest.approx(0, abs=1e-5)


def test_smooth_ece_moves_little_where_ece_jumps():
    correct = [True, False] * 50
    low, high = (binary([0.6 + e, 0.6 + 1e-9] * 50, correct) for e in (-1e-9, 1e-9))
    assert abs(M.smooth_ece(low) - M.smooth_ece(high)) < 1e-6
    assert abs(M.ece(low) - M.ece(high)) > 0.3


# --- Debiasing ---------------------------------------------------------------------------------


def test_debiasing_is_the_mean_of_its_simulation():
    p = drawn(3, n=300)
    r = M.reliability(p, 15)
    rng = np.random.default_rng(0)
    noise = np.sqrt(r.accuracy * (1 - r.accuracy) / r.count)
    seen = np.abs(r.accuracy - r.confidence + noise * rng.normal(size=(100_000, len(noise))))
    excess = (seen @ r.count).mean() / len(p) - r.ece
    assert r.debiased == pytest.approx(r.ece - excess, abs=3e-4)


def test_debiasing_removes_part_of_the_bias_of_a_calibrated_model():
    raw, debiased = [], []
    for seed in range(40):
        p = drawn(seed, n=300, scale=1.0, bend=0.0)
        raw.append(M.ece(p))
        debiased.append(M.ece_debiased(p))
    assert np.mean(debiased) < 0.75 * np.mean(raw)
    assert min(debiased) >= 0


@given(problems())
def test_debiased_is_never_more_than_raw(p):
    assert 0 <= M.ece_debiased(p) <= M.ece(p) + 1e-12
    assert 0 <= M.ece_mass_debiased(p) <= M.ece_mass(p) + 1e-12


# --- Brier, classes, errors --------------------------------------------------------------------


@given(problems(), st.integers(1, 20))
def test_the_parts_of_the_brier_score_add_up(p, bins):
    parts = brier_parts(p, bins)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert total == pytest.approx(M.brier(p), abs=1e-12)
    assert parts.reliability >= 0
    assert parts.resolution >= -1e-12


def test_brier_parts_by_hand():
    p = binary([0.75] * 4 + [0.55] * 4, [True] * 4 + [True, False, False, False])
    parts = brier_parts(p)
    # Class 0 says 0.75 where all are right, 0.55 where one of four is; overall 5/8. Class 1 alike.
    assert parts.reliability == pytest.approx(2 * (0.25**2 + 0.3**2) / 2)
    assert parts.resolution == pytest.approx(2 * ((3 / 8) ** 2 + (3 / 8) ** 2) / 2)
    assert parts.uncertainty == pytest.approx(2 * (5 / 8) * (3 / 8))
    assert parts.within == pytest.approx(0)


@given(problems())
def test_classwise_ece_is_the_definition(p):
    q = np.eye(p.num_classes)[p.labels] if p.targets is None else p.targets
    total = 0.0
    for k in range(p.num_classes):
        for b in range(15):
            inside = (p.probs[:, k] > b / 15) & (p.probs[:, k] <= (b + 1) / 15)
            total += abs((p.probs[inside, k] - q[inside, k]).sum())
    assert M.ece_classwise(p) == pytest.approx(total / len(p) / p.num_classes, abs=1e-12)


def test_the_floor_of_smoothing_shows_classwise_only():
    n, k, alpha = 4000, 10, 0.4
    labels = np.arange(n) % k
    probs = np.full((n, k), alpha / k)
    probs[np.arange(n), labels] += 1 - alpha
    p = Predictions.from_probs(probs, labels)
    # Each class is wrong by alpha / K in nine rows of ten, and by the rest in the tenth.
    assert M.ece_classwise(p) == pytest.approx(2 * 0.9 * alpha / k)


def test_overconfidence_by_hand():
    p = binary([0.9] * 4 + [0.7] * 4, [True, True, True, False] * 2)
    assert M.overconfidence(p) == pytest.approx(0.5 * 0.9 * 0.15)  # 0.7 promises too little
    assert M.overconfidence(binary([0.6], [True])) == 0


def test_confidence_on_errors():
    p = binary([0.9, 0.8, 0.7], [True, False, False])
    assert M.confidence_on_errors(p) == pytest.approx(0.75)
    with pytest.raises(M.Undefined, match="none wrong"):
        M.confidence_on_errors(binary([0.9], [True]))


@given(problems())
def test_refinement_and_miscalibration_make_the_nll(p):
    s = M.score(p, CATALOGUE)
    assert s["refinement"] + s["miscalibration"] == pytest.approx(s["nll"], abs=1e-9)
    assert s["miscalibration"] >= 0
    assert s["nll"] >= s["refinement"] - 1e-12


def test_refinement_does_not_see_scale():
    p = drawn(5, scale=1.0, bend=0.0)
    q = M.apply_temperature(p, 3.0)
    assert M.refinement(q) == pytest.approx(M.refinement(p), abs=1e-9)
    assert M.miscalibration(q) > M.miscalibration(p) + 0.05


# --- Tests of calibration ----------------------------------------------------------------------


def test_calibration_tests_accept_a_calibrated_model_and_reject_a_sharpened_one():
    right, sharp = (drawn(1, scale=s, bend=0) for s in (1.0, 2.0))
    assert all(test.p_value > 0.01 for test in calibration_tests(right).values())
    assert all(test.p_value < 1e-6 for test in calibration_tests(sharp).values())
    assert list(calibration_tests(right)) == ["kolmogorov_smirnov", "kuiper", "spiegelhalter"]


def test_spiegelhalter_is_the_definition():
    p = drawn(2, n=500)
    c, y = p.confidence, p.correct
    z = ((y - c) * (1 - 2 * c)).sum() / np.sqrt(((1 - 2 * c) ** 2 * c * (1 - c)).sum())
    assert calibration_tests(p)["spiegelhalter"].statistic == pytest.approx(z)


def test_certainty_leaves_nothing_to_test():
    with pytest.raises(M.Undefined, match="exactly 1"):
        calibration_tests(Predictions.from_logits([[1e4, 0.0]] * 3, [0, 0, 1]))


def test_without_mapie_the_error_says_what_to_install(monkeypatch):
    import importlib

    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="pip install mapie"):
        calibration_tests(drawn(n=20))


# --- The bootstrap -----------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_that_of_theory():
    p = drawn(0, n=1000)
    found = bootstrap(p, "accuracy", resamples=2000)
    half = 1.96 * math.sqrt(found.value * (1 - found.value) / 1000)
    assert found.value == M.accuracy(p)
    assert found.low == pytest.approx(found.value - half, abs=0.005)
    assert found.high == pytest.approx(found.value + half, abs=0.005)


def test_pairing_sees_what_single_intervals_hide():
    p = drawn(0, n=400, scale=1.0)
    q = M.apply_temperature(p, 1.1)
    both = bootstrap(q, "nll", against=p, resamples=200)
    assert both.value == pytest.approx(M.nll(q) - M.nll(p))
    alone = bootstrap(q, "nll", resamples=200)
    assert both.high - both.low < (alone.high - alone.low) / 5
    assert bootstrap(p, "nll", against=p, resamples=20) == M.Bootstrap(0.0, 0.0, 0.0)


def test_the_interval_of_the_ece_reaches_down_to_a_calibrated_model():
    """A percentile interval would lie above the raw ECE, and so far from the truth, near 0."""
    p = drawn(7, n=300, scale=1.0, bend=0.0)
    found = bootstrap(p, "ece", resamples=300)
    assert 0 <= found.low < 0.02 < found.value <= found.high < found.value + 0.02


@pytest.mark.parametrize("metric", CATALOGUE)
def test_every_metric_has_an_interval_that_holds_its_value(metric):
    found = bootstrap(drawn(1, n=60), metric, resamples=20)
    assert found.low <= found.value <= found.high
    assert found.value == CATALOGUE[metric].function(drawn(1, n=60))
    assert found == bootstrap(drawn(1, n=60), metric, resamples=20)


def test_rows_and_predictions_score_alike():
    p = drawn(1, n=60)
    for metric in CATALOGUE.values():
        if metric.by_rows:
            assert metric.function(p.rows) == metric.function(p)
        else:
            with pytest.raises(InputError, match="Predictions"):
                metric.function(p.rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metric": "acuracy"}, ["metric", "accuracy"]),
        ({"resamples": 3}, ["resamples", "20"]),
        ({"level": 1.0}, ["level"]),
        ({"against": drawn(0, n=59)}, ["against", "60 rows"]),
        ({"against": drawn(2, n=60)}, ["against", "another label in row"]),
        ({"against": 3}, ["predictions"]),
    ],
)
def test_bad_arguments_of_the_bootstrap(arguments, words):
    with pytest.raises(InputError) as error:
        bootstrap(drawn(1, n=60), **{"metric": "accuracy", **arguments})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_metric_that_resamples_do_not_define_says_so():
    p = binary([0.9] * 50, [True] * 49 + [False])  # a third of the draws has no error
    with pytest.raises(M.Undefined):
        bootstrap(p, "auroc", resamples=50)


def test_score_leaves_out_what_is_not_defined():
    everything = M.score(drawn(n=50), CATALOGUE)
    assert list(everything) == list(CATALOGUE)
    perfect = M.score(binary([0.9, 0.8], [True, True]), CATALOGUE)
    assert set(CATALOGUE) - set(perfect) == {"confidence_on_errors", "auroc"}
    with pytest.raises(InputError, match="smooth_ece"):
        M.score(drawn(n=5), ["smoothece"])


def test_no_warning_of_numpy_escapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        M.score(Predictions.from_logits([[0.0, 0.0]], [1]), CATALOGUE)


def test_scikit_learn_knows_the_brier_score_and_the_log_loss():
    p = drawn(4, n=300)
    assert M.nll(p) == pytest.approx(sklearn.metrics.log_loss(p.labels, p.probs), abs=1e-12)
    theirs = sklearn.metrics.brier_score_loss(p.labels, p.probs, scale_by_half=False)
    assert M.brier(p) == pytest.approx(theirs, abs=1e-12)
