"""How good predictions are: proper scores, calibration, selective risk, clusters; on true labels.

Every metric is one function of :class:`Predictions` and one row of :data:`CATALOGUE`; the eight
"core" ones are :data:`METRICS`, which studies and pages show. A smoothed loss is not among them, on
purpose: its lowest value depends on alpha, so it cannot compare models trained with different
alphas. All sums are float64 whatever came in, and no metric depends on the order of the rows
beyond the last bits of a sum.
"""

from softhot.metrics.bins import (
    BINNING,
    BINS,
    ReliabilityBins,
    ece,
    ece_classwise,
    ece_debiased,
    ece_mass,
    ece_mass_debiased,
    overconfidence,
    reliability,
)
from softhot.metrics.clusters import (
    LastLayer,
    TemplatePlane,
    nc1,
    template_plane,
    template_plane_of_logits,
    within_over_between,
)
from softhot.metrics.intervals import Bootstrap, bootstrap, bootstraps, paired
from softhot.metrics.predictions import (
    KINDS,
    TOLERANCE,
    Predictions,
    Rows,
    Undefined,
    check_predictions,
    rows_of,
)
from softhot.metrics.scores import (
    BrierParts,
    accuracy,
    brier,
    brier_parts,
    confidence,
    confidence_on_errors,
    gap,
    nll,
)
from softhot.metrics.selective import (
    COVERAGE,
    augrc,
    aurc,
    auroc,
    e_aurc,
    risk_at,
    risk_at_80,
    risk_coverage,
)
from softhot.metrics.significance import CalibrationTest, calibration_tests
from softhot.metrics.smooth import smooth_ece
from softhot.metrics.stream import Stream
from softhot.metrics.table import CATALOGUE, METRICS, Metric, score
from softhot.metrics.temperature import (
    TEMPERATURE,
    apply_temperature,
    fit_temperature,
    miscalibration,
    refinement,
)

__all__ = [
    "BINNING",
    "BINS",
    "CATALOGUE",
    "COVERAGE",
    "KINDS",
    "METRICS",
    "TEMPERATURE",
    "TOLERANCE",
    "Bootstrap",
    "BrierParts",
    "CalibrationTest",
    "LastLayer",
    "Metric",
    "Predictions",
    "ReliabilityBins",
    "Rows",
    "Stream",
    "TemplatePlane",
    "Undefined",
    "accuracy",
    "apply_temperature",
    "augrc",
    "aurc",
    "auroc",
    "bootstrap",
    "bootstraps",
    "brier",
    "brier_parts",
    "calibration_tests",
    "check_predictions",
    "confidence",
    "confidence_on_errors",
    "e_aurc",
    "ece",
    "ece_classwise",
    "ece_debiased",
    "ece_mass",
    "ece_mass_debiased",
    "fit_temperature",
    "gap",
    "miscalibration",
    "nc1",
    "nll",
    "overconfidence",
    "paired",
    "refinement",
    "reliability",
    "risk_at",
    "risk_at_80",
    "risk_coverage",
    "rows_of",
    "score",
    "smooth_ece",
    "template_plane",
    "template_plane_of_logits",
    "within_over_between",
]
