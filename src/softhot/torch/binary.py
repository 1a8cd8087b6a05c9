"""Binary cross entropy of independent labels: the way from the arguments of a call to the core."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softhot.core.binary import (
    Bernoulli,
    BinaryRule,
    binary_cross_entropy_and_gradient,
    smooth_binary_labels,
)
from softhot.core.binary import _check_rule as check_binary_rule
from softhot.core.check import InputError
from softhot.core.shapes import broadcast
from softhot.kernels import chunked
from softhot.torch.closed_form import check_once, is_wrapper, slices, wide


@dataclass(frozen=True)
class Binary:
    """A :class:`softhot.torch.closed_form.Loss`: all of a call but the logits.

    Attributes:
        weight: factor of every element of the loss, broadcasts to the logits.
        where: elements that count, broadcasts to the logits.
        options: ``axis``, ``pos_weight`` and ``weighting`` of :func:`softhot.binary_cross_entropy`.
    """

    target: Tensor
    rule: BinaryRule
    reduction: str
    weight: Tensor | None
    where: Tensor | None
    options: dict[str, Any]
    overwrite: ClassVar[bool] = False

    def evaluate(
        self, logits: Tensor, *, gradient: bool, upstream: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Any]:
        # If a part fails, all at once: an error then names the right element.
        with contextlib.suppress(InputError):
            return self._parts(logits, self._cuts(logits), gradient, upstream)
        return self._parts(logits, [...], gradient, upstream)

    def differentiable(self, logits: Tensor) -> Tensor:
        z, target, where = logits.to(wide(logits)), self.target.to(wide(logits)), self.where
        if where is not None:
            z, target = z.where(where, 0), target.where(where, 0)
        on = smooth_binary_labels(target, self.rule, axis=self.options["axis"])
        off, factor = 1 - on, self.weight
        pos_weight = self.options["pos_weight"]
        if pos_weight is not None:
            shape = [1] * logits.ndim
            if pos_weight.ndim:
                shape[self.options["axis"]] = -1
            pos_weight = pos_weight.reshape(shape).to(z.dtype)
            if self.options["weighting"] == "class":
                on = pos_weight * on
            else:
                by_label = 1 + (pos_weight - 1) * target
                factor = by_label if factor is None else by_label * factor
        loss = -(on * logsigmoid(z) + off * logsigmoid(-z))
        loss = loss if factor is None else loss * factor
        loss = loss if where is None else loss.where(where, 0)
        return self._reduced(loss, self._count(logits))

    def beside_logits(self, upstream: Tensor) -> Tensor:
        return upstream

    def _reduced(self, loss: Tensor, count: Any) -> Tensor:
        if self.reduction == "none":
            return loss
        return loss.sum() / count if self.reduction == "mean" else loss.sum()

    def _count(self, logits: Tensor) -> Any:
        """How many elements a mean is over."""
        if self.where is None:
            return max(logits.numel(), 1)
        return self.where.expand(logits.shape).sum().clamp(min=1)

    def _parts(
        self, logits: Tensor, cuts: Any, gradient: bool, upstream: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Any]:
        slopes = torch.empty_like(logits) if gradient else None
        losses = []
        for cut in cuts:
            loss, slope = self._part(logits, cut)
            losses.append(loss if self.reduction == "none" else loss.sum())
            if slopes is not None:
                if upstream is not None:
                    slope = slope * (upstream[cut] if upstream.ndim else upstream)
                slopes[cut] = slope
        count = self._count(logits) if self.reduction == "mean" else None
        if len(losses) == 1:
            return self._reduced(losses[0], count), slopes, count
        whole = torch.cat(losses) if self.reduction == "none" else torch.stack(losses)
        return self._reduced(whole, count), slopes, count

    def _part(self, logits: Tensor, cut: Any) -> tuple[Tensor, Tensor]:
        """Loss and gradient of every element of a slice."""
        weight, where = (_cut(value, logits, cut) for value in (self.weight, self.where))
        part, look = logits[cut].to(wide(logits)), logits.device.type == "cpu"
        arguments = {**self.options, "where": where, "validate": look}
        try:
            both = binary_cross_entropy_and_gradient(part, self.target[cut], self.rule, **arguments)
        except InputError as error:
            if cut is not ... or not error.argument.startswith("logits["):
                raise
            arguments["validate"] = False
            both = binary_cross_entropy_and_gradient(part, self.target, self.rule, **arguments)
        return both if weight is None else (both[0] * weight, both[1] * weight)

    def _cuts(self, logits: Tensor) -> Any:
        """Slices of the first axis that fit the cache, or all at once."""
        labels_along_rows = logits.ndim and self.options["axis"] % logits.ndim == 0
        small = logits.numel() <= chunked.CPU_BLOCK or logits.device.type != "cpu"
        if not logits.ndim or labels_along_rows or small or is_wrapper(logits):
            return [...]
        return slices(len(logits), chunked.CPU_BLOCK * len(logits) // logits.numel())


def _cut(value: Tensor | None, logits: Tensor, cut: Any) -> Tensor | None:
    if value is None or cut is ... or value.ndim < logits.ndim or len(value) == 1:
        return value
    return value[cut]


def binary_rule_of(rule: BinaryRule | None, label_smoothing: float) -> BinaryRule:
    """The rule that a call asks for, by itself or by its strength."""
    if rule is None:
        return Bernoulli(label_smoothing)
    check_once(label_smoothing)
    return check_binary_rule(rule)


def binary_loss(
    logits: Tensor,
    target: Tensor,
    rule: BinaryRule,
    reduction: str,
    weight: Tensor | None,
    where: Tensor | None,
    options: dict[str, Any],
) -> Binary:
    """The loss of a call whose shapes fit."""
    for name, value in (("weight", weight), ("where", where)):
        if value is not None:
            broadcast(torch, name, value, tuple(logits.shape))
    pos_weight = options["pos_weight"]
    if pos_weight is not None and pos_weight.numel() == 1:
        options = {**options, "pos_weight": pos_weight.reshape(())}
    elif pos_weight is not None and pos_weight.ndim > 1:
        # torch lines it up with the last axes; here it is one number for each label.
        shape = [1] * (logits.ndim - pos_weight.ndim) + list(pos_weight.shape)
        long = [axis for axis, n in enumerate(shape) if n > 1]
        if len(shape) > logits.ndim or len(long) > 1:
            allowed = "a number, one for each label, or that with axes of length 1"
            raise InputError("pos_weight", allowed, tuple(pos_weight.shape))
        options = {**options, "pos_weight": pos_weight.flatten(), "axis": (long or [-1])[0]}
    return Binary(target, rule, reduction, weight, where, options)
