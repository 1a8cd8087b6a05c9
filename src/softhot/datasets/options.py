"""The options of every data set: few training rows, rare classes, wrong labels, by seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from softhot.datasets import corrupt
from softhot.datasets.dataset import Dataset
from softhot.datasets.splits import Split


def prepare(
    dataset: Dataset,
    parts: Split,
    *,
    subset: int = 0,
    imbalance: float = 1.0,
    noise: Any = 0.0,
    seed: int = 0,
) -> tuple[Dataset, Split]:
    """The data set and its split with harmed training rows; validation and test stay as they are.

    First the subset is taken, then rows of rare classes are dropped, then labels are made wrong.
    Soft labels are dropped together with labels that are made wrong: they would tell the truth.

    Args:
        dataset: The data.
        parts: Its split.
        subset: How many training rows to keep (:func:`softhot.datasets.subset`); 0: all.
        imbalance: See :func:`softhot.datasets.imbalance`.
        noise: A rate or a matrix, see :func:`softhot.datasets.corrupt_labels`.
        seed: Which rows.

    Raises:
        InputError: What those functions refuse.
    """
    rows, labels, classes = parts.train, dataset.labels, dataset.classes
    if isinstance(subset, bool) or subset != 0:
        rows = rows[corrupt.subset(labels[rows], classes, subset, seed)]
    if corrupt.RATIO.check("imbalance", imbalance) > 1:
        rows = rows[corrupt.imbalance(labels[rows], classes, imbalance, seed)]
    if rows is not parts.train:
        parts = replace(parts, train=rows)
    if corrupt.is_matrix(noise) or noise != 0:
        labels = labels.copy()
        labels[rows] = corrupt.corrupt_labels(labels[rows], classes, noise, seed)
        dataset = replace(dataset, labels=labels, soft_labels=None)
    return dataset, parts
