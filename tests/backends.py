"""The array libraries the core runs on, each in the dtypes it has, behind one small face."""

import contextlib
import os
from dataclasses import dataclass

import numpy as np

# TensorFlow has a process of its own (test_core_tensorflow.py); mutation tests take NumPy alone.
LIBRARIES = os.environ.get("SOFTHOT_LIBRARIES", "numpy torch jax strict").split()

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Backend:
    """Arrays of one library, reals in one dtype; integers and booleans stay what they are."""

    library: str
    dtype: str

    def __str__(self):
        return f"{self.library}-{self.dtype}"

    @contextlib.contextmanager
    def active(self):
        """What must be switched on to have this dtype at all."""
        if self.library == "jax" and self.dtype == "float64":
            import jax

            with jax.enable_x64(True):
                yield
        else:
            yield

    def array(self, values):
        """NumPy to the library's own; NumPy itself gets an array that nobody may write to."""
        values = np.asarray(values)
        real = values.dtype.kind == "f"
        if self.library == "numpy":
            array = values.astype(self.dtype) if real else values.copy()
            array.flags.writeable = False
            return array
        if self.library == "torch":
            import torch

            array = torch.tensor(values)
            return array.to(getattr(torch, self.dtype)) if real else array
        if self.library == "tensorflow":  # through Keras, which must be set to it
            import keras

            array = keras.ops.convert_to_tensor(values)
            return keras.ops.cast(array, self.dtype) if real else array
        if self.library == "jax":
            import jax.numpy as xp
        else:
            import array_api_strict as xp
        return xp.asarray(values, dtype=getattr(xp, self.dtype)) if real else xp.asarray(values)

    def numpy(self, array):
        """Back to NumPy, reals as float64."""
        if self.library == "torch":
            array = array.detach()
            array = (array.double() if array.is_floating_point() else array).numpy()
        array = np.asarray(array)
        return array if array.dtype.kind in "iub" else array.astype(np.float64)

    def rounded(self, values):
        """``values`` as this dtype holds them."""
        return self.numpy(self.array(values))

    @property
    def eps(self):
        return EPS[self.dtype]

    @property
    def accumulator_eps(self):
        """That of the dtype the loss comes back in."""
        return EPS["float64" if self.dtype == "float64" else "float32"]

    @property
    def real(self):
        """The dtype, as the library names it."""
        return self.array(np.zeros(1)).dtype

    def dtype_of(self, array):
        name = getattr(array.dtype, "name", str(array.dtype))
        return name.rpartition(".")[2]


NUMPY = Backend("numpy", "float64")
DTYPES = {
    "numpy": ("float64", "float32", "float16"),
    "torch": ("float64", "float32", "float16", "bfloat16"),
    "jax": ("float64", "float32"),
    "strict": ("float64", "float32"),
    "tensorflow": ("float64", "float32", "bfloat16"),
}
BACKENDS = tuple(Backend(library, dtype) for library in LIBRARIES for dtype in DTYPES[library])
DOUBLE = tuple(b for b in BACKENDS if b.dtype == "float64")
