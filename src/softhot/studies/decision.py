"""What a study's numbers decide: one policy.

One arm is compared with no smoothing on test rows by two paired differences: accuracy, and NLL
after temperature scaling. Each is read off its 95 % interval and the smallest difference worth
having (:data:`WORTH`):

====== ==========================================================================
same   the whole interval is closer to 0 than what is worth having
better not that, and the whole interval is on the good side of 0
worse  not that, and the whole interval is on the bad side of 0
open   0 and a difference worth having are both inside the interval
====== ==========================================================================

The first line that fits decides:

============================================ ====================================
fewer than 3 seeds                           more seeds needed
one better, the other worse                  as the one that was asked for reads:
                                             accuracy if it was, else NLL
something better, validation chose to smooth smooth
something better, validation chose not to    do not smooth, and say what is missed
something worse                              do not smooth
something open                               more seeds needed
both the same                                no detectable difference
============================================ ====================================

So test rows never change which alpha it is. If smoothing does nothing at all, each of the two
reads "better" by chance in at most one study of 40.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Estimate

Decision = Literal["smooth", "do not smooth", "no detectable difference", "more seeds needed"]
Reading = Literal["better", "worse", "same", "open"]

WORTH = {"accuracy": 0.005, "nll": 0.01}  # half a point; a hundredth of a nat
POWER = 0.8
FEWEST = 3  # seeds, for an interval
ADVISED = 10  # seeds, where there are too few for an interval


def judged(arm: ArmSummary) -> dict[str, Estimate]:
    """The two paired differences on test that decide."""
    return {"accuracy": arm.difference_raw["accuracy"], "nll": arm.difference_scaled["nll"]}


def read(metric: str, difference: Estimate) -> Reading:
    """What one paired difference says, see the first table of the module."""
    if difference.low is None or difference.high is None:
        return "open"
    low, high = difference.low, difference.high
    if metric != "accuracy":
        low, high = -high, -low  # so that positive is good
    if -WORTH[metric] < low and high < WORTH[metric]:
        return "same"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def decide(readings: dict[str, Reading], *, smoothed: bool, by: str) -> Decision:
    """The decision from 3 seeds on, see the second table of the module.

    Args:
        readings: Of "accuracy" and "nll".
        smoothed: Whether validation chose to smooth.
        by: Which of the two decides if one is better and the other worse.
    """
    found = set(readings.values())
    if {"better", "worse"} <= found:
        found = {readings[by]}
    if "better" in found:
        return "smooth" if smoothed else "do not smooth"
    if "worse" in found:
        return "do not smooth"
    return "more seeds needed" if "open" in found else "no detectable difference"


def seeds_to_settle(metric: str, differences: Sequence[float]) -> int:
    """About how many seeds would settle an open reading, if mean and spread stay as they are.

    To settle it, the mean d must be told from 0 or from w, the smallest difference worth having;
    the one further away is easier: delta = max(|d|, w - |d|). The answer is the smallest n with
    n >= ((t(0.975, n-1) + t(0.8, n-1)) s / delta)², which gives a paired t-test 80 % power,
    rounded up to two digits. It is always more than there are.
    """
    from scipy.stats import t

    mean = abs(float(np.mean(differences)))
    effect = max(mean, WORTH[metric] - mean) / float(np.std(differences, ddof=1))

    def enough(n: int) -> bool:
        return math.sqrt(n) * effect >= t.ppf(0.975, n - 1) + t.ppf(POWER, n - 1)

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    step = 10 ** max(0, len(str(high)) - 2)
    return -(-high // step) * step
