"""Numbers and findings in words: how a metric is named, rounded and put into a sentence."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from softhot.metrics import METRICS

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Comparison, Estimate

# Shares are read as per cent and their differences as points; other metrics keep their own unit.
PERCENT = ("accuracy", "ece", "ece_mass", "gap", "confidence")
FINE = ("accuracy", "aurc")
SHORT = {
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "ece_mass": "ECE, equal mass",
    "gap": "Gap",
    "confidence": "Confidence",
    "aurc": "AURC",
}
ACTIONS = {
    "none": "Do not smooth",
    "smooth": "Smooth",
    "smooth and rescale": "Smooth and rescale",
    "rescale only": "Rescale only",
}
REMEDIES = {
    "as trained": "as the model gives them",
    "temperature": "all logits divided by one number",
    "vector scaling": "one factor and one offset a class",
    "desmoothing": "the map of smoothing taken back",
}
COLUMNS = {"raw": "as trained", "scaled": "after scaling", "both": "scaled or not"}


def short(name: str) -> str:
    """The metric's name where room is short."""
    return SHORT.get(name, METRICS[name].label)


def factor(name: str) -> int:
    """What the metric is multiplied with to be shown."""
    return 100 if name in PERCENT else 1


def unit(name: str, *, change: bool = False) -> str:
    """The unit shown: "%", "points" for a difference of per cents, or the metric's own."""
    if name in PERCENT:
        return "points" if change or name == "gap" else "%"
    return METRICS[name].unit


def number(name: str, value: float | None, *, signed: bool = False) -> str:
    """``value`` of a metric, rounded for reading: one digit less than its row in METRICS says,
    but for the two whose differences are small.

    >>> number("accuracy", 0.97466), number("gap", -0.127, signed=True), number("nll", None)
    ('97.47', '−12.7', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    digits = METRICS[name].digits - (2 if name in PERCENT else 0) - (name not in FINE)
    rounded = round(value * factor(name), max(0, digits)) + 0.0  # no -0.0
    text = f"{rounded:{'+' if signed and rounded else ''}.{max(0, digits)}f}"
    return text.replace("-", "−")


def quantity(name: str, value: float, *, change: bool = False) -> str:
    """A number for a sentence, with its unit: "97.47 %", "−12.7 points", "0.212 nats"."""
    text = number(name, value, signed=change or name == "gap")
    measure = unit(name, change=change)
    return f"{text}\N{NO-BREAK SPACE}{measure}" if measure else text


def interval(name: str, low: float | None, high: float | None, *, signed: bool = False) -> str:
    """ "[+0.87, +1.36]", or nothing where there is no interval.

    >>> interval("accuracy", 0.0087, 0.0136, signed=True)
    '[+0.87, +1.36]'
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(name, low, signed=signed)}, {number(name, high, signed=signed)}]"


def percent(share: float, digits: int = 0) -> str:
    """A share of rows: "80 %"."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def surely(share: float) -> str:
    """A confidence: "74 %", but "99.8 %" or "> 99.9 %" where "100 %" would promise too much."""
    if 0.9995 <= share < 1:
        return f"> {percent(0.999, 1)}"
    return percent(share, 1 if 0.995 <= share < 1 else 0)


def direction(estimate: Estimate) -> int:
    """1 or -1 where the whole interval lies above or below 0, else 0."""
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


def judged(name: str, change: Estimate) -> str:
    """ "better" or "worse" where the interval of the change excludes 0 and one way is good."""
    good = {"high": 1, "low": -1}.get(METRICS[name].best, 0) * direction(change)
    return {1: "better", -1: "worse"}.get(good, "")


def definition(name: str) -> str:
    """The first paragraph of the metric's docstring, which defines it."""
    text = inspect.cleandoc(METRICS[name].function.__doc__ or METRICS[name].label)
    first = " ".join(text.split("\n\n")[0].split())
    return re.sub(":[a-z]+:(?=`)", "", first)


def alpha(arm: ArmSummary) -> str:
    """The arm in a sentence: "no smoothing", "alpha = 0.1", or the name of another method's."""
    if arm.alpha is None:
        return arm.name
    return f"alpha\u00a0=\u00a0{arm.alpha}" if arm.alpha else "no smoothing"


def joined(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


# --- Findings: the headings over the figures ---------------------------------------------------


def curve_finding(name: str, base: ArmSummary, arm: ArmSummary) -> str:
    """What smoothing does to one metric, before and after scaling."""
    subject = short(name) if short(name).isupper() else short(name)[:1].lower() + short(name)[1:]
    verbs, ends = {}, {}
    for column in ("raw", "scaled"):
        before = getattr(base, f"test_{column}")[name].mean
        after = getattr(arm, f"test_{column}")[name].mean
        change = getattr(arm, f"difference_{column}")[name]
        verbs[column] = ("does not clearly move,", "rises", "falls")[direction(change)]
        first = number(name, before, signed=name == "gap")
        ends[column] = f"from {first} to {quantity(name, after)}"
    start = f"At {alpha(arm)}, {subject} {verbs['raw']} {ends['raw']}"
    if arm.test_raw[name].values == arm.test_scaled[name].values:
        return start
    again = "" if verbs["raw"] == verbs["scaled"] else verbs["scaled"] + " "
    return f"{start} as trained, and {again}{ends['scaled']} after scaling"


def bias(gap: float) -> str:
    """A signed gap in words: "overconfident by 1.2 points".

    >>> bias(0.012), bias(-0.141)
    ('overconfident by 1.2 points', 'underconfident by 14.1 points')
    """
    size = number("gap", abs(gap))
    if float(size) == 0:
        return "as confident as it is accurate"
    return f"{'over' if gap > 0 else 'under'}confident by {size} points"


def reliability_finding(base: ArmSummary, arm: ArmSummary) -> str:
    """How confidence and accuracy disagree without and with smoothing, and what scaling leaves."""
    return (
        f"Without smoothing the model is {bias(base.test_raw['gap'].mean)}; at {alpha(arm)} it is "
        f"{bias(arm.test_raw['gap'].mean)}, and scaling leaves "
        f"{quantity('gap', arm.test_scaled['gap'].mean)}"
    )


def risk_finding(names: Mapping[str, str], risks: Mapping[str, float], kept: str) -> str:
    """Error among the surest rows, for the models named."""
    parts = [f"{percent(risks[name], 2)} ({label})" for name, label in names.items()]
    return f"Among the {kept} most confident test rows the error is {joined(parts)}"


def curve_text(comparison: Comparison, name: str) -> str:
    """The alpha curve of one metric for a screen reader."""

    def points(column: str) -> str:
        return ", ".join(
            f"{alpha(arm)} {quantity(name, getattr(arm, f'test_{column}')[name].mean)}"
            for arm in comparison.curve
        )

    return (
        f"{METRICS[name].label} on test by alpha. As trained: {points('raw')}. After scaling: "
        + (f"{points('scaled')}.")
    )


def reliability_text(model: str, column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A reliability diagram for a screen reader."""
    points = ", ".join(
        f"{percent(row['confidence'])} confident, {percent(row['accuracy'])} right" for row in rows
    )
    return f"Reliability of {model}, {COLUMNS.get(column, column)}, bin by bin: {points}."


def classes_text(arm: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Changes of recall for a screen reader."""
    parts = [
        f"{row['name']}: {percent(row['before'], 1)} to {percent(row['after'], 1)}" for row in rows
    ]
    return f"Recall without smoothing and with {arm}, class by class: {'; '.join(parts)}."


def histogram_text(model: str, column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A confidence histogram for a screen reader."""
    bars = ", ".join(
        f"{percent(row['lower'])} to {percent(row['upper'])}: {percent(row['share'], 1)}"
        for row in rows
    )
    return f"Share of rows by confidence, {model} {COLUMNS[column]}: {bars}."
