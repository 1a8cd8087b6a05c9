"""Triton's interpreter, for tensors on the CPU. Import this before softhot's kernels."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined
os.environ["SOFTHOT_TRITON"] = "cpu"

from triton.runtime import interpreter

_patch = interpreter._patch_lang_tensor


def _patch_for_numpy_2_4(tensor, scope):
    """NumPy 2.4 no longer makes a number of an array of one element, as Triton 3.6 expects."""
    _patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter._patch_lang_tensor = _patch_for_numpy_2_4
