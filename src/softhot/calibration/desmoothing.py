"""Desmoothing: the linear map of label smoothing, backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from softhot.calibration.remedy import Remedy
from softhot.core.check import Interval
from softhot.metrics import Predictions, check_predictions

ALPHA = Interval(0, 1, "[)")
FLOOR = Interval(0, 1, "()")


@dataclass(frozen=True)
class Desmoothing(Remedy):
    r"""(p - alpha / K) / (1 - alpha), at least floor / K, renormalised: undoes uniform smoothing.

    A model trained to the end on smoothed labels predicts (1 - alpha) times the true posterior plus
    alpha / K, and this takes it back (Yamasaki and Tanaka 2023, arXiv:2305.08501). With the
    *nominal* alpha, ``Desmoothing(0.1)``, it needs no data at all. Networks stop further from the
    corner than the optimum of the loss, so nominal is only part of the way; ``fit`` finds the alpha
    with the lowest NLL on validation rows, to 0.002, which is then much larger.

    Where :func:`softhot.desmooth` is the exact inverse, for any rule, this is made to be used: the
    exact one gives probability 0 to every class below alpha / K, which the NLL punishes without
    bound. ``floor`` is what those classes share at most: 0.01 unless fitted, then K / (N + K), as
    the rule of succession gives classes that N rows did not show. The order of classes, and so
    accuracy, never changes; nor does the order of rows, but for ties at the floor.

    Pitfalls: prior and similarity smoothing need their own inverse; an overconfident model has
    nothing to undo, and ``fit`` then finds 0 or what the floor can do for it, which is less than
    :class:`Temperature` does (docs/forecast.md has numbers).

    >>> p = Predictions.from_probs([[0.925, 0.025, 0.025, 0.025], [0.7, 0.1, 0.1, 0.1]], [0, 0])
    >>> Desmoothing(0.1).apply(p).probs.round(3).tolist()
    [[0.993, 0.002, 0.002, 0.002], [0.75, 0.083, 0.083, 0.083]]
    """

    name = "desmoothing"
    alpha: float
    floor: float = 0.01

    def __post_init__(self) -> None:
        """Check the ranges."""
        object.__setattr__(self, "alpha", ALPHA.check("alpha", self.alpha))
        object.__setattr__(self, "floor", FLOOR.check("floor", self.floor))

    @classmethod
    def fit(cls, predictions: Predictions) -> Self:
        k = check_predictions(predictions).num_classes
        floor = k / (len(predictions) + k)
        coarse = np.arange(0, 1, 0.02)
        best = coarse[np.argmin(_losses(predictions, coarse, floor))]
        fine = best + np.arange(-0.018, 0.019, 0.002)
        fine = np.concatenate([[best], fine[(fine >= 0) & (fine < 1)]])
        return cls(round(float(fine[np.argmin(_losses(predictions, fine, floor))]), 3), floor)

    def apply(self, predictions: Predictions) -> Predictions:
        def step(_: Any, z: np.ndarray) -> np.ndarray:
            return np.log(_inverse(np.exp(z), self.alpha, self.floor))

        return check_predictions(predictions).map(step, keeps_order=True)


def _inverse(p: np.ndarray, alpha: float, floor: float) -> np.ndarray:
    k = p.shape[1]
    return np.maximum((p - alpha / k) / (1 - alpha), floor / k)


def _losses(predictions: Predictions, alphas: np.ndarray, floor: float) -> np.ndarray:
    """Total NLL at each alpha; one pass."""
    totals = np.zeros(len(alphas))
    for at, z in predictions.blocks():
        p, q, masked = np.exp(z), predictions.truth(at, z), np.isneginf(z)
        for i, alpha in enumerate(alphas):
            new = _inverse(p, alpha, floor)
            new[masked] = 0
            log_sum = np.log(new.sum(axis=1))
            new[masked] = 1  # whose logarithm is nothing; q is 0 there
            totals[i] += float((log_sum - np.einsum("nk,nk->n", q, np.log(new))).sum())
    return totals
