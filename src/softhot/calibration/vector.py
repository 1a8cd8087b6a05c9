"""Vector scaling: one factor and one offset for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from softhot.calibration.remedy import Remedy, check_classes
from softhot.core.check import InputError, Interval
from softhot.metrics import Predictions, fit_temperature

FINITE = Interval(-np.inf, np.inf, "()")


@dataclass(frozen=True)
class VectorScaling(Remedy):
    r"""softmax(w ∘ log p + b), with ``weights`` w and ``biases`` b, one of each for every class.

    Fitted by the hard-label NLL with a unit normal prior on (w T - 1, b), T the best temperature:
    :math:`\min \sum_i -\log q_{y_i} + (\|w T - 1\|^2 + \|b\|^2) / 2`. So few rows give temperature
    scaling, many rows give every class its own, and a class that validation rows lack stays put
    instead of running away (after Guo et al. 2017, which has no prior). The problem is convex.

    Taken on log p, which logits and probabilities share: on raw logits the result would depend on
    the constant that a row of logits happens to carry.

    Pitfalls: 2 K numbers want some tens of rows for each class; predicted classes, and so
    accuracy, can change, which :class:`Temperature` never does. Needs SciPy to fit.

    >>> p = Predictions.from_logits([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0]] * 40, [0, 1, 1] * 40)
    >>> after = VectorScaling.fit(p).apply(p)    # class 0 is right half the time, class 1 always
    >>> [round(float(c), 2) for c in after.confidence[[0, 2]]]
    [0.52, 0.95]
    """

    name = "vector"
    weights: tuple[float, ...]
    biases: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that there are as many finite weights as biases."""
        for field in ("weights", "biases"):
            given = getattr(self, field)
            if not isinstance(given, tuple | list) or len(given) != len(self.weights):
                raise InputError(field, "one number for each class", given)
            checked = tuple(FINITE.check(f"{field}[{k}]", value) for k, value in enumerate(given))
            object.__setattr__(self, field, checked)

    @classmethod
    def fit(cls, predictions: Predictions) -> Self:
        from scipy.optimize import minimize

        temperature = fit_temperature(predictions)
        k = predictions.num_classes
        identity = np.repeat([1.0, 0.0], k)

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            """Mean NLL and its gradient in (w T, b), with the prior."""
            total, gradient = 0.0, np.zeros_like(x)
            for at, z in predictions.blocks():
                masked = np.isneginf(z)
                z = np.where(masked, 0.0, z) / temperature
                new = np.where(masked, -np.inf, x[:k] * z + x[k:])
                new -= new.max(axis=1, keepdims=True)
                probs = np.exp(new)
                norm = probs.sum(axis=1, keepdims=True)
                q = predictions.truth(at, z)
                total += float(np.log(norm).sum() - (q * np.where(masked, 0.0, new)).sum())
                slope = probs / norm - q
                gradient += np.concatenate([(slope * z).sum(axis=0), slope.sum(axis=0)])
            away = x - identity
            n = len(predictions)
            return (total + away @ away / 2) / n, (gradient + away) / n

        options = {"maxiter": 1000, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-8}
        found = minimize(objective, identity, jac=True, method="L-BFGS-B", options=options).x
        return cls(tuple((found[:k] / temperature).tolist()), tuple(found[k:].tolist()))

    def apply(self, predictions: Predictions) -> Predictions:
        check_classes(self, len(self.weights), predictions)
        w, b = np.array(self.weights), np.array(self.biases)

        def step(_: Any, z: np.ndarray) -> np.ndarray:
            return np.where(np.isneginf(z), -np.inf, w * np.where(np.isneginf(z), 0.0, z) + b)

        return predictions.map(step, keeps_order=False)
