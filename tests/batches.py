"""A batch in one canonical layout, ``(N, K)`` in NumPy, and the way from there into any library.

Laws transform a :class:`Batch` (delete rows, reorder classes, weigh, ignore) and compare what
comes out; :func:`run` lays it out as a library wants it and brings loss and gradient back.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np

from backends import NUMPY
from softhot import SofthotWarning, cross_entropy_and_gradient, smooth_labels

K = 5
N = 24
GRID = (4, 6)  # what N rows are with the class axis in the middle


@dataclass(frozen=True)
class Batch:
    """Arguments of a loss; rows first, classes last."""

    logits: np.ndarray
    labels: np.ndarray
    where: np.ndarray | None = None
    ignore_index: int | None = None
    allowed: np.ndarray | None = None
    weight: np.ndarray | None = None
    weighting: str = "sample"
    alpha: np.ndarray | None = None
    prior: np.ndarray | None = None
    by_row: bool = False  # whether the prior has a row a sample
    reduction: str = "none"
    middle: bool = False  # lay the class axis between two row axes

    @property
    def soft(self):
        return self.labels.ndim == 2

    @property
    def counted(self):
        counted = np.ones(len(self.logits), bool) if self.where is None else self.where
        if self.ignore_index is not None:
            counted = counted & (self.labels != self.ignore_index)
        return counted

    @property
    def support(self):
        """The classes that may have mass, ``(N, K)``."""
        finite = self.logits != -np.inf
        return finite if self.allowed is None else finite & self.allowed

    @property
    def row_weights(self):
        """What each row weighs in a mean."""
        weight = np.ones(self.logits.shape[1]) if self.weight is None else self.weight
        safe = np.where(self.counted, np.arange(len(self.logits)), 0)
        if self.soft:
            rows = np.nan_to_num(self.labels[safe]) @ weight
        else:
            rows = weight[np.clip(self.labels[safe], 0, len(weight) - 1)]
        return np.where(self.counted, rows, 0.0)

    def rows(self, index):
        """Only these rows, in this order."""
        names = ("logits", "labels", "where", "allowed", "alpha")
        parts = {n: getattr(self, n)[index] for n in names if getattr(self, n) is not None}
        if self.by_row:
            parts["prior"] = self.prior[index]
        return replace(self, middle=False, **parts)

    def classes(self, order):
        """Class ``order[j]`` becomes class ``j``."""
        parts = {"logits": self.logits[:, order]}
        if self.soft:
            parts["labels"] = self.labels[:, order]
        else:
            known = (self.labels >= 0) & (self.labels < len(order))
            moved = np.argsort(order)[np.where(known, self.labels, 0)]
            parts["labels"] = np.where(known, moved, self.labels)
        if self.allowed is not None:
            parts["allowed"] = self.allowed[:, order]
        if self.weight is not None:
            parts["weight"] = self.weight[order]
        if self.prior is not None:
            rows = self.prior if self.by_row else self.prior[order]
            parts["prior"] = rows[:, order]
        return replace(self, **parts)

    def rounded(self, backend):
        """The batch as the backend's dtype holds it."""
        names = ("logits", "labels", "weight", "alpha", "prior")
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        return replace(self, **{n: backend.rounded(array) for n, array in given.items()})

    def normalized(self):
        """With a prior whose rows sum to 1, though it was rounded."""
        if self.prior is None:
            return self
        return replace(self, prior=self.prior / self.prior.sum(axis=1, keepdims=True))

    def laid_out(self, array, classes=None):
        """Rows as they are, or as a grid with the class axis, if there is one, in the middle."""
        if not self.middle:
            return array
        if classes is None:
            return array.reshape(GRID)
        return np.moveaxis(array.reshape(*GRID, array.shape[-1]), -1, 1)

    def arguments(self, backend=NUMPY):
        """Logits, labels and the options as arrays of the backend, and the plain options."""
        arrays = {
            "logits": self.laid_out(self.logits, "K"),
            "labels": self.laid_out(self.labels, "K" if self.soft else None),
        }
        for name in ("where", "alpha"):
            if getattr(self, name) is not None:
                arrays[name] = self.laid_out(getattr(self, name))
        if self.allowed is not None:
            arrays["allowed"] = self.laid_out(self.allowed, "K")
        if self.weight is not None:
            arrays["weight"] = self.weight
        if self.prior is not None:
            arrays["prior"] = self.laid_out(self.prior, "K") if self.by_row else self.prior
        plain = {"axis": 1 if self.middle else -1}
        return {name: backend.array(value) for name, value in arrays.items()}, plain

    def back(self, array):
        """A result of the layout of the logits, or of the rows, in the canonical one."""
        if self.middle and array.ndim == 3:
            return np.moveaxis(array, 1, -1).reshape(self.logits.shape)
        return array.reshape(-1) if self.middle and array.ndim else array


def run(rule, batch, backend=NUMPY, function=cross_entropy_and_gradient, jit=False):
    """Loss and gradient as float64 NumPy; on the way, dtypes and untouched inputs are checked."""
    arrays, plain = batch.arguments(backend)
    before = {name: backend.numpy(array).copy() for name, array in arrays.items()}
    plain |= {"reduction": batch.reduction, "weighting": batch.weighting}
    plain["ignore_index"] = batch.ignore_index

    def call(arrays):
        given = dict(arrays)
        return function(given.pop("logits"), given.pop("labels"), rule, **given, **plain)

    if jit:
        import jax

        call = jax.jit(call)
    with warnings.catch_warnings():
        if batch.weighting == "class":
            warnings.simplefilter("ignore", SofthotWarning)
        loss, gradient = call(arrays)
    for name, array in arrays.items():
        assert np.array_equal(
            backend.numpy(array), before[name], equal_nan=name != "labels" or batch.soft
        )
    assert backend.dtype_of(gradient) == backend.dtype
    assert backend.dtype_of(loss) == ("float64" if backend.dtype == "float64" else "float32")
    assert tuple(gradient.shape) == tuple(arrays["logits"].shape)
    return batch.back(backend.numpy(loss)), batch.back(backend.numpy(gradient))


def smooth(rule, batch, backend=NUMPY, **options):
    """The dense target ``(N, K)`` as float64 NumPy."""
    arrays, plain = batch.arguments(backend)
    given = {n: a for n, a in arrays.items() if n in ("allowed", "alpha", "prior")}
    target = smooth_labels(
        arrays["labels"],
        rule,
        num_classes=batch.logits.shape[1],
        kind="soft" if batch.soft else "ids",
        **given,
        **plain,
        **options,
    )
    return batch.back(backend.numpy(target))
