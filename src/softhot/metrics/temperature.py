"""The best temperature, and what is left of the NLL when it is applied: refinement."""

from __future__ import annotations

import numpy as np

from softhot.core.check import InputError, Interval
from softhot.metrics.predictions import Predictions, check_predictions
from softhot.metrics.scores import nll

TEMPERATURE = Interval(0.05, 20.0)
DOUBT = Interval(0, 1, "[)")


def fit_temperature(predictions: Predictions, *, doubt: float = 0.0) -> float:
    """The T in [0.05, 20] with the lowest hard-label NLL of softmax(log p / T).

    The NLL is convex in b = 1/T, with derivative mean over rows of (E_b[z] - z_true), E_b being
    the mean under softmax(b z). Its sign change is bracketed and closed in by Newton steps that
    fall back to bisection, to a relative 1e-9: no grid, no starting value, no learning rate.
    Soft labels put their mean of z in the place of z_true.

    Fit on rows that trained nothing, and report on others; about 300 rows are needed. The ends
    are answers too: rows that are all predicted correctly have no best T and give 0.05, where
    each further sharpening lowers their NLL; rows whose true class is the least probable of all
    give 20. If no T makes a difference (all classes equal in every row), T is 1.

    ``doubt`` is the share of every label that goes to the other classes, so that rows that are all
    right do not call for T = 0.05. Platt 1999, "Probabilistic outputs for support vector
    machines", takes 1 / (N + 2): labels are then right as often as N right ones of N tell, by the
    rule of succession.

    A true class that had probability exactly 0 takes part with the floor it was raised to.

    >>> p = Predictions.from_logits([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]], [0, 0, 0, 1])
    >>> round(fit_temperature(p), 4)    # 4 / T = log(3 / 1): three of four are right
    3.641
    """
    check_predictions(predictions)
    DOUBT.check("doubt", doubt)
    if _flat(predictions):
        return 1.0
    low, high = 1 / TEMPERATURE.high, 1 / TEMPERATURE.low
    if _slope(predictions, high, doubt)[0] <= 0:
        return TEMPERATURE.low
    if _slope(predictions, low, doubt)[0] >= 0:
        return TEMPERATURE.high
    b, step = 1.0, np.inf
    while abs(step) > 1e-9 * b:
        slope, curvature = _slope(predictions, b, doubt)
        low, high = (b, high) if slope < 0 else (low, b)
        newton = b - slope / curvature if curvature > 0 else low
        # Newton alone creeps where the slope falls exponentially: its steps must halve.
        good = low < newton < high and abs(newton - b) <= abs(step) / 2
        to = newton if good else (low * high) ** 0.5
        b, step = to, to - b
    return 1 / b


def apply_temperature(predictions: Predictions, temperature: float | np.ndarray) -> Predictions:
    """``predictions`` with softmax(log p / temperature), temperature in [0.05, 20], or one a row.

    Labels, predicted classes and ``floored`` stay; masked classes stay at probability 0.

    >>> p = Predictions.from_probs([[0.8, 0.2]], [0])
    >>> apply_temperature(p, 0.5).probs.round(4).tolist()    # 0.8² : 0.2² = 16 : 1
    [[0.9412, 0.0588]]
    """
    n = len(check_predictions(predictions))
    if not isinstance(temperature, np.ndarray):
        t = np.full(n, TEMPERATURE.check("temperature", temperature))
    elif (t := temperature).shape != (n,) or not (
        (t >= TEMPERATURE.low) & (t <= TEMPERATURE.high)
    ).all():
        raise InputError("temperature", f"{TEMPERATURE}, or {n} of them", temperature)
    return predictions.map(lambda at, z: z / t[at, None], keeps_order=True)


def refinement(predictions: Predictions) -> float:
    """Refinement in nats: the NLL that remains at the best temperature; low is best.

    What no rescaling can repair. NLL = refinement + :func:`miscalibration`, so the two say
    whether a difference in NLL is one of knowledge or only one of scale: smoothing usually costs
    scale, which is free to repair, and may gain or lose refinement. Berta, Holzmüller, Jordan and
    Bach 2025, "Rethinking early stopping: refine, then calibrate".

    Pitfalls: T is fitted on the rows that it is judged on, which flatters by about 1 / 2N nats;
    recalibration by one number is a lower bar than by any map, so this is an upper bound of the
    refinement in the theory.
    """
    return nll(apply_temperature(predictions, fit_temperature(predictions)))


def miscalibration(predictions: Predictions) -> float:
    """Calibration error in nats: :func:`nll` less :func:`refinement`, what the best T would gain.

    In [0, inf): unlike :func:`ece` it comes from a proper score, needs no bins and weighs every
    class. Pitfall: sees only what one temperature can repair.
    """
    return max(0.0, nll(predictions) - refinement(predictions))


def _flat(predictions: Predictions) -> bool:
    """Whether every row gives its unmasked classes one and the same probability."""
    return all(
        ((z == z.max(axis=1, keepdims=True)) | np.isneginf(z)).all()
        for _, z in predictions.blocks()
    )


def _slope(predictions: Predictions, b: float, doubt: float) -> tuple[float, float]:
    """First and second derivative of the mean NLL in b = 1/T."""
    slope = curvature = 0.0
    for at, z in predictions.blocks():
        weight = np.exp(b * (z - z.max(axis=1, keepdims=True)))
        weight /= weight.sum(axis=1, keepdims=True)
        # Measured from the true class, so that rows predicted correctly cannot change sign by
        # rounding. A masked class weighs nothing, but 0 * -inf would be NaN.
        if predictions.targets is None:
            true = z[np.arange(len(z)), predictions.labels[at]]
        else:
            true = (predictions.targets[at] * np.where(np.isneginf(z), 0.0, z)).sum(axis=1)
        there = ~np.isneginf(z)
        if doubt:
            classes = there.sum(1)
            others = (np.where(there, z, 0.0).sum(1) - true) / np.maximum(classes - 1, 1)
            true = np.where(classes > 1, (1 - doubt) * true + doubt * others, true)
        away = np.where(there, z - true[:, None], 0.0)
        mean = (weight * away).sum(axis=1)
        slope += float(mean.sum())
        curvature += float((weight * (away - mean[:, None]) ** 2).sum())
    return slope / len(predictions), curvature / len(predictions)
