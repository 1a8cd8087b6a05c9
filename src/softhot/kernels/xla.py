r"""The loss of class ids and its gradient as operations of JAX, native where XLA runs on a CPU.

For rows of logits ``z (..., K)``, class ids ``(...)`` and shares ``alpha`` of the uniform prior:

============ ==================================================== ====================
operation    value                                                transposed
============ ==================================================== ====================
``losses``   ``L``, ``(...)``
``both``     ``L``, and ``expected * dL/dz``, ``(..., K)``
``push``     ``sum_k dL/dz_k * along_k``, ``(...)``               ``pull`` (``along``)
``pull``     ``factor * dL/dz``, ``(..., K)``                     ``push`` (``factor``)
============ ==================================================== ====================

``losses`` alone writes no gradient. Where it is differentiated it becomes ``both``: one pass that
leaves the gradient too, times the factors of the rows that are expected to come back, 1/N if their
mean is going to be taken. ``pull`` is told what was expected. If that is what came, the gradient is
there already; if not, it is computed anew. So it is rounded once, to its own dtype, in its final
scale.

Each operation has a text, which every platform can run, and which second derivatives are taken of.
Compiled for a single CPU it is a call of the native kernel (``xla.h``), without Python's lock, on
the threads that XLA runs its own loops on, so that there are never more than there are processors.
Programs that are exported, or that the compiler spreads over devices, keep the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from softhot.core.array import accumulator, one_hot, take_class
from softhot.core.row import Row
from softhot.core.rule import Base, Penalty, Rule
from softhot.core.targets import Target
from softhot.kernels import native

MOST_THREADS = 1024
NOT_COUNTED = -1  # the label of a row whose loss and gradient are 0, whatever it holds


def takes(rule: Any) -> bool:
    """Whether the operations know the rule: a uniform prior, penalties that are linear.

    >>> from softhot import ConfidencePenalty, Focal, Uniform
    >>> takes(Uniform(0.1) + ConfidencePenalty(0.1)), takes(Focal())
    (True, False)
    """
    return isinstance(rule, Rule) and native.takes(rule) and rule.base.PRIOR == "uniform"


def losses(rule: Rule, z: Array, labels: Array, alpha: Array, expected: Array) -> Array:
    """The loss of every row, float32, or float64 for float64 logits.

    Args:
        rule: one that :func:`takes` says yes to; its penalties count, its alpha does not.
        z: ``(..., K)``, real. -inf is a missing class.
        labels: ``(...)``, 0 .. K - 1 or ``NOT_COUNTED``.
        alpha: ``(...)`` or ``()``, in the convention of :class:`softhot.Uniform`.
        expected: ``(...)``, the factors by which the gradient will be asked for, if that is known.
    """
    return _bind(LOSSES, z, labels, alpha, lax.stop_gradient(expected), rule=rule)


@cache
def target() -> tuple[str | None, str]:
    """The name under which XLA knows the kernel, or None; and what runs, or why nothing does."""
    library = native.library()
    if library.handler is None:
        return None, library.reason
    # Programs that were compiled for another version of the kernel must not find this one.
    name = f"softhot_rows_{native.source_version():x}"
    try:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(library.handler), platform="cpu")
    except Exception as error:  # whatever its version of the interface has to say
        return None, f"XLA does not take it: {error}"
    return name, library.reason


# ---------------------------------------------------------------------------------------- texts


def _losses(z: Array, labels: Array, alpha: Array, *_: Array, rule: Rule) -> Array:
    z, at, counted = _counted(z, labels)
    if rule.penalties:
        value = sum(part for part, _ in _terms(_row(z, at, alpha, rule), rule))
    else:
        _shifted, total, true = _statistics(z, at)
        value = jnp.log(total) - true
        if not _is_hard(rule):
            value = value - alpha * _gap(z, at)[0]
    return jnp.where(counted, value, 0)


def _both(z: Array, labels: Array, alpha: Array, expected: Array, *, rule: Rule) -> list[Array]:
    return [_losses(z, labels, alpha, rule=rule), _pull(z, labels, alpha, expected, rule=rule)]


def _pull(z: Array, labels: Array, alpha: Array, *factors: Array, rule: Rule) -> Array:
    dtype = z.dtype
    z, at, counted = _counted(z, labels)
    if rule.penalties:
        row = _row(z, at, alpha, rule)
        slope = sum(row.gradient(partials) for _, partials in _terms(row, rule))
    else:
        shifted, total, _ = _statistics(z, at)
        wrong: Any = 0.0
        if not _is_hard(rule):
            wrong = jnp.where(shifted > -jnp.inf, (alpha / _gap(z, at)[1])[..., None], 0)
        right = jnp.asarray(1 - alpha)[..., None]
        label = one_hot(jnp, at, z.shape[-1], bool)
        slope = jnp.exp(shifted) / total[..., None] - wrong - jnp.where(label, right, 0)
    return jnp.where(counted[..., None], slope * factors[-1][..., None], 0).astype(dtype)


def _push(z: Array, labels: Array, alpha: Array, *others: Array, rule: Rule) -> Array:
    return _along(_pull, z, labels, alpha, *others, rule=rule)


def _along(
    pull: Callable, z: Array, labels: Array, alpha: Array, *others: Any, rule: Rule
) -> Array:
    wide = accumulator(jnp, z)
    slope = pull(z.astype(wide), labels, alpha, jnp.ones(labels.shape, wide), rule=rule)
    return jnp.sum(slope * others[-1].astype(wide), axis=-1)


def _counted(z: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Wide logits, labels with 0 where a row does not count, and which rows do."""
    counted = labels >= 0
    return z.astype(accumulator(jnp, z)), jnp.where(counted, labels, 0), counted


def _row(z: Array, labels: Array, alpha: Array, rule: Rule) -> Row:
    return Row(z, Target(labels, alpha, None, z.shape[-1], z > -jnp.inf, jnp), None)


def _terms(row: Row, rule: Rule) -> list:
    parts: tuple[Base | Penalty, ...] = (rule.base, *rule.penalties)
    return [part.terms(row) for part in parts]


def _is_hard(rule: Rule) -> bool:
    return isinstance(rule.base.alpha, float) and rule.base.alpha == 0


# Without penalties a form that XLA compiles to fewer passes: each statistic reads the logits.


def _statistics(z: Array, labels: Array) -> tuple[Array, Array, Array]:
    """``z - max z``, the sum of its exponentials, and the label's part of it."""
    peak = jnp.max(z, axis=-1, keepdims=True)
    true = take_class(jnp, z, labels) - peak[..., 0]
    return z - peak, jnp.sum(jnp.exp(z - peak), axis=-1), true


def _gap(z: Array, labels: Array) -> tuple[Array, Array]:
    """The mean of ``z - z_y`` over the classes that are not -inf, and how many those are."""
    finite = z > -jnp.inf
    count = jnp.sum(finite, axis=-1, dtype=z.dtype)
    true = take_class(jnp, z, labels)[..., None]
    return jnp.sum(jnp.where(finite, z - true, 0), axis=-1) / count, count


# ----------------------------------------------------------------------------------- operations


def _operation(name: str, text: Callable, result: str) -> Primitive:
    """A primitive that is ``text``, with results like the rows, the logits or both."""
    operation = Primitive(f"softhot_{name}")
    operation.multiple_results = result == "both"

    def results(z: Any, labels: Any, *_: Any, rule: Rule) -> Any:
        rows = labels.update(dtype=accumulator(jnp, z), weak_type=False)
        return {"rows": rows, "logits": z, "both": [rows, z]}[result]

    operation.def_abstract_eval(results)
    operation.def_impl(jax.jit(partial(_bind, operation), static_argnames="rule"))
    batching.primitive_batchers[operation] = partial(_batch, operation)
    mlir.register_lowering(operation, _lowered(operation, text))
    return operation


def _lowered(operation: Primitive, text: Callable) -> Callable:
    return mlir.lower_fun(text, multiple_results=operation.multiple_results)


def _bind(operation: Primitive, *arrays: Array, rule: Rule) -> Any:
    return operation.bind(*_varying_alike(arrays), rule=rule)


def _varying_alike(arrays: tuple[Array, ...]) -> list[Array]:
    """In a ``shard_map``, all as different from device to device as any of them."""
    axes = [_varying(jax.typeof(array)) for array in arrays]
    missing = [tuple(frozenset().union(*axes) - own) for own in axes]
    return [
        lax.pcast(array, more, to="varying") if more else array
        for array, more in zip(arrays, missing, strict=True)
    ]


def _varying(kind: Any) -> frozenset:
    """The axes of the mesh along which it varies: under ``vma`` up to JAX 0.9."""
    return kind.mat.varying if hasattr(kind, "mat") else getattr(kind, "vma", frozenset())


def _batch(operation: Primitive, arrays: Any, axes: Any, *, rule: Rule) -> tuple[Any, Any]:
    """More rows: the new axis comes first in all but an alpha that they share."""
    (size,) = {a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None}
    batched = [
        jnp.broadcast_to(array, (size, *array.shape))
        if axis is None
        else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    if axes[2] is None and not arrays[2].ndim:
        batched[2] = arrays[2]
    elif batched[2].ndim < batched[1].ndim:  # an alpha for each of the batches
        column = batched[2].reshape(size, *(1,) * (batched[1].ndim - 1))
        batched[2] = jnp.broadcast_to(column, batched[1].shape)
    done = _bind(operation, *batched, rule=rule)
    return (done, [0, 0]) if operation.multiple_results else (done, 0)


LOSSES = _operation("losses", _losses, "rows")
BOTH = _operation("both", _both, "both")
PULL = _operation("pull", _pull, "logits")
PUSH = _operation("push", _push, "rows")


def _derivative_of_losses(operation: Primitive, primals: Any, tangents: Any, *, rule: Rule) -> Any:
    (z, labels, alpha, expected), (along, _, by_alpha, _) = primals, tangents
    value, gradient = _bind(BOTH, *primals, rule=rule)
    parts = []
    if not isinstance(along, ad.Zero):
        parts.append(_bind(PUSH, z, labels, alpha, gradient, expected, along, rule=rule))
    if not isinstance(by_alpha, ad.Zero):
        by_text = partial(_losses, z, labels, rule=rule)
        parts.append(jax.jvp(by_text, (alpha,), (by_alpha,))[1])
    tangent = sum(parts[1:], parts[0]) if parts else _no_tangent(value)
    if operation is LOSSES:
        return value, tangent
    # What is left for a pull is no more than a hint: no result depends on it.
    return [value, gradient], [tangent, _no_tangent(gradient)]


def _derivative_of_linear(
    operation: Primitive, text: Callable, primals: Any, tangents: Any, *, rule: Rule
) -> Any:
    z, labels, alpha, *hints, last = primals
    value, parts = _bind(operation, *primals, rule=rule), []
    if not isinstance(tangents[5], ad.Zero):
        parts.append(_bind(operation, z, labels, alpha, *hints, tangents[5], rule=rule))
    moving = {i: tangents[i] for i in (0, 2) if not isinstance(tangents[i], ad.Zero)}
    if moving:

        def by_text(some: dict[int, Array]) -> Array:
            # What a row that does not count holds, NaN too, must not meet a slope of 0.
            rows = jnp.where((labels >= 0)[..., None], some.get(0, z), 0)
            return text(rows, labels, some.get(2, alpha), last, rule=rule)

        parts.append(jax.jvp(by_text, ({i: primals[i] for i in moving},), (moving,))[1])
    return value, sum(parts[1:], parts[0]) if parts else _no_tangent(value)


def _no_tangent(value: Array) -> Any:
    return ad.Zero(jax.typeof(value).to_tangent_aval())


def _transposed(operation: Primitive, upstream: Array, *arrays: Any, rule: Rule) -> list:
    return [None] * 5 + [_bind(operation, *arrays[:5], upstream, rule=rule)]


for operation in (LOSSES, BOTH):
    ad.primitive_jvps[operation] = partial(_derivative_of_losses, operation)
for operation, text, other in ((PULL, _pull, PUSH), (PUSH, _push, PULL)):
    ad.primitive_jvps[operation] = partial(_derivative_of_linear, operation, text)
    ad.primitive_transposes[operation] = partial(_transposed, other)


# --------------------------------------------------------------------------------- native calls


def _on_cpu(operation: Primitive, text: Callable, context: Any, *operands: Any, rule: Rule) -> Any:
    """The lowering for CPUs: a call of the kernel if there is one and it can see whole rows."""
    module, (z, labels, *_) = context.module_context, context.avals_in
    name, _ = target()
    if (
        name is None
        or getattr(module.axis_context, "num_devices", 0) != 1
        or module.lowering_parameters.for_export
        or z.dtype.name not in native.DTYPES
    ):
        return _lowered(operation, text)(context, *operands, rule=rule)
    call = _call(rule, z, labels, "sum" if operation is PULL else "none")
    given = operands[:3] if operation is LOSSES else operands
    context = context.replace(avals_in=context.avals_in[: len(given)])
    in_place = {3: 0} if operation is PULL else None
    lower = jax.ffi.ffi_lowering(name, operand_output_aliases=in_place)
    return lower(context, *given, call=np.frombuffer(call, np.uint8))


def _call(rule: Rule, z: Any, labels: Any, reduction: str) -> bytes:
    """What native.cpp calls Call, but for the addresses."""
    extra = native.coefficients(rule.penalties) or native.Coefficients()
    n, k = math.prod(z.shape[:-1]), z.shape[-1]
    flags = native.LENIENT | native.HAS_IGNORE
    flags |= native.INT32_LABELS if labels.dtype.itemsize == 4 else 0
    return native.CALL.pack(
        *[0] * 11,
        *(n, k, k, NOT_COUNTED),
        *(0.0, extra.lse, extra.mean, extra.max, extra.expected),
        *(native.DTYPES[z.dtype.name], native.REDUCTIONS[reduction]),
        *(min(n * k // native.LOGITS_A_THREAD, MOST_THREADS), flags),
    )


def _push_on_cpu(*arrays: Array, rule: Rule) -> Array:
    return _along(lambda *rows, rule: _bind(BOTH, *rows, rule=rule)[1], *arrays, rule=rule)


TEXTS: dict[Primitive, Callable] = {LOSSES: _losses, BOTH: _both, PULL: _pull}
for operation, text in TEXTS.items():
    lowering = partial(_on_cpu, operation, text)
    mlir.register_lowering(operation, lowering, platform="cpu")
mlir.register_lowering(PUSH, _lowered(PUSH, _push_on_cpu), platform="cpu")
