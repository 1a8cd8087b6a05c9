"""Temperature scaling: one number that repairs confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from softhot.calibration.remedy import Remedy
from softhot.metrics import (
    TEMPERATURE,
    Predictions,
    apply_temperature,
    check_predictions,
    fit_temperature,
)


@dataclass(frozen=True)
class Temperature(Remedy):
    """softmax(z / T), T in [0.05, 20]: T > 1 softens, T < 1 sharpens.

    An overconfident model wants T > 1; label smoothing leaves T < 1 behind. The order of classes,
    and so accuracy, never changes. Works on logits and on probabilities alike, for log p differs
    from the logits by a constant in each row (Guo et al. 2017, "On calibration of modern neural
    networks"). About 300 validation rows suffice. The fit is :func:`cautious_temperature`, as
    in studies, judgements and forecasts: on few rows the plain one costs new rows dearly
    (docs/advice.md).

    Where :class:`Desmoothing` moves every probability towards the corner by one linear map,
    this multiplies the logits; it did better wherever we compared the two.

    >>> p = Predictions.from_logits([[4.0, 0.0]] * 4, [0, 0, 0, 1])
    >>> remedy = Temperature.fit(p)
    >>> remedy.apply(p).confidence.round(6).tolist()    # 3 of 4 are right
    [0.666667, 0.666667, 0.666667, 0.666667]
    """

    name = "temperature"
    temperature: float

    def __post_init__(self) -> None:
        """Check the range."""
        value = TEMPERATURE.check("temperature", self.temperature)
        object.__setattr__(self, "temperature", value)

    @classmethod
    def fit(cls, predictions: Predictions) -> Self:
        return cls(cautious_temperature(predictions))

    def apply(self, predictions: Predictions) -> Predictions:
        return apply_temperature(predictions, self.temperature)


MOST = 1 << 25  # numbers of each half that a fit looks at: 256 MiB of float64


def cautious_temperature(predictions: Predictions) -> float:
    """:func:`fit_temperature` with labels that are right by the rule of succession only.

    On few rows, or rows that are all predicted correctly, the plain fit runs to the end of its
    range, and new rows pay for it; this one stays. On many rows the two agree.

    >>> p = Predictions.from_logits([[4.0, 0.0]] * 38, [0] * 38)    # 38 of 38 are right
    >>> fit_temperature(p), round(cautious_temperature(p), 3)    # 4 / T = log(39 / 1)
    (0.05, 1.092)
    """
    return fit_temperature(predictions, doubt=1 / (len(check_predictions(predictions)) + 2))


def cross_fitted(
    predictions: Predictions,
    seed: int = 0,
    fit: Callable[[Predictions], float] = cautious_temperature,
) -> tuple[Predictions, float]:
    """Predictions rescaled by halves, each with the T fitted on the other; and the T of all rows.

    So no row is scored with a temperature that it helped to fit, and none is lost. Halves
    of more than 2^25 numbers lend a random part to the fit: one number needs no more.

    >>> p = Predictions.from_logits([[4.0, 0.0]] * 8, [0, 0, 0, 1] * 2)
    >>> cross_fitted(p)[0].predicted.tolist() == p.predicted.tolist()
    True
    """
    n = len(check_predictions(predictions))
    if n < 4:
        temperature = fit(predictions)
        return apply_temperature(predictions, temperature), temperature
    order = np.random.default_rng(seed).permutation(n)
    most = max(2, MOST // predictions.num_classes)
    taken = np.sort(np.concatenate([order[: n // 2][:most], order[n // 2 :][:most]]))
    sample = predictions if len(taken) == n else predictions[taken]
    first = np.zeros(n, bool)
    first[order[: n // 2]] = True
    of_first, of_second = (fit(sample[side]) for side in (first[taken], ~first[taken]))
    temperatures = np.where(first, of_second, of_first)
    return apply_temperature(predictions, temperatures), fit(sample)
