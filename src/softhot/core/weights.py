"""How much to smooth: a number, one for each class, one for each sample, or a schedule."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval, OneOf, SofthotWarning


def numbers(argument: str, values: Any, ndim: int) -> np.ndarray:
    """Numbers that a rule is made of, as a finite float64 array of ``ndim`` dimensions."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    if array.ndim != ndim or array.size == 0 or array.dtype.kind not in "iuf":
        allowed = "a list of numbers" if ndim == 1 else "a matrix of numbers"
        raise InputError(argument, allowed, values)
    if not np.isfinite(array).all():
        raise InputError(argument, "finite", values)
    return array.astype(np.float64)


@dataclass(frozen=True)
class PerClass:
    """One smoothing weight for each true class, e.g. more for frequent classes.

    Args:
        values: K weights, each in the range of the rule it is given to.

    Paper: Zhong et al., CVPR 2021, arXiv:2104.00466 (label-aware smoothing).

    >>> PerClass([0.05, 0.2])
    PerClass(values=(0.05, 0.2))
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        values = numbers("PerClass.values", self.values, ndim=1)
        object.__setattr__(self, "values", tuple(values.tolist()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"weight": "PerClass", "values": list(self.values)}


@dataclass(frozen=True)
class PerSample:
    """The smoothing weight comes with each batch, as ``alpha=``, one number for each sample."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"weight": "PerSample"}


@dataclass(frozen=True)
class Schedule:
    """A weight that changes with training: straight lines between ``(step, alpha)`` points.

    Before the first point and after the last it stays level; two points at one step are a jump
    (the later one holds from that step on).

    >>> warm_then_drop = Schedule(((0, 0.1), (50, 0.1), (50, 0.0)))
    >>> warm_then_drop.at(49), warm_then_drop.at(50)
    (0.1, 0.0)
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        points = numbers("Schedule.points", self.points, ndim=2)
        if points.shape[1] != 2 or (np.diff(points[:, 0]) < 0).any():
            allowed = "(step, alpha) pairs, steps in order"
            raise InputError("Schedule.points", allowed, self.points)
        object.__setattr__(self, "points", tuple(map(tuple, points.tolist())))

    def at(self, step: float) -> float:
        """The weight at ``step``."""
        step = Interval(-math.inf, math.inf, "()").check("step", step)
        steps = [s for s, _ in self.points]
        after = int(np.searchsorted(steps, step, side="right"))
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (s0, a0), (s1, a1) = self.points[after - 1 : after + 1]
        return a0 + (a1 - a0) * (step - s0) / (s1 - s0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"weight": "Schedule", "points": [list(p) for p in self.points]}


Alpha = float | PerClass | PerSample | Schedule
WEIGHTS: dict[str, type] = {cls.__name__: cls for cls in (PerClass, PerSample, Schedule)}


def weight_from_dict(data: Mapping[str, Any]) -> Any:
    """The weight that ``to_dict`` wrote."""
    cls = WEIGHTS[OneOf(*WEIGHTS).check("alpha['weight']", data.get("weight"))]
    return build(cls, {key: value for key, value in data.items() if key != "weight"})


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """The dataclass ``cls`` from its fields by name, none unknown and none missing."""
    for key in values:
        OneOf(*(f.name for f in fields(cls))).check(f"a field of {cls.__name__}", key)
    for field in fields(cls):
        if field.default is MISSING and field.name not in values:
            raise InputError(f"{cls.__name__}.{field.name}", "given", None)
    return cls(**values)


def check_alpha(rule: str, alpha: Any, allowed: Interval) -> Any:
    """``alpha`` of a rule, each of its numbers within ``allowed``."""
    argument = f"{rule}.alpha"
    if isinstance(alpha, PerSample):
        return alpha
    if isinstance(alpha, PerClass):
        for k, value in enumerate(alpha.values):
            allowed.check(f"{argument}.values[{k}]", value)
        return alpha
    if isinstance(alpha, Schedule):
        for step, value in alpha.points:
            allowed.check(f"{argument} at step {step:g}", value)
        return alpha
    hint = ""
    if isinstance(alpha, list | tuple) or hasattr(alpha, "shape"):
        hint = "For one number a class write PerClass([...]); for one a sample, PerSample()."
    elif isinstance(alpha, float | int) and alpha < 0:
        hint = "Negative smoothing has a rule of its own: softhot.NegativeUniform."
    value = allowed.check(argument, alpha, hint)
    if allowed == Interval(0, 1, "[)") and value > 0.5:
        text = (
            f"{argument} = {value:g} moves more than half of the mass away from the label. Some "
            f"libraries take the share that is *kept*: did you mean {1 - value:g}?"
        )
        warnings.warn(text, SofthotWarning, stacklevel=5)
    return value
