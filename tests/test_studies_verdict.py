"""Every answer of the verdict, from records made for it."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nct, t

from softhot.metrics import METRICS
from softhot.studies import Estimate
from softhot.studies.compare import GOAL, ArmSummary
from softhot.studies.decision import WORTH, decide, read, seeds_to_settle
from softhot.studies.verdict import JUDGED_BY, _certainty, judge

SPREAD = np.array([-1, -0.5, 0, 0.5, 1, 0.2, -0.2, 0.7, -0.7, 0])
BASE = {
    "accuracy": 0.96,
    "nll": 0.2,
    "brier": 0.1,
    "ece": 0.02,
    "ece_mass": 0.02,
    "gap": 0.02,
    "confidence": 0.98,
    "aurc": 0.005,
}


def around(mean, spread, seeds=10):
    """Ten numbers (or fewer) of that mean."""
    values = SPREAD[:seeds] - SPREAD[:seeds].mean()
    return Estimate.of(mean + spread * values)


def arm(alpha, *, seeds=10, spread=0.001, scaled=(0.0, 0.001), temperature=0.41, **raw):
    """An arm whose test scores differ from those of "none" by ``raw``, give or take ``spread``.

    ``scaled`` is the difference of NLL after scaling and its spread. Where ``raw`` holds a pair,
    it is a difference with a spread of its own.
    """
    pairs = {m: raw.get(m, 0.0) for m in METRICS}
    pairs = {m: d if isinstance(d, tuple) else (d, spread) for m, d in pairs.items()}
    if alpha == 0:
        pairs = dict.fromkeys(METRICS, (0.0, 0.0))
    difference = {m: around(*pair, seeds) for m, pair in pairs.items()}
    levels = {m: around(BASE[m] + pairs[m][0], 0.001, seeds) for m in METRICS}
    after = {**levels, "nll": around(0.12 + scaled[0], 0.001, seeds)}
    return ArmSummary(
        name=f"uniform {alpha}" if alpha else "none",
        alpha=alpha,
        temperature=around(temperature, 0.01, seeds),
        validation_raw=levels,
        validation_scaled=after,
        test_raw=levels,
        test_scaled=after,
        difference_raw=difference,
        difference_scaled={**difference, "nll": around(*scaled, seeds)},
    )


def verdict(*arms, chosen=None, lowest=None, goal="probabilities", planned=None, seeds=10):
    """The verdict on these arms and "none"; validation chose the first."""
    none = arm(0.0, seeds=seeds, temperature=1.4)
    chosen = chosen or arms[0].name
    return judge(
        (none, *arms),
        chosen=chosen,
        rival=arms[0].name if chosen == "none" else chosen,
        lowest=lowest or chosen,
        goal=goal,
        planned=planned or seeds,
        rows=897,
    )


BETTER = {"accuracy": 0.0093, "scaled": (-0.032, 0.01), "nll": 0.099, "gap": -0.161}
GOOD = arm(0.1, confidence=-0.146, aurc=-0.0013, **BETTER)
LARGER = arm(0.2)


def text(found):
    return " ".join([found.headline, *found.sentences])


# --- Decisions ---------------------------------------------------------------------------------

ACCURACY = {
    "better": (0.01, 0.001),
    "worse": (-0.01, 0.001),
    "same": (0.0002, 0.001),
    "open": (0.002, 0.02),
}
NLL = {
    "better": (-0.03, 0.001),
    "worse": (0.03, 0.001),
    "same": (-0.0002, 0.001),
    "open": (0.002, 0.04),
}


@pytest.mark.parametrize(
    ("accuracy", "nll", "decision"),
    [
        ("better", "better", "smooth"),
        ("better", "same", "smooth"),
        ("better", "open", "smooth"),
        ("same", "better", "smooth"),
        ("open", "better", "smooth"),
        ("worse", "worse", "do not smooth"),
        ("worse", "same", "do not smooth"),
        ("worse", "open", "do not smooth"),
        ("same", "worse", "do not smooth"),
        ("open", "worse", "do not smooth"),
        ("better", "worse", "do not smooth"),  # NLL chose
        ("worse", "better", "smooth"),
        ("same", "same", "no detectable difference"),
        ("same", "open", "more seeds needed"),
        ("open", "same", "more seeds needed"),
        ("open", "open", "more seeds needed"),
    ],
)
def test_every_pair_of_readings(accuracy, nll, decision):
    found_arm = arm(0.1, accuracy=ACCURACY[accuracy], scaled=NLL[nll])
    assert read("accuracy", found_arm.difference_raw["accuracy"]) == accuracy
    assert read("nll", found_arm.difference_scaled["nll"]) == nll
    found = verdict(found_arm, LARGER)
    assert found.decision == decision
    assert found.alpha == (0.1 if decision == "smooth" else 0.0)
    is_open = "open" in (accuracy, nll)
    assert (found.seeds_needed is not None) == is_open
    assert ("still open" in text(found)) == (is_open and decision.endswith("smooth"))
    starts = {
        "smooth": "Smooth, with alpha = 0.1: ",
        "do not smooth": "Do not smooth: with alpha = 0.1, the choice of validation, ",
        "no detectable difference": "No detectable difference: with alpha = 0.1, ",
        "more seeds needed": f"More seeds are needed, about {found.seeds_needed}: ",
    }
    assert found.headline.startswith(starts[decision])


def test_a_trade_is_decided_by_the_metric_that_chose_and_says_both():
    trade = arm(0.1, accuracy=ACCURACY["better"], scaled=NLL["worse"])
    by_accuracy, by_nll = (verdict(trade, LARGER, goal=g) for g in ("accuracy", "probabilities"))
    assert (by_accuracy.decision, by_nll.decision) == ("smooth", "do not smooth")
    assert "accuracy rises by 1.00 points" in by_accuracy.headline
    assert ", although NLL after scaling rises by 0.030 nats" in by_accuracy.headline
    assert ", although accuracy rises by 1.00 points" in by_nll.headline


@pytest.mark.parametrize(
    ("accuracy", "nll", "decision"),
    [
        ("better", "same", "do not smooth"),
        ("worse", "same", "do not smooth"),
        ("same", "same", "no detectable difference"),
        ("same", "open", "more seeds needed"),
    ],
)
def test_where_validation_chose_none_the_test_set_cannot_overrule_it(accuracy, nll, decision):
    found = verdict(arm(0.1, accuracy=ACCURACY[accuracy], scaled=NLL[nll]), LARGER, chosen="none")
    assert (found.decision, found.alpha) == (decision, 0.0)
    assert "preferred no smoothing to every alpha of 2 between 0.1 and 0.2." in found.sentences[0]
    if accuracy == "better":
        assert found.headline.startswith(
            "Do not smooth: on validation no alpha clearly improved NLL after scaling. But on "
            "test, with alpha = 0.1, validation's choice among alphas, accuracy rises by 1.00 "
        )
    assert "is the largest alpha tried" not in text(found)


def test_a_difference_too_small_to_matter_is_not_called_undetectable():
    found = verdict(arm(0.1, accuracy=(0.002, 0.0005), scaled=NLL["same"]), LARGER)
    assert found.decision == "no detectable difference"
    assert found.headline.startswith(
        "No difference worth having: with alpha = 0.1, accuracy rises by 0.20 points (95 % "
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_are_never_a_verdict(seeds):
    few = arm(0.1, accuracy=0.5, seeds=seeds)
    found = verdict(few, arm(0.2, seeds=seeds), seeds=seeds)
    assert (found.decision, found.alpha, found.seeds_needed) == ("more seeds needed", 0.0, 10)
    assert "cannot tell an effect from luck" in found.headline
    assert "accuracy changes by +50.00 points" in found.headline
    assert "interval" not in text(found)
    assert "How sure: not at all yet" in text(found)


# --- How many seeds ----------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.2, 0.3, 0.5, 0.8, 1.2, 2.0])
def test_seeds_needed_give_80_percent_power(effect):
    """Against the exact power of the paired t-test, from the noncentral t distribution."""
    values = np.array([-1.0, 0, 1]) / np.std([-1, 0, 1], ddof=1)  # mean 0, deviation 1
    found = seeds_to_settle("accuracy", values * WORTH["accuracy"] / effect)

    def power(n):
        return nct.sf(t.ppf(0.975, n - 1), n - 1, effect * np.sqrt(n))

    exact = next(n for n in range(2, 1000) if power(n) >= 0.8)
    assert exact - 1 <= found <= (exact + 1 if exact < 98 else exact + 10)


def test_seeds_needed_by_hand():
    # Mean 0.006 > 0.0025, deviation 0.012: delta / s = 0.5. Textbook: 34 pairs at 80 % power.
    values = 0.006 + 0.012 * np.array([-1.0, 0, 1])
    assert seeds_to_settle("accuracy", values) in (33, 34)
    # Mean 0.001: told from the half point more easily than from 0, delta = 0.004.
    values = 0.001 + 0.008 * np.array([-1.0, 0, 1])
    assert seeds_to_settle("accuracy", values) in (33, 34)


@given(st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=40), st.sampled_from(list(WORTH)))
def test_what_is_open_always_needs_more_seeds_than_there_are(values, metric):
    if read(metric, Estimate.of(values)) == "open":
        assert seeds_to_settle(metric, values) > len(values)


def test_without_any_effect_better_is_rare():
    random = np.random.default_rng(0)
    draws = random.normal(0, 0.02, (2000, 10))
    share = np.mean([read("accuracy", Estimate.of(row)) == "better" for row in draws])
    assert share < 0.035  # 0.025 and three standard errors


# --- Words -------------------------------------------------------------------------------------


def test_the_whole_text_of_a_plain_case():
    found = verdict(arm(0.05, accuracy=0.001), GOOD, LARGER, chosen="uniform 0.1")
    assert found.headline == (
        "Smooth, with alpha = 0.1: accuracy rises by 0.93 points (95 % interval 0.89 to 0.97) and "
        "NLL after scaling falls by 0.032 nats (95 % interval 0.028 to 0.036)."
    )
    assert found.sentences == (
        "Validation, judged by NLL after scaling, chose alpha = 0.1, the best of 3 between 0.05 "
        "and 0.2; no smaller one, 0 included, comes within one standard error of it.",
        "On test, on average over 10 seeds, accuracy is 96.9 % with alpha = 0.1 and 96.0 % without "
        "smoothing; NLL after scaling is 0.088 and 0.120 nats.",
        "The cost: before scaling, NLL rises by 0.099 nats (0.099 to 0.099), and the model is "
        "underconfident by 14.1 points (mean confidence 83.4 %); without smoothing it is "
        "overconfident by 2.0 points.",
        "If you set the least confident answers aside, expect fewer mistakes among the rest: the "
        "area under the risk-coverage curve falls by 0.0013 (0.0009 to 0.0017).",
        "With alpha = 0.1, rescale with T = 0.41 before you use the probabilities: divide the "
        "logits by it. Fitted on validation, 0.40 to 0.42 over the seeds, it lowers NLL on test "
        "from 0.299 to 0.088 nats.",
        "How sure: the 95 % intervals show how much is luck in initial weights and the order of "
        "batches, on one and the same split of the data, over 10 seeds. They do not say what "
        "another split or new data would show. With 897 test rows, any single accuracy is "
        "uncertain by about 1.3 points for the choice of these rows alone.",
    )


def test_the_choice_of_one_standard_error_is_told():
    small = arm(0.05)
    same = verdict(small, GOOD, LARGER, chosen=GOOD.name)
    assert "no smaller one, 0 included, comes within one standard error" in same.sentences[0]
    smaller = verdict(small, GOOD, LARGER, chosen=GOOD.name, lowest=LARGER.name)
    assert "chose alpha = 0.1, the smallest of 3 between" in smaller.sentences[0]
    assert "within one standard error of the best, 0.2." in smaller.sentences[0]
    none = verdict(small, GOOD, LARGER, chosen="none", lowest=GOOD.name)
    assert "chose no smoothing: it comes within one standard error of" in none.sentences[0]
    plain = verdict(small, GOOD, LARGER, chosen=GOOD.name, goal="accuracy")
    assert plain.sentences[0].endswith("chose alpha = 0.1, the best of 3 between 0.05 and 0.2.")


def test_one_alpha_is_not_called_the_best_of_one():
    found = verdict(GOOD, chosen=GOOD.name)
    assert "chose alpha = 0.1, the only one; " in found.sentences[0]
    found = verdict(GOOD, chosen="none")
    assert "preferred no smoothing to alpha = 0.1." in found.sentences[0]


def test_a_smaller_alpha_that_does_as_well_is_named():
    smaller = arm(0.05, accuracy=0.008, scaled=(-0.03, 0.01), nll=-0.01)
    found = verdict(smaller, GOOD, LARGER, chosen=GOOD.name)
    assert found.alpha == 0.1
    assert found.sentences[2].startswith("Less may do: with alpha = 0.05, accuracy rises by 0.80")
    assert "while before scaling NLL falls by 0.010 nats" in found.sentences[2]
    assert "Less may do" not in text(verdict(arm(0.05), GOOD, chosen=GOOD.name))
    assert "Less may do" not in text(verdict(smaller, LARGER, chosen="none"))


def test_costs_that_are_none_are_not_called_costs():
    cheap = arm(0.1, accuracy=0.01, nll=-0.05, aurc=0.002)
    found = verdict(cheap, LARGER)
    assert "Before scaling, NLL falls by 0.050 nats" in text(found)
    assert "The cost" not in text(found)
    assert "expect more mistakes among the rest" in text(found)
    unclear = verdict(arm(0.1, accuracy=0.01, nll=(0.001, 0.1), aurc=(0, 0.1)), LARGER)
    assert re.search(r"Before scaling, NLL changes by \+0.001 nats \(−0\.\d+ to \+", text(unclear))
    assert "no clear difference in mistakes among the rest" in text(unclear)


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (-0.161, "underconfident by 14.1 points"),
        (0.01, "overconfident by 3.0 points"),
        (-0.02, "as confident as it is accurate"),
    ],
)
def test_bias_of_confidence_in_words(gap, words):
    assert words in text(verdict(arm(0.1, accuracy=0.01, gap=gap), LARGER))


def test_the_remedy_is_for_the_arm_that_is_advised():
    rescale = "rescale with T = {:.2f} before you use the probabilities"
    smooth = text(verdict(GOOD, LARGER))
    assert f"With alpha = 0.1, {rescale.format(0.41)}" in smooth
    assert "Without smoothing, rescale" not in smooth
    bad = text(verdict(arm(0.1, accuracy=-0.01), LARGER))
    assert f"Without smoothing, {rescale.format(1.4)}" in bad
    assert "With alpha = 0.1, rescale" not in bad
    undecided = text(verdict(arm(0.1), LARGER))
    assert f"Without smoothing, {rescale.format(1.4)}" in undecided
    assert f"With alpha = 0.1, {rescale.format(0.41)}" in undecided


def test_rescaling_is_advised_only_where_it_helps():
    fine = arm(0.1, accuracy=0.01, nll=-0.08, temperature=1.02)  # 0.120 before and after
    assert "With alpha = 0.1, no rescaling is needed: T = 1.02" in text(verdict(fine, LARGER))
    harmful = arm(0.1, accuracy=0.01, nll=-0.15)  # 0.050 before, 0.120 after
    found = text(verdict(harmful, LARGER))
    assert "With alpha = 0.1, do not rescale: T = 0.41" in found
    assert "raises NLL on test from 0.050 to 0.120 nats" in found


def test_alerts():
    assert "0.1 is the largest alpha tried: try larger ones too." in text(verdict(GOOD))
    assert "largest" not in text(verdict(GOOD, LARGER))
    assert "Only 10 of 12 seeds are finished" in text(verdict(GOOD, LARGER, planned=12))
    assert "Only" not in text(verdict(GOOD, LARGER))
    stuck = arm(0.1, temperature=0.05)
    object.__setattr__(stuck, "temperature", Estimate.of([0.05] + [0.3] * 9))
    found = text(verdict(stuck, LARGER))
    assert "With alpha = 0.1, T ended at the limit of its range, 0.05, for at least one" in found
    assert "after very few passes" in found
    assert "huge" not in found


def test_no_mistake_in_few_rows_is_no_certainty():
    perfect = arm(0.0, accuracy=1.0)
    object.__setattr__(
        perfect, "test_raw", {**perfect.test_raw, "accuracy": Estimate.of([1.0] * 9)}
    )
    assert "accuracy on new rows may still be" in _certainty(perfect, 9, 12, 1)
    assert "77.9 %" in _certainty(perfect, 9, 12, 1)


def test_how_sure_speaks_of_training_luck_and_of_the_one_split():
    sure = next(s for s in verdict(GOOD, LARGER).sentences if s.startswith("How sure"))
    assert "initial weights and the order of batches" in sure
    assert "one and the same split" in sure
    assert "do not say what another split or new data would show" in sure


def test_every_metric_that_can_choose_has_a_name():
    assert set(JUDGED_BY) == set(GOAL.names)


def test_decide_has_no_other_answers():
    readings = ("better", "worse", "same", "open")
    answers = {
        decide({"accuracy": a, "nll": n}, smoothed=s, by=by)
        for a in readings
        for n in readings
        for s in (True, False)
        for by in WORTH
    }
    expected = {"smooth", "do not smooth", "no detectable difference", "more seeds needed"}
    assert answers == expected


number = st.floats(-0.05, 0.05)
spread = st.floats(0, 0.05)


@settings(max_examples=200)
@given(
    accuracy=st.tuples(number, spread),
    scaled=st.tuples(number, spread),
    nll=number,
    aurc=st.floats(-1e-5, 1e-5),
    gap=number,
    seeds=st.integers(1, 10),
    chosen=st.sampled_from(["none", "uniform 0.1"]),
    goal=st.sampled_from(GOAL.names),
)
def test_any_numbers_make_whole_sentences(accuracy, scaled, nll, aurc, gap, seeds, chosen, goal):
    made = arm(0.1, accuracy=accuracy, scaled=scaled, nll=nll, aurc=aurc, gap=gap, seeds=seeds)
    found = verdict(made, arm(0.2, seeds=seeds), chosen=chosen, goal=goal, seeds=seeds)
    for sentence in (found.headline, *found.sentences):
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
        assert not re.search(r"nan|None|inf\b|  |e-\d|\(\)|: \.|-0\.0+\b(?!\d)", sentence), sentence
    assert (found.decision == "smooth") == (found.alpha == 0.1)
    if found.decision == "more seeds needed":
        assert found.seeds_needed > seeds
