"""What is known of a subject under diagnosis, and what its targets are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from softhot.core.conventions import CONVENTIONS
from softhot.core.diagnosis.identify import (
    SLIPS,
    Reading,
    class_weights,
    explaining,
    fit,
    logits_for,
    read,
    round_most,
    shared_prior,
    skipped_class,
    two_values,
)
from softhot.core.diagnosis.probe import Array, Foreign, Refused

Pair = tuple[float, float]
Second = Callable[["Case"], tuple[float, float, int] | None]


@dataclass
class Case:
    """What is known of a subject.

    Attributes:
        kind: ``"loss"``, ``"targets"`` or ``"target function"``.
        num_classes: K.
        foreign: how to call it; None for targets.
        argument: what the caller says was passed as smoothing.
        ignore_index: the id of rows to leave out.
        make: from the argument to a subject like this one.
        family: ``"softmax"`` or ``"sigmoid"``.
        form: key of :data:`softhot.core.diagnosis.identify.FORMS`; empty if none fits.
        rows: label -> ``(K,)`` target as found, whatever its sum.
        shares: label -> ``(K,)``, the prediction for which the loss is least.
        masses: label -> coefficient of the log-sum-exp (losses of logits with one label a row).
        lonely: label -> its row in a batch that holds no other label, if that is another row.
        failed: label -> why there is no row.
        values: what came back, for targets and target functions.
        tolerance: what the numbers are certain to.
        reading: what the target is called.
        pair: the targets of the true class and of each other, if all labels have the same.
        offset: labels are read as if they began at 1.
        weights: ``(K,)`` class weights inside the target.
        residual: the largest of the fits.
        notes: what else was seen.
    """

    kind: str
    num_classes: int
    foreign: Foreign | None = None
    argument: float | None = None
    ignore_index: int = -100
    make: Callable[[float], Any] | None = None
    family: str = "softmax"
    form: str = ""
    rows: dict[int, Array] = field(default_factory=dict)
    shares: dict[int, Array] = field(default_factory=dict)
    masses: dict[int, float] = field(default_factory=dict)
    lonely: dict[int, Array] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    values: Array | None = None
    tolerance: float = 1e-9
    reading: Reading = field(default_factory=Reading)
    pair: Pair | None = None
    offset: bool = False
    weights: Array | None = None
    residual: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def call(self) -> Foreign:
        """The function, which a case of targets has not."""
        if self.foreign is None:
            raise Refused("targets cannot be called")
        return self.foreign

    @property
    def label(self) -> int:
        """A label that is not to be ignored."""
        return next(y for y in (1, 2, 0) if y != self.ignore_index and y < self.num_classes)

    @property
    def smooths(self) -> bool:
        """Whether it is known to move mass."""
        return bool(self.rows) and self.reading.convention != "none"

    @property
    def sums(self) -> dict[int, float]:
        """What the target of each label sums to; a loss may leave labels out, as padding."""
        return {
            label: float(row.sum())
            for label, row in self.rows.items()
            if self.kind != "loss" or np.abs(row).max() > self.tolerance
        }

    @property
    def sums_agree(self) -> bool:
        """Whether all labels have the same sum; where they differ, rows are weighted by label."""
        sums = list(self.sums.values())
        return bool(sums) and np.ptp(sums) <= self.num_classes * self.tolerance

    def logits(self, *shape: int) -> Array:
        """Random logits ``(*shape, K)``, the same every time."""
        return np.random.default_rng(1).normal(size=(*shape, self.num_classes))

    def same(self, a: Any, b: Any) -> bool:
        """Whether two results agree, to what the numbers are certain to."""
        return bool(np.allclose(a, b, atol=10 * self.tolerance))

    def refuse_unless(self, *takes: str) -> None:
        """End a check for functions that take other labels."""
        if self.call.takes not in takes:
            raise Refused  # nobody reads why: the check says nothing


def name_target(case: Case, second: Second = lambda case: None) -> None:
    """Name the target that the rows of ``case`` show; ``second`` looks at another K."""
    k, tolerance = case.num_classes, case.tolerance
    shares = {y: row for y, row in case.shares.items() if np.abs(row).max() > tolerance}
    if k > 1 and shares and all(int(row.argmax()) == (y - 1) % k for y, row in shares.items()):
        case.offset = True
        shares = {(y - 1) % k: row for y, row in shares.items()}
    if case.family == "softmax" and _skips_a_class(case, shares):
        return
    case.pair = two_values(shares, tolerance)
    if case.pair is not None:
        _name_pair(case, case.pair, second)
        return
    if case.family == "softmax" and not np.allclose([*case.sums.values()], 1, atol=k * tolerance):
        weighted = class_weights(shares, tolerance)
        if weighted is not None:
            ratio, case.weights = weighted
            on = 1 / (1 + (k - 1) * ratio)
            certain = max(1e-6, 10 * tolerance)
            case.reading = read(
                on, ratio * on, k, "softmax", argument=case.argument, tolerance=certain
            )
        return
    alpha = shared_prior(shares, case.family, tolerance)
    if alpha is not None:
        case.reading = Reading("prior", alpha)
    elif all(row.min() >= -tolerance and row.max() <= 1 + tolerance for row in shares.values()):
        case.reading = Reading("by_class")


def _skips_a_class(case: Case, shares: dict[int, Array]) -> bool:
    """Whether one class, padding, has no mass, and the others are named without it."""
    skipped = skipped_class(shares, case.tolerance)
    if skipped is None:
        return False
    rest = {y - (y > skipped): np.delete(r, skipped) for y, r in shares.items() if y != skipped}
    pair = two_values(rest, case.tolerance)
    formula = {"skip_pad": CONVENTIONS["skip_pad"]}
    found = explaining(formula, *pair, case.num_classes, case.tolerance) if pair else {}
    if found:
        case.pair, case.reading = pair, Reading("skip_pad", found["skip_pad"])
        case.notes.append(f"class {skipped} has no mass, as padding")
    return bool(found)


def _name_pair(case: Case, pair: Pair, second: Second) -> None:
    k, tolerance = case.num_classes, case.tolerance
    case.reading = read(
        *pair,
        k,
        case.family,
        second=second(case),
        argument=case.argument,
        tolerance=tolerance,
    )
    if case.reading.convention == "sigmoid_over_classes" and _keeps_mass(case):
        case.reading = Reading("mass_preserving", case.reading.alpha)
    total = next(iter(case.sums.values()), 1.0) if case.family == "softmax" else 1.0
    off_balance = case.sums_agree and abs(total - 1) > k * tolerance
    if off_balance or case.reading.convention == "unknown":
        on, off = pair[0] * total, pair[1] * total
        found = explaining(SLIPS, on, off, k, k * tolerance)
        slip = round_most(found, (k * tolerance, 1.0))
        if slip is not None:
            case.reading = replace(
                case.reading, convention="unknown", alpha=found[slip], also=(), slip=slip
            )
        if slip is not None or case.kind != "loss":
            case.pair = on, off


def _keeps_mass(case: Case) -> bool:
    """Whether two labels in a row make the targets of the others twice as large."""
    k, alpha = case.num_classes, case.reading.alpha or 0.0
    two = np.where(np.arange(k) < 2, 1.0, 0.0)
    try:
        if case.kind == "loss":
            z = logits_for(k)
            losses = case.call.alone(z, np.broadcast_to(two, z.shape))
            row = fit(case.form, z, losses[:, None])[0].share
        else:
            row = case.call.targets(two[None])[0]
    except Refused:
        return False
    return case.same(row, (1 - alpha) * two + alpha * 2 / k)
