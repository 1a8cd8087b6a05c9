"""Splits that are the same rows on every machine."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from softhot.core.check import InputError, Interval
from softhot.datasets.dataset import Dataset

SEED = Interval(0, math.inf, "[)", integer=True)


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of three disjoint parts, int64, each rising."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 in hex over the length and the rows of each part, as little-endian int64."""
        state = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            state.update(np.array([len(part), *part], dtype="<i8").tobytes())
        return state.hexdigest()


def split(dataset: Dataset, train: int, validation: int, test: int, seed: int) -> Split:
    """Disjoint parts of exactly these sizes, each with the classes in the data's proportions.

    The share of a class is rounded by largest remainders, so it is off by less than one row
    in each step. The rows depend on labels, sizes and seed alone: they come from the raw
    stream of PCG64, which NumPy promises never to change, unlike its shuffles. Where the data has
    a published test part (``dataset.test_start``), the test rows are from it, the others are not.

    Raises:
        InputError: a size below 1, more rows than there are, a class without training rows.

    >>> from softhot.datasets import load
    >>> parts = split(load("wine"), 60, 40, 78, seed=0)
    >>> len(parts.train), len(parts.validation), len(parts.test), parts.digest[:8]
    (60, 40, 78, 'f31d42bb')
    """
    if not isinstance(dataset, Dataset):
        raise InputError("dataset", "a Dataset", dataset, "Get one with load(name).")
    rows = len(dataset)
    sizes = {"train": train, "validation": validation, "test": test}
    for argument, size in sizes.items():
        sizes[argument] = Interval(1, rows, integer=True).check(argument, size)
    start = dataset.test_start
    if start is None:
        _fit(sizes, rows, f"the rows of {dataset.name!r}")
    else:
        training = {name: sizes[name] for name in ("train", "validation")}
        _fit(training, start, f"the rows of {dataset.name!r} before its test part")
        _fit({"test": sizes["test"]}, rows - start, f"the test part of {dataset.name!r}")
    random = np.random.PCG64(SEED.check("seed", seed)).random_raw(rows)
    ordered = [np.flatnonzero(dataset.labels == k) for k in range(dataset.classes)]
    ordered = [members[np.argsort(random[members], kind="stable")] for members in ordered]
    left = ordered if start is None else [members[members < start] for members in ordered]
    parts: dict[str, np.ndarray] = {}
    for argument, size in sizes.items():
        if argument == "test" and start is not None:
            left = [members[members >= start] for members in ordered]
        counts = shares(np.array([len(members) for members in left]), size)
        if argument == "train" and not counts.all():
            empty = dataset.class_names[int(counts.argmin())]
            hint = f"Class {empty!r} would have no training row; raise train or drop the class."
            raise InputError("train", "enough for a row of every class", size, hint)
        parts[argument] = np.sort(
            np.concatenate([m[:n] for m, n in zip(left, counts, strict=True)])
        )
        left = [m[n:] for m, n in zip(left, counts, strict=True)]
    return Split(**parts)


def _fit(sizes: dict[str, int], rows: int, what: str) -> None:
    """Refuse parts that are larger together than the rows they share."""
    if sum(sizes.values()) > rows:
        allowed = f"at most {rows}, {what}"
        raise InputError(" + ".join(sizes), allowed, sum(sizes.values()))


def shares(available: np.ndarray, size: int) -> np.ndarray:
    """``size`` seats shared out in proportion to ``available``, by largest remainders."""
    counts, remainder = np.divmod(available * size, available.sum())
    extra = np.argsort(-remainder, kind="stable")[: size - counts.sum()]
    counts[extra] += 1
    return counts
