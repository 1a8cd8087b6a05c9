"""What may be passed in: ranges as objects that check, describe themselves and make bad values.

Everything that softhot refuses raises :class:`InputError`, a ``ValueError`` whose text names the
argument, the rule it breaks, the value that was given and the next step. Everything softhot does
but advises against raises :class:`SofthotWarning`.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any


class InputError(ValueError):
    """Bad input: ``argument`` must be ``allowed``, got ``value``; ``hint`` is the next step."""

    def __init__(self, argument: str, allowed: str, value: Any, hint: str = "") -> None:
        self.argument = argument
        self.allowed = allowed
        self.value = value
        self.hint = hint
        text = f"{argument} must be {allowed}; got {shown(value)}."
        super().__init__(f"{text} {hint}" if hint else text)

    def __reduce__(self):  # the arguments, not the finished text, rebuild the error
        return type(self), (self.argument, self.allowed, shown(self.value), self.hint)


class SofthotWarning(UserWarning):
    """Softhot does what was asked, and says why it is probably not what was meant."""


def shown(value: Any) -> str:
    """``value`` as an error message shows it: on one line, a long one by its two ends.

    >>> shown("a" + 100 * "b" + "/file.npz")
    "'abbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ... bbbbbbbbbbbbbbbbbbbbbbbbbbb/file.npz'"
    """
    if isinstance(value, _Shown):
        return str(value)
    text = " ".join(repr(value).split())
    if len(text) <= 80:
        return _Shown(text)
    return _Shown(f"{text[:38]} ... {text[-37:]}")


class _Shown(str):
    """Text that already went through :func:`shown`."""


@dataclass(frozen=True)
class Interval:
    """A range of real numbers: ``Interval(0, 1, "[)")`` is 0 <= x < 1.

    ``True`` and ``"0.1"`` are not numbers here, nor is NaN.

    >>> Interval(0, 1, "[)").check("alpha", 0.1)
    0.1
    >>> Interval(0, 1, "[)").check("alpha", 1.5)
    Traceback (most recent call last):
    softhot.core.check.InputError: alpha must be a real number in [0, 1); got 1.5.
    """

    low: float
    high: float
    closed: str = "[]"
    integer: bool = False

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a real number"
        if self.low == -math.inf and self.high == math.inf:
            return f"{kind}, finite"
        low, high = f"{self.low:g}", f"{self.high:g}"
        if self.high == math.inf:
            return f"{kind} {'>=' if self.closed[0] == '[' else '>'} {low}"
        if self.low == -math.inf:
            return f"{kind} {'<=' if self.closed[1] == ']' else '<'} {high}"
        return f"{kind} in {self.closed[0]}{low}, {high}{self.closed[1]}"

    def __contains__(self, value: Any) -> bool:
        number = numbers.Integral if self.integer else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number):
            return False
        try:
            x = float(value)
        except OverflowError:  # an integer beyond every float
            return False
        return self.holds(x)

    def holds(self, x: Any) -> Any:
        """Whether a number, or each of an array, is in the range; NaN is in none."""
        above = x >= self.low if self.closed[0] == "[" else x > self.low
        below = x <= self.high if self.closed[1] == "]" else x < self.high
        return above & below

    def check(self, argument: str, value: Any, hint: str = "") -> Any:
        """``value`` as a Python number, or an :class:`InputError`."""
        if value not in self:
            raise InputError(argument, str(self), value, hint)
        return int(value) if self.integer else float(value)

    def bad_values(self) -> list[Any]:
        """Values that :meth:`check` refuses, for the tests."""
        bad: list[Any] = [math.nan, True, None, "0.1", [0.1], 0.1j]
        bad += [self.low - 1, -math.inf] if self.low > -math.inf else []
        bad += [self.low] if self.closed[0] == "(" else []
        bad += [self.high + 1, math.inf] if self.high < math.inf else []
        bad += [self.high] if self.closed[1] == ")" else []
        return bad + ([0.5] if self.integer else [])


@dataclass(frozen=True)
class OneOf:
    """One of a few names; a near miss is suggested.

    >>> OneOf("all", "one").check("x", "onne")
    Traceback (most recent call last):
    softhot.core.check.InputError: x must be one of 'all', 'one'; got 'onne'. Did you mean 'one'?
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.names))

    def check(self, argument: str, value: Any, hint: str = "") -> str:
        """``value`` if it is one of the names, or an :class:`InputError`."""
        if isinstance(value, str) and value in self.names:
            return value
        if isinstance(value, str) and not hint:
            import difflib

            near = difflib.get_close_matches(value, self.names, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else ""
        raise InputError(argument, str(self), value, hint)

    def bad_values(self) -> list[Any]:
        """Values that :meth:`check` refuses, for the tests."""
        return ["", "no such name", None, 1, self.names[0].upper(), [self.names[0]]]
