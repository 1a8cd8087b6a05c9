"""The known mistakes, one row each: how to see it from outside, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from softhot.core.diagnosis import checks
from softhot.core.diagnosis.case import Case
from softhot.core.diagnosis.identify import SLIPS
from softhot.core.diagnosis.probe import Refused


@dataclass(frozen=True)
class Check:
    """One row of the table: from a case to the evidence, what to do, and what can be asked."""

    look: checks.Look
    remedy: str
    kinds: tuple[str, ...] = ("loss", "targets", "target function")


@dataclass(frozen=True)
class Mistake:
    """A mistake that was seen: its name, a sentence with numbers, and what to do instead."""

    name: str
    evidence: str
    remedy: str


def mistakes_in(case: Case) -> tuple[Mistake, ...]:
    """Every row of :data:`CHECKS` that sees something."""
    found = []
    for name, check in CHECKS.items():
        try:
            evidence = check.look(case) if case.kind in check.kinds else None
        except Refused:
            continue
        if evidence:
            found.append(Mistake(name, evidence, check.remedy))
    return tuple(found)


LOSS = ("loss",)
CALLED = ("loss", "target function")
DENSE = ("targets", "target function")
SMOOTH = "Take softhot.smooth_labels, whose rows sum to 1."
CROSS_ENTROPY = "Take softhot.cross_entropy or softhot.torch.CrossEntropyLoss"

CHECKS: Mapping[str, Check] = {
    "rows do not sum to 1": Check(checks.sums, SMOOTH),
    **{name: Check(partial(checks.slip, name), SMOOTH) for name in SLIPS},
    "mean over classes": Check(
        checks.mean_over_classes, "Sum over classes and take the mean over rows only.", LOSS
    ),
    "e/K on sigmoids": Check(
        checks.over_classes, "Independent labels: softhot.Bernoulli, towards 1/2, or Prevalence."
    ),
    "wrong class on top": Check(checks.not_on_top, "Use a smaller alpha, or another prior."),
    "negative target": Check(checks.negative, "If it is meant, say so: softhot.NegativeUniform."),
    "labels read from 1": Check(checks.offset, "Class ids begin at 0: subtract nothing."),
    "class weights inside the target": Check(
        checks.weights, 'Weight rows by their label: weighting="sample" in softhot.', LOSS
    ),
    "a label fails": Check(checks.failed, "Look at the target of that label.", LOSS),
    "arithmetic on class ids": Check(
        checks.ids, "Smooth one-hot rows, or let softhot.smooth_labels take the ids.", DENSE
    ),
    "integer targets": Check(checks.integers, "Convert to floats before smoothing.", DENSE),
    "writes to its input": Check(checks.writes, "Work on a copy.", CALLED),
    "K from the batch": Check(checks.from_batch, "Pass the number of classes.", CALLED),
    "label -1 accepted": Check(
        partial(checks.label_out_of_range, lambda k: -1),
        "Check labels: softhot raises InputError.",
        CALLED,
    ),
    "label K accepted": Check(
        partial(checks.label_out_of_range, lambda k: k),
        "Check labels: softhot raises InputError.",
        CALLED,
    ),
    "soft labels change": Check(
        checks.soft, "Smoothing is affine: (1 - a) y + a u, soft or not.", CALLED
    ),
    "ids and one-hot rows differ": Check(
        checks.ids_and_rows, f"{CROSS_ENTROPY}: one normaliser for both.", LOSS
    ),
    "argument without effect": Check(checks.no_effect, "See whether the option is passed on."),
    "argument is the share kept": Check(checks.kept, "In other libraries pass 1 minus it."),
    "smoothed twice": Check(checks.twice, "Smooth in the data or in the loss, not in both."),
    "bad argument accepted": Check(
        checks.bad_argument, "Check it: softhot's rules take 0 <= alpha < 1.", CALLED
    ),
    "smooths predictions": Check(
        partial(checks.of, "smoothed predictions", "exp(-loss), not the loss, is linear."),
        "Mix the target, not the prediction: its gradient is another.",
        LOSS,
    ),
    "softmax twice": Check(
        partial(checks.of, "second softmax", "the loss fits only after a softmax more."),
        "Pass logits to it.",
        LOSS,
    ),
    "sigmoid twice": Check(
        partial(checks.of, "second sigmoid", "the loss fits only after a sigmoid more."),
        "Pass logits to it.",
        LOSS,
    ),
    "a shift changes the loss": Check(checks.shift, "Make mass and target sum to the same.", LOSS),
    "masked class gives inf": Check(
        checks.masked, f"{CROSS_ENTROPY}: no mass where a logit is -inf.", LOSS
    ),
    "float16 overflows": Check(
        checks.float16, f"{CROSS_ENTROPY}: sums are taken in float32.", LOSS
    ),
    "smooths in evaluation": Check(
        checks.evaluation,
        "Validate on hard labels, as softhot.torch does in eval().",
        LOSS,
    ),
    "ignored rows count": Check(checks.ignored_count, "Mask every term of the loss.", LOSS),
    "mask inverted": Check(checks.inverted, "Keep the rows whose label is not ignored.", LOSS),
    "mean over ignored rows": Check(
        checks.mean_over_ignored, "Divide by the number of rows that count.", LOSS
    ),
    "no row left gives NaN": Check(checks.none_left, "Return 0 for a batch without rows.", LOSS),
    "class axis": Check(checks.axis, "State the class axis: axis= in softhot.", LOSS),
}
