"""Bootstrap over rows: how much of a metric, or of a difference of models, is the rows' luck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.metrics.predictions import Predictions, Undefined, check_predictions
from softhot.metrics.table import CATALOGUE

RESAMPLES = Interval(20, 1_000_000, integer=True)
LEVEL = Interval(0, 1, "()")


@dataclass(frozen=True)
class Bootstrap:
    """A value with its interval, in the units of the metric."""

    value: float
    low: float
    high: float


def bootstrap(
    predictions: Predictions,
    metric: str,
    *,
    against: Predictions | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """A metric with its bootstrap interval; or with ``against`` the paired difference to it.

    Rows are drawn with replacement, ``resamples`` times; the same rows for both models, which is
    what makes small differences visible. The interval is the basic one, value + (value - upper
    quantile) to value + (value - lower quantile), widened to hold the value (Efron and Tibshirani
    1993, "An introduction to the bootstrap"). It corrects the bias of the ECE, which resampling
    adds once more, where a percentile interval would double it.

    Args:
        predictions: the rows; two models must have the same labels, row by row.
        metric: a name of :data:`CATALOGUE`.
        against: the other model; the value is ``predictions`` minus ``against``.
        resamples: draws; 200 do for a look.
        level: of the interval.
        seed: of the draws; the same seed draws the same rows.

    Raises:
        InputError: labels differ; :class:`Undefined` if the metric is, also in a tenth of the
            draws.

    Pitfalls: the rows' luck only, not that of training, which takes seeds
    (:mod:`softhot.studies`); assumes independent rows, so frames of one film need a draw by film.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]] * 20, [0, 1, 1] * 20)
    >>> found = bootstrap(p, "accuracy")
    >>> round(found.value, 3), round(found.low, 2), round(found.high, 2)
    (0.667, 0.55, 0.78)
    """
    check_predictions(predictions)
    row = CATALOGUE[OneOf(*CATALOGUE).check("metric", metric)]
    RESAMPLES.check("resamples", resamples)
    LEVEL.check("level", level)
    models = [predictions] if against is None else paired(predictions, against)
    held: list[Any] = [p.rows for p in models] if row.by_rows else models
    difference = _Difference(row.function, held)
    value = difference(slice(None))
    rng, n = np.random.default_rng(seed), len(predictions)
    draws = []
    for _ in range(resamples):
        try:
            draws.append(difference(rng.integers(n, size=n)))
        except Undefined as error:
            undefined = error
    if len(draws) < 0.9 * resamples:
        raise undefined
    low, high = 2 * value - np.quantile(draws, [(1 + level) / 2, (1 - level) / 2])
    if against is None:
        low = max(low, 0.0) if row.best in ("low", "high") else low
        high = min(high, 1.0) if row.best == "high" else high
    return Bootstrap(value, min(float(low), value), max(float(high), value))


@dataclass(frozen=True)
class _Difference:
    function: Callable[[Any], float]
    models: list[Any]

    def __call__(self, rows: Any) -> float:
        first, *others = (self.function(model[rows]) for model in self.models)
        return first - sum(others)


def paired(predictions: Predictions, against: Predictions) -> list[Predictions]:
    """Both, if they have the same true labels row by row."""
    same = len(predictions) == len(check_predictions(against))
    if not same or (predictions.labels != against.labels).any():
        got = f"{len(against)} rows"
        if same:
            got = f"another label in row {int((predictions.labels != against.labels).argmax())}"
        allowed = f"predictions of the same {len(predictions)} rows in the same order"
        raise InputError("against", allowed, got)
    return [predictions, against]
