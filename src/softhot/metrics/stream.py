"""Matrices of any length: read anew, a block of rows at a time, whenever somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from softhot.core.check import InputError
from softhot.metrics.convert import as_matrix, check_finite, floor, log_softmax, normalise

_BLOCK = 1 << 20  # float64 numbers worked on at a time: 8 MiB


class Block(NamedTuple):
    """Consecutive rows: where they stand, their log-probabilities, and what was found in them."""

    at: slice
    log_probs: np.ndarray
    predicted: np.ndarray
    floored: np.ndarray


Step = Callable[[slice, np.ndarray], np.ndarray]  # rows, log-probabilities -> new logits


@dataclass(frozen=True, eq=False)
class Stream:
    """(N, K) log-probabilities that are read anew, a block at a time, whenever they are needed.

    The matrix of :meth:`Predictions.from_blocks`; ``numpy.asarray`` brings it into memory.
    """

    read: Callable[[], Iterable[Any]]
    kind: str
    labels: np.ndarray
    num_classes: int
    tolerance: float
    steps: tuple[tuple[Step, bool], ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return len(self.labels), self.num_classes

    def then(self, step: Step, keeps_order: bool) -> Stream:
        """The stream with one more step."""
        return replace(self, steps=(*self.steps, (step, keeps_order)))

    def blocks(self) -> Iterator[Block]:
        """One pass, with all steps applied."""
        n, k = self.shape
        start = 0
        for values in self.read():
            given = as_matrix(self.kind, values)
            end = start + given.shape[0]
            if end > n or given.shape[1] != k:
                allowed = f"blocks of {n} rows in all and {k} classes, as many as labels"
                raise InputError("read()", allowed, f"rows {start} .. {end}, shape {given.shape}")
            for part in row_blocks(given.shape):
                at = slice(start + part.start, start + part.stop)
                y = self.labels[at]
                found = normalise(given, part, at.start, y, None, self.tolerance)
                block = Block(at, *found)
                for step, keeps_order in self.steps:
                    block = stepped(block, step, keeps_order, y, None)
                yield block
            start = end
        if start < n:
            raise InputError("read()", f"an iterator over {n} rows, one a label", f"{start} rows")

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The rows of an integer array, in memory; one pass."""
        order = np.argsort(index, kind="stable")
        wanted = index[order]
        result = np.empty((len(index), self.num_classes))
        for block in self.blocks():
            low, high = np.searchsorted(wanted, [block.at.start, block.at.stop])
            result[order[low:high]] = block.log_probs[wanted[low:high] - block.at.start]
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole matrix in memory."""
        return np.concatenate([block.log_probs for block in self.blocks()]).astype(
            dtype or np.float64, copy=False
        )


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the rows of an (N, K) matrix, small enough for temporaries, whatever K."""
    n, step = shape[0], max(1, _BLOCK // shape[1])
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def stepped(
    block: Block, step: Step, keeps_order: bool, labels: np.ndarray, targets: np.ndarray | None
) -> Block:
    """The block after ``step``, normalised and floored."""
    at, z, predicted, floored = block
    masked = np.isneginf(z)
    new = step(at, z.copy())
    new[masked] = -np.inf
    check_finite("mapped logits", new, at.start)
    log_softmax(new)
    if not keeps_order:
        predicted = new.argmax(axis=1)
    return Block(at, new, predicted, floored | floor(new, labels, targets))
