"""Proper scores and simple means: how good, how confident, and how confident when wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from softhot.metrics.bins import class_bins
from softhot.metrics.predictions import Predictions, Rows, Undefined, rows_of


def accuracy(predictions: Predictions | Rows) -> float:
    """Share of rows whose most probable class is the true one, in [0, 1].

    Pitfalls: blind to the probabilities; effects of smoothing are often below half a point, so
    compare paired seeds. Equal top classes count as a prediction of the lowest id, and so do the
    equal top classes of a soft label (``Predictions.tied`` counts those rows).
    """
    return float(rows_of(predictions).correct.mean())


def nll(predictions: Predictions | Rows) -> float:
    """Negative log-likelihood in nats: mean of -log p(true class); the log loss.

    With soft labels the cross-entropy, mean of -sum_k q_k log p_k. Strictly proper: lowest in
    expectation at the true probabilities (Gneiting and Raftery 2007, "Strictly proper scoring
    rules, prediction, and estimation"). In [0, inf).

    Pitfalls: it is the *hard-label* loss; the smoothed validation loss is another quantity, with
    a floor above 0, and so has soft labels' own entropy. One row with probability 0 would make
    it infinite, hence ``Predictions.floored``. Unlike Brier it punishes confident errors without
    bound. scikit-learn's ``log_loss`` clips at 2e-16 (float64), so it differs below that.
    """
    return 0.0 - float(rows_of(predictions).log_likelihood.mean())  # not -mean: -0.0 if perfect


def brier(predictions: Predictions | Rows) -> float:
    """Brier score: mean over rows of sum over classes of (p_k - 1[k = true class])², in [0, 2].

    With soft labels, of (p_k - q_k)². Strictly proper, and bounded where the NLL is not (Brier
    1950, "Verification of forecasts expressed in terms of probability"). :func:`brier_parts`
    takes it apart.

    Pitfall: this is the multi-class sum. The binary form (p_1 - y)² is half of it, and some
    libraries divide by K: compare only within one definition.
    """
    return float(rows_of(predictions).squared_error.mean())


def gap(predictions: Predictions | Rows) -> float:
    """Signed gap, mean confidence - accuracy, in [-1, 1]; positive means overconfident.

    Best at 0. |gap| is at most the ECE of any binning, for it is the ECE of one single bin: over-
    and underconfident rows cancel, so 0 does not mean calibrated.
    """
    return confidence(predictions) - accuracy(predictions)


def confidence(predictions: Predictions | Rows) -> float:
    """Mean confidence: mean of the largest probability, in [1/K, 1].

    Neither high nor low is good: it should equal the accuracy, see :func:`gap`.
    """
    return float(rows_of(predictions).confidence.mean())


def confidence_on_errors(predictions: Predictions | Rows) -> float:
    """Mean confidence of the rows that are predicted wrong, in [1/K, 1]; low is best.

    Pitfall: smoothing lowers it by lowering every confidence; that alone makes nothing safer, for
    the right rows fall too. Whether errors can be *told apart* is :func:`auroc`. The other one,
    of rows predicted right, is no metric here. Without any error it is not defined:
    :class:`Undefined`.
    """
    rows = rows_of(predictions)
    if rows.correct.all():
        raise Undefined("predictions", "wrong in at least one row", "none wrong")
    return float(rows.confidence[~rows.correct].mean())


@dataclass(frozen=True)
class BrierParts:
    """The Brier score as ``reliability - resolution + uncertainty + within``.

    Attributes:
        reliability: sum over bins of share · (mean probability - frequency)²; low is best, 0 is
            calibrated in every class.
        resolution: sum over bins of share · (frequency in the bin - overall frequency)²; high is
            best: the probabilities tell rows apart.
        uncertainty: sum over classes of f (1 - f), f the class frequency; nobody's doing. With
            soft labels the mean of q² replaces f, so their own spread counts.
        within: what the bins lose: variance of probabilities within bins minus twice their
            covariance with the truth. Near 0 for narrow bins; without it the parts do not add up.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier_parts(predictions: Predictions, bins: int = 15) -> BrierParts:
    """The Brier score in parts: each class in ``bins`` bins of equal width, summed over classes.

    Murphy 1973, "A new vector partition of the probability score"; the exact remainder is that of
    Stephenson, Coelho and Jolliffe 2008, "Two extra components in the Brier score decomposition".

    Pitfalls: reliability is biased up and grows with the number of bins and classes, as the ECE
    does; for K = 2 both classes say the same and everything doubles, like the score itself. The
    parts say where a change of the Brier score comes from: smoothing costs reliability,
    rescaling gives it back, and what remains of the change is resolution.

    >>> p = Predictions.from_probs([[0.75, 0.25]] * 4, [0, 0, 0, 1])
    >>> brier_parts(p)
    BrierParts(reliability=0.0, resolution=0.0, uncertainty=0.375, within=0.0)
    """
    found = class_bins(predictions, bins)
    n = len(predictions)
    with np.errstate(invalid="ignore"):
        mean, frequency = found.probability / found.count, found.truth / found.count
        inner = found.probability_squared - found.count * mean**2
        inner -= 2 * (found.product - found.count * mean * frequency)
    overall = found.truth.sum(axis=1, keepdims=True) / n
    reliability = float(np.nansum(found.count * (mean - frequency) ** 2)) / n
    resolution = float(np.nansum(found.count * (frequency - overall) ** 2)) / n
    uncertainty = float(found.truth_squared / n - (overall**2).sum())
    within = float(np.nansum(inner)) / n
    return BrierParts(reliability, resolution, uncertainty, within)
