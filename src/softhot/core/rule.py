"""What a rule is: what all share, the plainest one, and the sums that ``+`` makes.

A rule is a *base* (which targets the cross entropy is taken against) plus any number of
*penalties* on the logits. It holds numbers and no arrays of a framework; it knows neither kernels
nor reductions. It says with which coefficients the statistics of a row of logits enter the loss;
:mod:`softhot.core.losses` computes those. The rules themselves are in :mod:`softhot.core.rules`.

Throughout: K classes, logits ``z``, ``p = softmax(z)``, ``y`` the true class, ``q`` the target,
``u`` the prior that a base rule mixes in: ``q = (1 - alpha) e_y + alpha u`` (identity 1). Numbers
of identities are those of docs/mathematics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.core.weights import Alpha, Schedule, build, check_alpha, weight_from_dict

SHARE = Interval(0, 1, "[)")
ABSTRACT = ("Base", "Penalty", "Composite", "BinaryRule")
FULL_SHARE = Interval(0, 1, "[]")
POSITIVE = Interval(0, math.inf, "()")
NOT_NEGATIVE = Interval(0, math.inf, "[)")


class Rule:
    """What all rules share: checks, ``+``, schedules, and the way to JSON and back."""

    RANGES: ClassVar[dict[str, Interval | OneOf]] = {}
    known: ClassVar[dict[str, type[Rule]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.__name__ not in ABSTRACT:
            Rule.known[cls.__name__] = cls

    def __post_init__(self) -> None:
        for name, allowed in self.RANGES.items():
            value = getattr(self, name)
            if name == "alpha" and isinstance(allowed, Interval):
                value = check_alpha(type(self).__name__, value, allowed)
            else:
                value = allowed.check(f"{type(self).__name__}.{name}", value)
            object.__setattr__(self, name, value)

    @property
    def base(self) -> Base:
        """The part that decides the targets; plain cross entropy for a bare penalty."""
        return HARD

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        """The parts added to the cross entropy."""
        return ()

    @property
    def shift_invariant(self) -> bool:
        """Whether a constant added to all logits changes nothing (identity 5)."""
        return all(penalty.SHIFT_INVARIANT for penalty in self.penalties)

    def __add__(self, other: Rule) -> Rule:
        if not isinstance(other, Rule):
            return NotImplemented
        bases = [r.base for r in (self, other) if not _is_bare(r)]
        if len(bases) > 1:
            hint = "Smoothing is given twice: keep one of the two and add penalties to it."
            raise InputError("the sum of rules", "one target rule and penalties", bases, hint)
        parts = self.penalties + other.penalties
        twice = {type(p).__name__ for p in parts if sum(type(q) is type(p) for q in parts) > 1}
        if twice:
            hint = f"{' and '.join(sorted(twice))} is given twice: add up its weights instead."
            raise InputError("the sum of rules", "penalties of different kinds", parts, hint)
        return Composite(bases[0] if bases else HARD, parts)

    def at(self, step: float) -> Rule:
        """The rule with every schedule replaced by its value at ``step``.

        >>> Uniform(Schedule(((0, 0.1), (10, 0.3)))).at(5)
        Uniform(alpha=0.2)
        """
        scheduled = {
            f.name: value.at(step)
            for f in fields(self)  # type: ignore[arg-type]  # every rule is a dataclass
            if isinstance(value := getattr(self, f.name), Schedule)
        }
        return replace(self, **scheduled) if scheduled else self  # type: ignore[type-var]  # as here

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain JSON values; :func:`rule_from_dict` is the inverse.

        >>> Uniform(0.1).to_dict()
        {'rule': 'Uniform', 'alpha': 0.1}
        """
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]  # every rule is a dataclass
        return {"rule": type(self).__name__, **values}


class Base(Rule):
    """A rule for targets: ``q = (1 - alpha) e_y + alpha u``.

    ``PRIOR`` says where ``u`` comes from: ``"uniform"`` (1/K each), ``"shared"`` (one
    distribution), ``"by_class"`` (one row for each true class), ``"by_row"`` (one for each sample).
    ``FROM_BATCH`` rules receive it with the batch, as ``prior=``. Without a ``TARGET`` the loss is
    one of the hard label alone and no cross entropy against any ``q``, as in :class:`Focal`.
    """

    PRIOR: ClassVar[str] = "uniform"
    FROM_BATCH: ClassVar[bool] = False
    TARGET: ClassVar[bool] = True
    alpha: Alpha

    @property
    def base(self) -> Base:
        return self

    def mixing(self, alpha: Any, num_classes: Any) -> Any:
        """The weight on ``u`` that ``alpha`` stands for; only :class:`Others` needs to convert."""
        return alpha

    def prior(self, num_classes: int) -> np.ndarray | None:
        """``u``, float64 ``(K,)`` or ``(K, K)``; None if it is uniform or comes with the batch."""
        return None

    def refine(self, prior: Any, xp: Any) -> Any:
        """What becomes of a prior that came with the batch; only :class:`Teacher` changes it."""
        return prior

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        """The loss of each row and its partial derivatives by row statistic.

        Cross entropy with target ``q`` of total mass ``m`` (1 unless class weights enter it) is
        ``m lse(z) - (1 - alpha) <y, z> - alpha <u, z>``: linear, so the partials are the
        coefficients.
        """
        return row.linear(lse=row.mass, true=-row.keep, prior=-row.alpha)


@dataclass(frozen=True)
class Uniform(Base):
    r"""Uniform label smoothing: a share ``alpha`` of the mass goes to all K classes alike.

    .. math:: q_k = (1 - \alpha)\,[k = y] + \alpha / K, \qquad
              L = \mathrm{lse}(z) - (1 - \alpha) z_y - \alpha\,\bar z

    Identities 1 and 2. The paper's convention and that of torch, Keras, optax, timm and Hugging
    Face. The true class keeps ``1 - alpha + alpha/K``; :class:`Others` with ``e`` is this rule at
    ``e K / (K - 1)``.

    Args:
        alpha: share moved, 0 <= alpha < 1; or :class:`PerClass`, :class:`PerSample`,
            :class:`Schedule`. 0 is plain cross entropy.

    Paper: Szegedy et al., CVPR 2016, arXiv:1512.00567.

    >>> from softhot import smooth_labels
    >>> smooth_labels([0], Uniform(0.1), num_classes=4)
    array([[0.925, 0.025, 0.025, 0.025]])
    """

    alpha: Alpha = 0.1
    RANGES = {"alpha": SHARE}


class Penalty(Rule):
    """A term added to the cross entropy that looks at the logits alone.

    Without ``SHIFT_INVARIANT`` it feels a constant added to all of them: only :class:`ZLoss` does.
    """

    SHIFT_INVARIANT: ClassVar[bool] = True

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        return (self,)

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        """The term of each row and its partial derivatives by row statistic."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class Composite(Rule):
    """A base and its penalties: what ``+`` makes."""

    target: Base
    added: tuple[Penalty, ...] = field(default=())

    def __repr__(self) -> str:
        return " + ".join(map(repr, (self.target, *self.added)))

    @property
    def base(self) -> Base:
        return self.target

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        return self.added

    def at(self, step: float) -> Rule:
        return Composite(self.target.at(step), tuple(p.at(step) for p in self.added))  # type: ignore[arg-type, misc]  # at() keeps the class

    def to_dict(self) -> dict[str, Any]:
        return {"rule": "Composite", "parts": [r.to_dict() for r in (self.target, *self.added)]}


HARD = Uniform(0.0)


def rule_from_dict(data: Mapping[str, Any]) -> Rule:
    """The rule that :meth:`Rule.to_dict` wrote.

    >>> rule_from_dict({"rule": "Uniform", "alpha": 0.2})
    Uniform(alpha=0.2)
    """
    if not isinstance(data, Mapping) or "rule" not in data:
        raise InputError("rule", "a mapping with the key 'rule'", data)
    values = {key: value for key, value in data.items() if key != "rule"}
    if data["rule"] == "Composite":
        parts = values.get("parts")
        if not isinstance(parts, list | tuple) or len(parts) < 1 or set(values) != {"parts"}:
            raise InputError("rule", "'Composite' with a list of 'parts'", data)
        base, *added = map(rule_from_dict, parts)
        return sum(added, Composite(base.base, base.penalties))
    cls = Rule.known[OneOf(*Rule.known, "Composite").check("rule", data["rule"])]
    if isinstance(values.get("alpha"), Mapping):
        values["alpha"] = weight_from_dict(values["alpha"])
    return build(cls, values)


def check_rule(rule: Any) -> Rule:
    """``rule`` if it is one, ready for a loss; a bare number or a class is refused."""
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise InputError("rule", "a rule, not its class", rule, f"Write {rule.__name__}(...).")
    if not isinstance(rule, Rule):
        hint = f"Write softhot.Uniform({rule!r})." if isinstance(rule, float | int) else ""
        raise InputError("rule", "a rule, such as softhot.Uniform(0.1)", rule, hint)
    for part in (rule.base, *rule.penalties):
        if isinstance(part.__dict__.get("alpha"), Schedule):
            hint = "Fix the schedule first: rule.at(step)."
            raise InputError(f"{type(part).__name__}.alpha", "known", part.alpha, hint)  # type: ignore[attr-defined]  # it has one
    return rule


def _is_bare(rule: Rule) -> bool:
    return isinstance(rule, Penalty) or (isinstance(rule, Composite) and rule.base == HARD)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


def sized(argument: str, array: np.ndarray, num_classes: int) -> np.ndarray:
    """``array`` if its length is the number of classes."""
    if array.shape[0] != num_classes:
        allowed = f"of length {num_classes}, the number of classes"
        raise InputError(argument, allowed, array.shape[0])
    return array
