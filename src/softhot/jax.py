"""JAX: losses as pure functions in the manner of optax, for any rule.

They return one loss a row and leave the mean to the caller; ``jit``, ``vmap``, ``grad``, ``jvp``,
``hessian`` and ``checkpoint`` go through them. On a CPU the compiled program calls softhot's native
kernel, as :mod:`softhot.kernels.xla` says.

>>> import jax, jax.numpy as jnp, softhot
>>> from softhot.jax import cross_entropy
>>> logits, labels = jnp.zeros((2, 4)), jnp.array([0, 3])
>>> def loss_fn(logits):
...     return cross_entropy(logits, labels, softhot.Uniform(0.2)).mean()
>>> jax.jit(jax.grad(loss_fn))(logits).round(3)
Array([[-0.3,  0.1,  0.1,  0.1],
       [ 0.1,  0.1,  0.1, -0.3]], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

try:
    import jax
except ModuleNotFoundError as error:
    message = "softhot.jax needs JAX: pip install 'softhot[jax]'"
    raise ModuleNotFoundError(message, name="jax") from error

import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from softhot.core.array import accumulator, as_arrays, to_numpy
from softhot.core.binary import BinaryRule, binary_cross_entropy_and_gradient
from softhot.core.losses import Batch
from softhot.core.rule import Rule
from softhot.core.shapes import check_axis

xla: Any = None
if hasattr(lax, "pcast"):  # JAX from 0.8 on: before, operations of one's own are others
    from softhot.kernels import xla


def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    rule: Rule,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    where: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    weighting: str = "sample",
    alpha: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    smooth_again: bool = False,
    reduction: str = "none",
    validate: bool = True,
) -> Array:
    """Cross entropy under a rule, from logits: :func:`softhot.cross_entropy` for JAX.

    With ``Uniform(0)`` it is ``optax.softmax_cross_entropy_with_integer_labels``; class ids never
    become a one-hot array on the way forward, nor a scatter on the way back.

    Args:
        logits: ``(..., K, ...)``, class axis at ``axis``; -inf means that a class is not allowed.
        labels: class ids ``(...)``, or probabilities of the shape of ``logits``.
        rule: a rule such as ``softhot.Uniform(0.1)``. Rules are hashable: under ``jit`` close over
            one, or name it in ``static_argnames``.
        axis: the class axis, one integer.
        where: booleans. Of the shape of the rows: rows where it is false are left out. With the
            class axis too, as optax has it: the classes that are allowed; rows without any are
            left out.
        alpha: weights for rules with :class:`softhot.PerSample`: ``(...)`` or one number. They may
            be traced, so that a schedule does not compile anew:
            ``cross_entropy(z, y, Uniform(PerSample()), alpha=schedule(step))``.
        ignore_index, allowed, weight, weighting, prior, smooth_again: see
            :func:`softhot.cross_entropy`.
        reduction: ``"none"`` as in optax, ``"sum"``, or ``"mean"`` over the rows that count.
        validate: look at values. Values that are traced cannot be looked at, so under ``jit`` no
            error can be raised: **a row whose label or alpha would raise has loss and gradient
            NaN**; optax takes -1 for the last class. Shapes, dtypes and rules always raise. Without
            it a label out of range is NaN, another class's loss or an error of the program's run.

    Returns:
        ``(...)`` or a scalar: float64 for float64 logits, float32 for everything narrower. It can
        be differentiated in ``logits``, and in ``alpha``, ``prior``, ``weight``, soft ``labels``.

    Raises:
        InputError: naming argument, rule, value and next step.

    >>> import jax.numpy as jnp
    >>> from softhot import Uniform
    >>> cross_entropy(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0]), Uniform(0.1))
    Array([0.37...], dtype=float32)
    """
    given = {"labels": labels, "where": where, "allowed": allowed, "weight": weight}
    arrays = _arrays(logits=logits, **given, alpha=alpha, prior=prior)
    logits = arrays.pop("logits")
    mask, alpha = arrays.get("where"), arrays.get("alpha")
    if mask is not None and mask.ndim == logits.ndim:
        arrays["allowed"] = mask & arrays.get("allowed", True)
        arrays["where"] = jnp.any(mask, check_axis(axis, logits.ndim))
    if alpha is not None and alpha.ndim == 0:
        place = check_axis(axis, logits.ndim)
        arrays["alpha"] = jnp.full(logits.shape[:place] + logits.shape[place + 1 :], alpha)
    options: dict[str, Any] = {"axis": axis, "ignore_index": ignore_index, "weighting": weighting}
    options |= {"smooth_again": smooth_again, "reduction": reduction, "validate": validate}
    if _Rows.fits(rule, logits, arrays, weighting):
        logits = logits if logits.dtype.itemsize > 1 else _wide(logits)
        return _Rows(logits, arrays.pop("labels"), rule, **arrays, **options).loss
    call = partial(_cross_entropy, rule=rule, **options)
    return _differentiable(call, axis if reduction == "none" else None, _wide(logits), arrays)


def binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    rule: BinaryRule,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    weighting: str = "sample",
    reduction: str = "none",
    validate: bool = True,
) -> Array:
    """Binary cross entropy of independent labels, from logits: one loss a label.

    ``optax.sigmoid_binary_cross_entropy`` under a binary rule. Arguments as in
    :func:`softhot.binary_cross_entropy`; what is traced is treated as in :func:`cross_entropy`.

    >>> import jax.numpy as jnp
    >>> from softhot import Bernoulli
    >>> binary_cross_entropy(jnp.array([0.0, 2.0]), jnp.array([1, 1]), Bernoulli(0.1)).round(4)
    Array([0.6931, 0.2269], dtype=float32)
    """
    arrays = _arrays(logits=logits, labels=labels, where=where, pos_weight=pos_weight)
    logits = _wide(arrays.pop("logits"))
    options: dict[str, Any] = {
        "axis": axis,
        "weighting": weighting,
        "reduction": reduction,
        "validate": validate,
    }
    call = partial(_binary_cross_entropy, rule=rule, **options)
    return _differentiable(call, () if reduction == "none" else None, logits, arrays)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _differentiable(call: Callable, over: Any, logits: Array, arrays: dict[str, Array]) -> Array:
    """The loss that ``call`` returns together with its gradient by the logits.

    ``over`` are the axes a loss sums over: its derivative along ``d`` is ``sum(gradient * d)``.
    """
    return call(logits, arrays)[0]


@partial(_differentiable.defjvp, symbolic_zeros=True)
def _derivative(call: Callable, over: Any, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (logits, arrays), (along, others) = primals, tangents
    loss, gradient = call(logits, arrays)
    tangent = jnp.zeros_like(loss)
    if not isinstance(along, SymbolicZero):
        tangent = jnp.sum(gradient * along, axis=over)
    others = {name: d for name, d in others.items() if not isinstance(d, SymbolicZero)}
    if others:  # a learnt alpha, say: nothing in closed form, nothing lost
        at = {name: arrays[name] for name in others}
        tangent += jax.jvp(lambda some: call(logits, arrays | some)[0], (at,), (others,))[1]
    return loss, tangent


def _cross_entropy(
    logits: Array, arrays: dict[str, Any], *, rule: Rule, **options: Any
) -> tuple[Array, Array]:
    labels, arrays = arrays["labels"], {n: a for n, a in arrays.items() if n != "labels"}
    batch = Batch(logits, labels, rule, **arrays, **options)
    return batch.loss, batch.gradient


def _binary_cross_entropy(
    logits: Array, arrays: dict[str, Any], *, rule: BinaryRule, **options: Any
) -> tuple[Array, Array]:
    labels, arrays = arrays["labels"], {n: a for n, a in arrays.items() if n != "labels"}
    return binary_cross_entropy_and_gradient(logits, labels, rule, **arrays, **options)


class _Rows(Batch):
    """Class ids under a rule that :mod:`softhot.kernels.xla` takes: it differentiates itself."""

    @staticmethod
    def fits(rule: Any, logits: Array, arrays: dict[str, Array], weighting: Any) -> bool:
        ids = arrays["labels"].ndim < logits.ndim and weighting == "sample"
        return xla is not None and ids and "allowed" not in arrays and xla.takes(rule)

    def __init__(self, logits: Array, labels: Array, rule: Rule, **options: Any) -> None:
        super().__init__(logits, labels, rule, **options)
        self.given = jnp.moveaxis(logits, self.axis, -1)

    @property
    def value(self) -> Array:
        z, labels = self.given, self.target.labels
        if self.counted is not None:
            labels = jnp.where(self.counted, labels, xla.NOT_COUNTED)
        dtype = accumulator(jnp, z)
        # The gradient will be asked for in these factors: those of the mean, unless it is a sum.
        expected = jnp.ones(labels.shape, dtype)
        if self.reduction != "sum":
            expected = expected / self.normalizer
        if self.factor is not None:
            expected = expected * self.factor
        if self.counted is not None:
            expected = jnp.where(self.counted, expected, 0)
        alpha = jnp.asarray(self.target.alpha, dtype)
        return xla.losses(self.rule, z, labels, alpha, expected)


def _arrays(**given: ArrayLike | None) -> dict[str, Array]:
    """What was given as JAX arrays; what was not is left out."""
    arrays = {name: value for name, value in given.items() if value is not None}
    for name, value in arrays.items():
        if not isinstance(value, Array):
            arrays[name] = jnp.asarray(to_numpy(as_arrays(name, value)[0]))
    return arrays  # type: ignore[return-value]


def _wide(logits: Array) -> Array:
    """Half precision as float32: the gradient is cast back once it is whole."""
    narrow = jnp.issubdtype(logits.dtype, jnp.floating) and logits.dtype.itemsize < 4
    return logits.astype(jnp.float32) if narrow else logits
