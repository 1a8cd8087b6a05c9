"""Which namespace an array belongs to, and the few operations the core needs beyond the standard.

The core is written against the array API standard, so one text serves NumPy, PyTorch, JAX, CuPy
and ``array-api-strict``. A framework is recognised by the array it hands over, never by importing
it.
"""

from __future__ import annotations

import sys
from typing import Any

import array_api_compat as compat
import numpy as np

from softhot.core.check import InputError

Array = Any  # an array of any namespace that array-api-compat knows


def as_arrays(argument: str, like: Any) -> tuple[Array, Any]:
    """``like`` as an array of its own namespace, and that namespace; lists become NumPy arrays."""
    if not compat.is_array_api_obj(like):
        try:
            like = np.asarray(like)
        except ValueError as error:
            hint = "Rows of unequal length are not an array: pad them and mask the padding."
            raise InputError(argument, "an array", like, hint) from error
    if isinstance(like, np.ma.MaskedArray):
        hint = "Pass the data and give the mask as where= (rows) or allowed= (classes)."
        raise InputError(argument, "an array without a hidden mask", like, hint)
    if isinstance(like, np.ndarray | np.generic) and like.dtype.kind not in "biufc":
        raise InputError(argument, "an array of numbers", like)
    return like, compat.array_namespace(like)


def like(xp: Any, reference: Array, values: Any, dtype: Any = None) -> Array:
    """``values`` as an array of the namespace and on the device of ``reference``."""
    if compat.is_array_api_obj(values) and compat.array_namespace(values) is xp:
        return values if dtype is None else xp.astype(values, dtype)
    # A copy, because torch warns of memory it may read but not write.
    return xp.asarray(np.array(to_numpy(values)), dtype=dtype, device=compat.device(reference))


def to_numpy(array: Any) -> np.ndarray:
    """A concrete array of any namespace as NumPy; torch's reals, which it may lack, as float64."""
    if compat.is_torch_array(array):
        array = array.detach().cpu()
        return (array.double() if array.is_floating_point() else array).numpy()
    return np.asarray(array.get() if compat.is_cupy_array(array) else array)


def kind(xp: Any, array: Array) -> str:
    """``"bool"``, ``"integer"``, ``"real"`` or ``"complex"``: what the array holds."""
    if xp.isdtype(array.dtype, "bool"):
        return "bool"
    if xp.isdtype(array.dtype, "integral"):
        return "integer"
    if xp.isdtype(array.dtype, "complex floating"):
        return "complex"
    return "real"


def accumulator(xp: Any, array: Array) -> Any:
    """The dtype sums over ``array`` are taken in: float64 stays, everything narrower is float32."""
    return xp.float64 if array.dtype == xp.float64 else xp.float32


def widest(xp: Any) -> Any:
    """float64, or float32 where the namespace is set to have no 64 bits (JAX without x64)."""
    return xp.float32 if _is_narrow(xp) else xp.float64


def widest_integer(xp: Any) -> Any:
    """int64, or int32 where the namespace is set to have no 64 bits."""
    return xp.int32 if _is_narrow(xp) else xp.int64


def _is_narrow(xp: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and xp is jax.numpy and not jax.config.jax_enable_x64


def is_concrete(*arrays: Array | None) -> bool:
    """Whether values can be looked at; what JAX traces has none, so nothing can be checked."""
    jax = sys.modules.get("jax")
    return jax is None or not any(isinstance(array, jax.core.Tracer) for array in arrays)


def one_hot(xp: Any, ids: Array, num_classes: int, dtype: Any) -> Array:
    """Rows with a 1 at the class id: ``(...)`` integers to ``(..., K)``."""
    classes = xp.arange(num_classes, dtype=ids.dtype, device=compat.device(ids))
    return xp.astype(xp.expand_dims(ids, axis=-1) == classes, dtype)


def take_class(xp: Any, values: Array, ids: Array) -> Array:
    """``values[..., ids]`` row by row: ``(..., K)`` and ``(...)`` to ``(...)``."""
    return xp.squeeze(xp.take_along_axis(values, xp.expand_dims(ids, axis=-1), axis=-1), axis=-1)


def first_true(xp: Any, mask: Array) -> tuple[int, ...]:
    """The index of the first true entry of a concrete mask that has one."""
    flat = int(xp.argmax(xp.astype(xp.reshape(mask, (-1,)), xp.int32)))
    return tuple(int(i) for i in np.unravel_index(flat, tuple(mask.shape)))


def position(index: tuple[int, ...]) -> str:
    """``index`` as an error message writes it: ``[3]``, ``[0, 2]``, or nothing for a scalar.

    >>> position((3, 1))
    '[3, 1]'
    """
    return f"[{', '.join(map(str, index))}]" if index else ""
