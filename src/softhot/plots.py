"""What the figures show, as plain data: lists of dicts that any drawing library takes.

Every ``prepare_*`` is a pure function of results, in the units of :mod:`softhot.metrics`; nothing
here knows colours, pixels or a drawing library. The page draws these rows with Vega-Lite
(:mod:`softhot.report`); whoever wants them in another library loops over the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from softhot.calibration import apply_temperature
from softhot.core.check import InputError, Interval
from softhot.metrics import METRICS, Predictions, reliability
from softhot.studies.compare import SCALED, loss

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Comparison, Estimate
    from softhot.studies.store import Record

__all__ = [
    "focus",
    "prepare_curves",
    "prepare_predictions",
    "prepare_reliability",
    "prepare_risk_coverage",
    "spread",
]

Rows = list[dict[str, Any]]

BINS = Interval(1, 1000, integer=True)
POINTS = Interval(2, 10_000, integer=True)
START = Interval(0, 1)
SEED_LINES = 30  # thin lines a panel stays readable with; means and intervals use every seed


def focus(comparison: Comparison) -> ArmSummary:
    """The smoothed arm that the page sets beside "none": the best one on validation.

    That is the chosen arm, unless "none" was chosen.
    """
    name = comparison.select
    column = "validation_scaled" if name in SCALED else "validation_raw"
    smoothed = [arm for arm in comparison.arms if arm.alpha > 0]
    for arm in smoothed:
        if arm.name == comparison.chosen:
            return arm
    return min(
        smoothed, key=lambda arm: loss(name, np.array(getattr(arm, column)[name].values)).mean()
    )


def prepare_curves(comparison: Comparison) -> dict[str, Rows]:
    """Every metric against alpha: means with intervals, single seeds, and where labels go.

    ``column`` is "raw" or "scaled", or "both" where the two are the same numbers (accuracy).
    ``change`` is the paired difference to the arm "none" in the same column. Numbers that do not
    exist (the interval of a single seed) are None.

    Returns:
        ``means``: metric, column, arm, alpha, value, low, high, change, change_low, change_high.
        ``seeds``: metric, column, seed, alpha, value, change; at most 30 seeds.
        ``labels``: metric, column, alpha (the largest), value, change: heights at the right end,
        moved apart where two labels would touch.
    """
    means: Rows = []
    seeds: Rows = []
    labels: Rows = []
    for metric in METRICS:
        columns = {
            "raw": [
                (arm, arm.test_raw[metric], arm.difference_raw[metric]) for arm in comparison.arms
            ],
            "scaled": [
                (arm, arm.test_scaled[metric], arm.difference_scaled[metric])
                for arm in comparison.arms
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
    return {"means": means, "seeds": seeds, "labels": labels}


def prepare_predictions(
    comparison: Comparison, records: Iterable[Record]
) -> dict[str, dict[str, list[Predictions]]]:
    """Test predictions by arm and column ("raw", "scaled"), one for each compared seed.

    The scaled ones use the temperature that :func:`softhot.studies.compare` fitted for that seed.

    Raises:
        InputError: A trial that the comparison counts is not among the records.
    """
    found = {(record.trial.arm, record.trial.seed): record for record in records}
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


def prepare_reliability(predictions: Sequence[Predictions], bins: int = 15) -> Rows:
    """Confidence against accuracy in bins of equal width, seeds pooled: diagram and histogram.

    Returns:
        One row for each bin that holds predictions: lower, upper, share (of all predictions),
        confidence, accuracy, rows (their number, all seeds together).

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [0, 1, 1])
    >>> [(row["lower"], row["rows"]) for row in prepare_reliability([p, p], bins=4)]
    [(0.5, 2), (0.75, 4)]
    """
    BINS.check("bins", bins)
    if not predictions:
        raise InputError("predictions", "at least one softhot.metrics.Predictions", predictions)
    sums: dict[tuple[float, float], np.ndarray] = {}  # edges -> rows, confidence, correct
    for one in predictions:
        found = reliability(one, bins)
        parts = np.stack([np.ones(len(found.count)), found.confidence, found.accuracy], 1)
        for lower, upper, part in zip(
            found.lower, found.upper, parts * found.count[:, None], strict=True
        ):
            edges = (float(lower), float(upper))
            sums[edges] = sums.get(edges, np.zeros(3)) + part
    total = sum(map(len, predictions))
    return [
        {
            "lower": lower,
            "upper": upper,
            "share": float(count / total),
            "confidence": float(confidence / count),
            "accuracy": float(correct / count),
            "rows": round(count),
        }
        for (lower, upper), (count, confidence, correct) in sorted(sums.items())
    ]


def prepare_risk_coverage(
    models: Mapping[str, Sequence[Predictions]], points: int = 100, start: float = 0.1
) -> dict[str, Rows]:
    """Error rate among the most confident rows, against the share of rows kept.

    At coverage c = k / points a model keeps its ceil(c N) surest rows; rows of equal confidence
    count with the mean over all their orders, as in :func:`softhot.metrics.aurc`, whose value is
    the area under the whole curve. The rows start at coverage ``start``: under it a single wrong
    row makes a rate of many per cent, which would flatten everything else. Several predictions of
    one model (its seeds) are averaged.

    Returns:
        ``lines``: model, coverage, risk.
        ``labels``: model, coverage (1), risk: heights at the right end, moved apart.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.4, 0.6]], [0, 0])
    >>> prepare_risk_coverage({"m": [p]}, points=2)["lines"]
    [{'model': 'm', 'coverage': 0.5, 'risk': 0.0}, {'model': 'm', 'coverage': 1.0, 'risk': 0.5}]
    """
    POINTS.check("points", points)
    START.check("start", start)
    if not all(models.values()) or not models:
        raise InputError("models", "names with at least one softhot.metrics.Predictions", models)
    steps = [k for k in range(1, points + 1) if k / points >= start]
    lines: Rows = []
    for name, predictions in models.items():
        kept = [[-(-k * len(p) // points) - 1 for k in steps] for p in predictions]
        risk = np.mean([_risk(p)[rows] for p, rows in zip(predictions, kept, strict=True)], axis=0)
        lines += [
            {"model": name, "coverage": k / points, "risk": float(r)}
            for k, r in zip(steps, risk, strict=True)
        ]
    ends = [dict(row) for row in lines[len(steps) - 1 :: len(steps)]]
    room = 0.065 * max(row["risk"] for row in lines)
    for row, height in zip(ends, spread([row["risk"] for row in ends], room), strict=True):
        row["risk"] = height
    return {"lines": lines, "labels": ends}


def spread(values: Sequence[float], room: float) -> list[float]:
    """``values`` moved, as little as least squares allow, until any two are ``room`` apart.

    >>> spread([1.0, 0.0, 1.0], 0.5)
    [0.75, 0.0, 1.25]
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(values, kind="stable")
    steps = room * np.arange(len(order))
    result = np.empty(len(order))
    result[order] = isotonic_regression(np.asarray(values)[order] - steps).x + steps
    return [float(value) for value in result]


def _risk(predictions: Predictions) -> np.ndarray:
    """Error rate of the k surest rows, k = 1 .. N."""
    _, group, size = np.unique(-predictions.confidence, return_inverse=True, return_counts=True)
    rate = np.bincount(group, ~predictions.correct) / size
    return np.cumsum(np.repeat(rate, size)) / np.arange(1, len(predictions) + 1)


def _interval(estimate: Estimate, mean: str, low: str, high: str) -> dict[str, float | None]:
    return {mean: estimate.mean, low: _finite(estimate.low), high: _finite(estimate.high)}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
