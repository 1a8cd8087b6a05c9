"""The judgement of saved predictions: its numbers, and that its words follow from them."""

import json
import math

import numpy as np
import pytest

from softhot.calibration import cross_fitted, temperature
from softhot.core.check import InputError
from softhot.judge import judge, side_by_side
from softhot.metrics import METRICS, Predictions, score


def sampled(sharpness: float, n: int = 4000, classes: int = 5, seed: int = 0) -> Predictions:
    """Labels drawn from softmax(z), predictions softmax(sharpness z): T = sharpness is right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return Predictions.from_logits(sharpness * logits, labels)


def test_overconfidence_is_named_and_can_be_rescaled():
    judgement = judge(sampled(2.0))
    assert judgement.sentences[0].startswith("Overconfident")
    assert judgement.temperature == pytest.approx(2.0, rel=0.1)
    gap = judgement.scores["gap"]
    alpha = judgement.forecast.calibrating_alpha
    assert 0 < alpha < 1
    assert abs(judgement.scaled_scores["gap"]) < 0.02 < gap
    assert f"about {alpha:.2g} (" in judgement.sentences[1]


def test_underconfidence_is_named_and_smoothing_is_not_advised():
    judgement = judge(sampled(0.4))
    assert judgement.sentences[0].startswith("Underconfident")
    assert judgement.forecast.calibrating_alpha is None
    assert "would not help" in judgement.sentences[1]
    assert any("T below 1" in sentence for sentence in judgement.sentences)


def test_right_confidence_is_left_alone():
    judgement = judge(sampled(1.0))
    assert judgement.sentences[0].startswith("No detectable bias")
    assert any("Rescaling changes little" in sentence for sentence in judgement.sentences)


def test_worse_than_chance_gets_no_alpha():
    rng = np.random.default_rng(0)
    logits = np.zeros((50, 3))
    logits[:, 0] = 9.0
    found = judge(Predictions.from_logits(logits, rng.integers(1, 3, size=50))).forecast
    assert found.calibrating_alpha is None


def test_intervals_are_those_of_means():
    p = sampled(1.5, n=200)
    judgement = judge(p)
    for name, values in {"accuracy": p.correct, "confidence": p.confidence}.items():
        low, high = judgement.intervals[name]
        assert (low + high) / 2 == pytest.approx(values.mean())
        assert high - low == pytest.approx(2 * 1.959964 * values.std() / math.sqrt(200))
    for name, (low, high) in judgement.intervals.items():
        assert low <= judgement.scores[name] <= high, name


def test_no_row_is_scored_with_a_temperature_that_it_fitted():
    p = sampled(2.0, n=400)
    scaled, _ = cross_fitted(p)
    order = np.random.default_rng(0).permutation(400)
    half = order[:200]
    changed = Predictions(p.log_probs, np.where(np.isin(np.arange(400), half), 0, p.labels))
    again, _ = cross_fitted(changed)
    # Other labels in one half change the temperature of the other half alone.
    np.testing.assert_array_equal(again.log_probs[half], scaled.log_probs[half])
    assert not np.allclose(again.log_probs[order[200:]], scaled.log_probs[order[200:]])


def test_rescaling_keeps_what_is_predicted():
    p = sampled(2.0, n=301)
    scaled, _ = cross_fitted(p)
    np.testing.assert_array_equal(scaled.predicted, p.predicted)
    assert score(scaled)["accuracy"] == score(p)["accuracy"]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_a_few_rows_are_enough(rows):
    judgement = judge(sampled(2.0, n=rows))
    assert set(judgement.scores) == set(METRICS)
    assert all(math.isfinite(value) for value in judgement.scores.values())


def test_saturated_probabilities_are_reported():
    p = Predictions.from_probs(np.array([[1.0, 0.0], [0.5, 0.5]]), [1, 0])
    assert any("exactly 0" in sentence for sentence in judge(p).sentences)


def test_it_is_plain_json():
    content = judge(sampled(2.0, n=50)).to_dict()
    assert json.loads(json.dumps(content))["rows"] == 50


# --- Side by side ------------------------------------------------------------------------------


def test_models_are_compared_row_by_row():
    right, sharp, other = (sampled(s, n=800) for s in (1.0, 2.0, 1.0))
    found = side_by_side({"right": right, "sharp": sharp, "same": other})
    assert list(found.judgements) == ["right", "sharp", "same"]
    assert list(found.differences) == ["sharp", "same"]
    assert found.differences["sharp"]["nll"].low > 0
    assert found.differences["sharp"]["accuracy"].value == 0
    assert abs(found.scaled_differences["sharp"]["nll"].value) < 1e-6
    assert all(one.value == one.low == one.high == 0 for one in found.differences["same"].values())
    assert found.sentences[0].startswith("Against right, sharp: worse in NLL +")
    assert "better" not in found.sentences[1]
    judged = judge(sharp)
    assert found.judgements["sharp"].scores == judged.scores
    content = json.loads(json.dumps(found.to_dict()))
    assert content["differences"]["sharp"]["ece"]["low"] > 0
    assert content["models"]["sharp"]["forecast"]["moot"] is True


def test_models_of_other_rows_are_refused():
    p, q = sampled(1.0, n=30), sampled(1.0, n=30, seed=1)
    with pytest.raises(InputError, match="b, beside a, must be predictions of the same 30 rows"):
        side_by_side({"a": p, "b": q})
    with pytest.raises(InputError, match="29 rows"):
        side_by_side({"a": p, "b": p[:29]})
    with pytest.raises(InputError, match="at least two"):
        side_by_side({"a": p})


def test_a_stream_is_judged_like_its_matrix_in_a_few_passes():
    p = sampled(2.0, n=600)
    streamed = judge(
        Predictions.from_blocks(lambda: iter([p.log_probs[:250], p.log_probs[250:]]), p.labels)
    )
    expected = judge(p)
    assert streamed.scores == pytest.approx(expected.scores, abs=1e-12)
    assert streamed.scaled_scores == pytest.approx(expected.scaled_scores, abs=1e-12)
    assert streamed.temperature == pytest.approx(expected.temperature)
    assert streamed.sentences == expected.sentences


def test_a_large_matrix_lends_rows_to_the_fit(monkeypatch):
    monkeypatch.setattr(temperature, "MOST", 5 * 100)
    fitted = []
    fit = temperature.fit_temperature
    monkeypatch.setattr(
        temperature, "fit_temperature", lambda p, **doubt: fitted.append(len(p)) or fit(p, **doubt)
    )
    p = sampled(2.0, n=3000)
    scaled, t = cross_fitted(p)
    assert fitted == [100, 100, 200]
    assert t == pytest.approx(2.0, rel=0.3)
    assert abs(score(scaled)["gap"]) < score(p)["gap"] / 2


def test_soft_labels_are_judged_and_their_ties_reported():
    p = sampled(2.0, n=100)
    soft = 0.8 * np.eye(5)[p.labels] + 0.04
    soft[3] = 0.2
    found = judge(Predictions.from_logits(p.log_probs, soft))
    assert any("1 rows have several" in sentence for sentence in found.sentences)
