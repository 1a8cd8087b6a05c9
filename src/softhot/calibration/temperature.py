"""Temperature scaling: one number that repairs confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from softhot.calibration.remedy import Remedy
from softhot.metrics import TEMPERATURE, Predictions, apply_temperature, fit_temperature


@dataclass(frozen=True)
class Temperature(Remedy):
    """softmax(z / T), T in [0.05, 20]: T > 1 softens, T < 1 sharpens.

    An overconfident model wants T > 1; label smoothing leaves T < 1 behind. The order of classes,
    and so accuracy, never changes. Works on logits and on probabilities alike, for log p differs
    from the logits by a constant in each row (Guo et al. 2017, "On calibration of modern neural
    networks"). About 300 validation rows suffice; see :func:`fit_temperature` for the search.

    Where :class:`Desmoothing` moves every probability towards the corner by one linear map,
    this multiplies the logits; it did better wherever we compared the two.

    >>> p = Predictions.from_logits([[4.0, 0.0]] * 4, [0, 0, 0, 1])
    >>> remedy = Temperature.fit(p)
    >>> remedy.apply(p).confidence.round(6).tolist()    # three of four are right
    [0.75, 0.75, 0.75, 0.75]
    """

    name = "temperature"
    temperature: float

    def __post_init__(self) -> None:
        """Check the range."""
        value = TEMPERATURE.check("temperature", self.temperature)
        object.__setattr__(self, "temperature", value)

    @classmethod
    def fit(cls, predictions: Predictions) -> Self:
        return cls(fit_temperature(predictions))

    def apply(self, predictions: Predictions) -> Predictions:
        return apply_temperature(predictions, self.temperature)
