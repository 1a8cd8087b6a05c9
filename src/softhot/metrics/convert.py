"""From what was given to normalised log-probabilities: every check, a block of rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.core.array import as_arrays, to_numpy
from softhot.core.check import InputError

# Below this a log-probability is no estimate but a mask, written as the lowest float32 or float64
# instead of -inf. Read as -inf, the two masks score alike and nothing overflows later.
_MASKED = -1e30
# The smallest positive number: what a probability of exactly 0 may have been before rounding.
_SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149}
TINY = 2.0**-1074  # of float64


@dataclass(frozen=True, eq=False)
class Matrix:
    """An (N, K) array of any namespace; ``matrix[rows]`` is a float64 copy of a few of its rows."""

    argument: str
    array: Any
    smallest: float

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return tuple(self.array.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        block = _concrete(self.argument, self.array[rows, :])
        with np.errstate(over="ignore"):  # of long doubles
            return np.array(block, dtype=np.float64, order="C")


def as_matrix(argument: str, value: Any) -> Matrix:
    """``value`` as a matrix of real numbers with K >= 2, its values unchecked as yet."""
    array = as_array(argument, value)
    shape = tuple(array.shape)
    if len(shape) != 2 or not shape[0] or shape[1] < 2:
        hint = ""
        if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
            pair = "[1 - p, p]" if argument == "probs" else "[0, z]"
            hint = f"One score a row of a binary model becomes the two columns {pair}."
        raise InputError(argument, "of shape (N, K), N >= 1, K >= 2", shape, hint)
    name = _dtype(array)
    if not name.startswith(("float", "bfloat", "longdouble", "int", "uint")):
        raise InputError(argument, "real numbers", f"dtype {name}")
    return Matrix(argument, array, _SMALLEST.get(name, TINY))


def as_truth(value: Any, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Class ids (N,) and, for soft labels, the distributions (N, K) that they are the top of."""
    labels = _concrete("labels", as_array("labels", value))
    rows, classes = shape
    if labels.shape == (rows, classes):
        return _soft(labels)
    if labels.shape != (rows,):
        hint = "Flatten them with labels.ravel()." if labels.shape == (rows, 1) else ""
        allowed = f"of shape ({rows},), one a row, or soft ({rows}, {classes})"
        raise InputError("labels", allowed, labels.shape, hint)
    if labels.dtype.kind not in "iu":
        hint = "Class ids are 0 .. K-1; convert whole numbers with labels.astype(int)."
        raise InputError("labels", "integers", f"dtype {labels.dtype}", hint)
    if (bad := (labels < 0) | (labels >= classes)).any():
        row = int(bad.argmax())
        hint = "Drop the rows to ignore first." if labels[row] < 0 else ""
        allowed = f"an integer in [0, {classes - 1}]"
        raise InputError(f"labels[{row}]", allowed, int(labels[row]), hint)
    return labels.astype(np.int64), None


def _soft(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if labels.dtype.kind not in "fiu":
        raise InputError("labels", "probabilities", f"dtype {labels.dtype}")
    targets = labels.astype(np.float64)
    total = targets.sum(axis=1)
    if (bad := ~((np.abs(total - 1) <= 1e-3) & (targets.min(axis=1) >= 0))).any():
        row = int(bad.argmax())
        allowed = "a distribution: not negative, sum 1 within 0.001"
        raise InputError(f"labels[{row}]", allowed, labels[row].tolist())
    ids = targets.argmax(axis=1)
    if (targets.max(axis=1) == 1).all():
        return ids, None  # one-hot rows are hard labels
    return ids, targets / total[:, None]


def normalise(
    matrix: Matrix,
    part: slice,
    first: int,
    labels: np.ndarray,
    targets: np.ndarray | None,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked log-probabilities of some rows, their most probable classes, which were floored.

    ``first`` is the number of the first of these rows, for messages.
    """
    z = matrix[part]
    check_finite(matrix.argument, z, first)
    predicted = z.argmax(axis=1)
    if matrix.argument == "logits":
        log_softmax(z)
    else:
        _log(z, first, tolerance)
    return z, predicted, floor(z, labels, targets, matrix.smallest)


def log_softmax(z: np.ndarray) -> np.ndarray:
    """In place, over rows of float64; masks become -inf."""
    with np.errstate(over="ignore"):  # the lowest float64 minus a large number
        z -= z.max(axis=1, keepdims=True)
    z[z < _MASKED] = -np.inf
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def floor(
    z: np.ndarray, labels: np.ndarray, targets: np.ndarray | None, smallest: float = TINY
) -> np.ndarray:
    """Raise true classes of probability 0 to ``smallest``, in place; returns in which rows."""
    where = impossible(z, labels, targets)
    found = np.zeros(len(z), bool)
    if len(where[0]):
        z[where] = np.log(smallest)
        found[where[0]] = True
        z[found] = log_softmax(z[found])
    return found


def impossible(
    z: np.ndarray, labels: np.ndarray, targets: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Where true classes have probability 0: row and class numbers."""
    if targets is not None:
        return np.nonzero(np.isneginf(z) & (targets > 0))
    rows = np.flatnonzero(np.isneginf(z[np.arange(len(z)), labels]))
    return rows, labels[rows]


def check_finite(argument: str, z: np.ndarray, first: int) -> None:
    """Refuse NaN, +inf and rows without a finite number; ``first`` is the number of row 0."""
    top = z.max(axis=1)  # NaN if any is NaN, +inf if any is +inf, -inf if all are
    if np.isfinite(top).all():
        return
    row = int(np.isfinite(top).argmin())
    at = f"{argument}[{first + row}]"
    if np.isneginf(top[row]):
        hint = "All classes of this row are masked; one must be left."
        raise InputError(at, "finite for at least one class", -np.inf, hint)
    where = int((~(z[row] < np.inf)).argmax())
    hint = f"It is class {where}. Did training diverge, or float16 overflow?"
    raise InputError(at, "free of NaN and +inf", float(z[row, where]), hint)


def _log(p: np.ndarray, first: int, tolerance: float) -> None:
    """Logarithms of checked probabilities, in place."""
    hint = "Logits go to Predictions.from_logits."
    low = p.min(axis=1)
    if (bad := low < 0).any():
        row = int(bad.argmax())
        at = f"probs[{first + row}]"
        raise InputError(at, "free of negative numbers", float(low[row]), hint)
    total = p.sum(axis=1)
    if (bad := np.abs(total - 1) > tolerance).any():
        row = int(bad.argmax())
        value = float(f"{total[row]:.12g}")
        raise InputError(f"probs[{first + row}].sum()", f"1 within {tolerance:g}", value, hint)
    with np.errstate(divide="ignore"):
        np.log(p, out=p)
    p -= np.log(total)[:, None]


def as_array(argument: str, value: Any) -> Any:
    """``value`` as an array of its own namespace, without masked entries."""
    if np.ma.is_masked(value):  # NumPy would bring back what was masked out
        raise InputError(argument, "without masked entries", value, "Drop those rows first.")
    if isinstance(value, np.ndarray) and value.dtype.name == "bfloat16":
        return np.ma.getdata(value)  # an extension of NumPy that the array standard does not know
    return as_arrays(argument, np.ma.getdata(value) if np.ma.isMA(value) else value)[0]


def _concrete(argument: str, array: Any) -> np.ndarray:
    try:
        return to_numpy(array)
    except Exception as error:  # each framework has its own: traced by JAX, torch's "meta" ...
        hint = "Inside a compiled function there are no values to score: return them first."
        raise InputError(argument, "an array that holds numbers", array, hint) from error


def _dtype(array: Any) -> str:
    """The name of a dtype of any namespace: "float32" of NumPy, "torch.float32" of PyTorch."""
    return getattr(array.dtype, "name", str(array.dtype).rpartition(".")[2])
