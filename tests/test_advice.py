"""The advice: its policies one by one, and the committed measurement of what it regrets."""

import json
from pathlib import Path

import numpy as np
import pytest

from softhot.advice import GOALS, advise
from softhot.calibration import (
    apply_temperature,
    cross_fitted,
    fit_temperature,
)
from softhot.core.check import InputError
from softhot.metrics import Predictions, accuracy, nll

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(600, 4)) * 2
LABELS = (LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)


def model(sharpness=1.0, better=0.0, noise=0.0, seed=0):
    z = LOGITS + better * np.eye(4)[LABELS]
    z = z + noise * np.random.default_rng(seed).normal(size=z.shape)
    return Predictions.from_logits(sharpness * z, LABELS)


def actions(**arms):
    return {goal: (one.action, one.arm) for goal, one in advise(arms).items()}


def test_one_arm_is_rescaled_if_that_helps():
    found = advise({"none": model(3.0)})
    assert [one.action for one in found.values()] == ["none", "rescale only", "none", "none"]
    one = found["probabilities"]
    assert one.temperature == pytest.approx(3, rel=0.2)
    scaled = cross_fitted(model(3.0))[0]
    assert one.value == nll(scaled) < one.baseline == nll(model(3.0))
    assert "T = " in one.sentence


def test_a_better_arm_is_chosen_for_every_goal_but_teaching():
    found = actions(none=model(3.0), smooth=model(0.3, better=1.5))
    assert found == {
        "accuracy": ("smooth", "smooth"),
        "probabilities": ("smooth and rescale", "smooth"),
        "ranking": ("smooth", "smooth"),
        "distillation": ("none", "none"),
    }


def test_luck_in_one_row_chooses_nothing():
    """However much one row gains, its mean gain is within one standard error."""
    base = model()
    z = np.array(base.log_probs)
    wrong = int(np.flatnonzero(~base.correct)[0])
    z[wrong] = 9.0 * np.eye(4)[LABELS[wrong]]
    lucky = Predictions.from_logits(z, LABELS)
    assert accuracy(lucky) > accuracy(base)
    assert advise({"none": base, "lucky": lucky})["probabilities"].arm == "none"
    same = advise({"none": base, "again": model(), "third": base}, GOALS.names)
    assert {one.arm for one in same.values()} == {"none"}


def test_rows_that_are_all_right_do_not_sharpen_without_end():
    right = Predictions.from_logits(np.eye(4)[LABELS] * 3.0, LABELS)
    assert fit_temperature(right) == 0.05
    found = advise({"none": right})["probabilities"]
    assert 0.3 < found.temperature < 1
    # N right of N: the rule of succession promises (N + 1) / (N + 2).
    promise = apply_temperature(right, found.temperature).confidence
    assert promise == pytest.approx(601 / 602, abs=1e-6)


def test_rescaling_that_clearly_hurts_is_not_advised():
    """Half of the rows need T = 5, the other half T = 1/5: one T fits neither of the halves."""
    z = np.where(np.arange(600)[:, None] % 2, 5.0, 0.2) * LOGITS[:, :2]
    y = (LOGITS[:, :2] + np.random.default_rng(1).gumbel(size=(600, 2))).argmax(axis=1)
    p = Predictions.from_logits(z, y)[:8]
    found = advise({"none": p})["probabilities"]
    scaled = cross_fitted(p)[0]
    behind = p.rows.log_likelihood - scaled.rows.log_likelihood
    clearly = behind.mean() > behind.std(ddof=1) / np.sqrt(len(p))
    assert (found.temperature is None) == clearly


def test_seeds_are_averaged_and_folds_may_differ_in_rows():
    arms = {"none": [model(noise=2.0, seed=s) for s in range(4)], "u": [model(better=1)] * 4}
    one = advise(arms, ["accuracy"])["accuracy"]
    assert one.baseline == pytest.approx(np.mean([accuracy(p) for p in arms["none"]]))
    folds = {name: [seeds[0][:300], seeds[1][300:500]] for name, seeds in arms.items()}
    assert advise(folds, ["accuracy"])["accuracy"].arm == "u"


def test_fits_at_hand_change_nothing():
    arms = {"none": [model(3.0)], "u": [model(0.5, better=0.1)]}
    fits = {name: [cross_fitted(p) for p in seeds] for name, seeds in arms.items()}
    assert advise(arms, fits=fits) == advise(arms)


def test_it_is_plain_json():
    for one in advise({"none": model(2.0), "u": model(0.5)}).values():
        assert json.loads(json.dumps(one.to_dict()))["goal"] in GOALS.names


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({}, "at least one arm"),
        (model(), "at least one arm"),
        ({"none": []}, "at least one seed"),
        ({"none": [1]}, "softhot.metrics.Predictions"),
        ({"none": [model()], "u": [model()] * 2}, "of 1 seeds"),
        ({"none": model(), "u": model()[:99]}, "the same 600 rows"),
        ({"none": model(), "u": Predictions.from_logits(LOGITS, (LABELS + 1) % 4)}, "row 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(arms, said):
    with pytest.raises(InputError, match=said):
        advise(arms)
    with pytest.raises(InputError, match="goals must be"):
        advise({"none": model()}, ["beauty"])


# --- What it regrets ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    return json.loads((ROOT / "docs" / "regret.json").read_text())


def test_the_measurement_covers_enough_pairs(measured):
    assert len(measured["pairs"]) == len(set(measured["pairs"])) >= 12
    for row in measured["rows"]:
        for name in ("regret", "regret_of_one_seed"):
            assert len(row[name]) == len(measured["pairs"])
            assert min(row[name]) >= 0
    best = {row["policy"]: np.mean(row["regret"]) for row in measured["rows"]}
    assert set(best) >= {"softhot's advice", "never", "always 0.1"}


@pytest.mark.parametrize("goal", ["probabilities", "accuracy"])
def test_the_advice_regrets_least(measured, goal):
    """Of all policies, on the pairs that it was made on and on the others, with one seed or all."""
    made_on = np.array([int(name[-1]) <= 5 for name in measured["pairs"]])
    for field in ("regret", "regret_of_one_seed"):
        for part in (made_on, ~made_on):
            means = {
                row["policy"]: np.array(row[field])[part].mean()
                for row in measured["rows"]
                if row["goal"] == goal
            }
            assert min(means, key=means.__getitem__) == "softhot's advice", (field, means)
