"""Real data by name or from your files, splits that are the same on every machine, and harm done
to training rows on purpose: wrong labels, rare classes, few rows.

>>> from softhot.datasets import load, prepare, split
>>> digits = load("digits")
>>> digits.kind, digits.features.shape, digits.class_names[3]
('tabular', (1797, 64), '3')
>>> parts = split(digits, *digits.sizes, seed=0)
>>> harmed, few = prepare(digits, parts, subset=100, noise=0.2, seed=0)
>>> len(few.train), len(few.test), int((harmed.labels != digits.labels).sum())
(100, 897, 20)

Nothing is downloaded unless :func:`fetch` is called. Features are raw, as published; to
standardise them is part of training, because its means and scales may be computed from the
training rows alone.
"""

from softhot.datasets.corrupt import NOISE, RATIO, corrupt_labels, imbalance, subset
from softhot.datasets.dataset import KINDS, Dataset
from softhot.datasets.options import prepare
from softhot.datasets.splits import SEED, Split, split
from softhot.datasets.table import DATASETS, DatasetInfo, fetch, load

__all__ = [
    "DATASETS",
    "KINDS",
    "NOISE",
    "RATIO",
    "SEED",
    "Dataset",
    "DatasetInfo",
    "Split",
    "corrupt_labels",
    "fetch",
    "imbalance",
    "load",
    "prepare",
    "split",
    "subset",
]
