"""Keras 3: its cross entropy losses under any rule, on TensorFlow, JAX and PyTorch.

Drop-in for the classes of the same names: same arguments in the same order, same shapes and
reductions. New are ``rule=``, and ``label_smoothing=`` for integer labels.

>>> import keras, softhot.keras
>>> loss = softhot.keras.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
>>> model = keras.Sequential([keras.layers.Dense(10)])
>>> model.compile("adam", loss=loss, metrics=["accuracy", softhot.keras.NLL(loss)])
>>> stop = keras.callbacks.EarlyStopping("val_nll", mode="min", patience=5)

Keras evaluates the loss it trains, so ``val_loss`` is smoothed and cannot be compared between
values of ``label_smoothing``. :class:`NLL` is the same loss on the labels as they are: watch that.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

try:
    import keras
except ModuleNotFoundError as error:
    message = "softhot.keras needs Keras 3 and a backend for it: pip install 'softhot[keras]'"
    missing = str(error.name).partition(".")[0]
    if missing != "keras":
        message = (
            f"Keras is here, but not its backend: install {missing}, or set the environment "
            "variable KERAS_BACKEND to what is installed: tensorflow, jax or torch"
        )
    raise ModuleNotFoundError(message, name=missing) from error

if int(keras.__version__.partition(".")[0]) < 3:
    message = f"softhot.keras needs Keras 3, and here is {keras.__version__}: pip install -U keras"
    raise ImportError(message)

from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask  # which rows a loss left out

from softhot.core.array import KERAS, first_true, is_concrete, position
from softhot.core.binary import Bernoulli, BinaryRule, binary_cross_entropy_and_gradient
from softhot.core.check import InputError, SofthotWarning
from softhot.core.losses import IDS, cross_entropy_and_gradient
from softhot.core.rule import HARD, Rule, Uniform, check_rule, rule_from_dict
from softhot.core.shapes import check_axis
from softhot.core.weights import PerSample

SQUASH = "If the model ends without softmax or sigmoid, pass from_logits=True."
NO_ID = -(2**30)  # stands for what is not a whole number among class ids


def _outside_dynamo(function: Callable) -> Callable:
    """On PyTorch, not for ``jit_compile=True`` to trace: it would break at each look at a value."""
    torch = sys.modules.get("torch")
    if keras.backend.backend() != "torch" or torch is None:
        return function
    return torch.compiler.disable(function)


class Crossentropy(keras.losses.Loss):
    """What the three losses share: a rule, the way to logits, the way to JSON and back."""

    HARD: ClassVar[Rule] = HARD

    def __init__(
        self, rule: Rule, from_logits: bool, axis: int, reduction: Any, name: str, dtype: Any
    ) -> None:
        if not isinstance(from_logits, bool):
            hint = "Pass smoothing by name: label_smoothing=."
            raise InputError("from_logits", "True or False", from_logits, hint)
        super().__init__(name=name, reduction=reduction, dtype=_at_least_float32(dtype))
        self.rule = rule
        self.from_logits = from_logits
        self.axis = axis

    def rows(self, y_true: Any, y_pred: Any, rule: Any) -> Any:
        """The loss of every row under ``rule``."""
        raise NotImplementedError

    @_outside_dynamo
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._checked(y_true, y_pred, self.rule)

    @_outside_dynamo
    def hard(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of every row without the rule: plain cross entropy."""
        y_true, y_pred = (ops.convert_to_tensor(y, dtype=self.dtype) for y in (y_true, y_pred))
        return self._checked(y_true, y_pred, self.HARD)

    def _checked(self, y_true: Any, y_pred: Any, rule: Any) -> Any:
        for name, y in (("y_true", y_true), ("y_pred", y_pred)):
            if not hasattr(y, "shape"):  # Keras makes a tensor of each number in a list
                raise InputError(name, "an array or a tensor", type(y), "Write numpy.array(...).")
        try:
            return self.rows(y_true, y_pred, rule)
        except InputError as error:
            if self.from_logits or not error.argument.startswith("y_pred["):
                raise
            raise InputError(error.argument, "a probability", error.value, SQUASH) from None

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain JSON values; ``label_smoothing`` as the rule it stands for."""
        ours = {"from_logits": self.from_logits, "axis": self.axis, "rule": self.rule.to_dict()}
        return {**super().get_config(), **ours, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The loss that :meth:`get_config` wrote."""
        return cls(**{**config, "rule": rule_from_dict(config["rule"])})


@keras.saving.register_keras_serializable("softhot")
class SparseCategoricalCrossentropy(Crossentropy):
    """:class:`keras.losses.SparseCategoricalCrossentropy` under any rule.

    Args:
        from_logits, ignore_class, reduction, axis, name, dtype: as in Keras. Rows of
            ``ignore_class`` are left out as if deleted. Computed in float32 at least.
        label_smoothing: alpha of :class:`softhot.Uniform`; 0 is Keras's loss.
        rule: instead of ``label_smoothing``, any rule that needs nothing from the batch.

    ``y_true`` are class ids ``(...)`` or ``(..., 1)``, ``y_pred`` is ``(..., K)``.

    Raises:
        InputError: for class ids out of range, and for ``y_pred`` outside [0, 1] (logits, if
            ``from_logits`` was forgotten). Where Keras compiles, values cannot be looked at: there
            the loss of such rows is NaN.

    >>> import numpy as np
    >>> loss = SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    >>> round(float(loss(np.array([0]), np.array([[2.0, 0.0, 0.0]]))), 4)
    0.3729
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        label_smoothing: float = 0.0,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
        *,
        rule: Rule | None = None,
    ) -> None:
        rule = _categorical(rule, label_smoothing)
        super().__init__(rule, from_logits, axis, reduction, name, dtype)
        if ignore_class is not None:
            ignore_class = IDS.check("ignore_class", ignore_class)
        self.ignore_class = ignore_class

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}

    def rows(self, y_true: Any, y_pred: Any, rule: Rule) -> Any:
        axis = check_axis(self.axis, len(y_pred.shape))
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[axis] == 1:
            y_true = ops.squeeze(y_true, axis)
        _same_shape(y_true.shape, (*y_pred.shape[:axis], *y_pred.shape[axis + 1 :]))
        counted = None if self.ignore_class is None else ops.not_equal(y_true, self.ignore_class)
        z = _logits(y_pred, self.from_logits, axis, counted)
        z = _flat(ops.moveaxis(z, axis, -1))
        # Keras hands class ids over as floats.
        ids = ops.where(ops.equal(y_true, ops.floor(y_true)), y_true, NO_ID)
        ids = ops.reshape(ops.cast(ids, "int32"), ops.shape(z)[:1])
        options = {"ignore_index": self.ignore_class}
        loss = _closed_form(cross_entropy_and_gradient, z, ids, rule, options)
        loss = ops.reshape(loss, ops.shape(y_true))
        if counted is not None:
            set_keras_mask(loss, counted)
        return loss


@keras.saving.register_keras_serializable("softhot")
class CategoricalCrossentropy(Crossentropy):
    """:class:`keras.losses.CategoricalCrossentropy` under any rule, the class axis anywhere.

    Args:
        from_logits, label_smoothing, axis, reduction, name, dtype: as in Keras. Computed in
            float32 at least.
        rule: instead of ``label_smoothing``, any rule that needs nothing from the batch.

    ``y_true`` are one-hot rows or distributions of the shape of ``y_pred``.

    Raises:
        InputError: for rows of ``y_true`` that don't sum to 1, and as in
            :class:`SparseCategoricalCrossentropy`.

    >>> import numpy as np
    >>> loss = CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    >>> round(float(loss(np.array([[1.0, 0, 0]]), np.array([[2.0, 0.0, 0.0]]))), 4)
    0.3729
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: Any = None,
        *,
        rule: Rule | None = None,
    ) -> None:
        rule = _categorical(rule, label_smoothing)
        super().__init__(rule, from_logits, axis, reduction, name, dtype)

    def rows(self, y_true: Any, y_pred: Any, rule: Rule) -> Any:
        axis = check_axis(self.axis, len(y_pred.shape))
        _same_shape(y_true.shape, y_pred.shape)
        z = ops.moveaxis(_logits(y_pred, self.from_logits, axis), axis, -1)
        shape, z = ops.shape(z)[:-1], _flat(z)
        labels = ops.reshape(ops.moveaxis(y_true, axis, -1), ops.shape(z))
        # Mixed in half precision, rows sum to 1 only as far as that goes.
        total = ops.sum(labels, axis=-1, keepdims=True)
        labels = labels / ops.where(ops.abs(total - 1) < 4e-3, total, 1.0)
        loss = _closed_form(cross_entropy_and_gradient, z, labels, rule, {"smooth_again": True})
        return ops.reshape(loss, shape)


@keras.saving.register_keras_serializable("softhot")
class BinaryCrossentropy(Crossentropy):
    """:class:`keras.losses.BinaryCrossentropy` under any binary rule.

    Args:
        from_logits, label_smoothing, axis, reduction, name, dtype: as in Keras:
            ``label_smoothing`` is alpha of :class:`softhot.Bernoulli`, and the loss of a row is the
            mean over ``axis``. Computed in float32 at least.
        rule: instead of ``label_smoothing``, any binary rule; its label axis is ``axis``.

    >>> import numpy as np
    >>> loss = BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    >>> round(float(loss(np.array([[1.0, 1.0]]), np.array([[0.0, 2.0]]))), 4)
    0.46
    """

    HARD = Bernoulli(0.0)

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: Any = None,
        *,
        rule: BinaryRule | None = None,
    ) -> None:
        given = _one_of(rule, label_smoothing, Bernoulli)
        if not isinstance(given, BinaryRule):
            hint = "Rules for one class out of K go to CategoricalCrossentropy."
            raise InputError("rule", "a binary rule, such as softhot.Bernoulli(0.1)", rule, hint)
        super().__init__(given, from_logits, axis, reduction, name, dtype)

    def rows(self, y_true: Any, y_pred: Any, rule: BinaryRule) -> Any:
        if abs(len(y_true.shape) - len(y_pred.shape)) == 1:
            longer, shorter = sorted((y_true, y_pred), key=lambda y: -len(y.shape))
            if longer.shape[-1] == 1:
                shorter = ops.expand_dims(shorter, -1)
                y_true, y_pred = (shorter, longer) if longer is y_pred else (longer, shorter)
        _same_shape(y_true.shape, y_pred.shape)
        axis = check_axis(self.axis, len(y_pred.shape))
        z = ops.moveaxis(_logits(y_pred, self.from_logits, None), axis, -1)
        shape, z = ops.shape(z)[:-1], _flat(z)
        labels = ops.reshape(ops.moveaxis(y_true, axis, -1), ops.shape(z))
        loss = _closed_form(binary_cross_entropy_and_gradient, z, labels, rule, {})
        return ops.reshape(ops.sum(loss, axis=-1) / z.shape[-1], shape)


@keras.saving.register_keras_serializable("softhot")
class NLL(keras.metrics.Mean):
    """The mean of a loss on the labels as they are: the number to watch while it trains smoothed.

    Args:
        loss: one of the losses here; its axis, its ``from_logits`` and its ``ignore_class`` count.
        name: of the metric; ``"val_nll"`` is then what callbacks monitor.
        dtype: of the sums.

    >>> import numpy as np
    >>> loss = CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    >>> nll = NLL(loss)
    >>> nll.update_state(np.array([[1.0, 0, 0]]), np.array([[2.0, 0.0, 0.0]]))
    >>> round(float(nll.result()), 4)
    0.2395
    """

    def __init__(self, loss: Crossentropy, name: str = "nll", dtype: Any = None) -> None:
        if not isinstance(loss, Crossentropy):
            raise InputError("loss", "a loss of softhot.keras", loss)
        super().__init__(name=name, dtype=dtype)
        self.loss = loss
        self._direction = "down"  # what callbacks look up

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        rows = self.loss.hard(y_true, y_pred)
        for mask in (get_keras_mask(y_pred), get_keras_mask(rows)):
            if mask is not None:
                weight = ops.cast(mask, rows.dtype)
                if sample_weight is not None:
                    given = ops.convert_to_tensor(sample_weight, dtype=rows.dtype)
                    missing = len(weight.shape) - len(given.shape)
                    weight *= ops.reshape(given, (*ops.shape(given), *(1,) * max(missing, 0)))
                sample_weight = weight
        super().update_state(rows, sample_weight)

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NLL:
        """The metric that :meth:`get_config` wrote."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def _closed_form(function: Callable, z: Any, labels: Any, rule: Rule, options: dict) -> Any:
    """The loss of every row, ``p - q`` being its gradient on every backend."""

    @ops.custom_gradient
    def rows(z: Any) -> tuple[Any, Callable]:
        loss, gradient = function(z, labels, rule, **options)

        def pull(*args: Any, upstream: Any = None) -> Any:
            upstream = args[0] if upstream is None else upstream
            if len(loss.shape) < len(gradient.shape):
                upstream = ops.expand_dims(upstream, -1)
            return upstream * gradient

        return loss, pull

    try:
        return rows(z)
    except InputError as error:
        argument = error.argument.replace("labels", "y_true").replace("logits", "y_pred")
        hint = error.hint.replace("ignore_index= or where=", "ignore_class= or sample_weight=0")
        raise InputError(argument, error.allowed, error.value, hint) from None


def _logits(y_pred: Any, from_logits: bool, axis: int | None, counted: Any = None) -> Any:
    """``y_pred`` as logits: over the classes along ``axis``, or one by one if that is None."""
    known = getattr(y_pred, "_keras_logits", None)  # what softmax and sigmoid of Keras were given
    if from_logits:
        if known is not None:
            text = (
                "from_logits=True, but y_pred comes from a softmax or sigmoid: the model would "
                "squash its outputs twice. Leave from_logits out, or the activation."
            )
            warnings.warn(text, SofthotWarning, stacklevel=5)
        return y_pred
    if known is not None:
        return ops.cast(known, y_pred.dtype)
    if counted is not None:  # what a row that is left out holds must not reach a gradient
        y_pred = ops.where(ops.expand_dims(counted, axis), y_pred, 0.5)
    p = y_pred
    fits = ops.logical_and(p >= 0, p <= 1 + 1e-3)
    if is_concrete(p) and not bool(ops.all(fits)):
        wrong = first_true(KERAS, ops.logical_not(fits))
        value = float(p[wrong])
        raise InputError(f"y_pred{position(wrong)}", "a probability", value, SQUASH)
    p = ops.where(fits, p, float("nan"))
    tiny = keras.config.epsilon()
    if axis is None:
        p = ops.clip(p, tiny, 1 - tiny)
        return ops.log(p) - ops.log1p(-p)
    return ops.log(ops.clip(p / ops.sum(p, axis=axis, keepdims=True), tiny, 1 - tiny))


def _flat(rows: Any) -> Any:
    """``(..., K)`` to ``(N, K)``: one size is left that Keras may not know until it runs."""
    return ops.reshape(rows, (-1, rows.shape[-1]))


def _same_shape(shape: Any, expected: Any) -> None:
    pairs = zip(shape, expected, strict=False)
    alike = len(shape) == len(expected) and all(a == b or None in (a, b) for a, b in pairs)
    if not alike:
        raise InputError("y_true", f"of shape {tuple(expected)} beside y_pred", tuple(shape))


def _categorical(rule: Rule | None, label_smoothing: float) -> Rule:
    rule = check_rule(_one_of(rule, label_smoothing, Uniform))
    if rule.base.FROM_BATCH or isinstance(rule.base.alpha, PerSample):
        hint = "A Keras loss sees y_true and y_pred only: see softhot.smooth_labels for the rest."
        raise InputError("rule", "a rule that needs nothing from the batch", rule, hint)
    return rule


def _one_of(rule: Any, label_smoothing: float, make: Callable) -> Any:
    if rule is None:
        return make(label_smoothing)
    if label_smoothing != 0:
        hint = "Smoothing is given twice: keep the rule."
        raise InputError("label_smoothing", "left out beside a rule", label_smoothing, hint)
    return rule


def _at_least_float32(dtype: Any) -> str:
    """In half precision class ids above 256 would change before a loss sees them."""
    dtype = keras.dtype_policies.get(dtype or keras.config.floatx()).compute_dtype
    return "float32" if dtype in ("float16", "bfloat16") else dtype
