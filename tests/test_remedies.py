"""Vector scaling, desmoothing and the p-norm; and what every remedy keeps and refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import softhot
from softhot.calibration import (
    REMEDIES,
    Desmoothing,
    PNorm,
    Remedy,
    Temperature,
    VectorScaling,
    desmoothing,
    fit_temperature,
    pnorm,
)
from softhot.core.check import InputError
from softhot.metrics import CATALOGUE, Predictions, aurc, brier, nll, score

INF = math.inf


def drawn(seed=0, n=300, k=4, alpha=0.0, scale=1.0, shift=0.0):
    """Labels drawn from p = softmax(2 z); the model says (1 - alpha) p + alpha / K, and worse."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, k))
    labels = (z + rng.gumbel(size=(n, k))).argmax(1)
    p = np.exp(z - z.max(1, keepdims=True))
    p = (1 - alpha) * p / p.sum(1, keepdims=True) + alpha / k
    bent = scale * np.log(p) + shift * np.arange(k)
    return Predictions.from_logits(bent, labels)


def streamed(p):
    blocks = [p.log_probs[start : start + 37] for start in range(0, len(p), 37)]
    return Predictions.from_blocks(lambda: iter(blocks), p.labels)


problems = st.builds(
    drawn,
    st.integers(0, 2**32 - 1),
    n=st.integers(2, 60),
    k=st.integers(2, 5),
    alpha=st.sampled_from([0.0, 0.2, 0.6]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    shift=st.sampled_from([0.0, 0.5]),
)


# --- Every remedy ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REMEDIES)
def test_the_table_is_keyed_by_name_and_documented(name):
    remedy = REMEDIES[name]
    assert remedy.name == name
    assert remedy.__doc__


@pytest.mark.parametrize("name", REMEDIES)
@settings(max_examples=30)
@given(problems)
def test_every_remedy_keeps_labels_rows_and_finite_scores(name, p):
    q = REMEDIES[name].fit(p).apply(p)
    assert q.labels.tolist() == p.labels.tolist()
    assert np.exp(q.log_probs).sum(1) == pytest.approx(1, abs=1e-12)
    assert all(math.isfinite(value) for value in score(q, CATALOGUE).values())
    if name != "vector":
        assert q.predicted.tolist() == p.predicted.tolist()


def doubted(p):
    """NLL of labels of which 1 / (N + 2) goes to the other classes: what temperature looks at."""
    others = (p.log_probs.sum(1) - p.rows.log_likelihood) / (p.num_classes - 1)
    doubt = 1 / (len(p) + 2)
    return nll(p) * (1 - doubt) - doubt * float(others.mean())


@pytest.mark.parametrize("name", REMEDIES)
@settings(max_examples=30)
@given(problems)
def test_no_remedy_makes_what_it_fits_worse(name, p):
    remedy, loss = REMEDIES[name], {"p_norm": aurc, "temperature": doubted}.get(name, nll)
    after = loss(remedy.fit(p).apply(p))
    untouched = loss(Desmoothing(0.0, remedy.fit(p).floor).apply(p) if name == "desmoothing" else p)
    assert after <= untouched + 1e-12


@pytest.mark.parametrize("name", REMEDIES)
def test_streams_are_fitted_and_changed_alike(name):
    p = drawn(alpha=0.3, shift=0.3)
    remedy = REMEDIES[name]
    found, expected = remedy.fit(streamed(p)), remedy.fit(p)
    assert nll(found.apply(p)) == pytest.approx(nll(expected.apply(p)), rel=1e-9)
    assert score(expected.apply(streamed(p))) == pytest.approx(score(expected.apply(p)), abs=1e-12)


@pytest.mark.parametrize("name", REMEDIES)
def test_masked_classes_stay_masked_and_change_nothing(name):
    p = drawn(alpha=0.2)
    masked = Predictions.from_logits(np.column_stack([p.log_probs, [-INF] * 300]), p.labels)
    remedy = REMEDIES[name].fit(masked)
    after = remedy.apply(masked)
    assert (after.probs[:, -1] == 0).all()
    if name in ("temperature", "p_norm"):
        assert score(after) == pytest.approx(score(REMEDIES[name].fit(p).apply(p)), abs=1e-6)


@pytest.mark.parametrize("name", REMEDIES)
def test_soft_labels_near_one_hot_fit_nearly_alike(name):
    p = drawn(alpha=0.2, shift=0.3)
    soft = Predictions.from_logits(p.log_probs, 0.999999 * np.eye(4)[p.labels] + 0.000001 / 4)
    hard, almost = (nll(REMEDIES[name].fit(rows).apply(p)) for rows in (p, soft))
    assert almost == pytest.approx(hard, abs=1e-4)


@pytest.mark.parametrize("name", REMEDIES)
def test_saved_is_loaded(tmp_path, name):
    remedy = REMEDIES[name].fit(drawn(shift=0.2, alpha=0.3))
    remedy.save(tmp_path / "remedy.json")
    assert Remedy.load(tmp_path / "remedy.json") == remedy
    assert REMEDIES[name].load(str(tmp_path / "remedy.json")) == remedy
    assert json.loads((tmp_path / "remedy.json").read_text())["remedy"] == name
    for other in set(REMEDIES) - {name}:
        with pytest.raises(InputError, match="remedy must be"):
            REMEDIES[other].load(tmp_path / "remedy.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], ["JSON object"]),
        ({}, ["remedy", "None"]),
        ({"remedy": "temprature"}, ["temperature"]),
        ({"remedy": "temperature", "format": 9, "temperature": 1}, ["format", "9"]),
        ({"remedy": "temperature", "format": 1}, ["fields", "temperature"]),
        ({"remedy": "temperature", "format": 1, "temperature": 1, "x": 1}, ["fields", "x"]),
        ({"remedy": "temperature", "format": 1, "temperature": "1"}, ["temperature", "'1'"]),
        ({"remedy": "desmoothing", "format": 1, "alpha": 1, "floor": 0.1}, ["alpha", "[0, 1)"]),
        ({"remedy": "desmoothing", "format": 1, "alpha": 0, "floor": 0}, ["floor", "(0, 1)"]),
        ({"remedy": "p_norm", "format": 1, "p": 0.5}, ["p must", "fallback"]),
        ({"remedy": "vector", "format": 1, "weights": [1, 2], "biases": [1]}, ["biases"]),
        ({"remedy": "vector", "format": 1, "weights": 1, "biases": [1]}, ["weights"]),
        ({"remedy": "vector", "format": 1, "weights": [None], "biases": [1]}, ["weights[0]"]),
    ],
)
def test_bad_files(content, words):
    with pytest.raises(InputError) as error:
        Remedy.from_dict(content)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_files_that_cannot_be_read_or_written(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for path in (tmp_path / "broken.json", tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="path must be a JSON file"):
            Remedy.load(path)
    with pytest.raises(InputError, match="folder that exists"):
        Temperature(1.0).save(tmp_path / "no" / "such.json")


@pytest.mark.parametrize("name", REMEDIES)
def test_what_is_not_predictions_is_refused(name):
    for call in (REMEDIES[name].fit, REMEDIES[name].fit(drawn()).apply):
        with pytest.raises(InputError, match="from_logits"):
            call(np.eye(3))


# --- Vector scaling ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_vector_scaling_is_the_minimum_of_its_objective(seed):
    p = drawn(seed, n=80, shift=0.7, scale=0.5)
    t, k = fit_temperature(p), p.num_classes

    def objective(x):
        w, b = x[:k], x[k:]
        q = Predictions.from_logits(w * p.log_probs / t + b, p.labels)
        return nll(q) * len(p) + (((w - 1) ** 2).sum() + (b**2).sum()) / 2

    found = scipy.optimize.minimize(objective, np.repeat([1.0, 0.0], k), method="BFGS").x
    ours = VectorScaling.fit(p)
    assert np.array(ours.weights) * t == pytest.approx(found[:k], abs=2e-3)
    assert ours.biases == pytest.approx(found[k:], abs=2e-3)


def test_vector_scaling_removes_a_bias_that_temperature_cannot():
    fitted, held = drawn(1, n=2000, shift=1.0), drawn(2, n=2000, shift=1.0)
    vector, scalar = VectorScaling.fit(fitted).apply(held), Temperature.fit(fitted).apply(held)
    assert nll(vector) < nll(scalar) - 0.1
    assert nll(vector) == pytest.approx(nll(drawn(2, n=2000)), abs=0.01)
    slopes = np.diff(VectorScaling.fit(fitted).biases)
    assert slopes == pytest.approx(-1, abs=0.5)


def test_a_class_without_rows_stays_put():
    p = drawn(0, n=40, k=3)
    p = p[p.labels != 2]
    remedy = VectorScaling.fit(p)
    assert all(math.isfinite(value) for value in (*remedy.weights, *remedy.biases))
    assert abs(remedy.biases[2]) < 3


def test_other_classes_are_refused():
    with pytest.raises(InputError, match="4 classes"):
        VectorScaling.fit(drawn(k=4)).apply(drawn(k=3))


# --- Desmoothing -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.3, 0.5]))
def test_nominal_desmoothing_undoes_exact_smoothing(seed, alpha):
    truth, smoothed = drawn(seed, n=20), drawn(seed, n=20, alpha=alpha)
    after = Desmoothing(alpha, 1e-9).apply(smoothed)
    assert after.probs == pytest.approx(truth.probs, abs=1e-6)
    exact = softhot.desmooth(smoothed.probs, alpha)
    assert after.probs == pytest.approx(exact, abs=1e-6)


def test_fitted_alpha_is_the_nominal_one_where_the_model_is_at_the_optimum():
    p = drawn(0, n=20_000, alpha=0.3)
    assert Desmoothing.fit(p).alpha == pytest.approx(0.3, abs=0.02)
    assert Desmoothing.fit(drawn(0, n=5000, scale=3.0)).alpha == 0  # overconfident


def test_fitted_alpha_is_the_best_of_a_fine_grid():
    p = drawn(3, n=100, alpha=0.2)
    found = Desmoothing.fit(p)
    grid = [nll(Desmoothing(alpha, found.floor).apply(p)) for alpha in np.arange(0, 1, 0.001)]
    assert nll(found.apply(p)) == pytest.approx(min(grid), abs=1e-4)
    assert found.floor == pytest.approx(4 / 104)
    losses = desmoothing._losses(p, np.array([found.alpha]), found.floor)
    assert losses[0] / 100 == pytest.approx(nll(found.apply(p)))


def test_the_floor_bounds_the_loss_where_the_exact_inverse_has_none():
    p = Predictions.from_probs([[0.99, 0.01]] * 9 + [[0.99, 0.01]], [0] * 9 + [1])
    after = Desmoothing(0.1).apply(p)
    assert after.floored == 0
    assert after.probs[0] == pytest.approx(np.array([0.94 / 0.9, 0.005]) / (0.94 / 0.9 + 0.005))
    assert softhot.desmooth(p.probs, 0.1)[9, 1] == 0


def test_desmoothing_keeps_the_order_of_rows():
    p = drawn(0, alpha=0.3)
    assert aurc(Desmoothing(0.3).apply(p)) == pytest.approx(aurc(p), abs=1e-3)
    assert brier(Desmoothing(0.3).apply(p)) < brier(p)


# --- The p-norm --------------------------------------------------------------------------------


@given(problems, st.integers(1, 8), st.floats(-50, 50), st.floats(0.01, 100))
def test_the_ranking_is_the_definition_and_feels_neither_shift_nor_scale(p, order, shift, factor):
    c = p.log_probs - p.log_probs.mean(1, keepdims=True)
    norm = (np.abs(c) ** order).sum(1) ** (1 / order)
    ranking = PNorm(order).apply(p).rows.ranking
    assert ranking == pytest.approx(c.max(1) / norm)
    moved = Predictions.from_logits(factor * p.log_probs + shift, p.labels)
    assert PNorm(order).apply(moved).rows.ranking == pytest.approx(ranking, rel=1e-6)


def test_the_fallback_changes_nothing_and_is_taken_where_nothing_is_better():
    p = drawn(0)
    assert PNorm(None).apply(p) is p
    two = drawn(0, k=2)  # the ratio is a constant
    assert PNorm.fit(two) == PNorm(None)
    ranks = pnorm._rankings(Predictions.from_logits([[1.0, 1.0, 1.0]], [0]), [2])
    assert ranks.tolist() == [[0.0]]


def test_the_norm_helps_where_scale_of_logits_is_noise():
    rng = np.random.default_rng(0)
    p = drawn(0, n=3000, k=6)
    noisy = p.log_probs * rng.lognormal(0, 1.5, size=(3000, 1))
    q = Predictions.from_logits(noisy, p.labels)
    remedy = PNorm.fit(q[:1500])
    assert remedy.p is not None
    assert aurc(remedy.apply(q[1500:])) < aurc(q[1500:]) - 0.02
    assert nll(remedy.apply(q)) == nll(q)


@pytest.mark.parametrize("p", [*pnorm.P.bad_values()])
def test_bad_orders(p):
    if p is not None:
        with pytest.raises(InputError, match="p must be"):
            PNorm(p)
