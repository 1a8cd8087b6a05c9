"""What a study's numbers mean, in words.

The alpha that the policy of :func:`softhot.advice.advise` takes from validation (if it takes none,
what it would take of the others) is held against no smoothing by :mod:`softhot.studies.decision`.
A study without uniform smoothing is judged in the same way, by the method that did best on
validation; a study of several methods also says how they rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softhot.calibration import TEMPERATURE
from softhot.studies.decision import (
    ADVISED,
    FEWEST,
    WORTH,
    Decision,
    Reading,
    decide,
    judged,
    read,
    seeds_to_settle,
)

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Estimate, MethodSummary

LIMITS = {  # of T, and what mostly lets it end there
    TEMPERATURE.low: "the logits are small and yet mostly right, as after very few passes. Train "
    "longer; if that changes nothing, use more validation rows.",
    TEMPERATURE.high: "almost equal probabilities fit validation best, as where the logits are "
    "huge or the model has learnt nothing. Check labels and learning rate, or train shorter.",
}


@dataclass(frozen=True)
class Verdict:
    """Whether to smooth, in words with numbers.

    Attributes:
        decision: The answer; of a method other than uniform smoothing "smooth" reads "use it".
        headline: The answer and its main reason, one sentence.
        alpha: What to train with: the chosen alpha if the decision is "smooth", else 0; None where
            another method is to be used.
        sentences: How much, what is gained, what it costs, what to do about it, how sure this is,
            and alerts, if any.
        seeds_needed: About how many seeds would settle what is open; None if nothing is.
    """

    decision: Decision
    headline: str
    alpha: float | None
    sentences: tuple[str, ...]
    seeds_needed: int | None


def judge(
    arms: Sequence[ArmSummary],
    *,
    chosen: str,
    rival: str,
    lowest: str,
    goal: str,
    planned: int,
    rows: int,
    folds: int = 1,
    methods: Sequence[tuple[MethodSummary, ArmSummary]] = (),
    best: str = "",
) -> Verdict:
    """The verdict on the arms of a comparison.

    Args:
        arms: "none", and the arms of the method that is judged, in order of alpha.
        chosen, rival, lowest, goal: As in ``Comparison``.
        planned: Seeds of the study; the arms may hold fewer.
        rows: Test rows.
        folds: Folds of the study.
        methods: Every method with its chosen arm.
        best: The arm that is best on validation, of all methods.
    """
    none, arm = arms[0], _named(arms, rival)
    differences = judged(arm)
    readings = {metric: read(metric, d) for metric, d in differences.items()}
    still_open = [metric for metric in readings if readings[metric] == "open"]
    seeds = len(none.temperature.values)
    if seeds < FEWEST:
        decision: Decision = "more seeds needed"
        needed: int | None = ADVISED
    else:
        decision = decide(
            readings, smoothed=chosen == rival, by="accuracy" if goal == "accuracy" else "nll"
        )
        settle = [seeds_to_settle(metric, differences[metric].values) for metric in still_open]
        needed = max(settle, default=None)
    sentences = [
        _choice(arms, chosen, rival, lowest, goal),
        _gain(none, arm, seeds),
        *(_less(arms, arm) if decision == "smooth" and arm.alpha else ()),
        *_costs(none, arm),
        *_remedies(none, arm, decision),
        _certainty(none, seeds, rows, folds),
        *(_ranking(methods, best, none) if len(methods) > 1 else ()),
    ]
    if needed and "smooth" in decision:
        what = " and of ".join(NAMES[metric] for metric in still_open)
        sentences.append(f"The change of {what} is still open; about {needed} seeds would tell.")
    return Verdict(
        decision,
        _headline(decision, readings, differences, arm, chosen, goal, needed),
        arm.alpha if decision == "smooth" else 0.0,
        (*sentences, *_alerts(arms, chosen, rival, seeds, planned)),
        needed,
    )


# --- Sentences ---------------------------------------------------------------------------------

NAMES = {"accuracy": "accuracy", "nll": "NLL after scaling"}
JUDGED_BY = {
    "probabilities": "NLL after scaling",
    "accuracy": "Brier score after scaling",
    "ranking": "area under the risk-coverage curve",
}
UNITS = {"accuracy": (100, 2, " points"), "nll": (1, 3, " nats"), "aurc": (1, 4, "")}


def _headline(
    decision: Decision,
    readings: dict[str, Reading],
    differences: dict[str, Estimate],
    arm: ArmSummary,
    chosen: str,
    goal: str,
    needed: int | None,
) -> str:
    def say(*wanted: Reading) -> str:
        return " and ".join(
            f"{NAMES[metric]} {_change(metric, differences[metric], label='95 % interval ')}"
            for metric in readings
            if readings[metric] in wanted
        )

    alpha = f"with {_setting(arm)}"
    no = "Do not smooth" if arm.alpha is not None else f"Do not use {arm.method}"
    gains, losses = say("better"), say("worse")
    if decision == "smooth":
        use = f"Smooth, {alpha}" if arm.alpha is not None else f"Use {arm.name}"
        return f"{use}: {gains}{f', although {losses}' if losses else ''}."
    if decision == "do not smooth" and losses:
        which = "the choice of validation" if chosen == arm.name else _second(arm)
        return f"{no}: {alpha}, {which}, {losses}{f', although {gains}' if gains else ''}."
    if decision == "do not smooth":
        return (
            f"{no}: on validation no {_knob(arm)} clearly improved {JUDGED_BY[goal]}. But on test, "
            f"{alpha}, {_second(arm)}, {gains}."
        )
    seeds = len(arm.temperature.values)
    if seeds < FEWEST:
        return (
            f"More seeds are needed, about {needed}: {_count(seeds, 'seed')} cannot tell an effect "
            f"from luck. So far, {alpha}, {say('open')}."
        )
    if decision == "more seeds needed":
        return f"More seeds are needed, about {needed}: {alpha}, so far, {say('open', 'same')}."
    found = any(_direction(difference) for difference in differences.values())
    what = "No difference worth having" if found else "No detectable difference"
    return f"{what}: {alpha}, {say('same')}."


def _choice(arms: Sequence[ArmSummary], chosen: str, rival: str, lowest: str, goal: str) -> str:
    """What validation chose, and why not the arm with the best score if that is another."""
    best, top = _named(arms, rival), _named(arms, lowest)
    smoothing, only = best.alpha is not None, len(arms) == 2
    tried = f"of {len(arms) - 1}"
    if smoothing:
        tried += f" between {arms[1].alpha} and {arms[-1].alpha}"
    by = f"Validation, judged by {JUDGED_BY[goal]},"
    if chosen != rival:
        if top is not arms[0]:
            return (
                f"{by} chose {_without(best)}: it comes within one standard error of the best "
                f"{_knob(best)} {tried}, {_value(top)}."
            )
        over = f"every {_knob(best)} {tried}"
        return f"{by} preferred {_without(best)} to {_setting(best) if only else over}."
    chose = f"{by} chose {_setting(best)}"
    first = "smallest" if smoothing else "first"
    if top is not best:
        return f"{chose}, the {first} {tried} within one standard error of the best, {_value(top)}."
    chose += ", the only one" if only else f", the best {tried}"
    if goal != "probabilities":
        return f"{chose}."
    if only or not smoothing:
        return f"{chose}; {_without(best)} does not come within one standard error of it."
    return f"{chose}; no smaller one, 0 included, comes within one standard error of it."


def _gain(none: ArmSummary, arm: ArmSummary, seeds: int) -> str:
    return (
        f"On test, on average over {_count(seeds, 'seed')}, accuracy is "
        f"{_percent(arm.test_raw['accuracy'])} with {_setting(arm)} and "
        f"{_percent(none.test_raw['accuracy'])} {_without(arm, 'without')}; NLL after scaling is "
        f"{arm.test_scaled['nll'].mean:.3f} and {none.test_scaled['nll'].mean:.3f} nats."
    )


def _less(arms: Sequence[ArmSummary], arm: ArmSummary) -> Iterable[str]:
    """The smallest alpha that is as good on test by both readings, if there is a smaller one."""
    wanted = {metric: read(metric, d) for metric, d in judged(arm).items()}
    for other in arms[1 : arms.index(arm)]:
        differences = judged(other)
        if all(read(metric, d) == wanted[metric] for metric, d in differences.items()):
            gains = " and ".join(f"{NAMES[m]} {_change(m, d)}" for m, d in differences.items())
            raw = _change("nll", other.difference_raw["nll"])
            yield (
                f"Less may do: with alpha = {other.alpha}, {gains}, while before scaling NLL {raw}."
            )
            return


def _costs(none: ArmSummary, arm: ArmSummary) -> list[str]:
    nll, aurc = arm.difference_raw["nll"], arm.difference_raw["aurc"]
    before = "The cost: before" if _direction(nll) > 0 else "Before"
    rest = {
        1: "expect more mistakes among the rest",
        -1: "expect fewer mistakes among the rest",
        0: "no clear difference in mistakes among the rest",
    }
    return [
        f"{before} scaling, NLL {_change('nll', nll)}, and the model is {_bias(arm)} (mean "
        f"confidence {_percent(arm.test_raw['confidence'])}); {_without(arm, 'without')} it is "
        f"{_bias(none)}.",
        f"If you set the least confident answers aside, {rest[_direction(aurc)]}: "
        f"the area under the risk-coverage curve {_change('aurc', aurc)}.",
    ]


def _remedies(none: ArmSummary, arm: ArmSummary, decision: Decision) -> list[str]:
    """What to do about the probabilities of the arm that is advised, or of both."""
    if decision == "smooth":
        return [_remedy(arm)]
    return [_remedy(none)] if decision == "do not smooth" else [_remedy(none), _remedy(arm)]


def _remedy(arm: ArmSummary) -> str:
    fits = arm.temperature.values
    span = f", {min(fits):.2f} to {max(fits):.2f} over the seeds" if len(fits) > 1 else ""
    t = f"T = {arm.temperature.mean:.2f}"
    before, after = arm.test_raw["nll"].mean, arm.test_scaled["nll"].mean
    if abs(before - after) < WORTH["nll"]:
        return (
            f"{_with(arm)}, no rescaling is needed: {t} (fitted on validation{span}) would change "
            f"NLL on test by less than {WORTH['nll']} nats."
        )
    moves = f"NLL on test from {before:.3f} to {after:.3f} nats"
    if after > before:
        return (
            f"{_with(arm)}, do not rescale: {t}, fitted on validation{span}, raises {moves}. More "
            "validation rows would give a better T."
        )
    return (
        f"{_with(arm)}, rescale with {t} before you use the probabilities: divide the logits by "
        f"it. Fitted on validation{span}, it lowers {moves}."
    )


def _ranking(
    methods: Sequence[tuple[MethodSummary, ArmSummary]], best: str, none: ArmSummary
) -> Iterable[str]:
    """How the methods rank, and what stands after correction for their number."""
    tried = {method.budget for method, arm in methods if arm.values} or {1}
    if len(tried) == 1:
        budget = f"at equal tuning budget ({_count(max(tried), 'setting')} each)"
    else:
        budgets = ", ".join(f"{method.budget} of {method.name}" for method, _ in methods)
        budget = f"with {budgets} settings to choose from, which favours those with more"
    preferred = best if best != none.name else "none of them to plain cross entropy"
    yield f"Of {len(methods)} methods, {budget}, validation preferred {preferred}."
    for metric, name in NAMES.items():
        sure = [
            f"{arm.name} ({_change(metric, method.advantages[metric].difference)})"
            for method, arm in methods
            if (p := method.advantages[metric].p) is not None
            and p < 0.05
            and _gains(metric, method.advantages[metric].difference)
        ]
        found = ", ".join(sure) if sure else "none"
        yield (
            f"Better than plain cross entropy in {name} on test, after Holm's correction for "
            f"{len(methods)} methods: {found}."
        )


def _gains(metric: str, difference: Estimate) -> bool:
    return difference.mean > 0 if metric == "accuracy" else difference.mean < 0


def _certainty(none: ArmSummary, seeds: int, rows: int, folds: int) -> str:
    share = none.test_raw["accuracy"].mean
    noise = 100 * 1.96 * math.sqrt(share * (1 - share) / rows)
    chance = f"any single accuracy is uncertain by about {noise:.1f} points for the choice of these"
    chance += " rows alone."
    if share == 1:
        least = 100 * 0.05 ** (1 / rows)  # with it, so many rows without a mistake have 5 % chance
        chance = (
            f"all predicted correctly, accuracy on new rows may still be {least:.1f} %: more or "
        )
        chance += "harder rows are needed to tell arms apart."
    where, other = "one and the same split of the data", "another split"
    if folds > 1:
        where, other = f"{folds} folds of the training data", "other test rows"
    luck = f"initial weights and the order of batches, on {where}"
    if seeds < FEWEST:
        known = f"not at all yet; {_count(seeds, 'seed')} cannot show how much is luck in {luck}."
    else:
        known = (
            f"the 95 % intervals show how much is luck in {luck}, over {seeds} seeds. They do not "
            f"say what {other} or new data would show."
        )
    return f"How sure: {known} With {rows:,} test rows, {chance}"


def _alerts(
    arms: Sequence[ArmSummary], chosen: str, rival: str, seeds: int, planned: int
) -> Iterable[str]:
    if seeds < planned:
        yield f"Only {seeds} of {planned} seeds are finished; the others may change this."
    if chosen == arms[-1].name and arms[-1].alpha:
        yield f"{arms[-1].alpha} is the largest alpha tried: try larger ones too."
    for arm in (arms[0], _named(arms, rival)):
        for limit, why in LIMITS.items():
            if limit in arm.temperature.values:
                yield (
                    f"{_with(arm)}, T ended at the limit of its range, {limit:g}, for at least one "
                    f"seed, and means little: {why}"
                )


def _change(metric: str, difference: Estimate, label: str = "") -> str:
    """``rises by 0.93 points (0.61 to 1.25)``; ``changes by ...`` if that may be luck."""
    factor, digits, unit = UNITS[metric]
    direction = _direction(difference)
    verb = {1: "rises", -1: "falls", 0: "changes"}[direction]
    # The sign is in the verb, if there is one; then the ends of the interval change places.
    numbers = [d for d in (difference.mean, difference.low, difference.high) if d is not None]
    mean, *ends = _numbers([factor * (direction or 1) * d for d in numbers], digits, not direction)
    span = f" ({label}{' to '.join(ends[::-1] if direction < 0 else ends)})" if ends else ""
    return f"{verb} by {mean}{unit}{span}"


def _numbers(values: Sequence[float], digits: int, sign: bool) -> list[str]:
    """``values`` with ``digits`` decimals, or up to three more if one would be a false zero."""
    for decimals in range(digits, digits + 4):
        if all(round(value, decimals) for value in values if value):
            break
    told = [f"{round(value, decimals) + 0.0:{'+' if sign else ''}.{decimals}f}" for value in values]
    return [number.replace("-", "−") for number in told]


def _direction(difference: Estimate) -> int:
    """1 or -1 if the whole interval is on that side of 0, else 0."""
    if difference.low is None or difference.high is None:
        return 0
    return int(difference.low > 0) - int(difference.high < 0)


def _bias(arm: ArmSummary) -> str:
    gap = 100 * arm.test_raw["gap"].mean
    if abs(gap) < 0.05:
        return "as confident as it is accurate"
    return f"{'over' if gap > 0 else 'under'}confident by {abs(gap):.1f} points"


def _named(arms: Sequence[ArmSummary], name: str) -> ArmSummary:
    return next(arm for arm in arms if arm.name == name)


def _with(arm: ArmSummary) -> str:
    return "Without smoothing" if arm.alpha == 0 else f"With {_setting(arm)}"


def _setting(arm: ArmSummary) -> str:
    """``alpha = 0.1``, or the name of an arm of another method."""
    return arm.name if arm.alpha is None else f"alpha = {arm.alpha}"


def _second(arm: ArmSummary) -> str:
    """What the arm is where validation chose none."""
    return f"validation's choice among {_knob(arm)}s"


def _value(arm: ArmSummary) -> str:
    """``0.1``, or the name of an arm of another method."""
    return arm.name if arm.alpha is None else f"{arm.alpha}"


def _without(arm: ArmSummary, prefix: str = "no") -> str:
    """No smoothing, or plain training where another method is judged."""
    if arm.alpha is None:
        return "plain cross entropy" if prefix == "no" else "with plain cross entropy"
    return f"{prefix} smoothing"


def _knob(arm: ArmSummary) -> str:
    return "setting" if arm.alpha is None else "alpha"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
