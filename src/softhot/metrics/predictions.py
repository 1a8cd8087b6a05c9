"""Predictions with their true classes: the one thing that metrics and remedies take.

Whatever comes in (NumPy, PyTorch, JAX, CuPy, lists) is converted once, here, a block of rows at a
time, to float64; what follows is plain NumPy. Matrices too large for memory stay where they are
and are read again, block by block, whenever somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.metrics.convert import TINY, as_array, as_matrix, as_truth, impossible, normalise
from softhot.metrics.stream import Block, Step, Stream, row_blocks, stepped

KINDS = OneOf("logits", "probs")
TOLERANCE = Interval(0, 0.5)


@dataclass(frozen=True, eq=False)
class Rows:
    """What one pass over N rows leaves for every metric that needs no single class.

    ``rows[index]`` selects, so a bootstrap costs N numbers a draw and not N K.

    Attributes:
        confidence: (N,) largest probability, in [1/K, 1].
        log_odds: (N,) log of confidence / (1 - confidence), exact where confidence rounds to 1.
        correct: (N,) bool, whether the most probable class is the true one.
        log_likelihood: (N,) log p(true class); for soft labels sum_k q_k log p_k.
        squared_error: (N,) sum_k (p_k - q_k)², q one-hot for hard labels.
        ranking: (N,) what selective metrics sort by, the surest row highest: the confidence,
            unless a remedy such as :class:`softhot.calibration.PNorm` brought its own.
    """

    confidence: np.ndarray
    log_odds: np.ndarray
    correct: np.ndarray
    log_likelihood: np.ndarray
    squared_error: np.ndarray
    ranking: np.ndarray

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, index: Any) -> Rows:
        return Rows(**{name: values[index] for name, values in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Predictions:
    """Log-probabilities of N rows over K classes, with the true classes.

    Build it with :meth:`from_logits` (best: nothing is rounded to 0 or 1), :meth:`from_probs`, or
    :meth:`from_blocks` for what does not fit in memory. All arrays are read-only. ``p[rows]``
    selects rows by an integer array (repeats allowed, so it serves the bootstrap), a boolean mask
    or a slice; ``len(p)`` is N.

    True labels are class ids (N,), or distributions (N, K) with rows that sum to 1: then NLL and
    Brier score are taken against the distribution, and everything that asks "correct?" against
    its most probable class, ``labels``; :attr:`tied` counts the rows that leave that open.

    Attributes:
        log_probs: (N, K) float64, natural logarithms; each row log-sum-exps to 0. -inf is
            probability 0 (a masked class) and never stands at a true class. From
            :meth:`from_blocks` a :class:`Stream`, which ``numpy.asarray`` reads into memory.
        labels: (N,) int64, in 0 .. K-1.
        targets: (N, K) float64 soft labels, or None where labels are hard.

    Raises:
        InputError: a wrong shape or dtype, no rows, K < 2, NaN, rows that are not normalised,
            labels out of range. The row at fault is named, counted from 0.

    >>> p = Predictions.from_logits([[2.0, 0.0], [0.0, 1.0]], [0, 0])
    >>> p.probs.round(3).tolist(), p.correct.tolist()
    ([[0.881, 0.119], [0.269, 0.731]], [True, False])
    >>> len(p[[0, 0, 1]])
    3
    """

    log_probs: Any
    labels: np.ndarray
    targets: np.ndarray | None = None
    _floored: np.ndarray | None = field(default=None, repr=False)
    _predicted: np.ndarray | None = field(default=None, repr=False)
    _ranking: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check everything, and make the arrays read-only."""
        stream = isinstance(self.log_probs, Stream)
        shape = (self.log_probs if stream else as_matrix("log_probs", self.log_probs)).shape
        labels, targets = as_truth(self.labels if self.targets is None else self.targets, shape)
        arrays = {"labels": labels, "targets": targets, "_ranking": self._ranking}
        if not stream:
            arrays |= self._checked(labels, targets)
        for name, array in arrays.items():
            object.__setattr__(self, name, None if array is None else frozen(array.view()))

    def _checked(self, labels: np.ndarray, targets: np.ndarray | None) -> dict[str, np.ndarray]:
        log_probs = np.asarray(self.log_probs, dtype=np.float64)
        for at in row_blocks(log_probs.shape):
            part = log_probs[at]
            with np.errstate(over="ignore"):
                bad = ~(np.abs(np.exp(part).sum(1) - 1) <= 1e-6)
            bad[impossible(part, labels[at], None if targets is None else targets[at])[0]] = True
            if bad.any():
                row = int(bad.argmax())
                allowed = "normalised (log-sum-exp 0), and finite at the true class"
                hint = "Use Predictions.from_logits or Predictions.from_probs."
                raise InputError(f"log_probs[{at.start + row}]", allowed, part[row], hint)
        floored, predicted = self._floored, self._predicted
        return {
            "log_probs": log_probs,
            "_floored": np.zeros(len(labels), bool) if floored is None else floored,
            "_predicted": log_probs.argmax(axis=1) if predicted is None else predicted,
        }

    @classmethod
    def from_logits(cls, logits: Any, labels: Any) -> Predictions:
        """Log-softmax of ``logits`` (N, K) in float64, with ``labels`` (N,), or soft (N, K).

        A logit of -inf, or below -1e30 under the largest, masks its class: probability exactly 0.
        At the true class the floor of :attr:`floored` applies. NaN, +inf and rows without any
        finite logit raise :class:`InputError`.

        >>> Predictions.from_logits([[0.0, float("-inf")]], [1]).floored
        1
        """
        return cls._converted("logits", logits, labels, 0.0)

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
        return cls._converted("probs", probs, labels, TOLERANCE.check("tolerance", tolerance))

    @classmethod
    def from_blocks(
        cls,
        read: Callable[[], Iterable[Any]],
        labels: Any,
        *,
        kind: str = "logits",
        tolerance: float = 1e-3,
    ) -> Predictions:
        """Predictions that stay where they are: ``read()`` starts over and yields their rows.

        Each pass calls ``read`` again; it must give the same arrays (n_i, K), one after another,
        whose rows match ``labels`` (N,), class ids. Memory holds one of them, and a few numbers a
        row. Scoring takes one pass; ``p[rows]``, ``p.probs`` and ``numpy.asarray(p.log_probs)``
        bring rows into memory.

        >>> halves = [[2.0, 0.0]], [[0.0, 1.0]]
        >>> Predictions.from_blocks(lambda: halves, [0, 0]).correct.tolist()
        [True, False]
        """
        KINDS.check("kind", kind)
        TOLERANCE.check("tolerance", tolerance)
        first = next(iter(read()), None)
        if first is None:
            raise InputError("read()", "an iterator over at least one array", "nothing")
        num_classes = as_matrix(kind, first).shape[1]
        rows = (*as_array("labels", labels).shape, 0)[0]
        y, targets = as_truth(labels, (rows, num_classes))
        if targets is not None:
            hint = "Soft labels are for predictions in memory."
            raise InputError("labels", f"of shape ({len(y)},)", targets.shape, hint)
        return cls(Stream(read, kind, frozen(y), num_classes, tolerance), y)

    @classmethod
    def _converted(cls, kind: str, values: Any, labels: Any, tolerance: float) -> Predictions:
        given = as_matrix(kind, values)
        y, targets = as_truth(labels, given.shape)
        n = len(y)
        z, predicted, floored = np.empty(given.shape), np.empty(n, np.int64), np.empty(n, bool)
        for at in row_blocks(given.shape):
            q = None if targets is None else targets[at]
            found = normalise(given, at, at.start, y[at], q, tolerance)
            z[at], predicted[at], floored[at] = found
        return cls(z, y, targets, floored, predicted)

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
        z = self.log_probs
        return Predictions(
            z.rows(index) if isinstance(z, Stream) else z[index],
            self.labels[index],
            None if self.targets is None else self.targets[index],
            self._floored_rows[index],
            self.predicted[index],
            None if self._ranking is None else self._ranking[index],
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.log_probs.shape[1]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Consecutive rows and their log-probabilities, small enough for temporaries."""
        return ((block.at, block.log_probs) for block in self._blocks())

    def truth(self, at: slice, like: np.ndarray) -> np.ndarray:
        """The true distributions of a block of rows, one-hot for hard labels; a new array."""
        if self.targets is not None:
            return self.targets[at].copy()
        q = np.zeros_like(like)
        q[np.arange(len(q)), self.labels[at]] = 1
        return q

    def map(self, step: Step, *, keeps_order: bool) -> Predictions:
        """Predictions whose logits are ``step(rows, log_probs)``; a stream stays a stream.

        ``step`` is given a slice of rows and a copy of their log-probabilities, and returns as
        many logits. ``keeps_order`` promises that the most probable class stays the same, which
        then no rounding can change. Classes at -inf stay masked; a true class that becomes -inf
        meets the floor of float64.
        """
        if isinstance(self.log_probs, Stream):
            stream = self.log_probs.then(step, keeps_order)
            return replace(self, log_probs=stream, _floored=None, _predicted=None)
        n = len(self)
        z = np.empty_like(self.log_probs)
        predicted, floored = np.empty(n, np.int64), np.empty(n, bool)
        for block in self._blocks():
            at, q = block.at, None if self.targets is None else self.targets[block.at]
            z[at], predicted[at], floored[at] = stepped(
                block, step, keeps_order, self.labels[at], q
            )[1:]
        return Predictions(z, self.labels, self.targets, floored, predicted, self._ranking)

    def ranked_by(self, ranking: Any) -> Predictions:
        """The same predictions, with another order of certainty for the selective metrics.

        ``ranking`` (N,) is finite, the surest row highest. Probabilities stay as they are.
        """
        values = np.asarray(ranking, dtype=np.float64)
        if values.shape != (len(self),) or not np.isfinite(values).all():
            allowed = f"{len(self)} finite numbers"
            raise InputError("ranking", allowed, values if values.ndim else ranking)
        return replace(self, _ranking=values)

    def _blocks(self) -> Iterator[Block]:
        if isinstance(self.log_probs, Stream):
            yield from self.log_probs.blocks()
            return
        assert self._predicted is not None  # __post_init__ fills them in
        assert self._floored is not None
        for at in row_blocks(self.log_probs.shape):
            yield Block(at, self.log_probs[at], self._predicted[at], self._floored[at])

    @cached_property
    def _one_pass(self) -> _Found:
        """Everything that one pass over the rows can know."""
        n = len(self)
        predicted, floored = np.empty(n, np.int64), np.empty(n, bool)
        confidence, log_odds, likelihood, error = np.empty((4, n))
        for at, z, *found in self._blocks():
            predicted[at], floored[at] = found
            i = np.arange(len(z))
            top = i, z.argmax(axis=1)
            # Apart from the matrix: equal logarithms must give equal confidences.
            confidence[at] = np.minimum(np.exp(z[top]), 1.0)
            p = np.exp(z)
            p[top] = 0
            log_odds[at] = z[top] - np.log(np.maximum(p.sum(axis=1), TINY))
            p[top] = confidence[at]
            if self.targets is None:
                true = i, self.labels[at]
                likelihood[at] = z[true]
                p[true] -= 1
            else:
                q = self.targets[at]
                likelihood[at] = np.einsum("nk,nk->n", q, np.where(q > 0, z, 0.0))
                p -= q
            error[at] = np.einsum("nk,nk->n", p, p)
        ranking = confidence if self._ranking is None else self._ranking
        rows = Rows(confidence, log_odds, predicted == self.labels, likelihood, error, ranking)
        for array in (*vars(rows).values(), predicted, floored):
            frozen(array)
        return _Found(rows, predicted, floored)

    @property
    def rows(self) -> Rows:
        """The numbers of single rows that most metrics need; computed once."""
        return self._one_pass.rows

    @cached_property
    def probs(self) -> np.ndarray:
        """(N, K) probabilities. No metric needs them: at large K, mind the memory."""
        return frozen(np.exp(np.asarray(self.log_probs)))

    @property
    def predicted(self) -> np.ndarray:
        """(N,) most probable class; among equals the lowest id, as :func:`numpy.argmax`.

        Taken from the logits or probabilities given, so that no rounding in the logarithm and no
        temperature can change it.
        """
        return self._one_pass.predicted if self._predicted is None else self._predicted

    @property
    def confidence(self) -> np.ndarray:
        """(N,) largest probability of each row, in [1/K, 1]."""
        return self.rows.confidence

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: the predicted class is the true one."""
        return self.rows.correct

    @property
    def floored(self) -> int:
        """For how many rows a true class had probability exactly 0.

        It was raised to the smallest positive number of the dtype given (1e-45 in float32, 5e-324
        in float64). Without that floor one such row makes the NLL infinite; where it is not 0,
        say so beside the NLL.
        """
        return int(self._floored_rows.sum())

    @property
    def _floored_rows(self) -> np.ndarray:
        return self._one_pass.floored if self._floored is None else self._floored

    @property
    def tied(self) -> int:
        """For how many rows the soft label has several most probable classes; the lowest counts."""
        if self.targets is None:
            return 0
        top = self.targets.max(axis=1, keepdims=True)
        return int(((self.targets == top).sum(axis=1) > 1).sum())


class _Found(NamedTuple):
    rows: Rows
    predicted: np.ndarray
    floored: np.ndarray


def frozen(array: np.ndarray) -> np.ndarray:
    """``array``, from now on read-only."""
    array.flags.writeable = False
    return array


class Undefined(InputError):
    """A metric that these rows do not define, such as the confidence on errors without errors."""


def check_predictions(value: Any) -> Predictions:
    """``value``; anything but :class:`Predictions` raises :class:`InputError`."""
    if not isinstance(value, Predictions):
        hint = "Build them with Predictions.from_logits(logits, labels)."
        raise InputError("predictions", "a softhot.metrics.Predictions", value, hint)
    return value


def rows_of(value: Predictions | Rows) -> Rows:
    """The :class:`Rows` of predictions, or themselves."""
    return value if isinstance(value, Rows) else check_predictions(value).rows
