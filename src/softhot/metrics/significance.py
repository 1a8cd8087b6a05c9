"""Tests of calibration: could a calibrated model have been this far off by chance?"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from softhot.core.check import InputError
from softhot.metrics.predictions import Predictions, Rows, Undefined, rows_of


@dataclass(frozen=True)
class CalibrationTest:
    """One test: its statistic, and the p-value under perfect calibration."""

    statistic: float
    p_value: float


def calibration_tests(predictions: Predictions | Rows) -> dict[str, CalibrationTest]:
    """Kolmogorov-Smirnov, Kuiper and Spiegelhalter tests that confidence is calibrated, by MAPIE.

    "kolmogorov_smirnov" and "kuiper" take the largest deviation, and the largest range, of the
    cumulative difference of correctness and confidence (Arrieta-Ibarra et al. 2022, "Metrics of
    calibration for probabilistic predictions"); "spiegelhalter" the standardised excess of the
    Brier score of the top class (Spiegelhalter 1986). No bins.

    Raises:
        InputError: MAPIE is not installed.
        Undefined: every confidence is exactly 1, which leaves nothing to chance.

    Pitfalls: a large p-value is no proof, few rows prove nothing; with many rows every network
    fails. The p-values of the first two are asymptotic and need about 100 rows. MAPIE breaks ties
    of confidence by a jitter of relative 1e-8, seeded, so the order of tied rows can matter a
    little.
    """
    try:
        mapie = importlib.import_module("mapie.metrics.calibration")
    except ImportError as error:
        hint = "pip install mapie"
        raise InputError("the package MAPIE", "installed for this", "missing", hint) from error
    rows = rows_of(predictions)
    if (rows.confidence == 1).all():
        raise Undefined("predictions", "below confidence 1 in some row", "all exactly 1")
    data = rows.correct.astype(float), rows.confidence
    return {
        name: CalibrationTest(
            float(getattr(mapie, f"{name}_statistic")(*data)),
            float(getattr(mapie, f"{name}_p_value")(*data)),
        )
        for name in ("kolmogorov_smirnov", "kuiper", "spiegelhalter")
    }
