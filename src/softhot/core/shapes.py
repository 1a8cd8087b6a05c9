"""Axes and masks beside an array: checked, and broadcast to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from softhot.core.array import Array, as_arrays, kind, like
from softhot.core.check import InputError, Interval


def check_axis(axis: Any, ndim: int) -> int:
    """``axis`` counted from the front."""
    axis = Interval(-ndim, ndim - 1, "[]", integer=True).check("axis", axis)
    return axis % ndim


def check_mask(xp: Any, argument: str, mask: Any, reference: Array) -> Array:
    """``mask`` as a boolean array beside ``reference``."""
    mask = like(xp, reference, as_arrays(argument, mask)[0])
    if kind(xp, mask) != "bool":
        hint = "Write mask.astype(bool) if 1 means yes."
        raise InputError(argument, "booleans", mask.dtype, hint)
    return mask


def broadcast(xp: Any, argument: str, array: Array, shape: tuple[int, ...]) -> Array:
    """``array`` broadcast to ``shape``, or an error that names both shapes."""
    try:
        fits = np.broadcast_shapes(tuple(array.shape), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise InputError(argument, f"of a shape that broadcasts to {shape}", tuple(array.shape))
    return xp.broadcast_to(array, shape)
