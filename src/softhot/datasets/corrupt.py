"""Harm done to training rows on purpose, by seed: wrong labels, rare classes, few rows.

Each function depends on its arguments alone and draws from the raw stream of PCG64, which NumPy
promises never to change, so the same seed harms the same rows on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval
from softhot.datasets.splits import SEED, shares

NOISE = Interval(0, 1)
RATIO = Interval(1, np.inf, "[)")
CLASSES = Interval(2, np.inf, "[)", integer=True)


def corrupt_labels(labels: Any, classes: int, noise: Any, seed: int) -> np.ndarray:
    """Labels of which a known share is wrong.

    With a rate r, each class gives the share r of its rows away, in equal parts to the K-1
    others: P(y' = j | y = i) is 1 - r for j = i, else r / (K-1). With a confusion matrix T, (K, K),
    that probability is T[i, j]. Either way the numbers are not left to chance: of the n_i rows of
    class i, n_i T[i, j] become class j, give or take less than one row, and exactly so on average
    over seeds (systematic sampling); only which rows they are is drawn. So the share of wrong
    labels over all rows is r exactly on average over seeds, and within K / N of it always.

    Args:
        labels: (N,) integers in 0 .. K-1.
        classes: K.
        noise: A rate in [0, 1], or a matrix with rows that sum to 1.
        seed: Which rows.

    Returns:
        (N,) int64.

    Raises:
        InputError: An argument out of range; a matrix of another shape, or whose rows are no
            distributions.

    Symmetric noise as in Natarajan et al. 2013 (Learning with Noisy Labels) and, with a matrix,
    Patrini et al. 2017 (arXiv:1609.03683).

    >>> corrupt_labels([0] * 5 + [1] * 5, 2, 0.2, seed=0)
    array([0, 0, 0, 1, 0, 1, 1, 1, 0, 1])
    """
    labels, classes = _labels(labels, classes)
    matrix = _confusion(noise, classes)
    random = np.random.PCG64(SEED.check("seed", seed))
    keys, corrupted = random.random_raw(len(labels)), labels.copy()
    for k in range(classes):
        order = np.argsort(random.random_raw(classes), kind="stable")
        start = random.random_raw() / 2**64
        members = np.flatnonzero(labels == k)
        members = members[np.argsort(keys[members], kind="stable")]
        # The points start, start + 1, ... on a line that the targets share out by length.
        ends = np.floor(len(members) * np.cumsum(matrix[k, order]) + start + 1e-9).astype(np.int64)
        ends[-1] = len(members)
        corrupted[members] = np.repeat(order, np.diff(ends, prepend=0))
    return corrupted


def imbalance(labels: Any, classes: int, ratio: float, seed: int) -> np.ndarray:
    """Row numbers, rising, that make the classes ever rarer: a long tail.

    Class k keeps the share ratio^(-k / (K-1)) of its rows, rounded, and at least one: the first
    class all of them, the last one in ``ratio``. So long-tailed CIFAR is made (Cui et al. 2019,
    arXiv:1901.05555).

    Args:
        labels: (N,) integers in 0 .. K-1.
        classes: K.
        ratio: How much rarer the last class becomes, a number >= 1; 1 keeps every row.
        seed: Which rows.

    Raises:
        InputError: An argument out of range.

    >>> imbalance([0] * 4 + [1] * 4, 2, 4.0, seed=0)
    array([0, 1, 2, 3, 6])
    """
    labels, classes = _labels(labels, classes)
    ratio = RATIO.check("imbalance", ratio)
    keys = np.random.PCG64(SEED.check("seed", seed)).random_raw(len(labels))
    kept = []
    for k in range(classes):
        members = np.flatnonzero(labels == k)
        members = members[np.argsort(keys[members], kind="stable")]
        share = ratio ** (-k / (classes - 1))
        kept.append(members[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(kept))


def subset(labels: Any, classes: int, size: int, seed: int) -> np.ndarray:
    """``size`` row numbers, rising, with the classes in the proportions of ``labels``.

    Args:
        labels: (N,) integers in 0 .. K-1.
        classes: K.
        size: How many rows.
        seed: Which rows.

    Raises:
        InputError: An argument out of range; a class that would have no row.

    >>> subset([0] * 6 + [1] * 3, 2, 3, seed=0)
    array([2, 3, 8])
    """
    labels, classes = _labels(labels, classes)
    size = Interval(1, len(labels), integer=True).check("subset", size)
    keys = np.random.PCG64(SEED.check("seed", seed)).random_raw(len(labels))
    there = np.bincount(labels, minlength=classes)
    counts = shares(there, size)
    if ((counts == 0) & (there > 0)).any():
        empty = int(((counts == 0) & (there > 0)).argmax())
        hint = f"Class {empty} would have no training row; keep more."
        raise InputError("subset", "enough for a row of every class", size, hint)
    kept = []
    for k, count in enumerate(counts):
        members = np.flatnonzero(labels == k)
        kept.append(members[np.argsort(keys[members], kind="stable")][:count])
    return np.sort(np.concatenate(kept))


def _labels(labels: Any, classes: int) -> tuple[np.ndarray, int]:
    classes = CLASSES.check("classes", classes)
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
        found = f"shape {labels.shape}, dtype {labels.dtype}"
        raise InputError("labels", "integers of shape (N,)", found)
    if (bad := (labels < 0) | (labels >= classes)).any():
        row = int(bad.argmax())
        allowed = f"an integer in [0, {classes - 1}]"
        raise InputError(f"labels[{row}]", allowed, int(labels[row]))
    return labels.astype(np.int64), classes


def is_matrix(noise: Any) -> bool:
    """Whether ``noise`` is meant as a confusion matrix, not as a rate."""
    return isinstance(noise, list | tuple | np.ndarray)


def _confusion(noise: Any, classes: int) -> np.ndarray:
    """(K, K): the probability that a row of class i gets the label j."""
    if not is_matrix(noise):
        rate = NOISE.check("noise", noise)
        matrix = np.full((classes, classes), rate / (classes - 1))
        np.fill_diagonal(matrix, 1 - rate)
        return matrix
    try:
        matrix = np.array(noise, np.float64, ndmin=2)
    except (TypeError, ValueError):
        matrix = np.empty((0, 0))
    if matrix.shape != (classes, classes):
        allowed = f"a rate, or numbers of shape ({classes}, {classes})"
        raise InputError("noise", allowed, noise)
    good = (matrix >= 0).all(axis=1) & (np.abs(matrix.sum(axis=1) - 1) < 1e-6)
    if not good.all():
        row = int(good.argmin())
        hint = "Entry [i, j] is the probability that a row of class i gets the label j."
        raise InputError(f"noise[{row}]", "probabilities that sum to 1", noise[row], hint)
    return matrix
