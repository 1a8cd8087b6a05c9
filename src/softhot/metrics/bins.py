"""Confidence against accuracy in bins, and the calibration errors that sum over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from softhot.core.check import Interval, OneOf
from softhot.metrics.predictions import Predictions, Rows, check_predictions, rows_of

BINS = Interval(1, 10_000, integer=True)
BINNING = OneOf("width", "mass")


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """The bins that hold rows, by rising confidence: what the ECE sums and a diagram draws.

    Arrays of one length, at most the number of bins asked for; empty bins are left out. ``lower``
    and ``upper`` are the edges (l, u] of a bin of equal width, and the lowest and highest
    confidence found in a bin of equal mass; ``count`` its rows, ``confidence`` and ``accuracy``
    their means.
    """

    lower: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Sum of (count / N) |accuracy - confidence|."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.count))

    @property
    def debiased(self) -> float:
        """The ECE less the part that chance alone adds, not below 0.

        With n_b rows a bin's accuracy a is uncertain by s = sqrt(a (1 - a) / n_b), so a gap d is
        seen as E|d + s Z| = s sqrt(2/pi) exp(-d²/2s²) + |d| erf(|d| / s sqrt(2)) > |d|, Z normal.
        The excess over the gaps seen estimates the bias.
        """
        from scipy.special import erf

        d = np.abs(self.accuracy - self.confidence)
        s = np.sqrt(self.accuracy * (1 - self.accuracy) / self.count)
        ratio = np.divide(d, s * math.sqrt(2), out=np.full_like(d, np.inf), where=s > 0)
        seen = s * math.sqrt(2 / math.pi) * np.exp(-(ratio**2)) + d * erf(ratio)
        return max(0.0, 2 * self.ece - float(np.average(seen, weights=self.count)))


def reliability(
    predictions: Predictions | Rows, bins: int = 15, binning: Literal["width", "mass"] = "width"
) -> ReliabilityBins:
    """Confidence against accuracy in ``bins`` bins of equal "width" or of equal "mass".

    Equal width: bin b = 1 .. B takes confidences in ((b-1)/B, b/B], the first also 0.
    Equal mass: rows ranked by confidence are cut into B runs whose sizes differ by at most one.
    Rows of equal confidence go together to the run that holds the middle of their ranks, so that
    ties make bins unequal but never make the result depend on the order of the rows.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [0, 1, 1])
    >>> reliability(p, bins=2).count.tolist(), reliability(p, 3, "mass").upper.round(3).tolist()
    ([3], [0.6, 0.8, 0.9])
    """
    rows = rows_of(predictions)
    bins = BINS.check("bins", bins)
    BINNING.check("binning", binning)
    values = rows.confidence
    if binning == "width":
        edges = _edges(bins)
        which = np.maximum(np.searchsorted(edges, values, side="left") - 1, 0)
        used, which, count = np.unique(which, return_inverse=True, return_counts=True)
        lower, upper = edges[used], edges[used + 1]
    else:
        level, group, size = np.unique(values, return_inverse=True, return_counts=True)
        last = np.cumsum(size)
        middle = (2 * last - size) * bins // (2 * len(values))  # integers: no rounding at a cut
        _, first, run = np.unique(middle, return_index=True, return_inverse=True)
        which = run[group]
        count = np.bincount(which)
        lower, upper = level[first], level[np.append(first[1:], len(level)) - 1]
    means = (np.bincount(which, column) / count for column in (values, rows.correct))
    return ReliabilityBins(lower, upper, count, *means)


def ece(predictions: Predictions | Rows) -> float:
    """Expected calibration error, 15 bins of equal width: sum of (n_b / N) |acc_b - conf_b|.

    In [0, 1]. Bins of the confidence are (l, u]; confidence exactly 1 is in the last bin and 0 in
    the first. Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, "On calibration of modern
    neural networks".

    Pitfalls: biased upwards when bins hold few rows (:func:`ece_debiased`); no proper score
    (giving every row the class frequencies reaches 0); hides the sign, so read it beside
    :func:`gap`, which label smoothing flips; sees the top class only. MAPIE 1.6 agrees
    if asked for one bin more, as it counts edges, and netcal 1.4 but on edges, as its bins are
    [l, u). torchmetrics 1.9 takes [l, u) too and puts confidence exactly 1 into a sixteenth bin:
    networks trained without smoothing do saturate at 1, those trained with it do not, so there the
    comparison is skewed. docs/metrics-peers.md has them side by side.
    """
    return reliability(predictions, 15, "width").ece


def ece_mass(predictions: Predictions | Rows) -> float:
    """Expected calibration error as :func:`ece`, but 15 bins of equal mass (adaptive ECE).

    Bins follow the data, so that a model with all its confidence near 1 is not judged by one bin
    (Nixon et al. 2019, "Measuring calibration in deep learning"). Equal confidences always share
    a bin, see :func:`reliability`: cutting through them would let the order of rows decide. What
    netcal calls ACE is the unweighted mean over bins of equal width, another number.
    """
    return reliability(predictions, 15, "mass").ece


def ece_debiased(predictions: Predictions | Rows) -> float:
    """:func:`ece` less the part that chance alone adds to it, not below 0.

    Expected excess under normal noise in each bin, in closed form
    (:attr:`ReliabilityBins.debiased`). Kumar, Liang and Ma 2019, "Verified uncertainty
    calibration", estimate the same by simulation.

    Pitfalls: exact where bins are far off; of a calibrated model it takes away 3 to 4 tenths of
    the bias only, for the gaps that chance made look real, and bins that are all right or all
    wrong are taken at their word. Nothing here removes the bias of wide bins, which hide errors
    that cancel inside them.
    """
    return reliability(predictions, 15, "width").debiased


def ece_mass_debiased(predictions: Predictions | Rows) -> float:
    """:func:`ece_mass` less the part that chance alone adds, see :func:`ece_debiased`."""
    return reliability(predictions, 15, "mass").debiased


def overconfidence(predictions: Predictions | Rows) -> float:
    """Overconfidence error, 15 bins: sum of (n_b / N) conf_b max(conf_b - acc_b, 0), in [0, 1].

    Counts only bins that promise too much, and counts confident ones more (Thulasidasan et al.
    2019, "On mixup training"). Pitfall: 0 for any underconfident model, so it cannot tell a
    smoothed model from a calibrated one; biased up as :func:`ece`.
    """
    r = reliability(predictions, 15)
    excess = np.maximum(r.confidence - r.accuracy, 0)
    return float(np.average(r.confidence * excess, weights=r.count))


# --- Every class -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClassBins:
    """Sums over the rows whose p_k is in bin b: arrays (K, B); ``truth`` sums 1[k = true class].

    ``truth_squared`` is one number: sum over rows and classes of q_k², N for hard labels.
    """

    count: np.ndarray
    probability: np.ndarray
    truth: np.ndarray
    probability_squared: np.ndarray
    product: np.ndarray
    truth_squared: float


def class_bins(predictions: Predictions, bins: int = 15) -> ClassBins:
    """Every probability of every row in ``bins`` bins of equal width, class by class; one pass."""
    bins = BINS.check("bins", bins)
    k = check_predictions(predictions).num_classes
    edges = _edges(bins)
    sums = np.zeros((5, k * bins))
    squared = 0.0
    for at, z in predictions.blocks():
        p, q = np.exp(z), predictions.truth(at, z)
        which = np.maximum(np.searchsorted(edges[:-1], p, side="left") - 1, 0)
        which += np.arange(k) * bins
        for into, column in zip(sums, (None, p, q, p * p, p * q), strict=True):
            weights = None if column is None else column.ravel()
            into += np.bincount(which.ravel(), weights, minlength=k * bins)
        squared += float(np.vdot(q, q))
    count, probability, truth, probability_squared, product = sums.reshape(5, k, bins)
    return ClassBins(count, probability, truth, probability_squared, product, squared)


def ece_classwise(predictions: Predictions) -> float:
    """Classwise ECE: mean over classes of the ECE of p_k against 1[k = true class], 15 bins.

    All N probabilities of a class in bins of equal width (Kull et al. 2019, "Beyond temperature
    scaling"). In [0, 1]. Soft labels enter as they are.

    Pitfalls: tends to 0 as K grows, because most p_k are near 0 and right; the floor alpha/K that
    smoothing puts under every class shows here and in no top-class metric, but is as small as
    that. Compare only at the same K.
    """
    found = class_bins(predictions)
    gaps = np.abs(found.probability - found.truth).sum()
    return float(gaps) / (len(predictions) * predictions.num_classes)


def _edges(bins: int) -> np.ndarray:
    return np.arange(bins + 1) / bins  # not linspace: each edge is b/B correctly rounded
