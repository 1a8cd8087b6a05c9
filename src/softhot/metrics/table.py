"""The one table of metrics, and scoring by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from softhot.core.check import OneOf
from softhot.metrics import bins, scores, selective, smooth, temperature
from softhot.metrics.predictions import Predictions, Undefined, check_predictions


@dataclass(frozen=True)
class Metric:
    """One row of :data:`CATALOGUE`: what a table or a figure needs to know about a metric.

    Attributes:
        name: its key.
        label: its name in a table.
        function: of :class:`Predictions`; its docstring is the definition.
        best: the good direction; "none" marks a description rather than a score.
        group: "core" metrics are the :data:`METRICS` that studies and pages show.
        unit: of the value, if it has one.
        digits: how many decimals are worth printing.
        by_rows: whether ``function`` takes :class:`Rows` too, and so needs no matrix.
    """

    name: str
    label: str
    function: Callable[[Any], float]
    best: Literal["high", "low", "zero", "none"]
    group: Literal["core", "calibration", "selective", "refinement"] = "core"
    unit: str = ""
    digits: int = 4
    by_rows: bool = True


CATALOGUE: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", scores.accuracy, "high"),
        Metric("nll", "Negative log-likelihood", scores.nll, "low", unit="nats"),
        Metric("brier", "Brier score", scores.brier, "low"),
        Metric("ece", "Calibration error (equal width)", bins.ece, "low"),
        Metric("ece_mass", "Calibration error (equal mass)", bins.ece_mass, "low"),
        Metric("gap", "Confidence − accuracy", scores.gap, "zero"),
        Metric("confidence", "Mean confidence", scores.confidence, "none"),
        Metric("aurc", "Area under risk-coverage", selective.aurc, "low"),
        *(
            Metric(name, label, function, "low", "calibration", by_rows=name != "ece_classwise")
            for name, label, function in (
                ("ece_debiased", "ECE, equal width, debiased", bins.ece_debiased),
                ("ece_mass_debiased", "ECE, equal mass, debiased", bins.ece_mass_debiased),
                ("ece_classwise", "Classwise ECE", bins.ece_classwise),
                ("smooth_ece", "Smooth ECE", smooth.smooth_ece),
                ("overconfidence", "Overconfidence error", bins.overconfidence),
                ("confidence_on_errors", "Confidence on errors", scores.confidence_on_errors),
            )
        ),
        Metric("e_aurc", "Excess AURC", selective.e_aurc, "low", "selective"),
        Metric("augrc", "Area under generalised risk", selective.augrc, "low", "selective"),
        Metric("risk_at_80", "Risk at 80 % coverage", selective.risk_at_80, "low", "selective"),
        Metric("auroc", "AUROC of errors", selective.auroc, "high", "selective"),
        *(
            Metric(name, label, function, "low", "refinement", unit="nats", by_rows=False)
            for name, label, function in (
                ("refinement", "NLL at the best temperature", temperature.refinement),
                ("miscalibration", "NLL that rescaling saves", temperature.miscalibration),
            )
        ),
    )
}
"""Every metric by name."""

METRICS: dict[str, Metric] = {name: m for name, m in CATALOGUE.items() if m.group == "core"}
"""The ones that studies, tables and pages show; each is defined for any rows."""


def score(predictions: Predictions, metrics: Iterable[str] = tuple(METRICS)) -> dict[str, float]:
    """Metrics by name: those of :data:`METRICS`, or those named, e.g. ``metrics=CATALOGUE``.

    A metric that these rows do not define (:class:`Undefined`) is left out.

    >>> s = score(Predictions.from_probs([[0.9, 0.1], [0.4, 0.6]], [0, 0]))
    >>> round(s["accuracy"], 3), round(s["brier"], 3), round(s["gap"], 3)
    (0.5, 0.37, 0.25)
    """
    check_predictions(predictions)
    found = {}
    for name in metrics:
        metric = CATALOGUE[OneOf(*CATALOGUE).check("metrics", name)]
        try:
            found[name] = metric.function(predictions)
        except Undefined:
            continue
    return found
