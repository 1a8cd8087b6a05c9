"""What a rule does, in numbers: its targets, where its loss is least, and how low that is.

Identity 7 of docs/mathematics.md, and identity 15 for class weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from softhot.core.check import InputError
from softhot.core.losses import cross_entropy_and_gradient
from softhot.core.rule import Rule, Uniform, check_rule
from softhot.core.rules import NegativeUniform
from softhot.core.targets import CLASSES, make_target, target_matrix

Number = float | tuple[float, ...]


@dataclass(frozen=True)
class Explanation:
    """What a rule asks of a model, on data without noise.

    A number holds for every class; where classes differ it is a tuple of K.

    Attributes:
        rule: its repr.
        num_classes: K.
        on: target of the true class.
        off: the largest target of another class.
        logit_gap: true logit minus the largest other, where the loss is least; may be inf.
        loss_floor: the least loss, in nats; -inf if there is none.
        entropy: of the prediction at that optimum, in nats.
        confidence: its largest probability: what a fully trained model says when it is right.
        flip_ratio: with class weights that enter the target (torch's way), the ratio of a wrong
            class's weight to the true one's from which the wrong class is the best prediction.
        notes: what else to know.
    """

    rule: str
    num_classes: int
    on: Number
    off: Number
    logit_gap: Number | None
    loss_floor: Number | None
    entropy: Number | None
    confidence: Number | None
    flip_ratio: Number
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.rule} over {self.num_classes} classes"]
        for label, value, unit in (
            ("target of the true class", self.on, ""),
            ("largest target of another", self.off, ""),
            ("logit gap at the optimum", self.logit_gap, ""),
            ("least loss", self.loss_floor, " nats"),
            ("entropy at the optimum", self.entropy, " nats"),
            ("confidence at the optimum", self.confidence, ""),
            ("class-weight ratio that flips", self.flip_ratio, ""),
        ):
            lines.append(f"  {label:<30} {_show(value)}{unit if value is not None else ''}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def explain(rule: Rule | float, num_classes: int, *, prior: Any = None) -> Explanation:
    """What ``rule`` does with K classes.

    Args:
        rule: any rule; a number means ``Uniform(number)``.
        num_classes: K >= 2.
        prior: the ``(K, K)`` prior of :class:`softhot.Online`.

    Raises:
        InputError: for rules whose target differs from sample to sample.

    >>> print(explain(0.1, 10))
    Uniform(alpha=0.1) over 10 classes
      target of the true class       0.91
      largest target of another      0.01
      logit gap at the optimum       4.51086
      least loss                     0.500288 nats
      entropy at the optimum         0.500288 nats
      confidence at the optimum      0.91
      class-weight ratio that flips  91
    """
    rule = check_rule(Uniform(rule) if isinstance(rule, float | int) else rule)
    k = CLASSES.check("num_classes", num_classes)
    base = rule.base
    if base.PRIOR == "uniform" and isinstance(base.alpha, float):
        # Two numbers say it all: no row of K is made, K may be any number.
        weight = make_target(np, np.zeros(1, int), base, k).alpha
        off = np.array([weight * (1 / k)])
        on = (1 - weight) + off
        entropy = _entropy(on) + (k - 1) * _entropy(off)
    else:
        matrix = target_matrix(base, k, prior)
        if matrix is None:
            hint = "Explain it for one weight: the rule with a number as alpha."
            raise InputError("rule", "one whose target depends on the class alone", rule, hint)
        on = np.diag(matrix).copy()
        entropy = _entropy(matrix).sum(axis=1)
        np.fill_diagonal(matrix, -math.inf)
        off = matrix.max(axis=1)
    with np.errstate(divide="ignore", over="ignore"):
        ratio = on / np.maximum(off, 0.0)
        gap = np.log(on) - np.log(np.maximum(off, 0.0))
    notes: list[str] = []
    floor: np.ndarray | None = entropy
    confidence: np.ndarray | None = np.maximum(on, off)
    if isinstance(base, NegativeUniform):
        ratio = gap = np.array([math.inf])
        floor, entropy, confidence = np.array([-math.inf]), np.zeros(1), np.ones(1)
        notes.append("The loss has no lower bound: give it the noise rate and a warmed-up model.")
    felt = [part for part in rule.penalties if part.SHIFT_INVARIANT]
    if len(felt) < len(rule.penalties):
        notes.append("The logits are pinned: where the loss is least they are log-probabilities.")
    if felt or not base.TARGET:
        if len(on) > 1 or isinstance(base, NegativeUniform):
            gap = floor = entropy = confidence = None
            notes.append("With these penalties the optimum has no closed form.")
        else:
            gap, floor, entropy, confidence = _symmetric_optimum(sum(felt, base), k)
    return Explanation(
        rule=repr(rule),
        num_classes=k,
        on=_number(on),
        off=_number(off),
        logit_gap=_number(gap),
        loss_floor=_number(floor),
        entropy=_number(entropy),
        confidence=_number(confidence),
        flip_ratio=_number(ratio),
        notes=tuple(notes),
    )


def _symmetric_optimum(rule: Rule, k: int) -> tuple[np.ndarray, ...]:
    """Where the loss is least among logits ``(d, 0, ..., 0)``: by symmetry, least of all."""

    def at(d: float) -> tuple[float, float]:
        logits = np.zeros((1, k))
        logits[0, 0] = d
        loss, gradient = cross_entropy_and_gradient(logits, np.array([0]), rule)
        return float(loss[0]), float(gradient[0, 0])

    # The slope is negative from 0 on; where it turns positive is the optimum. Plain cross entropy
    # never turns, and far out both loss and slope underflow to 0.
    grid = np.linspace(0.5, 40.0, 80)
    high = next((float(d) for d in grid if at(d)[1] > 0), math.inf)
    if high == math.inf:
        return np.array([math.inf]), np.zeros(1), np.zeros(1), np.ones(1)
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] < 0 else (low, middle)
    d = (low + high) / 2
    wrong = math.exp(-d)
    p = np.array([1.0, wrong]) / (1 + (k - 1) * wrong)
    entropy = _entropy(p[:1]) + (k - 1) * _entropy(p[1:])
    return np.array([d]), np.array([at(d)[0]]), entropy, p[:1]


def _entropy(q: np.ndarray) -> np.ndarray:
    """``-q log q``, 0 at 0."""
    return q * -np.log(np.where(q > 0, q, 1.0)) + 0.0  # which is no -0


def _number(values: np.ndarray | None) -> Any:
    if values is None:
        return None
    if np.allclose(values, values[0], rtol=0, atol=1e-12):
        return float(values[0])
    return tuple(values.tolist())


def _show(value: Number | None) -> str:
    if value is None:
        return "not known in closed form"
    if isinstance(value, tuple):
        return f"{min(value):.6g} to {max(value):.6g}"
    return f"{value:.6g}"
