"""Finding the target of a loss, a function of labels or an array, and filling a case with it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from softhot.core.array import as_arrays
from softhot.core.check import InputError, Interval
from softhot.core.diagnosis.case import Case, name_target
from softhot.core.diagnosis.identify import (
    FORMS,
    Fit,
    Reading,
    best_fit,
    fit,
    logits_for,
    shortest,
    two_values,
)
from softhot.core.diagnosis.probe import (
    GIVES,
    Array,
    Foreign,
    Refused,
    as_numbers,
    is_torch_module,
)

FEW = 10  # up to so many classes every label is probed
ASKED = {
    "loss": "a loss that can be called with logits and labels and returns numbers",
    "target function": "a function from labels to an array of targets",
    "targets": "an array (N, K) or (N,) of finite targets",
}


@contextlib.contextmanager
def training(subject: Any) -> Iterator[None]:
    """A torch module is diagnosed in training mode; it and its parts get their own modes back."""
    modules = list(subject.modules()) if is_torch_module(subject) else []
    modes = [module.training for module in modules]
    for module in modules[:1]:
        module.train()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


# A loss


def examine_loss(case: Case, ways: Iterable[Foreign]) -> None:
    """Find out how to call it, its form, and its target for each label."""
    k = case.num_classes
    z = logits_for(k)
    case.foreign, found = _find_way(ways, z, case.label)
    case.residual = found.residual
    if found.fits:
        case.form, case.family = found.form, FORMS[found.form].family
        if _has_no_mass(found):
            case.foreign = replace(case.foreign, gives="log-probabilities")
        labels = range(k) if k <= FEW else [0, 1, k // 2, k - 2, k - 1]
        first = _fit_labels(case, z, labels, case.foreign.alone)
        beside_others = _beside_others(case, z, first)
        if beside_others is not None:
            case.lonely = dict(case.rows)
            _fit_labels(case, z, labels, beside_others)
        _take_out_epsilon(case)
        name_target(case, _pair_at_another_k)
    case.notes.insert(0, case.foreign.described(case.kind))


def _find_way(ways: Iterable[Foreign], z: Array, label: int) -> tuple[Foreign, Fit]:
    """The first way to call the loss in which it is a known form and tells classes apart."""
    k, reasons, ran = z.shape[1], [], set()
    few = z[: k + 3]
    ids = np.arange(len(few)) % k
    best: tuple[int, Foreign, Fit] | None = None
    for way in ways:
        if (way.order, way.takes) in ran:  # with other arrays already
            continue
        for gives in list(GIVES)[:3]:
            foreign = replace(way, gives=gives)
            try:
                if not np.array_equal(foreign(few, ids), foreign(few, ids), equal_nan=True):
                    raise Refused("two calls with the same arguments gave two results")
                ran.add((way.order, way.takes))
                found = best_fit(z, foreign.alone(z, np.full(len(z), label)), gives)
                if _has_no_mass(found) and not _takes_log_probabilities(foreign, found):
                    raise Refused("it is linear in what it was given as logits")
            except Refused as reason:
                reasons.append(str(reason))
                continue
            score = int(found.fits) + int(found.fits and np.ptp(found.target) > 10 * found.error)
            if best is None or score > best[0]:
                best = score, foreign, found
            if score == 2:
                return foreign, found
    if best is None:
        raise Refused("; ".join(list(dict.fromkeys(reasons))[:3]))
    return best[1:]


def _has_no_mass(found: Fit) -> bool:
    """Whether the loss is linear, as that of log-probabilities is."""
    small = len(found.target) * found.error
    return found.form == "cross entropy" and bool(abs(found.mass[0]) <= small)


def _takes_log_probabilities(foreign: Foreign, found: Fit) -> bool:
    """Whether a linear loss is one of log-probabilities, not one given logits for labels.

    The first has no negative target and is affine in its labels, too.
    """
    if found.target.min() < -10 * found.error:
        return False
    if foreign.takes == "ids":
        return True
    first, second = np.eye(len(found.target))[:2]
    rows = np.array([first, second, 0.7 * first + 0.3 * second])
    loss = [foreign(np.ones_like(row)[None], row[None])[0] for row in rows]
    return bool(np.isclose(loss[2], 0.7 * loss[0] + 0.3 * loss[1]))


def _fit_labels(
    case: Case, z: Array, labels: Iterable[int], evaluate: Callable[[Array, Array], Array]
) -> Fit:
    """Fit every label and keep the targets in the case; returns one of the fits."""
    losses: dict[int, Array] = {}
    case.failed.clear()
    for label in labels:
        try:
            losses[label] = evaluate(z, np.full(len(z), label))
        except Refused as reason:
            case.failed[label] = str(reason)
    found = fit(case.form, z, np.array(list(losses.values())).T)
    by_label = dict(zip(losses, found, strict=True))
    case.residual = max((each.residual for each in found if each.residual < math.inf), default=0.0)
    case.tolerance = max(each.error for each in found)
    case.shares = {label: each.share for label, each in by_label.items()}
    case.rows = case.shares
    if case.family == "softmax":
        case.rows = {label: each.target for label, each in by_label.items()}
        if case.call.gives == "logits" and found[0].mass.size:
            case.masses = {label: float(each.mass[0]) for label, each in by_label.items()}
    case.notes = [f"plus {weight:.6g} times {what}" for what, weight in found[0].penalties.items()]
    if case.residual > 1e-5:
        case.notes.append("fits nearly: something small is added, an epsilon in a logarithm?")
    return found[0]


def _take_out_epsilon(case: Case) -> None:
    """``log(p + epsilon)`` looks like a prediction that was smoothed, but the sum grows."""
    if not case.form.endswith("smoothed predictions"):
        return
    label, row = next(iter(case.rows.items()))
    epsilon = float(np.delete(row, label).mean())
    if 0 < epsilon < 1e-3 and abs(row.sum() - 1 - len(row) * epsilon) < 0.1 * epsilon:
        case.form = "cross entropy"
        case.rows = case.shares = {y: each - epsilon for y, each in case.rows.items()}
        case.notes.append(f"an epsilon of {epsilon:.2g} is added inside the logarithm")


def _beside_others(case: Case, z: Array, alone: Fit) -> Callable[[Array, Array], Array] | None:
    """How to evaluate a row in a batch of all classes, if that makes another target of it."""
    k = case.num_classes
    anchors, ids = case.logits(k), np.arange(k)
    together = case.call(anchors, ids)
    singles = np.array([case.call(anchors[i : i + 1], ids[i : i + 1])[0] for i in ids])
    if any(case.same(together, each) for each in (singles, singles.mean(), singles.sum())):
        return None
    twice, once = case.call(anchors[[1, 1]], ids[[1, 1]]), case.call(anchors[[1]], ids[[1]])
    factor = k + 1 if case.same(twice, once) else 1

    def evaluate(z: Array, labels: Array) -> Array:
        batches = (np.concatenate([row[None], anchors]) for row in z)
        values = [case.call(batch, np.array([labels[0], *ids])) for batch in batches]
        return np.array([value[0] if value.ndim else factor * value for value in values])

    label = next(iter(case.rows))
    beside = fit(case.form, z, evaluate(z, np.full(len(z), label))[:, None])[0]
    moved = np.abs(beside.share - alone.share).max()
    return evaluate if moved > 1e-6 + (k + 1) * beside.error else None


def _pair_at_another_k(case: Case) -> tuple[float, float, int] | None:
    """The two targets at another K, which tell apart conventions that agree at one."""
    k = 3 if case.num_classes != 3 else 4
    z = logits_for(k)
    try:
        loss = case.call.alone(z, np.full(len(z), case.label))
    except Refused:
        return None
    share = fit(case.form, z, loss[:, None])[0].share
    pair = two_values({case.label: share}, case.tolerance)
    return (*pair, k) if pair else None


# Targets


def examine_function(case: Case, ways: Iterable[Foreign]) -> None:
    """Find out how to call it, and its target for each label."""
    k, reasons = case.num_classes, []
    ids = np.tile(np.arange(k), 2)
    best: tuple[int, Foreign, Array] | None = None
    for way in ways:
        try:
            value = way.targets(way.labels(ids, k))
            if value.shape not in ((2 * k, k), (2 * k,)):
                raise Refused(f"it returned an array of shape {value.shape} for {2 * k} labels")
            if not np.isfinite(value).all():
                raise Refused(f"it returned {value[~np.isfinite(value)][0]}")
            top = value.argmax(axis=-1)
            score = value.ndim + int((top == ids).all() or (top == (ids - 1) % k).all())
            if way.num_classes and score < 3:
                raise Refused("given labels and K it returned no targets of those labels")
        except Refused as reason:
            reasons.append(str(reason))
            continue
        if best is None or score > best[0]:
            best = score, way, value
        if score == 3:
            break
    if best is None:
        raise Refused("; ".join(list(dict.fromkeys(reasons))[:3]))
    _, case.foreign, case.values = best
    case.notes.append(case.foreign.described(case.kind))
    if case.values.ndim == 1:
        return
    case.family = "sigmoid" if case.foreign.takes == "multi_hot" else "softmax"
    case.tolerance = _precision(case.values)
    case.rows = {y: case.values[y].astype(np.float64) for y in range(k)}
    case.shares = _shares(case)
    for label in (1, 0):
        alone = case.foreign.targets(case.foreign.labels(np.full(3, label), k))
        if alone.shape != (3, k) or not case.same(alone[0], case.rows[label]):
            case.lonely[label] = np.atleast_1d(alone[0])
    name_target(case, _targets_at_another_k)


def _targets_at_another_k(case: Case) -> tuple[float, float, int] | None:
    k = 3 if case.num_classes != 3 else 4
    foreign = replace(case.call, num_classes=case.call.num_classes and k)
    try:
        value = foreign.targets(foreign.labels(np.arange(k), k))
    except Refused:
        return None
    if value.shape != (k, k):
        return None
    other = Case(case.kind, k, family=case.family, rows=dict(enumerate(value)))
    pair = two_values(_shares(other), case.tolerance)
    return (*pair, k) if pair else None


def examine_targets(case: Case, subject: Any, labels: Any) -> None:
    """Sort targets by their labels, given or inferred, and name them."""
    array = _numbers("subject", subject)
    if array.size == 0 or array.ndim not in (1, 2) or not np.isfinite(array).all():
        raise InputError("subject", ASKED["targets"], subject)
    case.values, case.tolerance = array, _precision(array)
    hard = None if labels is None else _numbers("labels", labels)
    if hard is not None and hard.shape not in (array.shape, array.shape[:1]):
        raise InputError("labels", f"of shape {array.shape[:1]} or {array.shape}", hard.shape)
    if hard is None and len(np.unique(array)) == 2:
        # Two values, but not one high one in each row: independent labels.
        high = array > array.mean()
        if array.ndim == 1 or (high.sum(axis=1) != 1).any():
            hard = high.astype(int)
    wide = array.ndim == 2 and array.shape[1] > 2
    if hard is not None and hard.shape == array.shape and wide and (hard.sum(axis=1) == 1).all():
        sums = array.sum(axis=1)  # one label a row, and rows that are distributions
        hard = hard.argmax(axis=1) if np.allclose(sums, 1, atol=1e-3) else hard
    if hard is not None and hard.shape == array.shape and np.isin(hard, (0, 1)).all():
        _binary_targets(case, array.reshape(len(array), -1), hard.reshape(len(array), -1))
    elif array.ndim == 2:
        _single_targets(case, array.astype(np.float64), hard)


def _numbers(argument: str, values: Any) -> Array:
    try:
        return as_numbers(as_arrays(argument, values)[0])
    except Refused:
        raise InputError(argument, "real numbers", values) from None


def _binary_targets(case: Case, array: Array, hard: Array) -> None:
    """Independent labels: two values, or a share of each row's labels spread over it."""
    case.family, case.num_classes = "sigmoid", array.shape[1]
    on, off = array[hard == 1], array[hard == 0]
    if all(part.size and np.ptp(part) <= case.tolerance for part in (on, off)):
        case.rows = case.shares = {
            0: np.array([on[0], *off[:1].repeat(max(array.shape[1] - 1, 1))])
        }
        name_target(case)
        return
    pull = hard.mean(axis=1, keepdims=True) - hard
    alpha = float(((array - hard) * pull).sum() / max((pull * pull).sum(), 1e-300))
    if np.abs(array - hard - alpha * pull).max() <= case.tolerance:
        case.reading = Reading("mass_preserving", shortest(alpha, case.tolerance))


def _single_targets(case: Case, array: Array, hard: Array | None) -> None:
    """One label a row: that of ``hard``, else the largest."""
    case.num_classes = array.shape[1]
    ids = array.argmax(axis=1) if hard is None else hard
    ids = ids if ids.ndim == 1 else ids.argmax(axis=1)
    differ = False
    for label in np.unique(ids).tolist():
        Interval(0, case.num_classes - 1, integer=True).check("labels", label)
        group = array[ids == label]
        differ = differ or bool(np.ptp(group, axis=0).max() > case.tolerance)
        case.rows[label] = group[np.abs(group.sum(axis=1) - 1).argmax()]
    case.shares = _shares(case)
    if differ:
        case.notes.append("rows of one label differ: mixed, taught, or smoothed row by row")
    else:
        name_target(case)


def _shares(case: Case) -> dict[int, Array]:
    """The targets as distributions."""
    if case.family == "sigmoid":
        return case.rows
    return {y: r / r.sum() if r.sum() > case.tolerance else r for y, r in case.rows.items()}


def _precision(array: Array) -> float:
    """What targets are certain to: rounding, of float32 if they went through it."""
    with np.errstate(over="ignore"):
        if not np.array_equal(array, array.astype(np.float32)):
            return 2e-7
    return 4 * float(np.finfo(np.float16 if array.dtype == np.float16 else np.float32).eps)
