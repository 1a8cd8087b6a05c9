"""The forecast: its two limits, its laws, its words, and networks that were really trained."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import softhot
from softhot.core.check import InputError
from softhot.forecast import ALPHA, ALPHAS, ERROR, EXPONENT, QUANTILE, confidences, forecast
from softhot.metrics import Predictions, ece, score
from softhot.studies import StudySpec, run


def sampled(sharpness, n=2000, k=5, seed=0, spread=2.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) * spread
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    return Predictions.from_logits(sharpness * z, labels)


problems = st.builds(
    sampled,
    st.sampled_from([0.1, 1.0, 3.0, 100.0, 1e5]),
    n=st.integers(1, 50),
    k=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
)


# --- The law -----------------------------------------------------------------------------------


@given(problems, st.floats(1e-6, 0.99), st.floats(1e-6, 0.99))
def test_confidence_falls_with_alpha_and_stays_between_chance_and_the_target(p, a, b):
    alphas = sorted((a, b), reverse=True)
    low, high = (confidences(p.rows, alpha, p.num_classes) for alpha in alphas)
    assert (low <= high + 1e-12).all()
    assert (high <= p.confidence + 1e-12).all()
    assert (low >= 1 / p.num_classes - 1e-12).all()
    alpha = max(a, b)
    assert (low <= 1 - alpha + alpha / p.num_classes).all()


def test_rows_at_the_optimum_of_another_alpha_go_to_that_of_the_new_one():
    k = 4
    rows = np.full((9, k), 0.001 / k)
    rows[:, 1] += 0.999
    p = Predictions.from_probs(rows, np.ones(9, int))
    exact = confidences(p.rows, 0.2, k, exponent=1.0)
    assert exact == pytest.approx(0.8 + 0.2 / k)
    part = confidences(p.rows, 0.2, k)
    ratio = math.log(1 + k * 0.8 / 0.2) / math.log(1 + k * 0.999 / 0.001)
    others = math.log(k - 1)
    gap = ratio**EXPONENT * math.log(1 + k * 0.999 / 0.001)
    assert part == pytest.approx(min(1 / (1 + math.exp(others - gap)), 0.8 + 0.2 / k))


def test_a_network_that_never_came_that_far_is_not_moved():
    p = sampled(0.3)
    assert confidences(p.rows, 0.01, 5) == pytest.approx(p.confidence)


def test_confidence_that_rounds_to_one_still_tells_how_far():
    logits = ([[gap, 0.0], [1.0, 0.0]] * 3 for gap in (50, 500))
    near, far = (Predictions.from_logits(z, [0] * 6) for z in logits)
    assert near.confidence[0] == far.confidence[0] == 1
    # The further the learned rows, the more everything shrinks, the uncertain rows too.
    assert confidences(far.rows, 0.1, 2)[1] <= confidences(near.rows, 0.1, 2)[1]
    assert near.rows.log_odds[0] == pytest.approx(50)
    assert far.rows.log_odds[0] == pytest.approx(500)


# --- The forecast ------------------------------------------------------------------------------


def test_an_overconfident_model_gets_an_alpha_that_calibrates():
    p = sampled(2.0)
    found = forecast(p)
    assert [one.alpha for one in found.smoothed] == list(ALPHAS)
    scores = score(p)
    assert found.baseline.gap == scores["gap"]
    assert found.baseline.ece == scores["ece"]
    at = forecast(p, [found.calibrating_alpha]).smoothed[0]
    assert at.gap == pytest.approx(0, abs=1e-4)
    worse = forecast(p, [found.break_even_alpha]).smoothed[0]
    assert worse.gap == pytest.approx(-found.baseline.gap, abs=1e-4)
    low, high = found.calibrating_range
    assert low < found.calibrating_alpha < high < 1
    assert forecast(p, [low]).smoothed[0].gap == pytest.approx(ERROR, abs=1e-4)
    assert f"about {found.calibrating_alpha:.2g} (" in found.sentences[0]
    assert found.moot
    assert "moot" in found.sentences[1]


def test_a_model_that_is_not_overconfident_gets_none():
    found = forecast(sampled(0.5))
    assert found.calibrating_alpha is found.calibrating_range is found.break_even_alpha is None
    assert found.sentences[0].startswith("Smoothing would not help")


def test_where_rescaling_cannot_help_the_question_is_open():
    rng = np.random.default_rng(0)
    # Half the rows are sure and right, half are sure and wrong: no T repairs both.
    z = np.array([[6.0, 0.0, 0.0], [0.0, 0.2, 0.0]])[rng.integers(2, size=400)]
    p = Predictions.from_logits(z, np.where(z[:, 0] > 0, 0, rng.integers(2, size=400)))
    worse = Predictions.from_logits(50 * z, p.labels)
    open_question = forecast(p, scaled=(worse, 0.05))
    assert open_question.scaled_ece == ece(worse)
    assert not open_question.moot
    assert "only" in open_question.sentences[1]


def test_it_is_plain_json_and_sorts_alphas():
    content = json.loads(json.dumps(forecast(sampled(2.0), [0.3, 0.1, 0.3]).to_dict()))
    assert [one["alpha"] for one in content["smoothed"]] == [0.1, 0.3]


@given(problems)
def test_any_rows_have_a_finite_forecast(p):
    found = forecast(p)
    for one in (found.baseline, *found.smoothed):
        assert all(map(math.isfinite, (one.confidence, one.gap, one.ece)))
    assert len(found.sentences) == 2


@pytest.mark.parametrize("alpha", ALPHA.bad_values())
def test_bad_alphas(alpha):
    with pytest.raises(InputError, match="alphas"):
        forecast(sampled(1.0, n=10), [0.1, alpha])


def test_no_alphas_and_no_predictions():
    with pytest.raises(InputError, match="at least one alpha"):
        forecast(sampled(1.0, n=10), [])
    with pytest.raises(InputError, match="from_logits"):
        forecast(np.eye(3))


# --- Networks ----------------------------------------------------------------------------------


def test_it_foresees_networks_within_a_few_points(tmp_path):
    spec = StudySpec("breast_cancer", alphas=(0.3,), seeds=1, epochs=40)
    records = {record.trial.alpha: record.test for record in run(spec, tmp_path, jobs=1).records()}
    (foreseen,) = forecast(records[0.0], [0.3]).smoothed
    found = score(records[0.3])
    assert foreseen.confidence == pytest.approx(found["confidence"], abs=0.05)
    assert foreseen.ece == pytest.approx(found["ece"], abs=0.05)
    assert score(records[0.0])["confidence"] - found["confidence"] > 0.1


def test_the_page_was_written_with_these_constants():
    page = Path(softhot.__file__).parents[2] / "docs" / "forecast.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert f"at quantile {QUANTILE:g} came" in text
    assert f"to the power {EXPONENT:g}." in text
    assert f"Its error, {100 * ERROR:.1f} points," in text
