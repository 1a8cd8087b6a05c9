"""Triton kernels: the loss at the speed of a GPU's memory.

Nothing here is imported unless there are tensors on a GPU to work on; where Triton is missing,
other ways are taken and :func:`softhot.kernels.explain` says so.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

# "0" turns the kernels off; "cpu" sends tensors on the CPU through them too, which only Triton's
# interpreter can do (TRITON_INTERPRET=1): that is how they are tested.
SWITCH = "SOFTHOT_TRITON"


def device() -> str:
    """The name of the GPU that PyTorch sees; empty if there is none."""
    if importlib.util.find_spec("torch") is None:
        return ""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


@cache
def reason(device: str) -> str:
    """Why tensors on a device of this type cannot take the kernels; empty if they can."""
    wanted = os.environ.get(SWITCH, "")
    if wanted == "0":
        return f"switched off by {SWITCH}=0"
    if device != "cuda" and not (device == "cpu" and wanted == "cpu"):
        return "they run on CUDA devices"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return ""
