"""The running state of :class:`softhot.Online`: what the model said of each class an epoch ago."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from softhot.core.array import as_arrays, to_numpy
from softhot.core.check import InputError
from softhot.core.targets import CLASSES, check_labels


class OnlineMeans:
    """Gathers the mean prediction of each class over an epoch.

    ``means``, float64 ``(K, K)``, is the ``prior`` of :class:`softhot.Online`: uniform in the first
    epoch, and later, for each class, the mean over the samples of the last finished epoch that were
    predicted correctly; a class with none is uniform again.

    Args:
        num_classes: K >= 2.

    Paper: Zhang et al., IEEE TIP 2021, arXiv:2011.12562.

    >>> state = OnlineMeans(2)
    >>> state.update([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]], [0, 0, 1])
    >>> state.finish_epoch()
    >>> state.means
    array([[0.8, 0.2],
           [0.5, 0.5]])
    """

    def __init__(self, num_classes: int) -> None:
        k = CLASSES.check("num_classes", num_classes)
        self.means = np.full((k, k), 1 / k)
        self._sums = np.zeros((k, k))
        self._counts = np.zeros(k)

    def update(self, probs: Any, labels: Any) -> None:
        """Add a batch: probabilities ``(N, K)`` and class ids ``(N,)`` of any namespace."""
        probs, xp = as_arrays("probs", probs)
        k = len(self.means)
        if probs.ndim != 2 or probs.shape[1] != k:
            raise InputError("probs", f"of shape (N, {k})", tuple(probs.shape))
        probs = check_labels(xp, probs, k, soft=True, argument="probs")
        probs = to_numpy(probs).astype(np.float64)
        labels, xp = as_arrays("labels", labels)
        if tuple(labels.shape) != probs.shape[:1]:
            raise InputError("labels", f"of shape ({len(probs)},)", tuple(labels.shape))
        labels = to_numpy(check_labels(xp, labels, k, soft=False))
        right = probs.argmax(axis=1) == labels
        np.add.at(self._sums, labels[right], probs[right])
        np.add.at(self._counts, labels[right], 1)

    def finish_epoch(self) -> None:
        """Make what was gathered the new ``means`` and start again."""
        k = len(self.means)
        seen = self._counts > 0
        means = np.where(seen[:, None], self._sums, np.ones((k, k)))
        self.means = means / means.sum(axis=1, keepdims=True)
        self._sums[:], self._counts[:] = 0, 0

    def state_dict(self) -> dict[str, np.ndarray]:
        """All of the state, as arrays, for a checkpoint."""
        state = {"means": self.means, "sums": self._sums, "counts": self._counts}
        return {name: array.copy() for name, array in state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that :meth:`state_dict` gave."""
        shapes = {name: array.shape for name, array in self.state_dict().items()}
        if not isinstance(state, Mapping) or set(state) != set(shapes):
            raise InputError("state", f"a mapping with {sorted(shapes)}", list(state))
        arrays = {name: np.array(state[name], dtype=np.float64) for name in shapes}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise InputError(f"state[{name!r}]", f"of shape {shape}", arrays[name].shape)
        self.means, self._sums, self._counts = arrays["means"], arrays["sums"], arrays["counts"]
