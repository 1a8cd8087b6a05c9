"""The p-norm of the logits as a measure of certainty, where the largest probability misleads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from softhot.calibration.remedy import Remedy
from softhot.core.check import Interval
from softhot.metrics import Predictions, aurc, check_predictions

P = Interval(1, 8, integer=True)


@dataclass(frozen=True)
class PNorm(Remedy):
    r"""Rank rows by max_k c_k / ||c||_p, c the logits less their mean over the row's classes.

    For selective classification only: probabilities stay as they are, and the new order is what
    AURC, AUROC and risk at a coverage read (:attr:`softhot.metrics.Rows.ranking`). Smoothing holds
    the largest logit down most where the model is most likely to be right, which blurs the order
    of the largest probability; dividing by the norm takes that out (Xia, Laurent, Franchi and
    Bouganis 2025, "Towards understanding why label smoothing degrades selective classification
    and how to fix it"; Cattelan and Silva 2023, "How to fix a broken confidence estimator").

    ``fit`` takes the whole p in 1 .. 8 with the lowest AURC on validation rows, and None, the
    fallback, where none beats the largest probability: then nothing changes. Without smoothing,
    or on few classes, that is common. No other remedy here can repair the order: temperature
    barely moves it, uniform desmoothing not at all.

    Pitfall: for two classes c is (t, -t), its ratio a constant, and only the fallback is of use.

    >>> p = Predictions.from_logits([[3.0, 0.0, 0.0], [3.0, 2.5, -9.0]], [0, 1])
    >>> PNorm(2).apply(p).rows.ranking.round(3).tolist()
    [0.816, 0.434]
    """

    name = "p_norm"
    p: int | None

    def __post_init__(self) -> None:
        """Check the range."""
        if self.p is not None:
            object.__setattr__(self, "p", P.check("p", self.p, "None is the fallback."))

    @classmethod
    def fit(cls, predictions: Predictions) -> Self:
        orders = [int(p) for p in range(int(P.low), int(P.high) + 1)]
        candidates: list[int | None] = [None, *orders]  # the first of equals is taken
        ranked = [
            check_predictions(predictions),
            *map(predictions.ranked_by, _rankings(predictions, orders)),
        ]
        return cls(candidates[int(np.argmin([aurc(one) for one in ranked]))])

    def apply(self, predictions: Predictions) -> Predictions:
        check_predictions(predictions)
        if self.p is None:
            return predictions
        return predictions.ranked_by(_rankings(predictions, [self.p])[0])


def _rankings(predictions: Predictions, orders: list[int]) -> np.ndarray:
    """(orders, N) normalised largest logits; 0 where all logits of a row are equal. One pass."""
    result = np.zeros((len(orders), len(check_predictions(predictions))))
    for at, z in predictions.blocks():
        there = ~np.isneginf(z)
        c = np.where(there, z, 0.0)
        c -= (c.sum(axis=1) / there.sum(axis=1))[:, None]
        c = np.where(there, c, 0.0)
        top = np.abs(c).max(axis=1, keepdims=True)
        c /= np.where(top > 0, top, 1.0)  # so that no power over- or underflows
        for ranking, p in zip(result, orders, strict=True):
            norm = (np.abs(c) ** p).sum(axis=1) ** (1 / p)
            ranking[at] = c.max(axis=1) / np.where(norm > 0, norm, 1.0)
    return result
