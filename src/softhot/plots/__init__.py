"""Figures: ``prepare_*`` returns what is shown as plain data, ``plot_*`` draws it in matplotlib.

Every ``prepare_*`` is a pure function of results, in the units of :mod:`softhot.metrics`: lists of
dicts that any drawing library takes. It knows no colours and no pixels. The page
(:mod:`softhot.report`) draws the same rows with Vega-Lite.

Every ``plot_*(..., ax=None)`` takes what its ``prepare_*`` takes, draws on ``ax`` or on a figure of
its own, and returns the axes. It needs matplotlib, ``pip install "softhot[plots]"``; importing this
module does not load it.

================== ==================================================================
confidence         how confidence is distributed, right and wrong rows apart
softmax            the probabilities of single rows, model beside model
reliability        confidence against accuracy, with the band of a calibrated model
curve              a metric of a study against alpha: seeds, mean, interval
risk_coverage      error among the surest rows, against the share kept
plane              penultimate activations in the plane of three class templates
loss, gradient     of a row, against the probability it gives the true class
================== ==================================================================
"""

from softhot.plots.curves import (
    SEED_LINES,
    focus,
    prepare_curves,
    prepare_predictions,
)
from softhot.plots.draw import (
    plot_confidence,
    plot_curve,
    plot_gradient,
    plot_loss,
    plot_plane,
    plot_reliability,
    plot_risk_coverage,
    plot_softmax,
)
from softhot.plots.prepare import (
    Models,
    Rows,
    prepare_confidence,
    prepare_logit_plane,
    prepare_loss,
    prepare_plane,
    prepare_reliability,
    prepare_risk_coverage,
    prepare_softmax,
    spread,
)

__all__ = [
    "SEED_LINES",
    "Models",
    "Rows",
    "focus",
    "plot_confidence",
    "plot_curve",
    "plot_gradient",
    "plot_loss",
    "plot_plane",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_softmax",
    "prepare_confidence",
    "prepare_curves",
    "prepare_logit_plane",
    "prepare_loss",
    "prepare_plane",
    "prepare_predictions",
    "prepare_reliability",
    "prepare_risk_coverage",
    "prepare_softmax",
    "spread",
]
