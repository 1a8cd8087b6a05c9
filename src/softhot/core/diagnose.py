"""Which smoothing a loss or a target array has, and which known mistake, found by probing it."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softhot.core.array import as_arrays
from softhot.core.case import Case, name_target
from softhot.core.check import InputError, Interval, OneOf
from softhot.core.identify import (
    FORMS,
    Fit,
    Reading,
    best_fit,
    fit,
    logits_for,
    shortest,
    two_values,
)
from softhot.core.mistakes import Mistake, mistakes_in
from softhot.core.probe import (
    GIVES,
    INPUTS,
    ORDERS,
    TAKES,
    Array,
    Foreign,
    Refused,
    as_numbers,
    is_torch_module,
    loss_ways,
    target_ways,
)

KINDS = OneOf("loss", "targets", "target function")
CLASSES = Interval(2, float("inf"), "[)", integer=True)
IDS = Interval(-float("inf"), float("inf"), "()", integer=True)
FEW = 10  # up to so many classes every label is probed
ASKED = {
    "loss": "a loss that can be called with logits and labels and returns numbers",
    "target function": "a function from labels to an array of targets",
    "targets": "an array (N, K) or (N,) of finite targets",
}


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        kind: ``"loss"``, ``"targets"`` or ``"target function"``.
        form: what the loss is, such as ``"cross entropy"``; empty if it is none of the known.
        convention: key of :data:`softhot.CONVENTIONS`; or ``"none"`` (hard labels), ``"prior"``
            (the mass goes to a distribution that is not uniform), ``"by_class"`` (a distribution
            of its own for each class), ``"mass_preserving"``, ``"unknown"``.
        alpha: the argument in that convention.
        uniform: the alpha of the uniform convention with the same targets, if there is one.
        num_classes: K at which it was probed.
        on, off: the targets of the true class and of each other, where all classes have the same.
        also: other conventions with exactly these targets, and their arguments.
        mistakes: what is wrong with it.
        residual: what the fit leaves, as a share of how much the loss varies: 1e-15 proves the
            form, as 1e-7 does in float32; 1e-1 says that it is something else. 0 for targets.
        notes: how it was called, and what else was seen.
    """

    kind: str
    form: str
    convention: str
    alpha: float | None
    uniform: float | None
    num_classes: int
    on: float | None
    off: float | None
    also: tuple[tuple[str, float], ...]
    mistakes: tuple[Mistake, ...]
    residual: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        what = self.form or "not a smoothed cross entropy"
        alpha = "" if self.alpha is None else f", alpha = {self.alpha:g}"
        lines = [f"{what if self.kind == 'loss' else self.kind}: {self.convention}{alpha}"]
        if self.on is not None and self.off is not None:
            values = f"{self.on:.6g} true, {self.off:.6g} other (K = {self.num_classes})"
            lines.append(f"  targets   {values}")
        if self.also:
            lines.append(f"  same as   {', '.join(f'{name} {e:g}' for name, e in self.also)}")
        if self.kind == "loss":
            lines.append(f"  residual  {self.residual:.0e}")
        lines += [f"  note      {note}" for note in self.notes]
        for mistake in self.mistakes:
            lines.append(f"  MISTAKE   {mistake.name}: {mistake.evidence}")
            lines.append(f"            {mistake.remedy}")
        return "\n".join(lines)


def diagnose(
    subject: Any,
    *,
    num_classes: int = 10,
    labels: Any = None,
    argument: float | None = None,
    ignore_index: int = -100,
    kind: str | None = None,
    inputs: str | None = None,
    order: str | None = None,
    takes: str | None = None,
    make: Callable[[float], Any] | None = None,
) -> Diagnosis:
    r"""Say which smoothing a loss, a target array or a function that makes one has.

    A loss is probed, not read: evaluated at random logits it must be
    :math:`m\,\mathrm{lse}(z) - \langle q, z\rangle + c` for the target ``q`` it trains on (or one
    of a few relatives), and least squares finds ``q``. More calls look for known mistakes.

    Args:
        subject: a callable loss ``(logits, labels)`` (a function, a ``torch.nn.Module``, a Keras
            loss, ...) that returns one number or one a row; a function of labels that returns
            targets; or a target array ``(N, K)``, or ``(N,)`` for one binary label.
        num_classes: K to probe a callable at; the convention is named by looking at K = 3, too.
        labels: for a target array, the class ids ``(N,)`` or 0/1 labels ``(N, L)`` it was made of.
        argument: the smoothing that was passed to make it, if known. Some conventions differ in
            nothing but what they call the same targets; this decides, and shows an argument that
            has no effect, acts twice, or is the share kept.
        ignore_index: the id of rows to leave out.
        kind: ``"loss"``, ``"targets"`` or ``"target function"``, if the guess is wrong.
        inputs: ``"numpy"``, ``"torch"``, ``"jax"`` or ``"keras"``: arrays to call it with.
        order: ``"logits_first"`` or ``"labels_first"``.
        takes: form of labels, ``"ids"``, ``"one_hot"`` or (independent labels) ``"multi_hot"``.
        make: from the argument to a subject like this one: shows whether arguments that make no
            sense are refused.

    Raises:
        InputError: for what cannot be called, or does not return finite numbers, saying why.

    >>> import numpy as np
    >>> def loss(logits, labels):
    ...     log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ...     q = np.full_like(log_p, 0.1 / 9)
    ...     q[np.arange(len(q)), labels] = 0.9
    ...     return -(q * log_p).sum(1).mean()
    >>> found = diagnose(loss)
    >>> found.convention, found.alpha, round(found.uniform, 6)
    ('others', 0.1, 0.111111)
    """
    for name, value, allowed in (
        ("kind", kind, KINDS),
        ("inputs", inputs, OneOf(*INPUTS)),
        ("order", order, OneOf(*ORDERS)),
        ("takes", takes, OneOf(*TAKES)),
        ("argument", argument, Interval(0, 1, "[]")),
    ):
        if value is not None:
            allowed.check(name, value)
    k = CLASSES.check("num_classes", num_classes)
    ignore_index = IDS.check("ignore_index", ignore_index)
    if inspect.isclass(subject):
        raise InputError("subject", "a loss, not its class", subject, "Pass one instance of it.")
    if not callable(subject):
        case = Case("targets", k, argument=argument)
        _study_targets(case, subject, labels)
        return _report(case)
    reasons: list[str] = []
    unknown: Diagnosis | None = None
    for guess in [kind] if kind else _kinds_of(subject):
        case = Case(guess, k, argument=argument, ignore_index=ignore_index, make=make)
        try:
            if guess != "loss":
                _study_function(case, target_ways(subject, inputs, takes, k))
                return _report(case)
            with _training(subject):
                _study_loss(case, loss_ways(subject, inputs, order, takes))
                unknown = _report(case)
                if case.form:
                    return unknown
        except Refused as reason:
            reasons.append(f"As a {guess}: {reason}.")
    if unknown is not None:
        return unknown
    hint = (
        f"{' '.join(reasons)} Probed with K = {k}. If it wants other arguments, wrap it in a "
        "lambda or say num_classes=, inputs=, order=, takes= or kind=."
    )
    raise InputError("subject", ASKED[kind or "loss"], subject, hint)


def _report(case: Case) -> Diagnosis:
    on, off = (shortest(value, case.tolerance / 2) for value in case.pair or (math.nan, math.nan))
    return Diagnosis(
        kind=case.kind,
        form=case.form,
        convention=case.reading.convention,
        alpha=case.reading.alpha,
        uniform=case.reading.uniform,
        num_classes=case.num_classes,
        on=None if case.pair is None else on,
        off=None if case.pair is None else off,
        also=case.reading.also,
        mistakes=mistakes_in(case),
        residual=case.residual,
        notes=tuple(case.notes),
    )


def _kinds_of(subject: Any) -> list[str]:
    """What a callable may be, the likelier first: a loss needs two arguments."""
    try:
        inspect.signature(subject).bind(None, None)
        inspect.signature(subject).bind(None)
    except TypeError as error:
        few = "missing" in str(error)
        return ["loss", "target function"] if few else ["target function"]
    except ValueError:  # built in, without a signature
        return ["loss", "target function"]
    return ["target function", "loss"]


@contextlib.contextmanager
def _training(subject: Any) -> Iterator[None]:
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


def _study_loss(case: Case, ways: Iterable[Foreign]) -> None:
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
                if _is_swapped(found):
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


def _is_swapped(found: Fit) -> bool:
    """Whether the loss is linear because the logits went where labels belong."""
    return _has_no_mass(found) and bool(found.target.min() < -10 * found.error)


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
        loss = case.call.alone(z, np.full(len(z), min(case.label, 2)))
    except Refused:
        return None
    share = fit(case.form, z, loss[:, None])[0].share
    pair = two_values({min(case.label, 2): share}, case.tolerance)
    return (*pair, k) if pair else None


# Targets


def _study_function(case: Case, ways: Iterable[Foreign]) -> None:
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


def _study_targets(case: Case, subject: Any, labels: Any) -> None:
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
        Interval(0, case.num_classes - 1, "[]", integer=True).check("labels", label)
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
