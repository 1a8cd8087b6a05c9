r"""Binary and multi-label smoothing: every label is a two-class problem of its own.

The target of a label y in {0, 1} is an affine map of it, towards 1/2 by default. That is
:class:`softhot.Uniform` for K = 2. Spreading ``alpha / L`` over L independent labels, as some
recipes do, is not: it pulls towards 1/L, and for L = 1 leaves positives as they were.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from softhot.core.array import (
    Array,
    accumulator,
    as_arrays,
    first_true,
    is_concrete,
    kind,
    like,
    position,
    to_numpy,
    widest,
)
from softhot.core.check import InputError, Interval, OneOf, SofthotWarning
from softhot.core.losses import REDUCTION, WEIGHTING
from softhot.core.rule import SHARE, Base, Rule
from softhot.core.targets import CLASSES, broadcast, check_axis, check_mask
from softhot.core.weights import Schedule, numbers

UNIT = Interval(0, 1, "[]")
COUNT = Interval(0, math.inf, "[)")


class BinaryRule(Rule):
    """A rule for independent labels: ``q = keep * y + offset``, label by label."""

    alpha: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.alpha, float | Schedule):
            raise InputError(f"{type(self).__name__}.alpha", "a number or a Schedule", self.alpha)

    @property
    def base(self) -> Base:
        hint = "Its labels are independent: see softhot.binary_cross_entropy."
        raise InputError("rule", "a rule for one class out of K", self, hint)

    def affine(self, labels: Array, xp: Any) -> tuple[Any, Any]:
        """``keep`` and ``offset`` for labels with the label axis last."""
        raise NotImplementedError


@dataclass(frozen=True)
class Bernoulli(BinaryRule):
    r"""Every label moves a share alpha towards 1/2: :math:`q = (1 - \alpha) y + \alpha / 2`.

    Identities 11 and 12. A positive keeps ``1 - alpha/2``. Keras's rule, and Szegedy et al.'s for
    two classes; where a library takes ``e`` and makes ``[e, 1 - e]``, alpha is ``2 e``.

    >>> smooth_binary_labels([[1, 0, 1]], Bernoulli(0.1))
    array([[0.95, 0.05, 0.95]])
    """

    alpha: float = 0.1
    RANGES = {"alpha": SHARE}

    def affine(self, labels: Array, xp: Any) -> tuple[Any, Any]:
        return 1 - self.alpha, self.alpha / 2


@dataclass(frozen=True)
class Prevalence(BinaryRule):
    r"""Every label moves towards how common it is: :math:`q = (1 - \alpha) y + \alpha \pi`.

    For rare labels, where 1/2 would lift every negative to alpha/2.

    Args:
        alpha: share moved, 0 <= alpha < 1.
        rates: prevalence pi of each of the L labels (or one for all), in [0, 1].

    >>> smooth_binary_labels([[1, 0]], Prevalence(0.1, rates=(0.5, 0.01)))
    array([[0.95 , 0.001]])
    """

    alpha: float = 0.1
    rates: tuple[float, ...] = (0.5,)
    RANGES = {"alpha": SHARE}

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = numbers("Prevalence.rates", self.rates, ndim=1)
        for i, rate in enumerate(rates.tolist()):
            UNIT.check(f"Prevalence.rates[{i}]", rate)
        object.__setattr__(self, "rates", tuple(rates.tolist()))

    def affine(self, labels: Array, xp: Any) -> tuple[Any, Any]:
        return 1 - self.alpha, self.alpha * _each_label("Prevalence.rates", self.rates, labels, xp)


@dataclass(frozen=True)
class OneSided(BinaryRule):
    r"""Only one side is smoothed: positives to ``1 - alpha``, negatives stay 0 (or the reverse).

    The rule for GAN discriminators, where smoothing both sides is a known mistake.
    Papers: Salimans et al., NeurIPS 2016, arXiv:1606.03498.

    >>> smooth_binary_labels([1, 0], OneSided(0.1))
    array([0.9, 0. ])
    """

    alpha: float = 0.1
    side: str = "positive"
    RANGES = {"alpha": SHARE, "side": OneOf("positive", "negative")}

    def affine(self, labels: Array, xp: Any) -> tuple[Any, Any]:
        return 1 - self.alpha, 0.0 if self.side == "positive" else self.alpha


@dataclass(frozen=True)
class MassPreserving(BinaryRule):
    r"""A share of a row's labels is spread over all L: :math:`q = (1-\alpha) y + \alpha\,\bar y`.

    Every row keeps its sum, the number of its labels.

    >>> smooth_binary_labels([[1, 0, 1, 0]], MassPreserving(0.1))
    array([[0.95, 0.05, 0.95, 0.05]])
    """

    alpha: float = 0.1
    RANGES = {"alpha": SHARE}

    def affine(self, labels: Array, xp: Any) -> tuple[Any, Any]:
        return 1 - self.alpha, self.alpha * xp.mean(labels, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Platt(BinaryRule):
    r"""Platt's targets: how much to smooth follows from how many examples there are.

    .. math:: q_+ = \frac{N_+ + 1}{N_+ + 2}, \qquad q_- = \frac{1}{N_- + 2}

    Args:
        positives, negatives: counts for each of the L labels, or one number for all.

    Paper: Platt 1999, "Probabilistic Outputs for Support Vector Machines".

    >>> smooth_binary_labels([1, 0], Platt(positives=8, negatives=98))
    array([0.9 , 0.01])
    """

    positives: tuple[float, ...] = (0.0,)
    negatives: tuple[float, ...] = (0.0,)
    alpha: ClassVar[None] = None  # type: ignore[misc]  # no field here, unlike in the base

    def __post_init__(self) -> None:
        for name in ("positives", "negatives"):
            counts = numbers(f"Platt.{name}", np.atleast_1d(getattr(self, name)), ndim=1)
            for i, count in enumerate(counts.tolist()):
                COUNT.check(f"Platt.{name}[{i}]", count)
            object.__setattr__(self, name, tuple(counts.tolist()))

    @classmethod
    def from_labels(cls, labels: Any) -> Platt:
        """The rule for the 0/1 labels of a training set, ``(N,)`` or ``(N, L)``."""
        labels, xp = as_arrays("labels", labels)
        labels = _check_labels(xp, labels, widest(xp))
        positives = np.atleast_1d(to_numpy(xp.sum(labels, axis=0))).astype(np.float64)
        return cls(tuple(positives), tuple(labels.shape[0] - positives))

    def affine(self, labels: Array, xp: Any) -> tuple[Any, Any]:
        positives = _each_label("Platt.positives", self.positives, labels, xp)
        negatives = _each_label("Platt.negatives", self.negatives, labels, xp)
        low = 1 / (negatives + 2)
        return (positives + 1) / (positives + 2) - low, low


def smooth_binary_labels(
    labels: Any, rule: BinaryRule | float, *, axis: int = -1, dtype: Any = None
) -> Array:
    """Smoothed targets of independent labels.

    Args:
        labels: 0/1 of any shape (integers, booleans), or probabilities in [0, 1]. Never changed.
        rule: a binary rule; a number means ``Bernoulli(number)``.
        axis: the label axis, for rules that treat labels differently or look at a whole row.
        dtype: of the result; that of ``labels`` if they are real, else the namespace's default.

    Returns:
        Array of the shape of ``labels``.

    Raises:
        InputError: for labels outside [0, 1] and rules that don't fit.

    >>> smooth_binary_labels([1, 0, 0, 1], 0.2)
    array([0.9, 0.1, 0.1, 0.9])
    """
    rule = _check_rule(Bernoulli(rule) if isinstance(rule, float | int) else rule)
    labels, xp = as_arrays("labels", labels)
    real = kind(xp, labels) == "real"
    dtype = dtype or (labels if real else xp.asarray(0.5)).dtype
    wide = accumulator(xp, labels) if real else widest(xp)
    return xp.astype(_target(rule, _check_labels(xp, labels, wide), xp, axis), dtype)


def smooth_multi_hot(
    labels: Any, rule: Any, num_classes: Any, axis: Any, dtype: Any, given: dict[str, Any]
) -> Array:
    """What :func:`softhot.smooth_labels` does with K yes-or-no labels: no class option fits."""
    for name, value in given.items():
        if value is not None:
            raise InputError(name, "left out for multi-hot labels", value)
    num_classes = CLASSES.check("num_classes", num_classes)
    labels = as_arrays("labels", labels)[0]
    if labels.ndim == 0:
        raise InputError("labels", "an array with a label axis", labels)
    axis = check_axis(axis, labels.ndim)
    if labels.shape[axis] != num_classes:
        allowed = f"num_classes = {num_classes}"
        raise InputError(f"labels.shape[{axis}]", allowed, tuple(labels.shape))
    return smooth_binary_labels(labels, rule, axis=axis, dtype=dtype)


def binary_cross_entropy(logits: Any, labels: Any, rule: BinaryRule, **options: Any) -> Array:
    r"""Binary cross entropy of independent labels under a rule, from logits.

    .. math:: L = q\,\mathrm{softplus}(-z) + (1 - q)\,\mathrm{softplus}(z)

    Args:
        logits: real, any shape; finite.
        labels: 0/1 or probabilities, of the shape of ``logits``.
        rule: a binary rule such as ``softhot.Bernoulli(0.1)``.
        axis: the label axis.
        where: booleans that broadcast to ``logits``; entries where it is false are left out.
        pos_weight: weight >= 0 of positives: one number, or one for each label.
        weighting: ``"sample"`` multiplies the loss of a positive by it; ``"class"`` multiplies the
            positive share of every target, as PyTorch does, which moves the best prediction.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``: over the number of entries that count, as in
            PyTorch; 0 if none does.
        validate: look at values.

    Returns:
        The shape of ``logits`` or a scalar; float64 for float64 logits, else float32.

    Raises:
        InputError: naming argument, rule, value and next step.

    >>> import numpy as np
    >>> binary_cross_entropy(np.array([0.0, 2.0]), np.array([1, 1]), Bernoulli(0.1)).round(4)
    array([0.6931, 0.2269])
    """
    return _binary(logits, labels, rule, **options)[0]


def binary_cross_entropy_and_gradient(
    logits: Any, labels: Any, rule: BinaryRule, **options: Any
) -> tuple[Array, Array]:
    """:func:`binary_cross_entropy`, with the same options, and its gradient: ``sigmoid(z) - q``."""
    return _binary(logits, labels, rule, **options)


def _binary(
    logits: Any,
    labels: Any,
    rule: BinaryRule,
    *,
    axis: int = -1,
    where: Any = None,
    pos_weight: Any = None,
    weighting: str = "sample",
    reduction: str = "none",
    validate: bool = True,
) -> tuple[Array, Array]:
    rule = _check_rule(rule)
    REDUCTION.check("reduction", reduction)
    by_class = WEIGHTING.check("weighting", weighting) == "class"
    logits, xp = as_arrays("logits", logits)
    if kind(xp, logits) != "real":
        raise InputError("logits", "real", logits.dtype, "Cast them: logits.astype(float).")
    dtype = accumulator(xp, logits)
    labels = like(xp, logits, as_arrays("labels", labels)[0])
    if tuple(labels.shape) != tuple(logits.shape):
        allowed = f"of the shape of logits, {tuple(logits.shape)}"
        raise InputError("labels", allowed, tuple(labels.shape))
    counted = None
    if where is not None:
        where = check_mask(xp, "where", where, logits)
        counted = broadcast(xp, "where", where, tuple(logits.shape))
        logits = xp.where(counted, logits, xp.zeros_like(logits))
        labels = xp.where(counted, labels, xp.zeros_like(labels))
    labels = _check_labels(xp, labels, dtype, validate)
    z = xp.astype(logits, dtype)
    if validate and is_concrete(z) and bool(xp.any(bad := ~(xp.abs(z) < xp.inf))):
        at = first_true(xp, bad)
        raise InputError(f"logits{position(at)}", "finite", float(z[at]))
    q = _target(rule, labels, xp, axis)
    on, off, factor = q, 1 - q, None
    if pos_weight is not None:
        w = _pos_weight(xp, pos_weight, z, axis, validate)
        if by_class:
            on = w * q
            _warn_if_optimum_moves(rule, q, on, off, labels, xp)
        else:
            factor = 1 + (w - 1) * labels
    elif by_class:
        hint = "Pass pos_weight=, or leave weighting out."
        raise InputError("weighting", "given only with pos_weight", "class", hint)
    # Both softplus terms are >= 0, so nothing cancels: softplus(z) = max(z, 0) + log1p(exp(-|z|)).
    decay, zero, positive = xp.exp(-xp.abs(z)), xp.zeros_like(z), z >= 0
    small = xp.log1p(decay)
    loss = on * (xp.where(positive, zero, -z) + small) + off * (xp.where(positive, z, zero) + small)
    larger, smaller = 1 / (1 + decay), decay / (1 + decay)  # of sigmoid(z) and sigmoid(-z)
    up, down = xp.where(positive, larger, smaller), xp.where(positive, smaller, larger)
    gradient = off * up - on * down
    if factor is not None:
        loss, gradient = factor * loss, factor * gradient
    total: Any = max(math.prod(loss.shape), 1)
    if counted is not None:
        loss, gradient = (xp.where(counted, part, zero) for part in (loss, gradient))
        total = xp.sum(xp.astype(counted, dtype))
        total = xp.where(total > 0, total, xp.ones_like(total))
    if reduction != "none":
        loss = xp.sum(loss)
    if reduction == "mean":
        loss, gradient = loss / total, gradient / total
    return loss, xp.astype(gradient, logits.dtype)


def _target(rule: BinaryRule, labels: Array, xp: Any, axis: int) -> Array:
    if labels.ndim == 0:
        return _target(rule, xp.reshape(labels, (1,)), xp, -1)[0]
    axis = check_axis(axis, labels.ndim)
    labels = xp.moveaxis(labels, axis, -1)
    keep, offset = rule.affine(labels, xp)
    return xp.moveaxis(keep * labels + offset, -1, axis)


def _check_rule(rule: Any) -> BinaryRule:
    if isinstance(rule, BinaryRule):
        if isinstance(rule.alpha, Schedule):
            hint = "Fix the schedule first: rule.at(step)."
            raise InputError(f"{type(rule).__name__}.alpha", "known", rule.alpha, hint)
        return rule
    hint = "That rule is for one label out of K." if isinstance(rule, Rule) else ""
    raise InputError("rule", "a binary rule, such as softhot.Bernoulli(0.1)", rule, hint)


def _check_labels(xp: Any, labels: Array, dtype: Any, validate: bool = True) -> Array:
    holds = kind(xp, labels)
    if holds == "complex":
        raise InputError("labels", "real", labels.dtype)
    look = validate and is_concrete(labels)
    if look and holds != "bool":
        _in_unit(xp, labels, "0 or 1" if holds == "integer" else "a probability in [0, 1]")
    labels = xp.astype(labels, dtype)
    if validate and not look:  # nobody can raise: NaN says so
        labels = xp.where(UNIT.holds(labels), labels, xp.full_like(labels, xp.nan))
    return labels


def _in_unit(xp: Any, labels: Array, allowed: str) -> None:
    bad = ~((labels >= 0) & (labels <= 1))
    if bool(xp.any(bad)):
        at = first_true(xp, bad)
        hint = "Class ids of more than two classes go to softhot.smooth_labels."
        raise InputError(f"labels{position(at)}", allowed, float(labels[at]), hint)


def _each_label(argument: str, values: tuple[float, ...], labels: Array, xp: Any) -> Any:
    if len(values) == 1:
        return values[0]
    if len(values) != labels.shape[-1]:
        allowed = f"one number or {labels.shape[-1]}, one for each label"
        raise InputError(argument, allowed, len(values))
    return like(xp, labels, np.asarray(values), labels.dtype)


def _pos_weight(xp: Any, weight: Any, z: Array, axis: int, validate: bool) -> Array:
    weight = xp.astype(like(xp, z, as_arrays("pos_weight", weight)[0]), z.dtype)
    if weight.ndim > 1 or (weight.ndim == 1 and (z.ndim == 0 or weight.shape[0] != z.shape[axis])):
        raise InputError("pos_weight", "a number or one for each label", tuple(weight.shape))
    if validate and is_concrete(weight) and bool(xp.any(~((weight >= 0) & (weight < xp.inf)))):
        raise InputError("pos_weight", "finite and >= 0", weight)
    if weight.ndim == 0:
        return weight
    shape = [1] * z.ndim
    shape[axis] = weight.shape[0]
    return xp.reshape(weight, tuple(shape))


def _warn_if_optimum_moves(
    rule: BinaryRule, q: Array, on: Array, off: Array, labels: Array, xp: Any
) -> None:
    if is_concrete(q) and bool(xp.any((labels == 0) & (q < 0.5) & (on > off))):
        text = (
            'weighting="class" makes the positive class the best prediction for some negatives: '
            f"the weighted share that {rule!r} moves to it outweighs the rest. Use "
            'weighting="sample", less smoothing or a smaller pos_weight.'
        )
        warnings.warn(text, SofthotWarning, stacklevel=4)
