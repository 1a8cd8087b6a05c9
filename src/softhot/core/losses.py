"""The loss and its gradient: the readable reference that everything faster is judged by.

The arguments are checked once, the labels become a :class:`~softhot.core.targets.Target`, the
logits become row statistics (:mod:`softhot.core.row`), and the rule says how these enter the loss.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

from softhot.core.array import (
    Array,
    accumulator,
    as_arrays,
    first_true,
    is_concrete,
    kind,
    like,
    position,
    take_class,
    widest_integer,
)
from softhot.core.check import InputError, Interval, OneOf, SofthotWarning
from softhot.core.row import Row
from softhot.core.rule import Base, Penalty, Rule, check_rule
from softhot.core.targets import (
    Target,
    broadcast,
    check_axis,
    check_labels,
    check_mask,
    make_target,
    off_one,
    prior_last,
)

WEIGHTING = OneOf("sample", "class")
REDUCTION = OneOf("none", "sum", "mean")
LARGEST = 1e30  # a sum of logits beyond it could overflow; masks are -inf, not "very negative"
IDS = Interval(-(2**31), 2**31 - 1, integer=True)


def cross_entropy(
    logits: Any,
    labels: Any,
    rule: Rule,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    where: Any = None,
    allowed: Any = None,
    weight: Any = None,
    weighting: str = "sample",
    alpha: Any = None,
    prior: Any = None,
    smooth_again: bool = False,
    reduction: str = "none",
    validate: bool = True,
) -> Array:
    r"""Cross entropy under a rule, from logits.

    .. math:: L_i = \mathrm{lse}(z_i) - (1 - \alpha)\langle y_i, z_i\rangle
                    - \alpha \langle u_i, z_i\rangle + \text{penalties}(z_i)

    Identity 2; the gradient is p - q, identity 3.

    Args:
        logits: real ``(..., K, ...)``, class axis at ``axis``, K >= 2. -inf means that the class is
            not allowed in that row.
        labels: class ids, integers of the shape of ``logits`` without the class axis; or one-hot
            rows or probabilities of the shape of ``logits``.
        rule: a rule such as ``softhot.Uniform(0.1)``; penalties are added with ``+``.
        axis: the class axis.
        ignore_index: rows with this id are left out; class ids only.
        where: booleans ``(...)``; rows where it is false are left out. Leaving a row out is the
            same as deleting it.
        allowed: booleans that broadcast to ``logits``: mass only on these classes.
        weight: K class weights >= 0.
        weighting: ``"sample"`` multiplies the loss of a row by the weight of its true class, so the
            best prediction stays the target. ``"class"`` weights every class's share of the target,
            as PyTorch does: the best prediction moves to ``w * q`` normalised, and a warning says
            when that can be a wrong class. With soft labels the weight of a row is ``<y, w>``.
        alpha: ``(...)`` weights, for rules with :class:`softhot.PerSample`.
        prior: for rules that take it with the batch (:class:`softhot.Teacher`,
            :class:`softhot.Online`); a per-row prior has its class axis at ``axis`` too.
        smooth_again: accept labels that look smoothed already.
        reduction: ``"none"`` (rows left out are 0), ``"sum"``, or ``"mean"``: the sum over the
            summed weights of the rows that count, 0 if none does.
        validate: look at values. False trusts them; shapes and dtypes are always checked. What JAX
            or TensorFlow traces has no values yet: there a row whose label or alpha would raise
            has loss and gradient NaN.

    Returns:
        ``(...)`` or a scalar: float64 for float64 logits, float32 for everything narrower.

    Raises:
        InputError: naming argument, rule, value and next step.

    Warns:
        SofthotWarning: if ``weighting="class"`` can move the optimum to a wrong class.

    >>> import numpy as np
    >>> from softhot import Uniform
    >>> cross_entropy(np.array([[2.0, 0.0, 0.0]]), np.array([0]), Uniform(0.1)).round(4)
    array([0.3729])
    """
    batch = Batch(
        logits,
        labels,
        rule,
        axis=axis,
        ignore_index=ignore_index,
        where=where,
        allowed=allowed,
        weight=weight,
        weighting=weighting,
        alpha=alpha,
        prior=prior,
        smooth_again=smooth_again,
        reduction=reduction,
        validate=validate,
    )
    return batch.loss


def cross_entropy_and_gradient(
    logits: Any, labels: Any, rule: Rule, **options: Any
) -> tuple[Array, Array]:
    """:func:`cross_entropy`, with the same options, and its gradient with respect to the logits.

    Returns:
        The loss, and an array of the shape and dtype of ``logits``: the gradient of the reduced
        loss, or, for ``reduction="none"``, of the sum of the rows. For a plain target rule it is
        ``p - q``.

    >>> import numpy as np
    >>> from softhot import Uniform
    >>> loss, gradient = cross_entropy_and_gradient(np.zeros((1, 4)), np.array([1]), Uniform(0.2))
    >>> gradient
    array([[ 0.2, -0.6,  0.2,  0.2]])
    """
    batch = Batch(logits, labels, rule, **options)
    return batch.loss, batch.gradient


class Batch:
    """The arguments of :func:`cross_entropy`, checked, and the way down to rows and up again."""

    def __init__(
        self,
        logits: Any,
        labels: Any,
        rule: Rule,
        *,
        axis: int = -1,
        ignore_index: int | None = None,
        where: Any = None,
        allowed: Any = None,
        weight: Any = None,
        weighting: str = "sample",
        alpha: Any = None,
        prior: Any = None,
        smooth_again: bool = False,
        reduction: str = "none",
        validate: bool = True,
    ) -> None:
        self.rule = check_rule(rule)
        self.reduction = REDUCTION.check("reduction", reduction)
        logits, self.xp = as_arrays("logits", logits)
        xp = self.xp
        logits, self.axis = _check_logits(xp, logits, axis)
        labels, soft = _labels_beside(xp, labels, logits, self.axis)
        if soft and not self.rule.base.TARGET:
            allowed_labels = f"class ids for {type(self.rule.base).__name__}"
            raise InputError("labels", allowed_labels, "label distributions")
        rows, num_classes = tuple(logits.shape[:-1]), logits.shape[-1]
        self.counted = _counted(xp, labels, soft, rows, ignore_index, where)
        self.dtype = logits.dtype
        if self.counted is not None:
            # What a row that does not count holds, NaN too, must not reach a sum.
            logits = xp.where(self.column(self.counted), logits, xp.zeros_like(logits))
        labels = check_labels(
            xp, labels, num_classes, soft=soft, counted=self.counted, validate=validate
        )
        if validate and is_concrete(logits):
            _check_values(xp, logits, LARGEST if self.rule.shift_invariant else LARGEST**0.5)
        if allowed is not None:
            allowed = check_mask(xp, "allowed", allowed, logits)
            if allowed.ndim == logits.ndim:
                allowed = xp.moveaxis(allowed, self.axis, -1)
            allowed = broadcast(xp, "allowed", allowed, tuple(logits.shape))
            if self.counted is not None:
                allowed = allowed | self.column(~self.counted)
        valid = None  # where values are traced, nobody can raise: NaN says so
        if validate and not is_concrete(labels, logits, self.counted):
            valid = _valid(xp, labels, soft, logits, allowed)
            labels = labels if soft else xp.where(valid, labels, xp.zeros_like(labels))
        target = make_target(
            *(xp, labels, self.rule.base, num_classes),
            allowed=_finite(xp, logits, allowed, validate),
            alpha=alpha,
            prior=prior_last(xp, self.rule.base, prior, logits, self.axis),
            smooth_again=smooth_again,
            counted=self.counted,
            validate=validate,
        )
        weight = _check_weight(xp, weight, logits, num_classes, validate)
        by_class = WEIGHTING.check("weighting", weighting) == "class"
        self.scale = _row_weight(xp, weight, labels, soft)
        if by_class:
            if weight is None:
                hint = "Pass weight=, or leave weighting out."
                raise InputError("weighting", "given only with class weights", "class", hint)
            if validate and is_concrete(weight, logits, target.labels):
                _warn_if_optimum_moves(xp, weight, target)
        self.logits, self.target = logits, target
        self.weight = weight if by_class else None
        self.factor = None if by_class else self.scale
        if valid is not None:
            ones = xp.astype(valid, accumulator(xp, logits))
            ones = xp.where(valid, ones, xp.full_like(ones, xp.nan))
            self.factor = ones if self.factor is None else ones * self.factor

    def column(self, rows: Array) -> Array:
        """``(...)`` to ``(..., 1)``."""
        return self.xp.expand_dims(rows, axis=-1)

    @cached_property
    def row(self) -> Row:
        """The statistics that the rule's terms are made of."""
        return Row(self.logits, self.target, self.weight)

    @cached_property
    def terms(self) -> list[tuple[Array, dict[Any, Any]]]:
        """Value and partial derivatives of the base and of every penalty."""
        parts: tuple[Base | Penalty, ...] = (self.rule.base, *self.rule.penalties)
        return [part.terms(self.row) for part in parts]

    @property
    def value(self) -> Array:
        """The loss of every row, whether it counts or not."""
        return sum(value for value, _ in self.terms)

    @property
    def slope(self) -> Array:
        """The gradient of :attr:`value`, ``(..., K)``."""
        return sum(self.row.gradient(partials) for _, partials in self.terms)

    @cached_property
    def normalizer(self) -> Array:
        """The summed weights of the rows that count; 1 if there are none."""
        xp = self.xp
        ones = self.scale
        if ones is None:
            ones = xp.ones_like(self.logits[..., 0], dtype=accumulator(xp, self.logits))
        if self.counted is not None:
            ones = xp.where(self.counted, ones, xp.zeros_like(ones))
        total = xp.sum(ones)
        return xp.where(total > 0, total, xp.ones_like(total))

    @property
    def loss(self) -> Array:
        """The loss of every row, reduced as asked."""
        loss = self.value
        if self.factor is not None:
            loss = loss * self.factor
        if self.counted is not None:
            loss = self.xp.where(self.counted, loss, self.xp.zeros_like(loss))
        if self.reduction == "none":
            return loss
        total = self.xp.sum(loss)
        return total / self.normalizer if self.reduction == "mean" else total

    @property
    def gradient(self) -> Array:
        """The gradient of the reduced loss, in the shape and dtype the logits came in."""
        return self.gradient_over(self.normalizer if self.reduction == "mean" else None)

    def gradient_over(self, normalizer: Array | None) -> Array:
        """The gradient of the summed loss, divided by ``normalizer``."""
        xp = self.xp
        gradient = self.slope
        if self.factor is not None:
            gradient = gradient * self.column(self.factor)
        if self.counted is not None:
            gradient = xp.where(self.column(self.counted), gradient, xp.zeros_like(gradient))
        if normalizer is not None:
            gradient = gradient / normalizer
        return xp.moveaxis(xp.astype(gradient, self.dtype), -1, self.axis)


def _warn_if_optimum_moves(xp: Any, weight: Array, target: Target) -> None:
    """Warn if weighting every class's share makes a wrong class the best prediction for a row."""
    q = target.dense(weight.dtype)
    true, best = xp.argmax(q, axis=-1), xp.argmax(weight * q, axis=-1)
    if bool(xp.any(true != best)):
        at = first_true(xp, true != best)
        y, j = int(true[at]), int(best[at])
        text = (
            f'weighting="class" makes class {j} the best prediction for a sample of class {y}: its '
            f"weight is {_ratio(weight[j], weight[y])} times as large, and from "
            f"{_ratio(q[(*at, y)], q[(*at, j)])} on the smoothed share of a wrong class outweighs "
            'the true one. Use weighting="sample", less smoothing or flatter weights.'
        )
        warnings.warn(text, SofthotWarning, stacklevel=5)


def _ratio(a: Any, b: Any) -> str:
    return f"{float(a) / float(b):.4g}" if float(b) else "inf"


def _check_logits(xp: Any, logits: Array, axis: int) -> tuple[Array, int]:
    if kind(xp, logits) != "real":
        hint = "Cast them: logits.astype(float)."
        raise InputError("logits", "real", logits.dtype, hint)
    if logits.ndim == 0:
        raise InputError("logits", "an array with a class axis", logits)
    axis = check_axis(axis, logits.ndim)
    if logits.shape[axis] < 2:
        hint = "One output is a binary problem: see softhot.binary_cross_entropy."
        raise InputError(f"logits.shape[{axis}]", "at least 2 classes", logits.shape[axis], hint)
    return xp.moveaxis(logits, axis, -1), axis


def _labels_beside(xp: Any, labels: Any, logits: Array, axis: int) -> tuple[Array, bool]:
    """Labels with the class axis last, and whether they are distributions."""
    labels, other = as_arrays("labels", labels)
    if other is not xp:
        labels = like(xp, logits, labels)
    rows = tuple(logits.shape[:-1])
    full = (*rows[:axis], logits.shape[-1], *rows[axis:])
    if tuple(labels.shape) == rows:
        return labels, False
    if tuple(labels.shape) == full:
        return xp.moveaxis(labels, axis, -1), True
    hint = f"The class axis is {axis}: pass axis= if that is not meant."
    allowed = f"of shape {rows} (class ids) or {full} (distributions)"
    raise InputError("labels", allowed, tuple(labels.shape), hint)


def _counted(
    xp: Any, labels: Array, soft: bool, rows: tuple[int, ...], ignore_index: Any, where: Any
) -> Array | None:
    """Which rows count, or None if all do."""
    counted = None
    if where is not None:
        counted = broadcast(xp, "where", check_mask(xp, "where", where, labels), rows)
    if ignore_index is not None:
        if soft:
            hint = "Leave rows out with where=."
            raise InputError("ignore_index", "None for label distributions", ignore_index, hint)
        ignore_index = IDS.check("ignore_index", ignore_index)
        if kind(xp, labels) == "integer":
            kept = xp.astype(labels, widest_integer(xp)) != ignore_index
            counted = kept if counted is None else counted & kept
    return counted


def _check_values(xp: Any, logits: Array, largest: float) -> None:
    limit = min(largest, float(xp.finfo(logits.dtype).max))
    bad = ~((logits <= limit) & ((logits >= -limit) | (logits == -xp.inf)))
    if bool(xp.any(bad)):
        at = first_true(xp, bad)
        hint = "Check what produced it; -inf is fine and marks a class as not allowed."
        allowed = f"within -{limit:g} .. {limit:g}, or -inf"
        raise InputError(f"logits{position(at)}", allowed, float(logits[at]), hint)
    lost = ~xp.any(logits > -xp.inf, axis=-1)
    if bool(xp.any(lost)):
        at = first_true(xp, lost)
        raise InputError(f"logits{position(at)}", "a row with a finite logit", "-inf everywhere")


def _valid(xp: Any, labels: Array, soft: bool, logits: Array, allowed: Array | None) -> Array:
    """The rows whose labels are what :func:`check_labels` lets pass, on classes with a logit."""
    k = logits.shape[-1]
    if soft:
        support = logits > -xp.inf if allowed is None else (logits > -xp.inf) & allowed
        fits = (labels == 0) | ((labels > 0) & support)
        return xp.all(fits, axis=-1) & ~off_one(xp, labels, 1e-6 * k**0.5)[1]
    valid = (labels >= 0) & (labels < k)
    safe = xp.where(valid, labels, xp.zeros_like(labels))
    valid = valid & (take_class(xp, logits, safe) > -xp.inf)
    return valid if allowed is None else valid & take_class(xp, allowed, safe)


def _finite(xp: Any, logits: Array, allowed: Array | None, look: bool) -> Array | None:
    """The allowed classes: those asked for, without the ones whose logit is -inf."""
    finite = logits != -xp.inf
    if look and is_concrete(logits) and bool(xp.all(finite)):
        return allowed
    return finite if allowed is None else allowed & finite


def _check_weight(xp: Any, weight: Any, logits: Array, k: int, validate: bool) -> Array | None:
    if weight is None:
        return None
    weight = like(xp, logits, as_arrays("weight", weight)[0])
    if kind(xp, weight) not in ("real", "integer"):
        raise InputError("weight", "real numbers", weight.dtype)
    if tuple(weight.shape) != (k,):
        raise InputError("weight", f"of shape ({k},), one for each class", tuple(weight.shape))
    weight = xp.astype(weight, accumulator(xp, logits))
    if validate and is_concrete(weight):
        bad = ~((weight >= 0) & (weight < xp.inf))
        if bool(xp.any(bad)):
            at = first_true(xp, bad)
            raise InputError(f"weight{position(at)}", "finite and >= 0", float(weight[at]))
    return weight


def _row_weight(xp: Any, weight: Array | None, labels: Array, soft: bool) -> Array | None:
    if weight is None:
        return None
    if soft:
        return xp.sum(xp.astype(labels, weight.dtype) * weight, axis=-1)
    return xp.reshape(xp.take(weight, xp.reshape(labels, (-1,))), labels.shape)
