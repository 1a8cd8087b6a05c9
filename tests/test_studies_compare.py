"""Comparison against hand-computed numbers, SciPy, and the rule that choosing is blind to test."""

import dataclasses
import importlib
import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from softhot.advice import advise
from softhot.calibration import Desmoothing, apply_temperature, cautious_temperature
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions, score
from softhot.studies import Arm, Estimate, Record, compare
from softhot.studies.compare import GOAL, choose, holm
from softhot.studies.methods import NONE, method
from studies_cases import TINY, fabricate

comparing = importlib.import_module("softhot.studies.compare")

SPEC = dataclasses.replace(TINY, seeds=5)
finite = st.floats(-1e6, 1e6)


def record(trial, **planted):
    result = fabricate(trial, **planted)
    return Record(
        trial=trial,
        seconds=result.seconds,
        versions=result.versions,
        split=result.split,
        validation=Predictions.from_logits(result.validation_logits, result.validation_labels),
        test=Predictions.from_logits(result.test_logits, result.test_labels),
    )


RECORDS = [record(trial, sharpness=2 + 5 * trial.alpha) for trial in SPEC.trials()]
COMPARISON = compare(RECORDS, SPEC)


def of(alpha):
    return [r for r in RECORDS if r.trial.alpha == alpha]


# --- Estimates ---------------------------------------------------------------------------------


@given(st.lists(finite, min_size=3, max_size=30))
def test_an_estimate_is_scipys_t_interval(values):
    estimate = Estimate.of(values)
    assert estimate.values == tuple(values)
    if np.ptp(values) == 0:
        assert estimate.low == pytest.approx(estimate.high)
        return
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    scale = np.abs(values).max()
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=1e-9 * scale)


def test_an_estimate_by_hand():
    estimate = Estimate.of([1, 2, 4, 5])  # s² = 10/3, t(0.975, 3) = 3.18244631
    half = 3.18244631 * (10 / 3 / 4) ** 0.5
    assert estimate.mean == 3
    assert (estimate.low, estimate.high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.7]])
def test_there_is_no_interval_below_three_seeds(values):
    estimate = Estimate.of(values)
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.mean == pytest.approx(np.mean(values))


# --- The table ---------------------------------------------------------------------------------


def test_arms_hold_scores_of_every_metric_raw_and_scaled():
    assert [arm.name for arm in COMPARISON.arms] == ["none", "uniform 0.1", "uniform 0.3"]
    assert COMPARISON.seeds == (0, 1, 2, 3, 4)
    assert COMPARISON.complete
    for arm in COMPARISON.arms:
        temperatures = [cautious_temperature(r.validation) for r in of(arm.alpha)]
        assert arm.temperature == Estimate.of(temperatures)
        for part in ("validation", "test"):
            raw = [getattr(r, part) for r in of(arm.alpha)]
            scaled = [apply_temperature(p, t) for p, t in zip(raw, temperatures, strict=True)]
            for column, held in (("raw", raw), ("scaled", scaled)):
                estimates = getattr(arm, f"{part}_{column}")
                assert set(estimates) == set(METRICS)
                for metric, estimate in estimates.items():
                    assert estimate.values == tuple(score(p)[metric] for p in held)


@pytest.mark.parametrize("column", ["raw", "scaled"])
@pytest.mark.parametrize("metric", METRICS)
def test_differences_are_paired_over_seeds(metric, column):
    none, _, arm = (getattr(a, f"test_{column}")[metric].values for a in COMPARISON.arms)
    difference = getattr(COMPARISON.arms[2], f"difference_{column}")[metric]
    expected = scipy.stats.ttest_rel(arm, none).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected))
    assert difference.mean == pytest.approx(np.mean(arm) - np.mean(none))
    zero = getattr(COMPARISON.arms[0], f"difference_{column}")[metric]
    assert (zero.mean, zero.low, zero.high) == (0, 0, 0)


def test_the_order_of_records_does_not_matter():
    assert compare(RECORDS[::-1], SPEC).to_dict() == COMPARISON.to_dict()


def test_to_dict_is_json():
    content = COMPARISON.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["arms"][2]["difference_raw"]["nll"]["values"]
    assert content["spec"]["alphas"] == [0, 0.1, 0.3]
    assert content["methods"][0]["advantages"]["nll"]["difference"]["values"]
    one_seed = dataclasses.replace(SPEC, seeds=1)
    json.dumps(compare(RECORDS[:3], one_seed).to_dict(), allow_nan=False)


def test_only_seeds_finished_in_every_arm_count():
    partial = [r for r in RECORDS if (r.trial.alpha, r.trial.seed) != (0.1, 2)]
    comparison = compare(partial, SPEC)
    assert (comparison.seeds, comparison.complete) == ((0, 1, 3, 4), False)
    whole = COMPARISON.arms[1].test_raw["nll"].values
    assert comparison.arms[1].test_raw["nll"].values == whole[:2] + whole[3:]
    assert any("Only 4 of 5 seeds" in s for s in comparison.verdict.sentences)


def test_no_complete_seed_is_an_error_that_says_what_to_do():
    with pytest.raises(InputError, match=r"got '2 of 15 trials'. Run the study's command again"):
        compare(RECORDS[:2], SPEC)


def test_records_of_another_study_are_refused():
    with pytest.raises(InputError, match="records of this study"):
        compare(RECORDS, dataclasses.replace(SPEC, epochs=4))
    with pytest.raises(InputError, match="records of this study"):
        compare(RECORDS, dataclasses.replace(SPEC, seeds=4))


def test_records_scored_on_other_rows_are_refused():
    moved = [*RECORDS[:-1], dataclasses.replace(RECORDS[-1], split="another")]
    with pytest.raises(InputError, match=r"one split.*in a new folder"):
        compare(moved, SPEC)


# --- The choice --------------------------------------------------------------------------------


def held(scale=3.0, apart=0, **columns):
    """Predictions of two classes, by alpha and seed; so many of 100 rows are right.

    The rows that are right begin ``apart`` later from arm to arm.
    """
    found = {}
    for i, (name, shares) in enumerate(columns.items()):
        for seed, share in enumerate(shares):
            right = ((np.arange(100) - i * apart) % 100 < share)[:, None]
            logits = np.where(right, [scale, 0.0], [0.0, scale])
            key = arm(float(name.replace("a", "0."))), seed
            found[key] = Predictions.from_logits(logits, np.zeros(100, int))
    return found


def arm(alpha):
    return Arm("uniform", (alpha,)) if alpha else NONE


def chosen(held, goal):
    """Alphas: what the policy takes, what has the best score, what it takes above 0."""
    choice = choose(held, goal)
    arms = list(choice.raw)
    found = choice.of(arms), choice.lowest(arms), choice.of(arms[1:])
    return tuple(one.alpha for one in found)


def test_the_best_mean_wins_and_of_equals_the_smallest():
    found = chosen(held(a0=[80, 80], a1=[85, 75], a2=[70, 99], a3=[99, 70]), "accuracy")
    assert found == (0.2, 0.2, 0.2)
    found = chosen(held(a0=[80, 80], a1=[80, 80], a2=[80, 80]), "accuracy")
    assert found == (0.0, 0.0, 0.1)


def test_for_probabilities_the_first_within_one_standard_error_is_taken():
    """Two more rows of 100 may be luck; thirty are not."""
    lucky, better = {"a0": [80], "a1": [82]}, {"a0": [50], "a1": [80], "a2": [85]}
    assert chosen(held(apart=10, **lucky), "probabilities") == (0.0, 0.1, 0.1)
    assert chosen(held(apart=10, **better), "probabilities") == (0.1, 0.2, 0.1)
    assert chosen(held(apart=10, **better), "accuracy") == (0.2, 0.2, 0.2)


@pytest.mark.parametrize("goal", GOAL.names)
def test_what_is_unsure_of_itself_is_scaled_before_it_is_compared(goal):
    """Alpha 0.1 is right more often, but far too unsure of itself, which scaling mends."""
    well = held(a0=[60], scale=np.log(4))
    unsure = {(arm(0.1), 0): held(a0=[90], scale=0.1)[NONE, 0]}
    assert chosen(well | unsure, goal)[0] == 0.1


STUDIES = {
    "as told": RECORDS,
    "smoothing helps": [record(t, sharpness=2 + 5 * t.alpha) for t in SPEC.trials()],
    "smoothing harms": [record(t, sharpness=2 - 5 * t.alpha) for t in SPEC.trials()],
    "no difference": [record(t) for t in SPEC.trials()],
}


@pytest.mark.parametrize("goal", GOAL.names)
@pytest.mark.parametrize("name", STUDIES)
def test_verdict_and_advice_are_one_policy(name, goal):
    comparison = compare(STUDIES[name], SPEC, goal)
    validation = {
        alpha: [r.validation for r in STUDIES[name] if r.trial.alpha == alpha]
        for alpha in SPEC.alphas
    }
    named = {one.name: validation[one.alpha] for one in comparison.curve}
    assert comparison.advice == advise(named)
    assert comparison.chosen == comparison.advice[goal].arm
    assert comparison.methods[0].chosen == comparison.rival
    assert comparison.chosen in ("none", comparison.rival)
    if comparison.verdict.decision == "smooth":
        assert f"uniform {comparison.verdict.alpha}" == comparison.advice[goal].arm
    told = comparison.advice["probabilities"]
    if told.temperature is not None:  # and one temperature
        summary = next(one for one in comparison.arms if one.name == told.arm)
        assert told.temperature == pytest.approx(summary.temperature.mean)


@pytest.mark.parametrize("goal", [*GOAL.bad_values(), "distillation", "nll"])
def test_what_is_no_goal_cannot_choose(goal):
    with pytest.raises(InputError, match="goal must be one of 'probabilities', 'accuracy'"):
        compare(RECORDS, SPEC, goal)


@pytest.mark.parametrize("goal", GOAL.names)
def test_the_choice_cannot_see_the_test_set(goal):
    """Whatever the test rows say, alpha, temperatures and validation scores stay."""
    upside_down = [
        dataclasses.replace(r, test=Predictions.from_logits(-50 * r.test.log_probs, r.test.labels))
        for r in RECORDS
    ]
    one, two = compare(RECORDS, SPEC, goal), compare(upside_down, SPEC, goal)
    assert (one.chosen, one.rival, one.lowest) == (two.chosen, two.rival, two.lowest)
    assert one.advice == two.advice
    for before, after in zip(one.arms, two.arms, strict=True):
        assert before.temperature == after.temperature
        assert before.validation_raw == after.validation_raw
        assert before.validation_scaled == after.validation_scaled
        assert before.test_raw["nll"] != after.test_raw["nll"]


def test_the_test_set_is_opened_after_the_choice(monkeypatch):
    made = []

    class Sealed:
        def __init__(self, record):
            self._record = record

        def __getattr__(self, name):
            assert name != "test" or made, "the test set was read before alpha was chosen"
            return getattr(self._record, name)

    def choosing(*arguments):
        made.append(choose(*arguments))
        return made[-1]

    monkeypatch.setattr(comparing, "choose", choosing)
    assert compare([Sealed(r) for r in RECORDS], SPEC).to_dict() == COMPARISON.to_dict()
    assert len(made) == 1


# --- Methods -----------------------------------------------------------------------------------

LEAGUE = dataclasses.replace(
    SPEC, alphas=None, methods=("uniform", "others", "dropout", "human"), settings={"others": [0.1]}
)


def league(better):
    """Records in which every arm is as sharp as ``better`` says, by method."""
    return [
        record(trial, sharpness=2 + better.get(trial.arm.method, 0)) for trial in LEAGUE.trials()
    ]


def test_every_method_gets_its_setting_on_validation_and_a_corrected_p_value():
    records = league({"dropout": 3.0})
    comparison = compare(records, LEAGUE)
    assert [m.name for m in comparison.methods] == ["uniform", "others", "dropout", "human"]
    assert [m.budget for m in comparison.methods] == [5, 1, 5, 1]
    named = {arm.name: arm for arm in comparison.arms}
    for found in comparison.methods:
        held = {n: [r.validation for r in records if r.trial.arm.name == n] for n in found.arms}
        assert found.chosen == advise(held)["probabilities"].arm
        assert found.title == method(found.name).title
    for metric, column in (("accuracy", "raw"), ("nll", "scaled")):
        pairs = [
            [getattr(named[n], f"test_{column}")[metric].values for n in (m.chosen, "none")]
            for m in comparison.methods
        ]
        tests = [scipy.stats.ttest_rel(*pair) for pair in pairs]
        expected = holm([float(test.pvalue) for test in tests])
        found = [m.advantages[metric].p for m in comparison.methods]
        assert found == pytest.approx(expected)
    dropout = comparison.methods[2].advantages["nll"]
    assert dropout.practical > 0.99
    assert comparison.best.startswith("dropout")
    assert comparison.subject == "uniform"
    assert comparison.chosen == "none" or comparison.chosen.startswith("uniform")
    words = " ".join(comparison.verdict.sentences)
    assert "with 5 of uniform, 1 of others, 5 of dropout, 1 of human settings" in words
    assert f"validation preferred {comparison.best}" in words


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p_values):
    """Hypothesis i is rejected at level c if every smaller p passes its own share of c."""
    corrected = holm(p_values)
    n, order = len(p_values), np.argsort(p_values, kind="stable")
    for level in (0.01, 0.05, 0.2, *corrected):
        rejected = set()
        for rank, i in enumerate(order):
            if p_values[i] * (n - rank) > level or level >= 1:
                break
            rejected.add(int(i))
        if level < 1:
            assert {i for i in range(n) if corrected[i] <= level} == rejected


def test_desmoothing_is_the_third_column_where_there_is_something_to_take_back():
    comparison = compare(league({}), LEAGUE)
    for arm in comparison.arms:
        expected = arm.method in ("none", "uniform", "others")
        assert (arm.test_desmoothed is not None) == expected
        assert (arm.difference_desmoothed is not None) == expected
    none, first = comparison.arms[:2]
    assert none.test_desmoothed == none.test_raw
    for seed in comparison.seeds:
        (held,) = [r for r in league({}) if (r.trial.arm.name, r.trial.seed) == (first.name, seed)]
        mended = Desmoothing.fit(held.validation).apply(held.test)
        assert first.test_desmoothed["nll"].values[seed] == score(mended)["nll"]


def test_without_uniform_smoothing_the_best_method_is_judged():
    spec = dataclasses.replace(SPEC, alphas=None, methods=("dropout", "l2"))
    records = [
        record(trial, sharpness=2 + 3 * (trial.arm.method == "l2")) for trial in spec.trials()
    ]
    comparison = compare(records, spec)
    assert comparison.subject == "l2"
    assert comparison.verdict.headline.startswith(f"Use {comparison.chosen}: ")
    assert comparison.verdict.alpha is None
    assert "smooth" not in " ".join((comparison.verdict.headline, *comparison.verdict.sentences))
    comparison = compare(
        [record(t, sharpness=4 - 3 * bool(t.arm.values)) for t in spec.trials()], spec
    )
    assert comparison.verdict.headline.startswith("Do not use ")


def test_each_fold_has_its_own_rows():
    spec = dataclasses.replace(SPEC, folds=2)
    records = [
        dataclasses.replace(record(trial), split=f"fold {trial.fold}") for trial in spec.trials()
    ]
    words = " ".join(compare(records, spec).verdict.sentences)
    assert "on 2 folds of the training data" in words
    with pytest.raises(InputError, match="one split"):
        compare([dataclasses.replace(records[0], split="fold 1"), *records[1:]], spec)
