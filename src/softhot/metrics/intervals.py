"""Bootstrap over rows: how much of a metric, or of a difference of models, is the rows' luck."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.metrics.predictions import Predictions, Rows, Undefined, check_predictions
from softhot.metrics.table import CATALOGUE, METRICS, Metric

RESAMPLES = Interval(20, 1_000_000, integer=True)
LEVEL = Interval(0, 1, "()")
MOST = 100_000  # rows of one draw


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
    what makes small differences visible. Of more than 100,000 rows a draw takes that many, and
    deviations shrink by the root of the share (Bickel, Götze and van Zwet 1997, "Resampling fewer
    than n observations"). The interval is the basic one, value + (value - upper quantile) to
    value + (value - lower quantile), widened to hold the value (Efron and Tibshirani 1993, "An
    introduction to the bootstrap"). It corrects the bias of the ECE, which resampling adds once
    more, where a percentile interval would double it.

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
    found = bootstraps(
        predictions, [metric], against=against, resamples=resamples, level=level, seed=seed
    )
    return found[metric]


def bootstraps(
    predictions: Predictions,
    metrics: Iterable[str] = tuple(METRICS),
    *,
    against: Predictions | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Bootstrap]:
    """:func:`bootstrap` of several metrics on the same draws, which costs less than one by one.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]] * 20, [0, 1, 1] * 20)
    >>> bootstraps(p, ["nll", "brier"])["nll"] == bootstrap(p, "nll")
    True
    """
    n = len(check_predictions(predictions))
    table = {name: CATALOGUE[OneOf(*CATALOGUE).check("metric", name)] for name in metrics}
    RESAMPLES.check("resamples", resamples)
    LEVEL.check("level", level)
    models = [predictions] if against is None else paired(predictions, against)
    values = {name: _difference(row, models) for name, row in table.items()}
    draws: dict[str, list[float]] = {name: [] for name in table}
    whole = not all(row.by_rows for row in table.values())
    rng, drawn = np.random.default_rng(seed), min(n, MOST)
    for _ in range(resamples):
        index = rng.integers(n, size=drawn)
        rows = [model.rows[index] for model in models]
        full = [model[index] for model in models] if whole else []
        for name, row in table.items():
            with suppress(Undefined):
                draws[name].append(_difference(row, rows if row.by_rows else full))
    found = {}
    for name, row in table.items():
        if len(draws[name]) < 0.9 * resamples:
            allowed = f"such that {name} is defined in nine of ten draws of their rows"
            raise Undefined("predictions", allowed, f"{len(draws[name])} of {resamples}")
        value = values[name]
        quantiles = np.quantile(draws[name], [(1 + level) / 2, (1 - level) / 2])
        low, high = (value - math.sqrt(drawn / n) * (quantiles - value)).tolist()
        if against is None and row.best in ("low", "high"):
            low, high = max(low, 0.0), min(high, 1.0) if row.best == "high" else high
        found[name] = Bootstrap(value, min(low, value), max(high, value))
    return found


def _difference(row: Metric, models: Sequence[Predictions | Rows]) -> float:
    first, *others = (row.function(model) for model in models)
    return first - sum(others)


def paired(predictions: Predictions, against: Predictions) -> list[Predictions]:
    """Both, if they have the same true labels row by row."""
    allowed = f"predictions of the same {len(predictions)} rows in the same order"
    if len(predictions) != len(check_predictions(against)):
        raise InputError("against", allowed, f"{len(against)} rows")
    other = predictions.labels != against.labels
    q, r = predictions.targets, against.targets
    if q is not None and r is not None and q.shape == r.shape:
        other |= (q != r).any(axis=1)
    if other.any():
        raise InputError("against", allowed, f"another label in row {int(other.argmax())}")
    return [predictions, against]
