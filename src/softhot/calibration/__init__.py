"""Remedies: what repairs predictions after training, fitted on validation rows only.

| remedy | changes | learns | wants |
|---|---|---|---|
| :class:`Temperature` | confidence | 1 number | about 300 rows; the default |
| :class:`VectorScaling` | every class's confidence | 2 K numbers | tens of rows a class |
| :class:`Desmoothing` | confidence | nothing, or 1 number | uniform smoothing in training |
| :class:`PNorm` | the order of certainty | 1 number | selective classification |

Each has ``fit(predictions)``, ``apply(predictions)``, ``save(path)`` and ``load(path)`` (JSON);
``Remedy.load(path)`` reads any of them.

>>> Remedy.from_dict({"remedy": "temperature", "format": 1, "temperature": 0.5})
Temperature(temperature=0.5)
"""

from softhot.calibration.desmoothing import Desmoothing
from softhot.calibration.pnorm import PNorm
from softhot.calibration.remedy import Remedy
from softhot.calibration.temperature import (
    Temperature,
    cautious_temperature,
    cross_fitted,
)
from softhot.calibration.vector import VectorScaling
from softhot.metrics import TEMPERATURE, apply_temperature, fit_temperature

REMEDIES: dict[str, type[Remedy]] = {
    remedy.name: remedy for remedy in (Temperature, VectorScaling, Desmoothing, PNorm)
}
"""Every remedy by name."""

__all__ = [
    "REMEDIES",
    "TEMPERATURE",
    "Desmoothing",
    "PNorm",
    "Remedy",
    "Temperature",
    "VectorScaling",
    "apply_temperature",
    "cautious_temperature",
    "cross_fitted",
    "fit_temperature",
]
