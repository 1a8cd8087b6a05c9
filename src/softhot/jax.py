"""JAX: losses as pure functions in the manner of optax, for any rule.

They return one loss a row and leave the mean to the caller; ``jit``, ``vmap``, ``grad``, ``jvp``,
``hessian`` and ``checkpoint`` go through them.

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
from functools import cached_property, partial
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

from softhot.core.array import as_arrays, is_concrete, one_hot, take_class, to_numpy
from softhot.core.binary import BinaryRule, binary_cross_entropy_and_gradient
from softhot.core.losses import Batch
from softhot.core.rule import Base, Rule
from softhot.core.shapes import check_axis


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
            NaN**; optax takes -1 for the last class. Shapes, dtypes and rules always raise.

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
    logits = _wide(arrays.pop("logits"))
    mask, alpha = arrays.get("where"), arrays.get("alpha")
    if mask is not None and mask.ndim == logits.ndim:
        arrays["allowed"] = mask & arrays.get("allowed", True)
        arrays["where"] = jnp.any(mask, check_axis(axis, logits.ndim))
    if alpha is not None and alpha.ndim == 0:
        place = check_axis(axis, logits.ndim)
        arrays["alpha"] = jnp.full(logits.shape[:place] + logits.shape[place + 1 :], alpha)
    options: dict[str, Any] = {"axis": axis, "ignore_index": ignore_index, "weighting": weighting}
    options |= {"smooth_again": smooth_again, "reduction": reduction, "validate": validate}
    call = partial(_cross_entropy, rule=rule, **options)
    return _differentiable(call, axis if reduction == "none" else None, logits, arrays)


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
    fused = not is_concrete(logits) and _Fused.fits(rule, logits, arrays, options["weighting"])
    labels, arrays = arrays["labels"], {n: a for n, a in arrays.items() if n != "labels"}
    batch = (_Fused if fused else Batch)(logits, labels, rule, **arrays, **options)
    return batch.loss, batch.gradient


def _binary_cross_entropy(
    logits: Array, arrays: dict[str, Any], *, rule: BinaryRule, **options: Any
) -> tuple[Array, Array]:
    labels, arrays = arrays["labels"], {n: a for n, a in arrays.items() if n != "labels"}
    return binary_cross_entropy_and_gradient(logits, labels, rule, **arrays, **options)


class _Fused(Batch):
    r"""Uniform smoothing of class ids, in the form that XLA compiles to the fewest passes.

    .. math:: L = \mathrm{lse}(z) - z_y - \alpha\,\mathrm{mean}(z - z_y)

    On CPUs, XLA fuses a reduction with the arithmetic before it, but not with a comparison, and
    writes out what two reductions share. So each statistic reads the logits themselves, the mean
    is a matrix product, which is their fastest reader, and is taken again, with care, only if it
    shows -inf or has lost digits. Accelerators fuse everything, and branch badly.
    """

    @staticmethod
    def fits(rule: Any, logits: Array, arrays: dict[str, Array], weighting: str) -> bool:
        if not isinstance(rule, Rule) or rule.penalties or "allowed" in arrays:
            return False
        plain = rule.base.PRIOR == "uniform" and type(rule.base).terms is Base.terms
        return plain and arrays["labels"].ndim < logits.ndim and weighting == "sample"

    @cached_property
    def statistics(self) -> tuple[Array, ...]:
        """Of every row: ``z - max z``, the sum of its exponentials, and the label's part of it."""
        z = self.logits
        peak = jnp.max(z, axis=-1, keepdims=True)
        true = take_class(jnp, z, self.target.labels)
        return z - peak, jnp.sum(jnp.exp(z - peak), axis=-1), true - peak[..., 0]

    @cached_property
    def gap(self) -> tuple[Array, Array]:
        """Of every row: the mean of ``z - z_y``, and the number of classes in it."""
        true = take_class(jnp, self.logits, self.target.labels)[..., None]
        return lax.platform_dependent(self.logits, true, cpu=_gap_by_product, default=_gap)

    @property
    def value(self) -> Array:
        _, total, true = self.statistics
        hard = jnp.log(total) - true
        return hard if self.is_hard else hard - self.alpha * self.gap[0]

    @property
    def slope(self) -> Array:
        shifted, total, _ = self.statistics
        label = one_hot(jnp, self.target.labels, shifted.shape[-1], bool)
        wrong: Any = 0.0
        if not self.is_hard:
            wrong = jnp.where(shifted > -jnp.inf, (self.alpha / self.gap[1])[..., None], 0)
        right = jnp.asarray(1 - self.alpha)[..., None]
        return jnp.exp(shifted) / total[..., None] - wrong - jnp.where(label, right, 0)

    @property
    def alpha(self) -> Array:
        return jnp.asarray(self.target.alpha, self.logits.dtype)

    @property
    def is_hard(self) -> bool:
        return isinstance(self.target.alpha, float) and self.target.alpha == 0


def _gap(z: Array, true: Array) -> tuple[Array, Array]:
    """The mean of ``z - z_y`` over the classes that are not -inf, and how many those are."""
    finite = z > -jnp.inf
    count = jnp.sum(finite, axis=-1, dtype=z.dtype)
    return jnp.sum(jnp.where(finite, z - true, 0), axis=-1) / count, count


def _gap_by_product(z: Array, true: Array) -> tuple[Array, Array]:
    k = z.shape[-1]
    mean = jnp.matmul(z, jnp.ones(k, z.dtype), precision=lax.Precision.HIGHEST) / k
    gap = mean - true[..., 0]
    size = jnp.abs(gap)
    exact = (jnp.abs(mean) <= 8 * jnp.maximum(size, 1)) & (size < jnp.inf)
    count = jnp.full_like(gap, k)
    return lax.cond(jnp.all(exact), lambda z, true: (gap, count), _gap, z, true)


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
