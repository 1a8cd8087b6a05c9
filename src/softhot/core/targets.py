"""Labels into targets: checked, smoothed, and dense only when asked.

A target is ``q = (1 - alpha) y + alpha u``; a :class:`Target` keeps ``y``, ``alpha`` and ``u``
apart, so that class ids never become a one-hot array on the way to a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import array_api_compat as compat
import numpy as np

from softhot.core.array import (
    Array,
    accumulator,
    as_arrays,
    first_true,
    is_concrete,
    kind,
    like,
    one_hot,
    position,
    take_class,
    to_numpy,
    widest,
    widest_integer,
)
from softhot.core.check import InputError, Interval, OneOf
from softhot.core.rule import Base, Rule, Uniform, check_rule
from softhot.core.shapes import broadcast as broadcast
from softhot.core.shapes import check_axis as check_axis
from softhot.core.shapes import check_mask as check_mask
from softhot.core.shapes import prior_last as prior_last
from softhot.core.weights import PerClass, PerSample

CLASSES = Interval(2, float("inf"), "[)", integer=True)
KINDS = OneOf("ids", "one_hot", "soft", "multi_hot")


@dataclass(frozen=True)
class Target:
    """The target ``q = (1 - alpha) y + alpha u`` of a batch, in factors.

    Attributes:
        labels: class ids ``(...)``, or label distributions ``(..., K)``.
        alpha: weight of ``u``: a number or ``(...)``.
        prior: ``u``: ``(K,)`` or ``(..., K)``; None for uniform over the allowed classes.
        num_classes: K.
        allowed: ``(..., K)`` booleans, the classes that may have mass; None for all.
    """

    labels: Array
    alpha: Any
    prior: Array | None
    num_classes: int
    allowed: Array | None = None
    xp: Any = None

    @property
    def soft(self) -> bool:
        """Whether the labels are distributions, not ids."""
        return kind(self.xp, self.labels) == "real"

    def uniform(self, dtype: Any) -> Array:
        """Equal mass on every allowed class, ``(K,)`` or ``(..., K)``."""
        xp = self.xp
        if self.allowed is None:
            return like(xp, self.labels, np.full(self.num_classes, 1 / self.num_classes), dtype)
        allowed = xp.astype(self.allowed, dtype)
        return allowed / xp.sum(allowed, axis=-1, keepdims=True)

    def label_mass(self, dtype: Any) -> Array:
        """``y`` as a dense ``(..., K)`` array."""
        if self.soft:
            return self.xp.astype(self.labels, dtype)
        return one_hot(self.xp, self.labels, self.num_classes, dtype)

    def dense(self, dtype: Any = None) -> Array:
        """The target as an array of shape ``(..., K)``, of the widest dtype if none is given."""
        xp = self.xp
        wide = accumulator(xp, self.labels) if self.soft else widest(xp)
        prior = self.uniform(wide) if self.prior is None else xp.astype(self.prior, wide)
        if isinstance(self.labels, np.ndarray) and not self.soft and self._is_row_by_row_alike:
            return self._filled(prior, wide if dtype is None else dtype)
        alpha = _column(xp, like(xp, self.labels, self.alpha, wide))
        target = (1 - alpha) * self.label_mass(wide) + alpha * prior
        return target if dtype is None else xp.astype(target, dtype)

    @property
    def _is_row_by_row_alike(self) -> bool:
        """Whether rows differ in nothing but their label."""
        shared = self.prior is None or self.prior.ndim == 1
        return shared and self.allowed is None and isinstance(self.alpha, float)

    def _filled(self, prior: np.ndarray, dtype: Any) -> np.ndarray:
        """The same in memory that is written once: a row for all, then the labels' entries."""
        labels = self.labels.reshape(-1).astype(np.intp)
        row = self.alpha * prior
        on = (1 - self.alpha) + row[labels]
        fill = row[0] if self.prior is None else row.astype(dtype)
        target = np.full((labels.size, self.num_classes), fill, dtype)
        target.reshape(-1)[np.arange(labels.size) * self.num_classes + labels] = on
        return target.reshape((*self.labels.shape, self.num_classes))


def smooth_labels(
    labels: Any,
    rule: Rule | float,
    *,
    num_classes: int,
    kind: str | None = None,
    axis: int = -1,
    allowed: Any = None,
    alpha: Any = None,
    prior: Any = None,
    smooth_again: bool = False,
    dtype: Any = None,
) -> Array:
    """The smoothed targets as a dense array: identity 1, linear in the labels (identity 18).

    Args:
        labels: class ids ``(...)`` (integers), one-hot rows or label distributions
            ``(..., K, ...)`` (class axis at ``axis``), for instance from mixup; or, with
            ``kind="multi_hot"``, K independent labels, as :func:`softhot.smooth_binary_labels`.
        rule: a target rule; a number means ``Uniform(number)``, or ``Bernoulli(number)`` for
            independent labels.
        num_classes: K >= 2. Never guessed from the batch.
        kind: ``"ids"``, ``"one_hot"`` or ``"soft"``; needed only where the array could be read both
            ways (integers whose class axis would have length K). Or ``"multi_hot"``.
        axis: where the class axis is (for distributions) or goes (for ids).
        allowed: booleans that broadcast to the result: mass only on these classes.
        alpha: weights ``(...)`` for a rule with :class:`softhot.PerSample`.
        prior: the distribution a rule takes with the batch, see :class:`softhot.Teacher` and
            :class:`softhot.Online`.
        smooth_again: accept labels that look smoothed already.
        dtype: of the result; that of ``labels`` if they are real, else the namespace's default.

    Returns:
        Array ``(..., K, ...)`` of the labels' namespace; every row sums to 1, unless multi-hot.

    Raises:
        InputError: for ids out of range, rows that don't sum to 1, ambiguous or already smoothed
            labels, and everything else that would train on something nobody meant.

    >>> smooth_labels([2, 0], 0.1, num_classes=4)
    array([[0.025, 0.025, 0.925, 0.025],
           [0.925, 0.025, 0.025, 0.025]])
    """
    if kind == "multi_hot":
        from softhot.core.binary import smooth_multi_hot  # which is built on this file

        given = {"allowed": allowed, "alpha": alpha, "prior": prior}
        return smooth_multi_hot(labels, rule, num_classes, axis, dtype, given)
    rule = check_rule(Uniform(rule) if isinstance(rule, float | int) else rule)
    if rule.penalties:
        hint = "Penalties act on logits: leave them to the loss and pass rule.base."
        raise InputError("rule", "a rule for targets", rule, hint)
    if not rule.base.TARGET:
        hint = "It changes the loss: give it to softhot.cross_entropy with hard labels."
        raise InputError("rule", "a rule for targets", rule, hint)
    num_classes = CLASSES.check("num_classes", num_classes)
    labels, xp = as_arrays("labels", labels)
    stated, kind = kind, _kind_of(xp, labels, num_classes, kind)
    place = check_axis(axis, labels.ndim + (kind == "ids"))
    both = labels.ndim > 1 and -labels.ndim <= axis < labels.ndim
    if stated is None and kind == "ids" and both and labels.shape[axis] == num_classes:
        hint = 'Say kind="one_hot" or kind="ids".'
        raise InputError("labels", "readable in one way", tuple(labels.shape), hint)
    axis = place
    if kind != "ids":
        if labels.shape[axis] != num_classes:
            raise InputError(f"labels.shape[{axis}]", f"num_classes = {num_classes}", labels.shape)
        labels = xp.moveaxis(labels, axis, -1)
    if allowed is not None:
        allowed = _classes_last(xp, "allowed", allowed, axis, labels, kind, num_classes)
    prior = prior_last(xp, rule.base, prior, labels, axis)
    labels = check_labels(xp, labels, num_classes, soft=kind != "ids")
    dtype = dtype or (xp.asarray(0.5) if kind == "ids" else labels).dtype
    target = make_target(
        *(xp, labels, rule.base, num_classes),
        allowed=allowed,
        alpha=alpha,
        prior=prior,
        smooth_again=smooth_again,
    )
    return xp.moveaxis(target.dense(dtype), -1, axis)


def make_target(
    xp: Any,
    labels: Array,
    base: Base,
    num_classes: int,
    *,
    allowed: Array | None = None,
    alpha: Any = None,
    prior: Any = None,
    smooth_again: bool = False,
    counted: Array | None = None,
    validate: bool = True,
) -> Target:
    """The :class:`Target` of checked labels with the class axis last (see :func:`check_labels`)."""
    soft = kind(xp, labels) == "real"
    look = validate and is_concrete(labels, allowed, counted)
    if look and allowed is not None:
        _check_allowed(xp, labels, allowed, soft)
    dtype = accumulator(xp, labels) if soft else widest(xp)
    labels = xp.astype(labels, dtype) if soft else labels
    weight, per_class = _alpha(xp, labels, base, num_classes, alpha, dtype, counted, look)
    hard = isinstance(weight, float) and weight == 0
    if look and soft and not smooth_again and not hard and base.PRIOR != "by_row":
        _check_not_smoothed(xp, labels, counted)
    k = num_classes
    if allowed is not None:
        # A row with one allowed class has its target there, whatever the weight.
        few = xp.sum(xp.astype(allowed, dtype), axis=-1)
        k = xp.where(few > 1, few, xp.full_like(few, num_classes))
    weight = _mix(xp, base, weight, k, per_class and soft, look)
    source = _prior(xp, labels, base, num_classes, prior, dtype, counted, look)

    moved = None  # the mass that leaves each class, where that differs from alpha * labels
    if per_class and soft:
        moved = weight * labels
        total = xp.sum(moved, axis=-1)
        kept = labels - moved
        remaining = 1 - total
        labels = kept / _column(xp, xp.where(remaining > 0, remaining, xp.ones_like(remaining)))
        weight = total
    if source is not None and base.PRIOR == "by_class":
        if soft:
            source = _mean_rows(xp, labels if moved is None else moved, source, allowed)
        else:
            source = xp.take(source, xp.reshape(labels, (-1,)), axis=0)
            source = xp.reshape(source, (*labels.shape, num_classes))
    if source is not None and allowed is not None:
        source = _restrict(xp, source, allowed, weight, look)
    return Target(labels, weight, source, num_classes, allowed, xp)


def target_matrix(base: Base, num_classes: int, prior: Any = None) -> np.ndarray | None:
    """The target of every class, float64 ``(K, K)``; None where it differs from row to row.

    Smoothing is this linear map: ``q = y @ matrix`` for any label distribution ``y``.
    """
    if base.PRIOR == "by_row" or isinstance(base.alpha, PerSample):
        return None
    if base.FROM_BATCH and prior is not None:
        prior = to_numpy(as_arrays("prior", prior)[0])
    ids = np.arange(num_classes)
    return make_target(np, ids, base, num_classes, prior=prior).dense(np.float64)


def check_labels(
    xp: Any,
    labels: Array,
    num_classes: int,
    *,
    soft: bool,
    counted: Array | None = None,
    validate: bool = True,
    argument: str = "labels",
) -> Array:
    """Labels with the class axis last, checked; only rows in ``counted`` are looked at.

    Class ids come back as they are, with 0 where a row is not counted; distributions as reals.
    """
    holds = kind(xp, labels)
    look = validate and is_concrete(labels, counted)
    if not soft:
        if holds != "integer":
            hint = (
                "Cast them: labels.astype(int)."
                if holds == "real"
                else "Class ids are integers 0 .. K - 1."
            )
            raise InputError(argument, "class ids of an integer dtype", labels.dtype, hint)
        labels = xp.astype(labels, widest_integer(xp))
        if look:
            wrong = (labels < 0) | (labels >= num_classes)
            if counted is not None:
                wrong = wrong & counted
            if bool(xp.any(wrong)):
                at = first_true(xp, wrong)
                hint = "Mark rows to leave out with ignore_index= or where=."
                allowed = f"a class id in 0 .. {num_classes - 1}"
                raise InputError(f"{argument}{position(at)}", allowed, int(labels[at]), hint)
        return labels if counted is None else xp.where(counted, labels, xp.zeros_like(labels))
    if holds == "complex":
        raise InputError(argument, "real", labels.dtype)
    if holds != "real":
        labels = xp.astype(labels, xp.asarray(0.5).dtype)
    if counted is not None:
        # Whatever a row that does not count holds, NaN too, it must not reach a sum.
        uniform = xp.full_like(labels, 1 / num_classes)
        labels = xp.where(xp.expand_dims(counted, axis=-1), labels, uniform)
    if look:
        bad = ~(labels >= 0)
        if bool(xp.any(bad)):
            at = first_true(xp, bad)
            raise InputError(f"{argument}{position(at)}", "a probability >= 0", float(labels[at]))
        sums, off = off_one(xp, labels, 1e-6 * num_classes**0.5)
        if bool(xp.any(off)):
            at = first_true(xp, off)
            hint = (
                "Divide every row by its sum; independent labels (multi-hot) go to "
                "softhot.smooth_binary_labels and softhot.binary_cross_entropy."
            )
            allowed = "a row that sums to 1"
            raise InputError(f"{argument}{position(at)}", allowed, float(sums[at]), hint)
    return labels


def off_one(xp: Any, rows: Array, tolerance: float) -> tuple[Array, Array]:
    """The sums of rows, and where they differ from 1 by more than tolerance and rounding."""
    sums = xp.sum(xp.astype(rows, widest(xp)), axis=-1)
    return sums, ~(xp.abs(sums - 1) <= tolerance + 4 * float(xp.finfo(rows.dtype).eps))


def _kind_of(xp: Any, labels: Array, num_classes: int, stated: str | None) -> str:
    if stated is None:
        stated = "ids" if kind(xp, labels) == "integer" else "soft"
    if KINDS.check("kind", stated) != "ids" and num_classes not in labels.shape:
        hint = "Class ids are integers: cast with labels.astype(int)."
        allowed = f"class ids, or rows of {num_classes} probabilities"
        raise InputError("labels", allowed, labels, hint)
    return stated


def _classes_last(
    xp: Any, argument: str, mask: Any, axis: int, labels: Array, kind: str, num_classes: int
) -> Array:
    mask = check_mask(xp, argument, mask, labels)
    shape = (*labels.shape, num_classes) if kind == "ids" else tuple(labels.shape)
    if mask.ndim == len(shape):
        mask = xp.moveaxis(mask, axis, -1)
    return broadcast(xp, argument, mask, shape)


def _alpha(
    xp: Any,
    labels: Array,
    base: Base,
    k: int,
    given: Any,
    dtype: Any,
    counted: Array | None,
    look: bool,
) -> tuple[Any, bool]:
    """The weight as a number, ``(...)``, or (soft labels, per class) ``(K,)``; and if per class."""
    alpha = base.alpha
    name = type(base).__name__
    soft = kind(xp, labels) == "real"
    if isinstance(alpha, PerSample):
        if given is None:
            raise InputError("alpha", f"given with the batch, as {name}(PerSample()) says", given)
        given = like(xp, labels, as_arrays("alpha", given)[0])
        rows = labels.shape[:-1] if soft else labels.shape
        if tuple(given.shape) != tuple(rows):
            raise InputError("alpha", f"one for each row, shape {tuple(rows)}", tuple(given.shape))
        if kind(xp, given) not in ("real", "integer"):
            raise InputError("alpha", "real numbers", given.dtype)
        given = xp.astype(given, dtype)
        if look and is_concrete(given):
            seen = given if counted is None else given[counted]
            for extreme in (xp.min, xp.max) if compat.size(seen) else ():
                base.RANGES["alpha"].check("alpha", float(to_numpy(extreme(seen))))
        elif not is_concrete(given):  # nobody can raise: NaN says so
            inside = base.RANGES["alpha"].holds(given)  # type: ignore[union-attr]  # alpha has an Interval
            # A product, so that its derivative is NaN too.
            given = given * xp.where(inside, xp.ones_like(given), xp.full_like(given, xp.nan))
        return given if counted is None else xp.where(counted, given, xp.zeros_like(given)), False
    if given is not None:
        hint = f"It is given twice: write {name}(PerSample()) to pass it with the batch."
        raise InputError("alpha", f"left out, since the rule says {alpha!r}", given, hint)
    if isinstance(alpha, PerClass):
        if len(alpha.values) != k:
            raise InputError(f"{name}.alpha", f"{k} weights, one for each class", len(alpha.values))
        table = like(xp, labels, np.asarray(alpha.values), dtype)
        if soft:
            return table, True
        return xp.reshape(xp.take(table, xp.reshape(labels, (-1,))), labels.shape), True
    return alpha, False


def _mix(xp: Any, base: Base, weight: Any, k: Any, by_column: bool, look: bool) -> Any:
    """The weight in the uniform convention, checked to leave the label on top."""
    mixed = base.mixing(weight, _column(xp, k) if by_column and not isinstance(k, int) else k)
    if mixed is weight or not look or 0 in getattr(mixed, "shape", ()):
        return mixed
    worst = float(xp.max(mixed)) if hasattr(mixed, "shape") else mixed
    if not worst < 1:
        fewest = k if isinstance(k, int) else int(xp.min(k))
        allowed = f"below (K - 1)/K = {(fewest - 1) / fewest:g} for K = {fewest} classes"
        hint = "From there on a wrong class has as much mass as the right one."
        raise InputError(f"{type(base).__name__}.alpha", allowed, base.alpha, hint)
    return mixed


def _prior(
    xp: Any,
    labels: Array,
    base: Base,
    k: int,
    given: Any,
    dtype: Any,
    counted: Array | None,
    look: bool,
) -> Array | None:
    name = type(base).__name__
    if not base.FROM_BATCH:
        if given is not None:
            raise InputError("prior", f"left out: {name} has its own", given)
        table = base.prior(k)
        return None if table is None else like(xp, labels, table, dtype)
    rows = labels.shape[:-1] if kind(xp, labels) == "real" else labels.shape
    shape = (k, k) if base.PRIOR == "by_class" else (*rows, k)
    if given is None:
        raise InputError("prior", f"given with the batch for {name}, shape {tuple(shape)}", None)
    given = like(xp, labels, as_arrays("prior", given)[0])
    if tuple(given.shape) != tuple(shape):
        raise InputError("prior", f"of shape {tuple(shape)} for {name}", tuple(given.shape))
    if kind(xp, given) != "real":
        raise InputError("prior", "probabilities of a real dtype", given.dtype)
    if counted is not None and base.PRIOR == "by_row":
        given = xp.where(_column(xp, counted), given, xp.full_like(given, 1 / k))
    if look and is_concrete(given):
        sums, off = off_one(xp, given, 1e-3)
        bad = off | xp.any(given < 0, axis=-1)
        if bool(xp.any(bad)):
            at = first_true(xp, bad)
            hint = "Pass probabilities, not logits: apply softmax first."
            allowed = "a row of probabilities >= 0 that sums to 1"
            raise InputError(f"prior{position(at)}", allowed, float(sums[at]), hint)
    given = xp.astype(given, dtype)
    return base.refine(given / xp.sum(given, axis=-1, keepdims=True), xp)


def _check_allowed(xp: Any, labels: Array, allowed: Array, soft: bool) -> None:
    if soft:
        lost = xp.any((labels > 0) & ~allowed, axis=-1)
    else:
        lost = take_class(xp, xp.astype(allowed, xp.int32), labels) == 0
    if bool(xp.any(lost)):
        at = first_true(xp, lost)
        value = "mass on another class" if soft else int(labels[at])
        hint = "Allow the class, or leave the row out with where=."
        raise InputError(f"labels{position(at)}", "an allowed class", value, hint)


def _check_not_smoothed(xp: Any, labels: Array, counted: Array | None) -> None:
    """Refuse rows that share one positive least value in all but a few classes."""
    k = labels.shape[-1]
    rows = xp.reshape(labels, (-1, k))
    if counted is not None:
        rows = xp.take(rows, xp.nonzero(xp.reshape(counted, (-1,)))[0], axis=0)
    if rows.shape[0] < (2 if k == 2 else 1):
        return
    least = xp.min(rows, axis=-1, keepdims=True)
    floor = xp.min(least)
    same = bool(xp.all(xp.abs(least - floor) <= 1e-3 * floor)) and bool(floor > 0)
    level = xp.sum(xp.astype(xp.abs(rows - least) <= 1e-3 * least, xp.int32), axis=-1)
    flat = bool(xp.all(level == k))
    if same and not flat and bool(xp.all(level >= max(k - 2, 1))):
        hint = "Pass hard labels, or alpha 0, or smooth_again=True if you mean to smooth twice."
        allowed = "not smoothed already"
        raise InputError("labels", allowed, f"a least value of {float(floor):g} in every row", hint)


def _restrict(xp: Any, prior: Array, allowed: Array, weight: Any, look: bool) -> Array:
    prior = xp.where(allowed, prior, xp.zeros_like(prior))
    total = xp.sum(prior, axis=-1)
    empty = ~(total > 0)
    if look:
        missing = empty & (like(xp, prior, weight) != 0)
        if bool(xp.any(missing)):
            at = first_true(xp, missing)
            hint = "Allow a class that the prior gives mass to."
            raise InputError(f"allowed{position(at)}", "where the prior has mass", 0.0, hint)
    return prior / _column(xp, xp.where(empty, xp.ones_like(total), total))


def _mean_rows(xp: Any, weights: Array, rows: Array, allowed: Array | None) -> Array:
    """The weighted mean of ``rows``, each of them restricted to the allowed classes first."""
    total = _column(xp, xp.sum(weights, axis=-1))
    weights = weights / xp.where(total > 0, total, xp.ones_like(total))
    if allowed is not None:
        reach = xp.astype(allowed, rows.dtype) @ xp.moveaxis(rows, 0, 1)
        weights = weights / xp.where(reach > 0, reach, xp.ones_like(reach))
    return weights @ rows


def _column(xp: Any, rows: Any) -> Any:
    return xp.expand_dims(rows, axis=-1) if rows.ndim else rows
