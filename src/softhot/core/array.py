"""Which namespace an array belongs to, and the few operations the core needs beyond the standard.

The core is written against the array API standard, so one text serves NumPy, PyTorch, JAX, CuPy
and ``array-api-strict``; and TensorFlow through ``keras.ops``, renamed by hand at the end of this
file. A framework is recognised by the array it hands over, never by importing it.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import array_api_compat as compat
import numpy as np

from softhot.core.check import InputError

Array = Any  # an array of any namespace that array-api-compat knows


def as_arrays(argument: str, like: Any) -> tuple[Array, Any]:
    """``like`` as an array of its own namespace, and that namespace; lists become NumPy arrays."""
    if _is_tensorflow(like):
        return like, KERAS
    given = like
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
        raise InputError(argument, "an array of numbers", given)
    return like, compat.array_namespace(like)


def like(xp: Any, reference: Array, values: Any, dtype: Any = None) -> Array:
    """``values`` as an array of the namespace and on the device of ``reference``."""
    if (xp is KERAS and _is_tensorflow(values)) or (
        compat.is_array_api_obj(values) and compat.array_namespace(values) is xp
    ):
        return values if dtype is None else xp.astype(values, dtype)
    # A copy, because torch warns of memory it may read but not write.
    return xp.asarray(np.array(to_numpy(values)), dtype=dtype, device=device(reference))


def device(array: Array) -> Any:
    """Where a constant used beside ``array`` belongs; None where the framework moves it itself."""
    if _is_tensorflow(array) or compat.is_jax_array(array):
        return None
    return compat.device(array)


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
    """Whether values can be looked at; what a framework traces has none to check yet."""
    jax, tensorflow = sys.modules.get("jax"), sys.modules.get("tensorflow")
    if jax is not None and any(isinstance(array, jax.Array) for array in arrays):
        # Under jit a constant has values, but nothing that is computed from it has.
        made = jax.numpy.zeros(())
        if any(isinstance(array, jax.core.Tracer) for array in (*arrays, made)):
            return False
    if any(compat.is_torch_array(array) and _is_traced_by_torch(array) for array in arrays):
        return False
    return not any(_is_tensorflow(a) and tensorflow.is_symbolic_tensor(a) for a in arrays)  # type: ignore[union-attr]  # its tensors have loaded it


def _is_traced_by_torch(tensor: Any) -> bool:
    """Whether it stands for others: ``torch.func``, ``torch.compile``, sharded, shape only."""
    torch = sys.modules["torch"]
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return (
        tensor.is_meta
        or wrapped
        or type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    )


def one_hot(xp: Any, ids: Array, num_classes: int, dtype: Any) -> Array:
    """Rows with a 1 at the class id: ``(...)`` integers to ``(..., K)``."""
    classes = xp.arange(num_classes, dtype=ids.dtype, device=device(ids))
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


class KerasNamespace:
    """``keras.ops`` under the names that the core takes from the array API standard."""

    bool, int32, int64, float32, float64 = "bool", "int32", "int64", "float32", "float64"
    inf, nan = math.inf, math.nan

    def __getattr__(self, name: str) -> Any:
        if "keras" not in sys.modules:
            raise AttributeError(name)
        return getattr(sys.modules["keras"].ops, name)

    def asarray(self, values: Any, dtype: Any = None, device: Any = None) -> Array:
        return self.convert_to_tensor(values, dtype=dtype)

    def astype(self, array: Array, dtype: Any) -> Array:
        return self.cast(array, dtype)

    def max(self, array: Array, axis: Any = None, keepdims: Any = False) -> Array:
        # keras.ops.max refuses a batch without rows.
        return sys.modules["tensorflow"].reduce_max(array, axis, keepdims)

    def arange(self, stop: int, dtype: Any = None, device: Any = None) -> Array:
        return self.__getattr__("arange")(stop, dtype=dtype)

    def reshape(self, array: Array, shape: Any) -> Array:
        # A traced batch size is None, which keras.ops.reshape would take for "leave it out".
        return self.__getattr__("reshape")(array, tuple(-1 if n is None else n for n in shape))

    def isdtype(self, dtype: Any, kind: str) -> Any:
        name = sys.modules["keras"].backend.standardize_dtype(dtype)
        letters = {"bool": ("bool",), "integral": ("int", "uint"), "complex floating": ("complex",)}
        return name.startswith(letters[kind])

    def finfo(self, dtype: Any) -> Any:
        return sys.modules["ml_dtypes"].finfo(dtype.as_numpy_dtype)


KERAS = KerasNamespace()


def _is_tensorflow(array: Any) -> bool:
    """Whether it is a tensor of TensorFlow, and Keras is there and set to it."""
    tensorflow, keras = sys.modules.get("tensorflow"), sys.modules.get("keras")
    if tensorflow is None or keras is None or not tensorflow.is_tensor(array):
        return False
    return keras.backend.backend() == "tensorflow"
