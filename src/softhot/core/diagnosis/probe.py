"""Calling a function nobody told us about: which arrays it takes, in what order and form.

A foreign loss is tried with every kind of array that is loaded, both orders of its arguments, and
labels as ids and as one-hot rows, until it gives numbers back. Everything it can do wrong on the
way (raise, return text, return NaN) becomes :class:`Refused`.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softhot.core.check import InputError, OneOf

Array = np.ndarray
INPUTS: dict[str, Callable[[Any, Array], Any]] = {
    "numpy": lambda numpy, array: array,
    "torch": lambda torch, array: torch.from_numpy(array),
    "jax": lambda jax, array: jax.numpy.asarray(array),
    "keras": lambda keras, array: keras.ops.convert_to_tensor(array),
}
ORDERS = ("logits_first", "labels_first")
TAKES = ("ids", "one_hot", "multi_hot")
LABELS_FIRST = re.compile(r"(y|(y_)?true|targets?|labels?)$")


class Refused(Exception):
    """The function raised, or gave back something that is no loss and no target."""


def softmax(z: Array) -> Array:
    """Probabilities of logits ``(..., K)``."""
    return np.exp(z - lse(z)[..., None])


def lse(z: Array) -> Array:
    """Log of the sum of exponentials over the last axis."""
    top = z.max(axis=-1)
    return top + np.log(np.exp(z - top[..., None]).sum(axis=-1))


def sigmoid(z: Array) -> Array:
    """One probability for each logit; exact enough for the small logits used here."""
    return 1 / (1 + np.exp(-z))


GIVES: dict[str, Callable[[Array], Array]] = {
    "logits": lambda z: z,
    "probabilities": softmax,
    "sigmoid probabilities": sigmoid,
    "log-probabilities": lambda z: z - lse(z)[..., None],
}


@dataclass(frozen=True)
class Foreign:
    """A function and a way to call it with logits ``(N, K)`` and class ids ``(N,)``.

    Attributes:
        subject: the function.
        inputs: key of :data:`INPUTS`, the arrays it is handed.
        order: which argument comes first; for target functions not used.
        takes: form of the labels.
        dtype: of logits and one-hot rows.
        gives: key of :data:`GIVES`, what is handed over as logits.
        num_classes: given as a second argument to target functions that want it.
        changed: names of arguments it wrote to; filled by calls.
    """

    subject: Callable[..., Any]
    inputs: str = "numpy"
    order: str = ORDERS[0]
    takes: str = TAKES[0]
    dtype: str = "float64"
    gives: str = "logits"
    num_classes: int | None = None
    changed: set[str] = field(default_factory=set)

    def described(self, kind: str) -> str:
        """The way in words."""
        words = {"ids": "class ids", "one_hot": "one-hot rows", "multi_hot": "0/1 rows"}
        names = [self.gives] * (kind == "loss") + [words[self.takes]]
        names = names if self.order == ORDERS[0] else names[::-1]
        return f"called with {' and '.join(names)}, {self.inputs} {self.dtype}"

    def labels(self, ids: Array, num_classes: int) -> Array:
        """Class ids in the form it takes."""
        if self.takes == "ids":
            return ids
        return (ids[..., None] == np.arange(num_classes)).astype(self.dtype)

    def raw(self, z: Array, labels: Array, dtype: str | None = None, axis: int = -1) -> Array:
        """What the loss returns, of whatever shape, for logits ``(..., K)`` moved to ``axis``."""
        dtype = dtype or self.dtype
        labels = labels if labels.dtype.kind == "f" else self.labels(labels, z.shape[-1])
        if labels.dtype.kind == "f":
            labels = np.moveaxis(labels.astype(dtype), -1, axis)
        logits = np.moveaxis(GIVES[self.gives](z).astype(dtype), -1, axis)
        arguments = {"logits": logits, "labels": labels}
        names = list(arguments) if self.order == ORDERS[0] else list(arguments)[::-1]
        return self._call({name: arguments[name] for name in names}).astype(np.float64)

    def __call__(self, z: Array, labels: Array, dtype: str | None = None) -> Array:
        """The loss of each row ``(N,)``, or one number for all ``()``."""
        value = self.raw(z, labels, dtype)
        if value.shape == z.shape:
            value = value.sum(axis=-1)
        if value.size == 1:
            return value.reshape(() if len(z) > 1 else (1,))
        if value.shape not in ((len(z),), (len(z), 1)):
            raise Refused(f"it returned an array of shape {value.shape} for {len(z)} rows")
        return value.reshape(-1)

    def alone(self, z: Array, labels: Array) -> Array:
        """The loss of each row ``(N,)`` when the batch holds nothing but its label."""
        value = self(z, labels)
        if value.ndim == 0:
            rows = [slice(i, i + 1) for i in range(len(z))]
            value = np.concatenate([self(z[row], labels[row]) for row in rows])
        if not np.isfinite(value).all():
            raise Refused(f"it returned {value[~np.isfinite(value)][0]} for finite logits")
        return value

    def targets(self, labels: Array) -> Array:
        """What a target function returns for ``labels``, passed as they are."""
        return self._call({"labels": labels})

    def _call(self, arguments: dict[str, Array]) -> Array:
        fresh = {name: np.array(array) for name, array in arguments.items()}
        module, convert = sys.modules[self.inputs], INPUTS[self.inputs]
        more = () if self.num_classes is None else (self.num_classes,)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                given = [convert(module, array) for array in fresh.values()]
                value = as_numbers(self.subject(*given, *more))
        except Refused:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            raise Refused(f"{type(error).__name__}: {lines[0]}".rstrip(": ")) from error
        for name, array in arguments.items():
            if not np.array_equal(fresh[name], array, equal_nan=True):
                self.changed.add(name)
        return value


def as_numbers(value: Any) -> Array:
    """A tensor, array or number as a NumPy array of integers or floats."""
    for method in ("detach", "cpu", "numpy"):
        value = getattr(value, method, lambda value=value: value)()
    if isinstance(value, bool | str | bytes | tuple | list | dict | None):
        hint = "; wrap it so that it returns the loss alone" if isinstance(value, tuple) else ""
        raise Refused(f"it returned {type(value).__name__}{hint}")
    array = np.asarray(value)
    if array.dtype.kind not in "iufV" or array.dtype.names:
        raise Refused(f"it returned {array.dtype} values")
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def loss_ways(
    subject: Callable[..., Any], inputs: str | None, order: str | None, takes: str | None
) -> Iterator[Foreign]:
    """Ways to call a loss, the likeliest first."""
    orders = [order] if order else list(ORDERS)
    if order is None and _labels_come_first(subject):
        orders.reverse()
    if order is None and is_keras_loss(subject):
        orders = orders[:1]
    for kind in _kinds_of_arrays(subject, inputs):
        for each in orders:
            for form in [takes] if takes else ["ids", "one_hot"]:
                for dtype in ("float64", "float32"):
                    yield Foreign(subject, kind, each, form, dtype)


def target_ways(
    subject: Callable[..., Any], inputs: str | None, takes: str | None, num_classes: int
) -> Iterator[Foreign]:
    """Ways to call a function of labels, the likeliest first."""
    for more in (None, num_classes):
        for kind in _kinds_of_arrays(subject, inputs):
            for form in [takes] if takes else ["ids", "one_hot"]:
                yield Foreign(subject, kind, takes=form, num_classes=more)


def is_torch_module(subject: Any) -> bool:
    """Whether it is a ``torch.nn.Module``, asked without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(subject, torch.nn.Module)


def is_keras_loss(subject: Any) -> bool:
    """Whether it is a ``keras.losses.Loss``, asked without importing Keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(subject, keras.losses.Loss)


def _kinds_of_arrays(subject: Any, stated: str | None) -> list[str]:
    if stated is not None:
        OneOf(*INPUTS).check("inputs", stated)
        if stated not in sys.modules:
            raise InputError("inputs", "a framework that is loaded", stated, f"import {stated}")
        return [stated]
    loaded = [name for name in INPUTS if name in sys.modules]
    home = (getattr(subject, "__module__", None) or "").split(".")[0]
    if is_torch_module(subject):
        home = "torch"
    return [home] if home in loaded else loaded


def _labels_come_first(subject: Any) -> bool:
    if is_keras_loss(subject):
        return True
    try:
        first = next(iter(inspect.signature(subject).parameters), "")
    except (TypeError, ValueError):
        return False
    return LABELS_FIRST.match(first) is not None
