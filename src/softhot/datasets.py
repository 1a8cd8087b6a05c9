"""Real data by name, and splits that are the same on every machine.

Only data that comes inside an installed package: nothing is downloaded. Features are raw, as
published; to standardise them is part of training, because its means and scales may be computed
from the training rows alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval, OneOf

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "Split", "load", "split"]

SEED = Interval(0, math.inf, "[)", integer=True)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows with one true class each.

    Attributes:
        name: its key in :data:`DATASETS`.
        features: (N, D) float32, finite, not scaled.
        labels: (N,) int64, in 0 .. K-1.
        class_names: K names; ``class_names[label]`` is the class of a row.
        source: whom to cite.
        licence: under which terms the data is published.

    Raises:
        InputError: shapes that do not fit, features that are not finite, labels out of range.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    licence: str

    def __post_init__(self) -> None:
        """Check everything, and bring the arrays to their dtypes."""
        features, labels = np.asarray(self.features), np.asarray(self.labels)
        if features.ndim != 2 or 0 in features.shape or features.dtype.kind not in "fiu":
            found = f"shape {features.shape}, dtype {features.dtype}"
            raise InputError("features", "real numbers of shape (N, D)", found)
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(features, np.float32)
        if not np.isfinite(features).all():
            row = int((~np.isfinite(features).all(axis=1)).argmax())
            hint = "Fill in or drop what is missing."
            raise InputError(f"features[{row}]", "finite in float32", features[row], hint)
        if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu":
            found = f"shape {labels.shape}, dtype {labels.dtype}"
            raise InputError("labels", f"integers of shape ({len(features)},)", found)
        if len(self.class_names) < 2:
            raise InputError("class_names", "two names or more", self.class_names)
        if (bad := (labels < 0) | (labels >= len(self.class_names))).any():
            row = int(bad.argmax())
            allowed = f"an integer in [0, {len(self.class_names) - 1}]"
            hint = "There is one class name for each class."
            raise InputError(f"labels[{row}]", allowed, int(labels[row]), hint)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "labels", np.ascontiguousarray(labels, np.int64))
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def __len__(self) -> int:
        """N."""
        return len(self.labels)


@dataclass(frozen=True)
class DatasetInfo:
    """One row of :data:`DATASETS`: what is known about a data set before it is loaded.

    ``size`` is N; ``train``, ``validation`` and ``test`` are default numbers of rows for
    :func:`split`; ``loader`` returns features and labels.
    """

    title: str
    size: int
    class_names: tuple[str, ...]
    train: int
    validation: int
    test: int
    source: str
    licence: str
    loader: Callable[[], tuple[Any, Any]]

    @property
    def classes(self) -> int:
        """K."""
        return len(self.class_names)


def _bundled(name: str) -> Callable[[], tuple[Any, Any]]:
    """A loader of a file that scikit-learn brings along."""

    def loader() -> tuple[Any, Any]:
        try:
            import sklearn.datasets
        except ModuleNotFoundError as error:
            text = "The data sets of softhot come with scikit-learn: pip install 'softhot[study]'."
            raise ModuleNotFoundError(text, name=error.name) from error
        return getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)

    return loader


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        title="Handwritten digits, 8 × 8 pixels",
        size=1797,
        class_names=tuple("0123456789"),
        train=600,
        validation=300,
        test=897,
        source="E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, "
        "UCI Machine Learning Repository, doi:10.24432/C50P49 (its test part)",
        licence="CC BY 4.0",
        loader=_bundled("digits"),
    ),
    "wine": DatasetInfo(
        title="Wine cultivars from chemical analyses",
        size=178,
        class_names=("cultivar 1", "cultivar 2", "cultivar 3"),
        train=60,
        validation=40,
        test=78,
        source="S. Aeberhard and M. Forina (1992), Wine, "
        "UCI Machine Learning Repository, doi:10.24432/C5PC7J",
        licence="CC BY 4.0",
        loader=_bundled("wine"),
    ),
    "breast_cancer": DatasetInfo(
        title="Breast cancer, Wisconsin (diagnostic)",
        size=569,
        class_names=("malignant", "benign"),
        train=200,
        validation=120,
        test=249,
        source="W. Wolberg, O. Mangasarian, N. Street and W. Street (1993), Breast Cancer "
        "Wisconsin (Diagnostic), UCI Machine Learning Repository, doi:10.24432/C5DW2B",
        licence="CC BY 4.0",
        loader=_bundled("breast_cancer"),
    ),
}


def load(name: str) -> Dataset:
    """The data set of that name in :data:`DATASETS`; features are raw, see the module.

    >>> digits = load("digits")
    >>> digits.features.shape, digits.class_names[3]
    ((1797, 64), '3')
    """
    OneOf(*DATASETS).check("dataset", name)
    info = DATASETS[name]
    features, labels = info.loader()
    return Dataset(name, features, labels, info.class_names, info.source, info.licence)


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
    stream of PCG64, which NumPy promises never to change, unlike its shuffles.

    Raises:
        InputError: a size below 1, more rows than there are, a class without training rows.

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
    if sum(sizes.values()) > rows:
        allowed = f"at most {rows}, the rows of {dataset.name!r}"
        raise InputError("train + validation + test", allowed, sum(sizes.values()))
    random = np.random.PCG64(SEED.check("seed", seed)).random_raw(rows)
    left = [
        members[np.argsort(random[members], kind="stable")]
        for members in (
            np.flatnonzero(dataset.labels == k) for k in range(len(dataset.class_names))
        )
    ]
    parts: dict[str, np.ndarray] = {}
    for argument, size in sizes.items():
        counts = _shares(np.array([len(members) for members in left]), size)
        if argument == "train" and not counts.all():
            empty = dataset.class_names[int(counts.argmin())]
            hint = f"Class {empty!r} would have no training row; raise train or drop the class."
            raise InputError("train", "enough for a row of every class", size, hint)
        parts[argument] = np.sort(
            np.concatenate([m[:n] for m, n in zip(left, counts, strict=True)])
        )
        left = [m[n:] for m, n in zip(left, counts, strict=True)]
    return Split(**parts)


def _shares(available: np.ndarray, size: int) -> np.ndarray:
    """``size`` seats shared out in proportion to ``available``, by largest remainders."""
    counts, remainder = np.divmod(available * size, available.sum())
    extra = np.argsort(-remainder, kind="stable")[: size - counts.sum()]
    counts[extra] += 1
    return counts
