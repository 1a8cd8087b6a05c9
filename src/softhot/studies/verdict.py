"""What a study's numbers mean: one policy, in words.

The alpha that validation chose (if it chose none, the best of the others) is compared with no
smoothing on test rows by two paired differences: accuracy, and NLL after temperature scaling.
Each is read off its 95 % interval and the smallest difference worth having (:data:`WORTH`):

======  ==========================================================================
same    the whole interval is closer to 0 than what is worth having
better  not that, and the whole interval is on the good side of 0
worse   not that, and the whole interval is on the bad side of 0
open    0 and a difference worth having are both inside the interval
======  ==========================================================================

==========================  ======================================================
smooth                      something is better, nothing worse
do not smooth               something is worse, nothing better; or validation chose
                            no smoothing, and the test does not show it to be open
                            or the same
no detectable difference    both are the same
more seeds needed           otherwise; and whenever there are fewer than 3 seeds
==========================  ======================================================

If one is better and the other worse, the metric that chose alpha decides: accuracy if it was
accuracy, else NLL. Test rows never change which alpha it is. Under no effect at all, each of the
two readings says "better" by chance once in 40 studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from softhot.calibration import TEMPERATURE

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Estimate

Decision = Literal["smooth", "do not smooth", "no detectable difference", "more seeds needed"]
Reading = Literal["better", "worse", "same", "open"]

WORTH = {"accuracy": 0.005, "nll": 0.01}  # half a point; a hundredth of a nat
POWER = 0.8
ADVISED = 10  # seeds, where there are too few for an interval

SELECTED_BY = {
    "accuracy": "accuracy",
    "nll": "NLL after scaling",
    "brier": "Brier score after scaling",
    "ece": "calibration error",
    "ece_mass": "calibration error in bins of equal mass",
    "gap": "the gap between confidence and accuracy",
    "aurc": "area under the risk-coverage curve",
}


@dataclass(frozen=True)
class Verdict:
    """Whether to smooth, in words with numbers.

    Attributes:
        decision: The answer.
        headline: The answer and its main reason, one sentence.
        alpha: What to train with: the chosen alpha if the decision is "smooth", else 0.
        sentences: How much, what is gained, what it costs, what to do about it, how sure this is,
            and alerts, if any.
        seeds_needed: About how many seeds would settle what is open; None if nothing is.
    """

    decision: Decision
    headline: str
    alpha: float
    sentences: tuple[str, ...]
    seeds_needed: int | None


def judge(
    arms: Sequence[ArmSummary],
    *,
    chosen: str,
    one_se: str,
    rival: str,
    select: str,
    planned: int,
    rows: int,
) -> Verdict:
    """The verdict on the arms of a comparison.

    Args:
        arms: In order of alpha, "none" first.
        chosen, one_se: As in ``Comparison``.
        rival: The best arm on validation but for "none".
        select: The metric that chose.
        planned: Seeds of the study; the arms may hold fewer.
        rows: Test rows.
    """
    none, arm = arms[0], next(a for a in arms if a.name == rival)
    smoothed = chosen == rival
    seeds = len(none.temperature.values)
    differences = {
        "accuracy": arm.difference_raw["accuracy"],
        "nll": arm.difference_scaled["nll"],
    }
    if seeds < 3:
        decision: Decision = "more seeds needed"
        needed: int | None = ADVISED
        headline = (
            f"More seeds are needed, about {ADVISED}: {_count(seeds, 'seed')} "
            f"{'gives' if seeds == 1 else 'give'} no interval, so nothing here tells an effect "
            "from luck."
        )
    else:
        readings = {name: read(name, differences[name]) for name in differences}
        decision = decide(readings, smoothed, "accuracy" if select == "accuracy" else "nll")
        needed = max(
            (
                seeds_to_settle(name, differences[name].values)
                for name in readings
                if readings[name] == "open"
            ),
            default=None,
        )
        headline = _headline(decision, readings, differences, arm, smoothed, select, needed)
    sentences = [
        _choice(arms, arm, smoothed, one_se, select),
        _gain(none, arm, seeds),
        *_costs(none, arm),
        _remedy(none, arm, decision),
        _certainty(none, seeds, rows),
    ]
    if needed is not None and decision in ("smooth", "do not smooth"):
        open_ones = " and ".join(NAMES[n] for n in readings if readings[n] == "open")
        sentences.append(f"How {open_ones} changes is still open; about {needed} seeds would tell.")
    sentences += _alerts(arms, arm, smoothed, seeds, planned)
    alpha = arm.alpha if decision == "smooth" else 0.0
    return Verdict(decision, headline, alpha, tuple(sentences), needed)


def read(metric: str, difference: Estimate) -> Reading:
    """What one paired difference says, see the table of the module."""
    low, high = _gain_interval(metric, difference)
    if -WORTH[metric] < low and high < WORTH[metric]:
        return "same"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def decide(readings: dict[str, Reading], smoothed: bool, primary: str) -> Decision:
    """The decision, see the table of the module; ``smoothed``: validation chose to smooth."""
    found = set(readings.values())
    if {"better", "worse"} <= found:
        found = {readings[primary]}
    if "better" in found:
        return "smooth" if smoothed else "do not smooth"
    if "worse" in found:
        return "do not smooth"
    return "more seeds needed" if "open" in found else "no detectable difference"


def seeds_to_settle(metric: str, differences: Sequence[float]) -> int:
    """About how many seeds would settle an open reading, if mean and spread stay as they are.

    To settle it, the mean d must be told from 0 or from w, the smallest difference worth having;
    whichever is further away is easier: delta = max(|d|, w - |d|). Then n is the smallest number
    with n >= ((t(0.975, n-1) + t(0.8, n-1)) s / delta)², the paired t-test's sample size for 80 %
    power, rounded up to two digits.
    """
    from scipy.stats import t

    values = np.asarray(differences)
    mean = abs(float(values.mean()))
    delta = max(mean, WORTH[metric] - mean)
    effect = delta / float(values.std(ddof=1))

    def enough(n: int) -> bool:
        return math.sqrt(n) * effect >= t.ppf(0.975, n - 1) + t.ppf(POWER, n - 1)

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle > 1 and enough(middle) else (middle, high)
    step = 10 ** max(0, len(str(high)) - 2)
    return -(-high // step) * step


# --- Sentences ---------------------------------------------------------------------------------

NAMES = {"accuracy": "accuracy", "nll": "NLL after scaling", "raw nll": "NLL"}
UNITS = {"accuracy": (100, 2, " points"), "nll": (1, 3, " nats"), "raw nll": (1, 3, " nats")}
UNITS["aurc"] = (1, 4, "")


def _headline(
    decision: Decision,
    readings: dict[str, Reading],
    differences: dict[str, Estimate],
    arm: ArmSummary,
    smoothed: bool,
    select: str,
    needed: int | None,
) -> str:
    def say(*wanted: Reading) -> str:
        parts = [
            f"{NAMES[name]} {_change(name, differences[name], full=True)}"
            for name in readings
            if readings[name] in wanted
        ]
        return " and ".join(parts)

    alpha = f"alpha = {arm.alpha:g}"
    if decision == "smooth":
        but = f"; on the other hand, {say('worse')}" if "worse" in readings.values() else ""
        return f"Smooth, with {alpha}: {say('better')}{but}."
    if decision == "do not smooth":
        if "worse" not in readings.values():
            return (
                f"Do not smooth: on validation no alpha did better by {SELECTED_BY[select]}. But "
                f"with {alpha}, the best of them there, {say('better')} on test."
            )
        which = "the choice of validation" if smoothed else "the best of them on validation"
        but = f", although {say('better')}" if "better" in readings.values() else ""
        return f"Do not smooth: with {alpha}, {which}, {say('worse')}{but}."
    both = say("same", "open")
    if decision == "more seeds needed":
        return f"More seeds are needed, about {needed}: with {alpha} so far {both}."
    detected = any(d.low is not None and d.low * d.high > 0 for d in differences.values())  # type: ignore[operator]
    none = "No difference worth having" if detected else "No detectable difference"
    return f"{none}: with {alpha} {both}."


def _choice(
    arms: Sequence[ArmSummary], arm: ArmSummary, smoothed: bool, one_se: str, select: str
) -> str:
    tried = [a.alpha for a in arms[1:]]
    grid = f"{tried[0]:g} to {tried[-1]:g}" if len(tried) > 1 else f"{tried[0]:g} alone"
    by = f"judged by {SELECTED_BY[select]}"
    if not smoothed:
        return (
            f"Validation, {by}, preferred no smoothing to every alpha tried ({grid}); the best "
            f"of them was {arm.alpha:g}."
        )
    near = next(a for a in arms if a.name == one_se)
    chose = f"Validation, {by}, chose alpha = {arm.alpha:g} ({grid} tried)"
    if near is arm:
        return f"{chose}; no smaller one comes within one standard error of it."
    if near.alpha == 0:
        return (
            f"{chose}; but even no smoothing comes within one standard error of it, so validation "
            "alone is no strong reason to smooth."
        )
    return f"{chose}; the smallest alpha within one standard error of it is {near.alpha:g}."


def _gain(none: ArmSummary, arm: ArmSummary, seeds: int) -> str:
    return (
        f"On test, on average over {_count(seeds, 'seed')}, accuracy is "
        f"{_percent(arm.test_raw['accuracy'])} with alpha = {arm.alpha:g} and "
        f"{_percent(none.test_raw['accuracy'])} without smoothing; NLL after scaling is "
        f"{arm.test_scaled['nll'].mean:.3f} and {none.test_scaled['nll'].mean:.3f} nats."
    )


def _costs(none: ArmSummary, arm: ArmSummary) -> list[str]:
    raw, ranking = arm.difference_raw["nll"], arm.difference_raw["aurc"]
    costs = "The cost" if _certain(raw) > 0 else "As trained"
    first = (
        f"{costs}: before scaling, NLL {_change('raw nll', raw)}, and the model is "
        f"{_bias(arm)} (mean confidence {_percent(arm.test_raw['confidence'])}); without smoothing "
        f"it is {_bias(none)}."
    )
    area = f"the area under the risk-coverage curve {_change('aurc', ranking)}"
    if _certain(ranking) == 0:
        second = f"If you set aside the least confident answers, no clear change: {area}."
    else:
        few = "more" if _certain(ranking) > 0 else "fewer"
        second = (
            f"If you set aside the least confident answers, expect {few} mistakes among the rest: "
            f"{area}."
        )
    return [first, second]


def _remedy(none: ArmSummary, arm: ArmSummary, decision: Decision) -> str:
    """What to do about the probabilities of the arm that is advised, or of both."""
    if decision == "smooth":
        return _rescale(arm, "")
    if decision == "do not smooth":
        return _rescale(none, "Without smoothing, ")
    return (
        f"{_rescale(none, 'Without smoothing, ')} {_rescale(arm, f'With alpha = {arm.alpha:g}, ')}"
    )


def _rescale(arm: ArmSummary, where: str) -> str:
    t, before, after = arm.temperature, arm.test_raw["nll"].mean, arm.test_scaled["nll"].mean
    span = "" if t.low is None else f"; 95 % interval {t.low:.2f} to {t.high:.2f}"
    if abs(before - after) < WORTH["nll"]:
        text = (
            f"no rescaling is needed: T = {t.mean:.2f}{span.replace('; ', ', ')}, would change "
            f"NLL on test by less than {WORTH['nll']:g} nats."
        )
        return where + text if where else text[0].upper() + text[1:]
    verb = f"{where}rescale" if where else "Rescale"
    falls = "falls" if after < before else "rises"
    return (
        f"{verb} with T = {t.mean:.2f} before you use the probabilities: divide the logits by it "
        f"(mean of the fits on validation{span}). NLL on test {falls} from {before:.3f} to "
        f"{after:.3f} nats."
    )


def _certainty(none: ArmSummary, seeds: int, rows: int) -> str:
    share = none.test_raw["accuracy"].mean
    noise = 100 * 1.96 * math.sqrt(share * (1 - share) / rows)
    source = "other initial weights and another order of batches, on one and the same split"
    limit = (
        f"They do not say what another split or new data would show; with {rows:,} test rows any "
        f"single accuracy is uncertain by about {noise:.1f} points for that reason alone."
    )
    if seeds < 3:
        return f"How sure: not yet. Seeds differ by {source}. {limit}"
    return (
        f"How sure: the 95 % intervals are over {seeds} seeds, that is, {source}. They say how far "
        f"the luck of training could move these differences. {limit}"
    )


def _alerts(
    arms: Sequence[ArmSummary], arm: ArmSummary, smoothed: bool, seeds: int, planned: int
) -> list[str]:
    alerts = []
    if seeds < planned:
        alerts.append(f"Only {seeds} of {planned} seeds are finished; the rest may change this.")
    if smoothed and arm is arms[-1]:
        alerts.append(f"{arm.alpha:g} is the largest alpha tried: try larger ones too.")
    ends = (TEMPERATURE.low, TEMPERATURE.high)
    for a in (arms[0], arm):
        if any(value in ends for value in a.temperature.values):
            name = f"alpha = {a.alpha:g}" if a.alpha else "no smoothing"
            alerts.append(
                f"With {name} the search for T stopped at its limit ({ends[0]:g} to {ends[1]:g}) "
                "in at least one seed: the validation rows do not determine it, use more of them."
            )
    return alerts


def _change(name: str, difference: Estimate, full: bool = False) -> str:
    """ "rises by 0.93 points (0.61 to 1.25)", or "changes by ..." if that may be luck."""
    factor, digits, unit = UNITS[name]
    mean, sign = factor * difference.mean, _certain(difference)
    if difference.low is None or difference.high is None:
        return f"changes by {_number(mean, digits, '+')}{unit}"
    low, high = factor * difference.low, factor * difference.high
    label = "95 % interval " if full else ""
    if sign == 0:
        ends = f"{_number(low, digits, '+')} to {_number(high, digits, '+')}"
        return f"changes by {_number(mean, digits, '+')}{unit} ({label}{ends})"
    verb = "rises" if sign > 0 else "falls"
    low, high = sorted((abs(low), abs(high)))
    ends = f"{_number(low, digits)} to {_number(high, digits)}"
    return f"{verb} by {_number(abs(mean), digits)}{unit} ({label}{ends})"


def _certain(difference: Estimate) -> int:
    """1 or -1 if the whole interval is on that side of 0, else 0."""
    if difference.low is None or difference.high is None:
        return 0
    return int(difference.low > 0) - int(difference.high < 0)


def _gain_interval(metric: str, difference: Estimate) -> tuple[float, float]:
    """The interval, turned so that positive is good."""
    low, high = difference.low, difference.high
    if low is None or high is None:
        return -math.inf, math.inf
    return (low, high) if metric == "accuracy" else (-high, -low)


def _bias(arm: ArmSummary) -> str:
    gap = 100 * arm.test_raw["gap"].mean
    if abs(gap) < 0.05:
        return "as confident as it is accurate"
    return f"{'over' if gap > 0 else 'under'}confident by {abs(gap):.1f} points"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} %"


def _number(value: float, digits: int, sign: str = "") -> str:
    """``value`` with ``digits`` decimals, and up to three more rather than a false zero."""
    for more in range(4):
        if round(value, digits + more):
            return f"{value:{sign}.{digits + more}f}"
    return f"{0:.{digits}f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
