"""How good predictions are, judged on hard labels: proper scores, calibration, selective risk.

Every metric is one function of :class:`Predictions` and one row of :data:`METRICS`. A smoothed
loss is not among them, on purpose: its lowest value depends on alpha, so it cannot compare models
trained with different alphas. All sums are float64 whatever came in, and no metric depends on the
order of the rows beyond the last bits of a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from softhot.core.check import InputError, Interval, OneOf

__all__ = [
    "METRICS",
    "Metric",
    "Predictions",
    "ReliabilityBins",
    "accuracy",
    "aurc",
    "brier",
    "confidence",
    "ece",
    "ece_mass",
    "gap",
    "nll",
    "reliability",
    "score",
]

BINS = Interval(1, 10_000, integer=True)
BINNING = OneOf("width", "mass")
TOLERANCE = Interval(0, 0.5)

# Below this a log-probability is no estimate but a mask, written as the lowest float32 or float64
# instead of -inf. Read as -inf, the two masks score alike and nothing overflows later.
_MASKED = -1e30
_BLOCK = 1 << 21  # float64 numbers worked on at a time: 16 MiB


@dataclass(frozen=True, eq=False)
class Predictions:
    """Log-probabilities of N rows over K classes, with the true classes.

    Build it with :meth:`from_logits` (best: nothing is rounded to 0 or 1) or :meth:`from_probs`.
    All arrays are read-only. ``p[rows]`` selects rows by an integer array (repeats allowed, so it
    serves the bootstrap), a boolean mask or a slice; ``len(p)`` is N.

    Attributes:
        log_probs: (N, K) float64, natural logarithms; each row log-sum-exps to 0. -inf is
            probability 0 (a masked class) and never stands at the true class.
        labels: (N,) int64, in 0 .. K-1.
        floored: for how many rows the true class had probability exactly 0 and was raised to the
            smallest positive number of the dtype given (1e-45 in float32, 5e-324 in float64).
            Without that floor one such row makes the NLL infinite; where it is not 0, say so
            beside the NLL.

    Raises:
        InputError: a wrong shape or dtype, no rows, K < 2, NaN, rows that are not normalised,
            labels out of range. The row at fault is named, counted from 0.

    >>> p = Predictions.from_logits([[2.0, 0.0], [0.0, 1.0]], [0, 0])
    >>> p.probs.round(3).tolist(), p.correct.tolist()
    ([[0.881, 0.119], [0.269, 0.731]], [True, False])
    >>> len(p[[0, 0, 1]])
    3
    """

    log_probs: np.ndarray
    labels: np.ndarray
    floored: int = 0
    _floored_rows: np.ndarray | None = field(default=None, repr=False)
    _predicted: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check everything, and make the arrays read-only."""
        log_probs, _ = _matrix("log_probs", self.log_probs, copy=False)
        labels = _labels(self.labels, log_probs)
        with np.errstate(over="ignore"):
            total = np.concatenate([np.exp(log_probs[b]).sum(1) for b in row_blocks(log_probs)])
        true = log_probs[np.arange(len(labels)), labels]
        if (bad := (np.abs(total - 1) > 1e-6) | np.isneginf(true)).any():
            row = int(bad.argmax())
            allowed = "normalised (log-sum-exp 0), and finite at the true class"
            hint = "Use Predictions.from_logits or Predictions.from_probs."
            raise InputError(f"log_probs[{row}]", allowed, log_probs[row], hint)
        predicted = log_probs.argmax(axis=1) if self._predicted is None else self._predicted
        arrays = {"log_probs": log_probs, "labels": labels, "_predicted": predicted}
        for name, array in arrays.items():
            object.__setattr__(self, name, _frozen(array.view()))

    @classmethod
    def from_logits(cls, logits: Any, labels: Any) -> Predictions:
        """Log-softmax of ``logits`` (N, K) in float64, with ``labels`` (N,) of integers.

        A logit of -inf, or below -1e30 under the largest, masks its class: probability exactly 0.
        At the true class the floor of :attr:`floored` applies. NaN, +inf and rows without any
        finite logit raise :class:`InputError`.

        >>> Predictions.from_logits([[0.0, float("-inf")]], [1]).floored
        1
        """
        z, smallest = _matrix("logits", logits)
        y = _labels(labels, z)
        predicted = z.argmax(axis=1)
        for block in row_blocks(z):
            _log_softmax(z[block])
        return cls._with_floor(z, y, smallest, predicted)

    @classmethod
    def from_probs(cls, probs: Any, labels: Any, *, tolerance: float = 1e-3) -> Predictions:
        """Rows of probabilities (N, K) that sum to 1 within ``tolerance``; they are rescaled to 1.

        Prefer :meth:`from_logits`: probabilities in float32 have lost what lies closer to 1 than
        6e-8, so ranks tie at 1.0, and what lies below 1e-45.

        >>> Predictions.from_probs([[0.5, 0.4]], [0])
        Traceback (most recent call last):
        softhot.core.check.InputError: probs[0].sum() must be 1 within 0.001; got 0.9. \
Logits go to Predictions.from_logits.
        """
        TOLERANCE.check("tolerance", tolerance)
        p, smallest = _matrix("probs", probs)
        y = _labels(labels, p)
        hint = "Logits go to Predictions.from_logits."
        if (bad := p.min(axis=1) < 0).any():
            row = int(bad.argmax())
            raise InputError(f"probs[{row}]", "free of negative numbers", float(p[row].min()), hint)
        total = p.sum(axis=1)
        if (bad := np.abs(total - 1) > tolerance).any():
            row, value = int(bad.argmax()), float(f"{total[bad][0]:.12g}")
            raise InputError(f"probs[{row}].sum()", f"1 within {tolerance:g}", value, hint)
        predicted = p.argmax(axis=1)
        with np.errstate(divide="ignore"):
            np.log(p, out=p)
        p -= np.log(total)[:, None]
        return cls._with_floor(p, y, smallest, predicted)

    @classmethod
    def _with_floor(cls, log_probs, labels, smallest, predicted) -> Predictions:
        rows = np.arange(len(labels))
        zero = np.isneginf(log_probs[rows, labels])
        if zero.any():
            log_probs[rows[zero], labels[zero]] = np.log(smallest)
            log_probs[zero] = _log_softmax(log_probs[zero])
        return cls(log_probs, labels, int(zero.sum()), zero, predicted)

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def __getitem__(self, rows: Any) -> Predictions:
        """The rows of an integer array, a boolean mask or a slice; at least one."""
        try:
            index = np.atleast_1d(np.arange(len(self))[rows])
        except (IndexError, TypeError, ValueError) as error:
            allowed = f"row numbers below {len(self)}, a boolean mask of that length or a slice"
            raise InputError("rows", allowed, rows) from error
        if index.ndim != 1 or not len(index):
            raise InputError("rows", "one-dimensional and not empty", rows)
        floored = None if self._floored_rows is None else self._floored_rows[index]
        return Predictions(
            self.log_probs[index],
            self.labels[index],
            0 if floored is None else int(floored.sum()),
            floored,
            self.predicted[index],
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.log_probs.shape[1]

    @cached_property
    def probs(self) -> np.ndarray:
        """(N, K) probabilities. No metric needs them: at large K, mind the memory."""
        return _frozen(np.exp(self.log_probs))

    @property
    def predicted(self) -> np.ndarray:
        """(N,) most probable class; among equals the lowest id, as :func:`numpy.argmax`.

        Taken from the logits or probabilities given, so that no rounding in the logarithm and no
        temperature can change it.
        """
        assert self._predicted is not None  # __post_init__ fills it in
        return self._predicted

    @cached_property
    def confidence(self) -> np.ndarray:
        """(N,) largest probability of each row, in [1/K, 1]."""
        return _frozen(np.minimum(np.exp(self.log_probs.max(axis=1)), 1.0))

    @cached_property
    def correct(self) -> np.ndarray:
        """(N,) bool: the predicted class is the true one."""
        return _frozen(self.predicted == self.labels)


# --- Metrics: one function each, then one row each in METRICS ----------------------------------


def accuracy(predictions: Predictions) -> float:
    """Share of rows whose most probable class is the true one, in [0, 1].

    Pitfalls: blind to the probabilities; effects of smoothing are often below half a point, so
    compare paired seeds. Equal top classes count as a prediction of the lowest id.
    """
    return float(predictions.correct.mean())


def nll(predictions: Predictions) -> float:
    """Negative log-likelihood in nats: mean of -log p(true class); the log loss.

    Strictly proper: lowest in expectation at the true probabilities (Gneiting and Raftery 2007,
    "Strictly proper scoring rules, prediction, and estimation"). In [0, inf).

    Pitfalls: it is the *hard-label* loss; the smoothed validation loss is another quantity, with
    a floor above 0. One row with probability 0 would make it infinite, hence
    ``Predictions.floored``. Unlike Brier it punishes confident errors without bound.
    """
    true = predictions.log_probs[np.arange(len(predictions)), predictions.labels]
    return 0.0 - float(true.mean())  # not -mean, which is -0.0 for perfect rows


def brier(predictions: Predictions) -> float:
    """Brier score: mean over rows of sum over classes of (p_k - 1[k = true class])², in [0, 2].

    Strictly proper, and bounded where the NLL is not (Brier 1950, "Verification of forecasts
    expressed in terms of probability").

    Pitfall: this is the multi-class sum. The binary form (p_1 - y)² is half of it, and some
    libraries divide by K: compare only within one definition.
    """
    log_probs, labels = predictions.log_probs, predictions.labels
    total = 0.0
    for block in row_blocks(log_probs):
        error = np.exp(log_probs[block])
        error[np.arange(len(error)), labels[block]] -= 1
        total += float(np.vdot(error, error))
    return total / len(predictions)


def ece(predictions: Predictions) -> float:
    """Expected calibration error, 15 bins of equal width: sum of (n_b / N) |acc_b - conf_b|.

    In [0, 1]. Bins of the confidence are (l, u]; confidence exactly 1 is in the last bin and 0 in
    the first. Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, "On calibration of modern
    neural networks".

    Pitfalls: biased upwards when bins hold few rows; no proper score (giving every row
    the class frequencies reaches 0); hides the sign, so read it beside :func:`gap`, which label
    smoothing flips; sees the top class only.
    """
    return reliability(predictions, 15, "width").ece


def ece_mass(predictions: Predictions) -> float:
    """Expected calibration error as :func:`ece`, but 15 bins of equal mass (adaptive ECE).

    Bins follow the data, so that a model with all its confidence near 1 is not judged by one bin
    (Nixon et al. 2019, "Measuring calibration in deep learning"). Equal confidences always share
    a bin, see :func:`reliability`: cutting through them would let the order of rows decide.
    """
    return reliability(predictions, 15, "mass").ece


def gap(predictions: Predictions) -> float:
    """Signed gap, mean confidence - accuracy, in [-1, 1]; positive means overconfident.

    Best at 0. |gap| is at most the ECE of any binning, for it is the ECE of one single bin: over-
    and underconfident rows cancel, so 0 does not mean calibrated.
    """
    return confidence(predictions) - accuracy(predictions)


def confidence(predictions: Predictions) -> float:
    """Mean confidence: mean of the largest probability, in [1/K, 1].

    Neither high nor low is good: it should equal the accuracy, see :func:`gap`.
    """
    return float(predictions.confidence.mean())


def aurc(predictions: Predictions) -> float:
    """Area under the risk-coverage curve: mean over k = 1 .. N of the error rate of the k surest.

    In [0, 1], low is best: (1/N) sum_k errors(k) / k, rows sorted by falling confidence (Geifman,
    Uziel and El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers").
    Rows of equal confidence count with the mean over all their orders, which is exact and cheap:
    errors(k) is linear in the order, so each such row counts as the error rate of its group.

    Pitfalls: mixes accuracy with ranking; the few surest rows dominate; other definitions prepend
    the point (0, 0), use trapezoids, or let the order of rows break ties.
    """
    _, group, size = np.unique(-predictions.confidence, return_inverse=True, return_counts=True)
    rate = np.bincount(group, ~predictions.correct) / size
    errors = np.cumsum(np.repeat(rate, size))
    return float((errors / np.arange(1, len(predictions) + 1)).mean())


@dataclass(frozen=True)
class Metric:
    """One row of :data:`METRICS`: what a table or a figure needs to know about a metric.

    ``best`` is the good direction; "none" marks a description rather than a score. ``digits`` is
    how many decimals are worth printing.
    """

    name: str
    label: str
    function: Callable[[Predictions], float]
    best: Literal["high", "low", "zero", "none"]
    unit: str = ""
    digits: int = 4


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", accuracy, "high"),
        Metric("nll", "Negative log-likelihood", nll, "low", unit="nats"),
        Metric("brier", "Brier score", brier, "low"),
        Metric("ece", "Calibration error (equal width)", ece, "low"),
        Metric("ece_mass", "Calibration error (equal mass)", ece_mass, "low"),
        Metric("gap", "Confidence − accuracy", gap, "zero"),
        Metric("confidence", "Mean confidence", confidence, "none"),
        Metric("aurc", "Area under risk-coverage", aurc, "low"),
    )
}


def score(predictions: Predictions) -> dict[str, float]:
    """Every metric of :data:`METRICS` by name.

    >>> s = score(Predictions.from_probs([[0.9, 0.1], [0.4, 0.6]], [0, 0]))
    >>> round(s["accuracy"], 3), round(s["brier"], 3), round(s["gap"], 3)
    (0.5, 0.37, 0.25)
    """
    check_predictions(predictions)
    return {name: metric.function(predictions) for name, metric in METRICS.items()}


# --- Reliability -------------------------------------------------------------------------------


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


def reliability(
    predictions: Predictions, bins: int = 15, binning: Literal["width", "mass"] = "width"
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
    check_predictions(predictions)
    bins = BINS.check("bins", bins)
    BINNING.check("binning", binning)
    values = predictions.confidence
    if binning == "width":
        edges = np.arange(bins + 1) / bins  # not linspace: each edge is b/B correctly rounded
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
    means = (np.bincount(which, column) / count for column in (values, predictions.correct))
    return ReliabilityBins(lower, upper, count, *means)


# --- Checks and parts --------------------------------------------------------------------------


def check_predictions(value: Any) -> None:
    """Refuse anything but :class:`Predictions`."""
    if not isinstance(value, Predictions):
        hint = "Build them with Predictions.from_logits(logits, labels)."
        raise InputError("predictions", "a softhot.metrics.Predictions", value, hint)


def row_blocks(matrix: np.ndarray) -> Iterator[slice]:
    """Slices of rows small enough for temporaries, whatever K."""
    step = max(1, _BLOCK // matrix.shape[1])
    return (slice(start, start + step) for start in range(0, len(matrix), step))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _log_softmax(z: np.ndarray) -> np.ndarray:
    """In place, over rows of float64; masks become -inf."""
    with np.errstate(over="ignore"):  # the lowest float64 minus a large number
        z -= z.max(axis=1, keepdims=True)
    z[z < _MASKED] = -np.inf
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def _array(argument: str, value: Any) -> np.ndarray:
    if np.ma.is_masked(value):  # asarray would bring back what was masked out
        raise InputError(argument, "without masked entries", value, "Drop those rows first.")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged; on a GPU; requires grad
        hint = "A torch tensor converts with x.detach().float().cpu()."
        raise InputError(argument, "what numpy.asarray accepts", value, hint) from error


def _matrix(argument: str, value: Any, copy: bool = True) -> tuple[np.ndarray, float]:
    """A float64 copy (N, K) in which every row has a finite maximum, and the dtype's smallest."""
    array = _array(argument, value)
    if array.ndim != 2 or not len(array) or array.shape[1] < 2:
        hint = ""
        if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
            pair = "[1 - p, p]" if argument == "probs" else "[0, z]"
            hint = f"One score a row of a binary model becomes the two columns {pair}."
        raise InputError(argument, "of shape (N, K), N >= 1, K >= 2", array.shape, hint)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InputError(argument, "real numbers", f"dtype {array.dtype}")
    double = array.dtype.kind in "iu" or array.dtype.itemsize > 8
    dtype = np.dtype(np.float64) if double else array.dtype
    smallest = float(np.nextafter(np.zeros((), dtype), np.ones((), dtype)))
    with np.errstate(over="ignore"):
        matrix = array.astype(np.float64, order="C", copy=copy)
    top = matrix.max(axis=1)  # NaN if any is NaN, +inf if any is +inf, -inf if all are
    if not np.isfinite(top).all():
        row = int(np.isfinite(top).argmin())
        at = f"{argument}[{row}]"
        if np.isneginf(top[row]):
            hint = "All classes of this row are masked; one must be left."
            raise InputError(at, "finite for at least one class", -np.inf, hint)
        where = int((~(matrix[row] < np.inf)).argmax())
        hint = f"It is class {where}. Did training diverge, or float16 overflow?"
        raise InputError(at, "free of NaN and +inf", float(matrix[row, where]), hint)
    return matrix, smallest


def _labels(value: Any, matrix: np.ndarray) -> np.ndarray:
    labels = _array("labels", value)
    rows, classes = matrix.shape
    if labels.shape != (rows,):
        hint = ""
        if labels.shape == matrix.shape:
            hint = "One-hot rows become class ids with labels.argmax(axis=1)."
        elif labels.shape == (rows, 1):
            hint = "Flatten them with labels.ravel()."
        raise InputError("labels", f"of shape ({rows},), one a row", labels.shape, hint)
    if labels.dtype.kind not in "iu":
        hint = "Class ids are 0 .. K-1; convert whole numbers with labels.astype(int)."
        raise InputError("labels", "integers", f"dtype {labels.dtype}", hint)
    if (bad := (labels < 0) | (labels >= classes)).any():
        row = int(bad.argmax())
        hint = "Drop the rows to ignore first." if labels[row] < 0 else ""
        allowed = f"an integer in [0, {classes - 1}]"
        raise InputError(f"labels[{row}]", allowed, int(labels[row]), hint)
    return labels.astype(np.int64)
