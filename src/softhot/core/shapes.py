"""Axes, masks and priors beside an array: checked, and laid out as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from softhot.core.array import Array, as_arrays, kind, like
from softhot.core.check import InputError, Interval
from softhot.core.rule import Base


def check_axis(axis: Any, ndim: int) -> int:
    """``axis`` counted from the front."""
    axis = Interval(-ndim, ndim - 1, integer=True).check("axis", axis)
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


def prior_last(xp: Any, base: Base, prior: Any, reference: Array, axis: int) -> Any:
    """A per-row prior with its class axis moved last, if it has one at ``axis >= 0``."""
    if prior is None or base.PRIOR != "by_row":
        return prior
    prior = like(xp, reference, as_arrays("prior", prior)[0])
    return xp.moveaxis(prior, axis, -1) if axis < prior.ndim else prior
