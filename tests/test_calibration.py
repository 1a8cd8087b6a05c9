"""Temperature scaling against scipy, scikit-learn and its own laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.calibration
from hypothesis import given
from hypothesis import strategies as st

from softhot.calibration import TEMPERATURE, apply_temperature, fit_temperature
from softhot.core.check import InputError
from softhot.metrics import Predictions, nll, score, temperature

INF = math.inf


def drawn(seed, n=200, k=5, scale=2.0, truth=1.0):
    """Rows whose labels are drawn from softmax(truth * z) while the model says softmax(scale z)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    labels = (truth * z + rng.gumbel(size=(n, k))).argmax(1)
    return Predictions.from_logits(scale * z, labels)


problems = st.builds(
    drawn,
    st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    k=st.integers(2, 6),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 10.0, 300.0]),
    truth=st.sampled_from([-1.0, 0.0, 0.5, 3.0, 30.0]),
)


def nll_at(predictions, temperature):
    return nll(apply_temperature(predictions, temperature))


# --- The optimum -------------------------------------------------------------------------------


@given(problems)
def test_no_other_temperature_is_better(p):
    t = fit_temperature(p)
    assert type(t) is float
    assert TEMPERATURE.low <= t <= TEMPERATURE.high
    best = nll_at(p, t)
    grid = np.geomspace(TEMPERATURE.low, TEMPERATURE.high, 40)
    assert all(best <= nll_at(p, float(other)) * (1 + 1e-12) + 1e-15 for other in grid)
    for near in (t * 0.999, t * 1.001):
        assert best <= nll_at(p, min(max(near, 0.05), 20.0)) * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize("scale", [0.2, 1, 5, 15])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scipy(seed, scale):
    p = drawn(seed, scale=scale)
    found = scipy.optimize.minimize_scalar(
        lambda log_t: nll_at(p, math.exp(log_t)),
        bounds=(math.log(TEMPERATURE.low), math.log(TEMPERATURE.high)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    # A minimum search knows its place only to the root of the float64 epsilon.
    assert fit_temperature(p) == pytest.approx(math.exp(found.x), rel=1e-6)


METHODS = sklearn.calibration.CalibratedClassifierCV._parameter_constraints["method"][0].options


@pytest.mark.parametrize("method", sorted(METHODS & {"temperature"}))
@pytest.mark.parametrize("strength", [0.01, 100.0])
def test_agrees_with_scikit_learn_where_it_has_temperature_scaling(method, strength):
    from sklearn.datasets import load_digits
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    model = LogisticRegression(C=strength, max_iter=2000).fit(x[:300] / 16, y[:300])
    theirs = sklearn.calibration.CalibratedClassifierCV(FrozenEstimator(model), method=method)
    theirs.fit(x[300:900] / 16, y[300:900])
    t = fit_temperature(
        Predictions.from_logits(model.decision_function(x[300:900] / 16), y[300:900])
    )
    test = Predictions.from_logits(model.decision_function(x[900:] / 16), y[900:])
    ours = apply_temperature(test, t).probs
    assert abs(math.log(t)) > 0.1
    assert ours == pytest.approx(theirs.predict_proba(x[900:] / 16), abs=1e-5)


@pytest.mark.parametrize(("scale", "expected"), [(0.25, 0.25), (1.0, 1.0), (4.0, 4.0)])
def test_the_true_temperature_is_recovered_on_either_side_of_one(scale, expected):
    assert fit_temperature(drawn(0, n=20_000, scale=scale)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("gap", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("right", [6, 8, 9])
def test_two_classes_have_a_closed_form(gap, right):
    p = Predictions.from_logits([[gap, 0.0]] * 10, [0] * right + [1] * (10 - right))
    t = gap / math.log(right / (10 - right))
    assert fit_temperature(p) == pytest.approx(min(max(t, 0.05), 20), rel=1e-11)


def test_slopes_that_fall_exponentially_take_few_steps(monkeypatch):
    """In 1/T each gap has a scale of its own, where unguarded Newton steps all have one length."""
    calls = []
    slope = temperature._slope
    monkeypatch.setattr(
        temperature, "_slope", lambda p, b, *rest: calls.append(b) or slope(p, b, *rest)
    )
    gaps = np.array([3.0, 10, 30, 100, 300, 900])
    p = Predictions.from_logits([*([g, 0.0] for g in gaps), [1e-14, 0.0]], [0] * 6 + [1])
    b = 1 / fit_temperature(p)
    assert (gaps * scipy.special.expit(-b * gaps)).sum() == pytest.approx(1e-14 / 2, rel=0.01)
    assert len(calls) < 20


# --- The ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e3, 1e6, 1e20])
def test_separable_rows_drive_t_to_the_low_end_and_all_wrong_ones_to_the_high_end(size):
    z = size * np.eye(3)
    assert fit_temperature(Predictions.from_logits(z, [0, 1, 2])) == TEMPERATURE.low
    assert fit_temperature(Predictions.from_logits(-z, [0, 1, 2])) == TEMPERATURE.high


def test_rows_that_no_temperature_changes_leave_it_at_one():
    assert fit_temperature(Predictions.from_logits(np.zeros((4, 3)), [0, 1, 2, 0])) == 1.0
    masked = [[0.0, 0.0, -INF], [-INF, -INF, 5.0]]
    assert fit_temperature(Predictions.from_logits(masked, [0, 2])) == 1.0


def test_masked_classes_change_nothing():
    p = drawn(3, scale=3)
    for mask in (-INF, float(np.finfo(np.float32).min), float(np.finfo(np.float64).min)):
        more = np.column_stack([p.log_probs, np.full(len(p), mask)])
        q = Predictions.from_logits(more, p.labels)
        assert fit_temperature(q) == pytest.approx(fit_temperature(p), rel=1e-10)
        assert (apply_temperature(q, 20.0).probs[:, -1] == 0).all()


def test_a_true_class_of_probability_zero_takes_part_with_its_floor():
    probs = np.array([[1.0, 0.0]] * 9 + [[0.0, 1.0]], dtype=np.float32)
    p = Predictions.from_probs(probs, [0] * 10)
    t = fit_temperature(p)
    assert p.floored == 1
    # Nine rows are at -inf and cannot move; the tenth, 103 nats wrong, wants the highest T.
    assert t == TEMPERATURE.high
    assert apply_temperature(p, t).floored == 1
    assert nll_at(p, t) < nll(p)


# --- Laws --------------------------------------------------------------------------------------


@given(problems, st.floats(0.05, 20))
def test_no_temperature_moves_a_prediction(p, t):
    q = apply_temperature(p, t)
    assert q.predicted.tolist() == p.predicted.tolist()
    assert score(q)["accuracy"] == score(p)["accuracy"]
    assert np.exp(q.log_probs).sum(1) == pytest.approx(1, abs=1e-12)
    assert all(math.isfinite(v) for v in score(q).values())


def test_no_temperature_moves_a_prediction_that_rounding_would():
    p = Predictions.from_logits([[0.0, 1e-16, -5e-17]], [1])
    assert apply_temperature(p, 20.0).correct.tolist() == [True]


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 2), st.floats(0.25, 4))
def test_fit_after_apply_divides(seed, scale, t):
    p = drawn(seed, n=300, scale=scale)  # the best temperature is near `scale`, far from the ends
    assert fit_temperature(apply_temperature(p, t)) == pytest.approx(fit_temperature(p) / t)


@given(problems, st.floats(0.25, 4), st.floats(0.25, 4))
def test_temperatures_multiply(p, s, t):
    twice = apply_temperature(apply_temperature(p, s), t).log_probs
    assert twice == pytest.approx(apply_temperature(p, s * t).log_probs, rel=1e-9, abs=1e-9)


@given(problems)
def test_one_changes_nothing_and_confidence_falls_with_t(p):
    assert apply_temperature(p, 1.0).log_probs == pytest.approx(p.log_probs, rel=1e-12, abs=1e-12)
    previous = 1.0
    for t in (0.05, 0.5, 1.0, 2.0, 20.0):
        mean = score(apply_temperature(p, t))["confidence"]
        assert mean <= previous + 1e-12
        previous = mean


@given(problems, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    assert nll_at(p, fit_temperature(p[order])) == pytest.approx(nll_at(p, fit_temperature(p)))


@pytest.mark.parametrize("temperature", TEMPERATURE.bad_values())
def test_bad_temperature(temperature):
    with pytest.raises(InputError, match="temperature must be"):
        apply_temperature(drawn(0), temperature)


def test_what_is_not_predictions_is_refused():
    with pytest.raises(InputError, match="from_logits"):
        fit_temperature(np.eye(3))
    with pytest.raises(InputError, match="from_logits"):
        apply_temperature(np.eye(3), 2.0)
