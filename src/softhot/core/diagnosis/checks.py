"""What the checks of :mod:`.mistakes` look at: from a case to the evidence, or None.

Evidence is a sentence with numbers. A check looks at what was found, or calls the function once
more; a function that refuses what a check tries (:class:`.probe.Refused`) is right to.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from softhot.core.diagnosis.case import Case
from softhot.core.diagnosis.identify import SLIPS
from softhot.core.diagnosis.probe import Array, Refused, is_keras_loss, is_torch_module

HUGE = 7500  # classes: in float16 a sum over so many log-probabilities overflows
Look = Callable[[Case], str | None]


# The target itself


def sums(case: Case) -> str | None:
    """Whether a row sums to something else than 1, and not to the weight of its label."""
    k, total = case.num_classes, case.sums
    if case.family != "softmax" or case.weights is not None or not total:
        return None
    if case.kind == "loss" and (_is_over_classes(case) or (case.pair and not case.sums_agree)):
        return None
    label = _farthest({y: each - 1 for y, each in total.items()})
    if abs(total[label] - 1) <= k * case.tolerance:
        return None
    what = "the target (or the whole loss by a factor)" if case.kind == "loss" else "the target"
    return f"{what} of label {label} sums to {total[label]:.4g} with K = {k}."


def _farthest(by_label: Mapping[int, float]) -> int:
    """The label whose number is farthest from 0: the first of equals, not what rounding picks."""
    return max(by_label, key=lambda y: round(abs(by_label[y]), 6))


def _is_over_classes(case: Case) -> bool:
    return all(abs(total * case.num_classes - 1) < 1e-6 for total in case.sums.values())


def mean_over_classes(case: Case) -> str | None:
    """Whether every row is divided by K."""
    if case.family != "softmax" or not case.sums or not _is_over_classes(case):
        return None
    return f"the loss of a row is divided by K = {case.num_classes}: more classes, smaller steps."


def slip(name: str, case: Case) -> str | None:
    """Whether the target is one of the known slips."""
    if case.reading.slip != name:
        return None
    k, e, slip = case.num_classes, case.reading.alpha or 0.0, SLIPS[name]
    return f"targets {slip.on(e, k):.4g} and {slip.off(e, k):.4g}: {slip.formula}, e = {e:g}."


def over_classes(case: Case) -> str | None:
    """Whether independent labels are smoothed as if they were classes."""
    if case.reading.convention != "sigmoid_over_classes" or case.pair is None:
        return None
    on, off = case.pair
    return f"targets {on:.4g} and {off:.4g} pull a sigmoid towards 1/{case.num_classes}, not 1/2."


def not_on_top(case: Case) -> str | None:
    """Whether another class than the true one has the largest target."""
    if case.weights is not None or case.offset:
        return None
    for label, share in case.shares.items():
        top = int(share.round(6).argmax())
        if share[top] > share[label] + case.tolerance:
            return f"for label {label}, class {top} has {share[top]:.4g}, it {share[label]:.4g}."
    return None


def negative(case: Case) -> str | None:
    """Whether a target is negative and that is not a method."""
    if case.reading.uniform is not None and case.reading.uniform < 0:
        return None  # negative smoothing is a method of its own
    for label, row in case.rows.items():
        if row.min() < -10 * case.tolerance:
            return f"label {label} has a target of {row.min():.4g}: the loss has no lower bound."
    return None


def offset(case: Case) -> str | None:
    """Whether labels are read as if they began at 1."""
    if not case.offset:
        return None
    label = max(case.rows)
    wraps = f", label 0 as class {case.num_classes - 1}" if 0 in case.rows else ""
    return f"label {label} is taken for class {label - 1}{wraps}."


def weights(case: Case) -> str | None:
    """Whether class weights enter the smoothed target, and what they make the best prediction."""
    if case.weights is None:
        return None
    label = min(case.shares, key=lambda y: case.shares[y][y])
    best = case.shares[label]
    top, ratio = int(best.argmax()), case.weights.max() / case.weights.min()
    verdict = "" if top == label else f", so class {top} wins"
    return (
        f"with weights up to {ratio:.4g} times each other the best prediction for label {label} "
        f"is {best[label]:.4g} there and up to {np.delete(best, label).max():.4g} elsewhere"
        f"{verdict}."
    )


def failed(case: Case) -> str | None:
    """Whether some labels have no loss."""
    return next((f"label {y}: {why}." for y, why in case.failed.items()), None)


# Class ids and arrays


def ids(case: Case) -> str | None:
    """Whether class ids are taken for numbers."""
    if case.values is not None and case.values.ndim == 1 and case.family == "softmax":
        shown = ", ".join(f"{v:.4g}" for v in case.values[:3])
        return f"class ids became {shown}: one number a row, no distribution over classes."
    case.refuse_unless("one_hot")
    value = case.call.targets(np.arange(case.num_classes, dtype=np.float64))
    if value.ndim != 1:
        return None
    shown = ", ".join(f"{v:.4g}" for v in value[:3])
    return f"it takes class ids 0, 1, 2 too, and makes {shown} of them."


def integers(case: Case) -> str | None:
    """Whether integer targets lose the smoothing, and with it everything."""
    if case.kind == "targets":
        value = np.asarray(case.values)
    else:
        case.refuse_unless("one_hot", "multi_hot")
        value = case.call.targets(np.eye(case.num_classes, dtype=np.int64))
    if value.dtype.kind not in "iu" or value.ndim < 2 or value.any(axis=-1).all():
        return None
    rows = int((~value.any(axis=-1)).sum())
    return f"integers hold no fractions: {rows} of {len(value)} rows are all 0."


def writes(case: Case) -> str | None:
    """Whether an argument was changed."""
    changed = sorted(case.call.changed)
    return f"after the call {' and '.join(changed)} held other values." if changed else None


def from_batch(case: Case) -> str | None:
    """Whether the target of a row depends on the labels beside it."""
    for label, lonely in case.lonely.items():
        wide = case.rows.get(label)
        before = "" if wide is None else f", {_brief(wide, label)} beside others"
        return f"label {label} alone in its batch gives {_brief(lonely, label)}{before}."
    if case.kind != "target function":
        return None
    ids = np.arange(case.num_classes)
    beside, alone = case.call.targets(ids), case.call.targets(np.ones_like(ids))
    if beside.ndim != 1 or alone.ndim != 1 or case.same(beside[1], alone[1]):
        return None
    return f"label 1 alone in its batch gives {alone[1]:.4g}, {beside[1]:.4g} beside others."


def _brief(row: Array, label: int) -> str:
    if row.ndim != 1 or len(row) < 2:
        return f"an array of shape {row.shape}"
    true, other = row.round(9)[[label % len(row), (label + 1) % len(row)]]
    return f"{true:z.4g} and {other:z.4g}"


def label_out_of_range(label: Callable[[int], int], case: Case) -> str | None:
    """Whether a label that is no class is accepted."""
    case.refuse_unless("ids")
    k, bad = case.num_classes, label(case.num_classes)
    if bad == case.ignore_index:
        return None
    if case.kind == "target function":
        value = case.call.targets(np.array([*range(k), bad]))
        if value.ndim != 2:
            return None
        row = value[-1]
        return f"label {bad} with K = {k} gives a row with {row.max():.4g} at {row.argmax()}."
    z = case.logits(1)
    value = case.call(z, np.array([bad]))
    classes = [y for y in range(k) if case.same(case.call(z, np.array([y])), value)]
    meaning = f"counts as class {classes[0]}" if classes else f"gives a loss of {value[0]:.4g}"
    return f"label {bad} with K = {k} {meaning}."


def soft(case: Case) -> str | None:
    """The loss, and the target, is affine in the labels under every convention."""
    if case.family == "sigmoid" and case.call.takes == "ids":
        return None
    if case.kind == "loss" and not case.sums_agree:
        return None  # the weight of a row is linear in its label, and so is its target
    eye = np.eye(case.num_classes)
    soft = 0.7 * eye[:1] + 0.3 * eye[1:2]
    if case.kind == "target function":
        case.refuse_unless("one_hot", "multi_hot")
        wanted = 0.7 * case.call.targets(eye)[:1] + 0.3 * case.call.targets(eye)[1:2]
        got = case.call.targets(np.concatenate([soft, eye]))[:1]
        if case.same(got, wanted):
            return None
        return f"a share of 0.3 became {got[0, 1]:.4g}, not {wanted[0, 1]:.4g}."
    z = case.logits(2)

    def rise(labels: Array) -> Array:  # a constant such as the target's entropy cancels
        return case.call(z[:1], labels) - case.call(z[1:], labels)

    wanted, got = 0.7 * rise(eye[:1]) + 0.3 * rise(eye[1:2]), rise(soft)
    if not np.isfinite(got).all() or case.same(got, wanted):
        return None
    return (
        f"between two predictions the loss of a 0.7/0.3 label changes by {got[0]:.4g}, "
        f"that of its parts by {wanted[0]:.4g}."
    )


def ids_and_rows(case: Case) -> str | None:
    """Whether the same labels as ids and as one-hot rows have two losses."""
    case.refuse_unless("ids")
    labels = np.arange(case.num_classes)
    z = case.logits(len(labels))
    ids, rows = case.call(z, labels), case.call(z, np.eye(case.num_classes))
    if not np.isfinite(rows).all() or case.same(ids, rows):
        return None
    return f"one batch has the loss {np.mean(ids):.4g} as ids, {np.mean(rows):.4g} as one-hot rows."


# What the argument did


def no_effect(case: Case) -> str | None:
    """Whether an argument was passed and nothing is smoothed."""
    if not case.argument or case.reading.convention != "none":
        return None
    return f"{case.argument:g} was passed, and the targets are those of hard labels."


def kept(case: Case) -> str | None:
    """Whether the argument is the share that stays."""
    if case.reading.convention != "kept":
        return None
    return f"{case.reading.alpha:g} is what stays with the label, {case.reading.uniform:g} moves."


def twice(case: Case) -> str | None:
    """Whether the smoothing is what the argument gives when applied twice."""
    e, found = case.argument, case.reading.uniform
    if not e or found is None or abs(found - (1 - (1 - e) ** 2)) > max(1e-6, case.tolerance):
        return None
    return f"{e:g} was passed and {found:g} = 1 - (1 - {e:g})^2 arrived."


def bad_argument(case: Case) -> str | None:
    """Whether NaN, a negative number or one above 1 can be passed."""
    if case.make is None:
        return None
    accepted = []
    for bad in (math.nan, -0.1, 1.5):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = replace(case.call, subject=case.make(bad))
            if case.kind == "loss":
                made(case.logits(1), np.array([case.label]))
            else:
                made.targets(made.labels(np.arange(case.num_classes), case.num_classes))
        except Exception:  # whatever it raises, it refuses
            continue
        accepted.append(f"{bad:g}")
    return f"{', '.join(accepted)} raised nothing." if accepted else None


# What the loss is taken of


def of(ending: str, evidence: str, case: Case) -> str | None:
    """Whether the form of the loss has this ending."""
    return evidence if case.form.endswith(ending) else None


def shift(case: Case) -> str | None:
    """Whether the mass differs from the sum of the target."""
    slope = {y: mass - case.rows[y].sum() for y, mass in case.masses.items()}
    if not slope:
        return None
    label = _farthest(slope)
    if abs(slope[label]) <= 10 * case.num_classes * case.tolerance:
        return None
    return f"adding 1 to every logit changes the loss of label {label} by {slope[label]:.4g}."


def masked(case: Case) -> str | None:
    """Whether a class that cannot be chosen makes the loss infinite."""
    if case.call.gives != "logits" or case.family != "softmax" or not case.form:
        return None
    z = case.logits(1)
    z[0, (case.label + 1) % case.num_classes] = -np.inf
    value = case.call(z, np.array([case.label]))
    return None if np.isfinite(value).all() else f"a logit of -inf makes the loss {value[0]:g}."


def float16(case: Case) -> str | None:
    """Whether a sum over many classes overflows."""
    if case.pair is None:
        return None  # a prior may come as a K x K matrix, too large here
    value = case.call(np.zeros((1, HUGE)), np.array([case.label]), dtype="float16")
    if np.isfinite(value).all():
        return None
    return f"with {HUGE} equal logits in float16 the loss is {value[0]:g}, not {np.log(HUGE):.4g}."


def evaluation(case: Case) -> str | None:
    """Whether the validation loss is smoothed too."""
    subject: Any = case.call.subject
    if not case.smooths:
        return None
    if is_keras_loss(subject):
        return "a Keras loss has no evaluation mode: the val_loss of fit() is the smoothed one."
    if not is_torch_module(subject):
        return None
    z, labels = case.logits(1), np.array([case.label])
    subject.eval()
    evaluated = case.call(z, labels)
    subject.train()
    if not case.same(evaluated, case.call(z, labels)):
        return None
    return f"after eval() the loss of a row is still {evaluated[0]:.4g}, as in training."


# Rows that should not count, and other axes


def _with_ignored(case: Case) -> tuple[Array, Array, Array, Array]:
    """Logits, labels of which two are to be ignored, which those are, and the loss."""
    case.refuse_unless("ids")
    z = case.logits(5)
    out = np.array([False, True, False, True, False])
    labels = np.where(out, case.ignore_index, 0 if case.ignore_index == 1 else 1)
    value = case.call(z, labels)
    if not np.isfinite(value).all():
        raise Refused  # it knows no ignored rows
    return z, labels, out, value


def ignored_count(case: Case) -> str | None:
    """Whether rows to be ignored change the loss."""
    z, labels, out, value = _with_ignored(case)
    if _counts_of(case, z, labels, out, value) != (True, True):
        return None
    other = case.call(np.where(out[:, None], 2 * z, z), labels)
    return (
        f"doubling the logits of rows labelled {case.ignore_index} takes the loss from "
        f"{np.mean(value):.4g} to {np.mean(other):.4g}."
    )


def _counts_of(case: Case, z: Array, labels: Array, out: Array, value: Array) -> tuple[bool, bool]:
    """Whether the rows that should count do, and whether those that should not do."""
    kept, ignored = (
        not case.same(case.call(np.where(rows[:, None], 2 * z, z), labels), value)
        for rows in (~out, out)
    )
    return kept, ignored


def inverted(case: Case) -> str | None:
    """Whether only rows to be ignored change the loss."""
    z, labels, out, value = _with_ignored(case)
    if _counts_of(case, z, labels, out, value) != (False, True):
        return None
    return f"only the rows labelled {case.ignore_index} change the loss."


def mean_over_ignored(case: Case) -> str | None:
    """Whether rows to be ignored count in the mean."""
    z, labels, out, value = _with_ignored(case)
    if value.ndim or _counts_of(case, z, labels, out, value)[1]:
        return None
    without = case.call(z[~out], labels[~out])
    if case.same(value, without):
        return None
    return (
        f"3 rows have the loss {without:.4g}; with 2 more labelled {case.ignore_index} "
        f"it is {value:.4g}."
    )


def none_left(case: Case) -> str | None:
    """Whether a batch of ignored rows gives NaN."""
    _with_ignored(case)
    value = case.call(case.logits(2), np.full(2, case.ignore_index))
    return None if np.isfinite(value).all() else f"if every row is ignored the loss is {value:g}."


def axis(case: Case) -> str | None:
    """Logits with a place axis must give what their places give as rows, classes first or last."""
    k, depth = case.num_classes, case.num_classes + 1
    places = case.logits(2, depth)
    ids = np.arange(2 * depth).reshape(2, depth) % k
    rows = case.call(places.reshape(-1, k), ids.reshape(-1))
    if rows.ndim:
        grid = rows.reshape(2, depth)
        right = [grid, grid.sum(axis=1), grid.mean(axis=1), rows]
    else:
        right = [rows, rows * depth, rows / 2]  # the sum over places, the mean over the batch
    answers = []
    for axis in (1, -1):
        with contextlib.suppress(Refused):
            answers.append(case.call.raw(places, ids, axis=axis))
    if any(a.shape == b.shape and case.same(a, b) for a in answers for b in right):
        return None
    if not answers or answers[0].size == places.size:
        return None  # refused, or element by element: no class axis to get wrong
    return (
        f"logits (2, {k}, {depth}) with a label at each of {depth} places give "
        f"{answers[0].mean():.4g}, the same places as rows {rows.mean():.4g}."
    )
