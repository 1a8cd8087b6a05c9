"""Temperature scaling: one number, fitted on validation rows, that repairs confidence.

p_T = softmax(z / T), T > 0: T > 1 softens an overconfident model, T < 1 sharpens an
underconfident one, which is what label smoothing leaves behind. The order of classes, and so the
accuracy, never changes (Guo et al. 2017, "On calibration of modern neural networks").
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from softhot.core.check import Interval
from softhot.metrics import Predictions, check_predictions, row_blocks

__all__ = ["TEMPERATURE", "apply_temperature", "fit_temperature"]

TEMPERATURE = Interval(0.05, 20.0)


def fit_temperature(predictions: Predictions) -> float:
    """The T in [0.05, 20] with the lowest hard-label NLL of softmax(log p / T).

    The NLL is convex in b = 1/T, with derivative mean over rows of (E_b[z] - z_true), E_b being
    the mean under softmax(b z). Its sign change is bracketed and closed in by Newton steps that
    fall back to bisection, to a relative 1e-9: no grid, no starting value, no learning rate.

    Fit on rows that trained nothing, and report on others; about 300 rows are needed. The ends
    are answers too: rows that are all predicted correctly have no best T and give 0.05, where
    each further sharpening lowers their NLL; rows whose true class is the least probable of all
    give 20. If no T makes a difference (all classes equal in every row), T is 1.

    A true class that had probability exactly 0 takes part with the floor it was raised to.

    >>> p = Predictions.from_logits([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]], [0, 0, 0, 1])
    >>> round(fit_temperature(p), 4)    # 4 / T = log(3 / 1): three of four are right
    3.641
    """
    check_predictions(predictions)
    if _flat(predictions):
        return 1.0
    low, high = 1 / TEMPERATURE.high, 1 / TEMPERATURE.low
    if _slope(predictions, high)[0] <= 0:
        return TEMPERATURE.low
    if _slope(predictions, low)[0] >= 0:
        return TEMPERATURE.high
    b, step = 1.0, np.inf
    while abs(step) > 1e-9 * b:
        slope, curvature = _slope(predictions, b)
        low, high = (b, high) if slope < 0 else (low, b)
        newton = b - slope / curvature if curvature > 0 else low
        # Newton alone creeps where the slope falls exponentially: its steps must halve.
        good = low < newton < high and abs(newton - b) <= abs(step) / 2
        to = newton if good else (low * high) ** 0.5
        b, step = to, to - b
    return 1 / b


def apply_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """``predictions`` with softmax(log p / temperature), temperature in [0.05, 20].

    Labels, predicted classes and ``floored`` stay; masked classes stay at probability 0.

    >>> p = Predictions.from_probs([[0.8, 0.2]], [0])
    >>> apply_temperature(p, 0.5).probs.round(4).tolist()    # 0.8² : 0.2² = 16 : 1
    [[0.9412, 0.0588]]
    """
    check_predictions(predictions)
    z = predictions.log_probs / TEMPERATURE.check("temperature", temperature)
    for block in row_blocks(z):
        part = z[block]
        part -= part.max(axis=1, keepdims=True)
        part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
    return replace(predictions, log_probs=z)


def _flat(predictions: Predictions) -> bool:
    """Whether every row gives its unmasked classes one and the same probability."""
    z = predictions.log_probs
    return all(
        ((z[b] == z[b].max(axis=1, keepdims=True)) | np.isneginf(z[b])).all() for b in row_blocks(z)
    )


def _slope(predictions: Predictions, b: float) -> tuple[float, float]:
    """First and second derivative of the mean NLL in b = 1/T."""
    slope = curvature = 0.0
    for block in row_blocks(predictions.log_probs):
        z, y = predictions.log_probs[block], predictions.labels[block]
        weight = np.exp(b * (z - z.max(axis=1, keepdims=True)))
        weight /= weight.sum(axis=1, keepdims=True)
        # Measured from the true class, so that rows predicted correctly cannot change sign by
        # rounding. A masked class weighs nothing, but 0 * -inf would be NaN.
        away = np.where(np.isneginf(z), 0.0, z - z[np.arange(len(z)), y][:, None])
        mean = (weight * away).sum(axis=1)
        slope += float(mean.sum())
        curvature += float((weight * (away - mean[:, None]) ** 2).sum())
    return slope / len(predictions), curvature / len(predictions)
