"""Which smoothing a loss or a target array has, and which known mistake, found by probing it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from softhot.core.check import InputError, Interval, OneOf
from softhot.core.diagnosis.case import Case
from softhot.core.diagnosis.examine import (
    ASKED,
    examine_function,
    examine_loss,
    examine_targets,
    training,
)
from softhot.core.diagnosis.identify import shortest
from softhot.core.diagnosis.mistakes import Mistake, mistakes_in
from softhot.core.diagnosis.probe import INPUTS, ORDERS, TAKES, Refused, loss_ways, target_ways

KINDS = OneOf("loss", "targets", "target function")
CLASSES = Interval(2, float("inf"), "[)", integer=True)
IDS = Interval(-float("inf"), float("inf"), "()", integer=True)


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
        ("argument", argument, Interval(0, 1)),
    ):
        if value is not None:
            allowed.check(name, value)
    k = CLASSES.check("num_classes", num_classes)
    ignore_index = IDS.check("ignore_index", ignore_index)
    if inspect.isclass(subject):
        raise InputError("subject", "a loss, not its class", subject, "Pass one instance of it.")
    if not callable(subject):
        if kind not in (None, "targets"):
            raise InputError("subject", ASKED[kind], subject)
        case = Case("targets", k, argument=argument)
        examine_targets(case, subject, labels)
        return _report(case)
    if kind == "targets":
        raise InputError("subject", ASKED[kind], subject)
    if labels is not None:
        hint = 'The form of labels that a callable takes is takes="ids" or "one_hot".'
        raise InputError("labels", "left out beside a callable", labels, hint)
    reasons: list[str] = []
    unknown: Diagnosis | None = None
    for guess in [kind] if kind else _kinds_of(subject):
        case = Case(guess, k, argument=argument, ignore_index=ignore_index, make=make)
        try:
            if guess != "loss":
                examine_function(case, target_ways(subject, inputs, takes, k))
                return _report(case)
            with training(subject):
                examine_loss(case, loss_ways(subject, inputs, order, takes))
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
