"""What a data set is: checked features, one class for each row, and whom to thank for it."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval

KINDS = ("tabular", "images", "texts")
SHARES = (0.5, 0.2)  # of the rows for training and validation where nobody says; the rest is test


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows with one class each, in memory.

    Attributes:
        name: its key in :data:`softhot.datasets.DATASETS`, or its path.
        features: by :attr:`kind`: "tabular" is (N, D) float32; "images" is (N, C, H, W), uint8 or
            float32; "texts" is a tuple of N strings. Numbers are finite and not scaled.
        labels: (N,) int64, in 0 .. K-1.
        class_names: K names; ``class_names[label]`` is the class of a row.
        source: whom to cite.
        licence: under which terms the data is published.
        soft_labels: (N, K) float64, rows that sum to 1, where several people judged each row: the
            shares of their votes. None where there is one label a row.
        sizes: default numbers of rows for training, validation and test; of a data set without
            any, half of the rows, a fifth, and what is left.
        test_start: rows from here on are the published test part: :func:`split` draws test rows
            from them alone, and nothing else. None: there is no such part.

    Raises:
        InputError: shapes that do not fit, features that are not finite, labels out of range,
            soft labels that are no distributions.
    """

    name: str
    features: Any
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    licence: str
    soft_labels: np.ndarray | None = None
    sizes: tuple[int, int, int] | None = None
    test_start: int | None = None

    def __post_init__(self) -> None:
        """Check everything, and bring the arrays to their dtypes."""
        texts = isinstance(self.features, tuple | list) and _all_strings(self.features)
        features: Any = tuple(self.features) if texts else _numbers(np.asarray(self.features))
        rows = len(features)
        labels = np.asarray(self.labels)
        if labels.shape != (rows,) or labels.dtype.kind not in "iu":
            found = f"shape {labels.shape}, dtype {labels.dtype}"
            raise InputError("labels", f"integers of shape ({rows},)", found)
        names = tuple(map(str, self.class_names))
        if len(names) < 2 or len(set(names)) < len(names):
            hint = "There is nothing to tell apart with one class."
            raise InputError("class_names", "two different names or more", names, hint)
        if (bad := (labels < 0) | (labels >= len(names))).any():
            row = int(bad.argmax())
            allowed = f"an integer in [0, {len(names) - 1}]"
            hint = "There is one class name for each class."
            raise InputError(f"labels[{row}]", allowed, int(labels[row]), hint)
        if self.soft_labels is not None:
            soft = _distributions(np.asarray(self.soft_labels), (rows, len(names)))
            object.__setattr__(self, "soft_labels", soft)
        if self.test_start is not None:
            Interval(1, rows - 1, integer=True).check("test_start", self.test_start)
        if self.sizes is None:
            train, validation = (max(1, round(share * rows)) for share in SHARES)
            sizes = (train, validation, max(1, rows - train - validation))
            object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "labels", np.ascontiguousarray(labels, np.int64))
        object.__setattr__(self, "class_names", names)

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def kind(self) -> str:
        """What the features are: one of :data:`KINDS`."""
        if isinstance(self.features, tuple):
            return "texts"
        return "images" if self.features.ndim == 4 else "tabular"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.class_names)

    def take(self, rows: Any) -> Dataset:
        """The data set of these rows alone, in this order; its sizes are the default shares."""
        rows = np.asarray(rows)
        features = self.features
        texts = isinstance(features, tuple)
        soft = self.soft_labels
        return replace(
            self,
            features=tuple(features[row] for row in rows) if texts else features[rows],
            labels=self.labels[rows],
            soft_labels=None if soft is None else soft[rows],
            sizes=None,
            test_start=None,
        )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 in hex over everything that can change a number: it names the data."""
        state = hashlib.sha256(repr((self.class_names, self.test_start)).encode())
        if isinstance(self.features, tuple):
            for text in self.features:
                data = text.encode()
                state.update(len(data).to_bytes(8, "little") + data)
        arrays = (self.features, self.labels, self.soft_labels)
        for array in (a for a in arrays if isinstance(a, np.ndarray)):
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            state.update(f"{little.dtype.str}{little.shape}".encode())
            state.update(np.ascontiguousarray(little).tobytes())
        return state.hexdigest()


def _all_strings(features: Any) -> bool:
    return len(features) > 0 and all(isinstance(text, str) for text in features)


def _numbers(features: np.ndarray) -> np.ndarray:
    """Checked features, float32 or, of images, uint8."""
    if features.ndim not in (2, 4) or 0 in features.shape or features.dtype.kind not in "fiu":
        found = f"shape {features.shape}, dtype {features.dtype}"
        allowed = "real numbers of shape (N, D), images (N, C, H, W) or a tuple of strings"
        raise InputError("features", allowed, found)
    if features.dtype == np.uint8 and features.ndim == 4:
        return np.ascontiguousarray(features)
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(features, np.float32)
    if not np.isfinite(numbers).all():
        at = tuple(np.argwhere(~np.isfinite(numbers))[0].tolist())
        hint = "Fill in or drop what is missing."
        raise InputError(f"features{list(at)}", "finite in float32", float(features[at]), hint)
    return numbers


def _distributions(soft: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if soft.shape != shape or soft.dtype.kind not in "fiu":
        found = f"shape {soft.shape}, dtype {soft.dtype}"
        raise InputError("soft_labels", f"real numbers of shape {shape}", found)
    soft = np.ascontiguousarray(soft, np.float64)
    bad = ~((soft >= 0).all(axis=1) & (np.abs(soft.sum(axis=1) - 1) < 1e-6))
    if bad.any():
        row = int(bad.argmax())
        hint = "Divide the votes of a row by their number."
        raise InputError(f"soft_labels[{row}]", "shares that sum to 1", soft[row], hint)
    return soft
