"""What the figures of a study show: its metrics against alpha, and its predictions by arm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from softhot.calibration import apply_temperature
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions
from softhot.plots.prepare import Rows, spread
from softhot.studies.compare import standard_error

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Comparison, Estimate
    from softhot.studies.store import Record

SEED_LINES = 30  # thin lines a panel stays readable with; means and intervals use every seed


def focus(comparison: Comparison) -> ArmSummary:
    """The arm that the page sets beside "none": the chosen one, unless "none" was chosen."""
    return next(arm for arm in comparison.curve if arm.name == comparison.rival)


def prepare_curves(comparison: Comparison) -> dict[str, Rows]:
    """Every metric against alpha: means with intervals, single seeds, and where labels go.

    The arms are those of ``comparison.curve``; where they have no alpha there is nothing to draw.

    ``column`` is "raw" or "scaled", or "both" where the two are the same numbers (accuracy).
    ``change`` is the paired difference to the arm "none" in the same column. Numbers that do not
    exist (the interval of a single seed) are None.

    Returns:
        ``means``: metric, column, arm, alpha, value, low, high, change, change_low, change_high.
        ``seeds``: metric, column, seed, alpha, value, change; at most 30 seeds.
        ``labels``: metric, column, alpha (the largest), value, change: heights at the right end,
        moved apart where two labels would touch.
        ``bands``: metric, column, low, high, change_low, change_high: one standard error (over
        seeds) on either side of the arm in focus; of more than one seed.
    """
    means: Rows = []
    seeds: Rows = []
    labels: Rows = []
    bands: Rows = []
    if comparison.curve[1].alpha is None:
        return {"means": means, "seeds": seeds, "labels": labels, "bands": bands}
    middle = focus(comparison).name
    for metric in METRICS:
        columns = {
            "raw": [
                (arm, arm.test_raw[metric], arm.difference_raw[metric]) for arm in comparison.curve
            ],
            "scaled": [
                (arm, arm.test_scaled[metric], arm.difference_scaled[metric])
                for arm in comparison.curve
            ],
        }
        if all(
            np.allclose(r[1].values, s[1].values, rtol=0, atol=1e-12)
            for r, s in zip(columns["raw"], columns["scaled"], strict=True)
        ):
            columns = {"both": columns["raw"]}
        ends: Rows = []
        for column, points in columns.items():
            for arm, estimate, change in points:
                means.append(
                    {"metric": metric, "column": column, "arm": arm.name, "alpha": arm.alpha}
                    | _interval(estimate, "value", "low", "high")
                    | _interval(change, "change", "change_low", "change_high")
                )
                if arm.name == middle and len(estimate.values) > 1:
                    errors = (standard_error(np.array(e.values)) for e in (estimate, change))
                    error, of_change = errors
                    bands.append(
                        {
                            "metric": metric,
                            "column": column,
                            "low": estimate.mean - error,
                            "high": estimate.mean + error,
                            "change_low": change.mean - of_change,
                            "change_high": change.mean + of_change,
                        }
                    )
                lines = zip(comparison.seeds, estimate.values, change.values, strict=True)
                seeds += [
                    {
                        "metric": metric,
                        "column": column,
                        "seed": seed,
                        "alpha": arm.alpha,
                        "value": value,
                        "change": difference,
                    }
                    for seed, value, difference in list(lines)[:SEED_LINES]
                ]
            ends.append({k: means[-1][k] for k in ("metric", "column", "alpha", "value", "change")})
        for field in ("value", "change"):
            drawn = [row[field] for row in means + seeds if row["metric"] == metric]
            room = 0.07 * (max(drawn) - min(drawn))
            for row, height in zip(ends, spread([row[field] for row in ends], room), strict=True):
                row[field] = height
        labels += ends
    return {"means": means, "seeds": seeds, "labels": labels, "bands": bands}


def prepare_predictions(
    comparison: Comparison, records: Iterable[Record]
) -> dict[str, dict[str, list[Predictions]]]:
    """Test predictions by arm and column ("raw", "scaled"), one for each compared seed.

    The scaled ones use the temperature that :func:`softhot.studies.compare` fitted for that seed.

    Raises:
        InputError: A trial that the comparison counts is not among the records.
    """
    found = {(record.trial.arm.name, record.trial.seed): record for record in records}
    result: dict[str, dict[str, list[Predictions]]] = {}
    for arm in comparison.arms:
        raw: list[Predictions] = []
        scaled: list[Predictions] = []
        for seed, temperature in zip(comparison.seeds, arm.temperature.values, strict=True):
            record = found.get((arm.name, seed))
            if record is None:
                allowed = "the records that the comparison was made from"
                raise InputError("records", allowed, f"none of {arm.name!r} with seed {seed}")
            raw.append(record.test)
            scaled.append(apply_temperature(record.test, temperature))
        result[arm.name] = {"raw": raw, "scaled": scaled}
    return result


def _interval(estimate: Estimate, mean: str, low: str, high: str) -> dict[str, float | None]:
    return {mean: estimate.mean, low: _finite(estimate.low), high: _finite(estimate.high)}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
