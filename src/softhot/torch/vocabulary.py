r"""Cross entropy of logits whose classes are spread over processes (vocabulary parallel).

Each process holds the logits of its own classes, for all rows. For every row it brings its maximum
:math:`m_r` and the sums that the rule asks for, of its logits less that. One small collective
gathers these, and every process merges them alike. With :math:`m = \max_r m_r`:

.. math:: \sum e^{z - m} = \sum_r e^{m_r - m} \sum_{k \in r} e^{z_k - m_r}, \qquad
          \sum (z - m) = \sum_r \sum_{k \in r} (z_k - m_r) + K_r (m_r - m)

The gradient of a process's own logits then needs nothing from the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import array_api_compat.numpy as np_compat
import array_api_compat.torch as xp
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from softhot.core.check import InputError, Interval
from softhot.core.losses import REDUCTION
from softhot.core.row import Row
from softhot.core.rule import Rule
from softhot.core.targets import Target, _alpha, _prior, check_labels
from softhot.kernels.chunked import may_hold_minus_inf
from softhot.torch import gpu
from softhot.torch.categorical import Categorical, rule_of
from softhot.torch.closed_form import apply, is_traced, wide
from softhot.torch.words import in_torch_words

COUNT = Interval(0, math.inf, "[)", integer=True)


def vocab_parallel_cross_entropy(
    input: Tensor,
    target: Tensor,
    rule: Rule | None = None,
    *,
    label_smoothing: float = 0.0,
    group: dist.ProcessGroup | None = None,
    classes: Sequence[int] | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    where: Tensor | None = None,
    alpha: Tensor | None = None,
    prior: Tensor | None = None,
) -> Tensor:
    """:func:`softhot.torch.cross_entropy` of logits whose classes are spread over processes.

    Equal to the dense loss of the concatenated logits, on every process, for any number of
    processes and uneven shards, which may be empty. Called, and differentiated, by all processes
    of the group together.

    Args:
        input: this process's logits, ``(N, C_r)`` or ``(N, C_r, d1, ...)``; the classes of the
            first process of the group come first.
        target: ids among all C classes, ``(N)`` or ``(N, d1, ...)``; the same on every process.
        rule: a rule whose statistics are maxima and sums over classes, which are all but
            :class:`softhot.Margin`; or give
        label_smoothing: alpha of :class:`softhot.Uniform`.
        group: the processes; all if None.
        classes: how many classes each process holds; asked of the others if None, which costs a
            second collective and, on a GPU, waiting for it.
        weight, ignore_index, reduction, where: as for the dense loss. ``weight`` has all C classes
            and multiplies the loss of a row by the weight of its label.
        alpha, prior: as for the dense loss; ``prior`` has all C classes.

    Returns:
        float32, or float64 for float64 logits; the same on every process.

    Raises:
        InputError: naming argument, rule, value and next step.
    """
    rule = rule_of(rule, label_smoothing)
    reduction = REDUCTION.check("reduction", reduction)
    if target.ndim == input.ndim or target.is_floating_point():
        raise InputError("target", "class ids", f"a {target.dtype} tensor like input")
    own = _own(input)
    counts = agreed(rule, classes, own, input.device, group)
    options = {"where": where, "ignore_index": ignore_index, "alpha": alpha, "prior": prior}
    loss = Shards(target, rule, reduction, counts, group, weight, options)
    others = (target, weight, where, alpha, prior)
    try:
        if input.requires_grad and torch.is_grad_enabled() and not is_traced(input, *others):
            planned = gpu.apply(loss, input, loss.on_gpu(input), loss.gathered)
            if planned is not None:
                return planned
        return apply(loss, input, *others)
    except InputError as error:
        raise in_torch_words(error) from None


def agreed(
    rule: Rule,
    classes: Sequence[int] | None,
    own: int,
    device: torch.device,
    group: dist.ProcessGroup | None,
) -> tuple[int, ...]:
    """How many classes each process holds, for a rule that can be computed from shards."""
    if any(isinstance(name, tuple) for name in _needed(rule)):
        raise InputError("rule", "one whose statistics are maxima and sums over classes", rule)
    if classes is None:
        classes = _classes(own, device, group)
    if len(classes) != dist.get_world_size(group) or classes[dist.get_rank(group)] != own:
        allowed = f"one number for each process, {own} for this one"
        raise InputError("classes", allowed, list(classes))
    for i, count in enumerate(classes):
        COUNT.check(f"classes[{i}]", count)
    return tuple(classes)


def _needed(rule: Rule) -> frozenset[Any]:
    """The names of the statistics the rule asks for."""
    parts: tuple[Any, ...] = (rule.base, *rule.penalties)
    return frozenset(name for part in parts for name in part.terms(_small_row())[1])


@dataclass(frozen=True)
class Shards:
    """A :class:`softhot.torch.closed_form.Loss`: all of a call but the logits."""

    target: Tensor
    rule: Rule
    reduction: str
    classes: tuple[int, ...]
    group: dist.ProcessGroup | None
    weight: Tensor | None
    options: dict[str, Any]
    overwrite: bool = False

    def evaluate(
        self, logits: Tensor, *, gradient: bool, upstream: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Any]:
        known = self.on_gpu(logits)
        if known is not None:
            return gpu.evaluate_rows(self, known, logits, gradient, upstream, self.gathered)
        row, counted, weight = self._row(logits)
        terms: tuple[Any, ...] = (self.rule.base, *self.rule.penalties)
        parts = [term.terms(row) for term in terms]
        rows = sum(value for value, _ in parts)
        rows = rows if weight is None else rows * weight
        rows = rows if counted is None else rows.where(counted, 0)
        normalizer = None
        if self.reduction == "mean":
            weights = torch.ones_like(rows) if weight is None else weight
            total = (weights if counted is None else weights.where(counted, 0)).sum()
            normalizer = total.where(total > 0, 1)
        slope = None
        if gradient:
            partials: dict[str, Any] = {}
            for _, more in parts:
                for name, value in more.items():
                    partials[name] = partials.get(name, 0) + value
            slope = row.gradient(partials)
            if weight is not None:
                slope.mul_(weight.unsqueeze(-1))
            if counted is not None:
                slope.masked_fill_(~counted.unsqueeze(-1), 0)
            if upstream is not None:
                slope.mul_(upstream.unsqueeze(-1) if upstream.ndim else upstream)
            slope = slope.to(logits.dtype).movedim(-1, 1)
        if self.reduction != "none":
            rows = rows.sum() if normalizer is None else rows.sum() / normalizer
        return rows, slope, normalizer

    def differentiable(self, logits: Tensor) -> Tensor:
        allowed = "differentiated once, by backward()"
        hint = "For more, gather the logits and use softhot.torch.cross_entropy."
        raise InputError("input", allowed, "torch.func, create_graph or the like", hint)

    def beside_logits(self, upstream: Tensor) -> Tensor:
        return upstream.unsqueeze(1) if upstream.ndim else upstream

    def on_gpu(self, logits: Tensor) -> Any:
        """The rows for the Triton kernels, or None; the same on every process."""
        if min(self.classes) < 2 or not gpu.is_laid_out(logits, self.target):
            return None
        options = {"axis": 1, "allowed": None, "weight": self.weight, "weighting": "sample"}
        whole = Categorical(self.target, self.rule, self.reduction, {**options, **self.options})
        first = sum(self.classes[: dist.get_rank(self.group)])
        return gpu.rows_of(whole, logits, first, sum(self.classes))

    def gathered(self, parts: Tensor) -> Tensor:
        """The parts of all processes one after the other."""
        found = [torch.empty_like(parts) for _ in self.classes]
        dist.all_gather(found, parts, group=self.group)
        return torch.cat(found)

    def _row(self, logits: Tensor) -> tuple[ShardedRow, Tensor | None, Tensor | None]:
        """Statistics of all rows, which of them count, and what they weigh."""
        k, rank = sum(self.classes), dist.get_rank(self.group)
        first, own = sum(self.classes[:rank]), self.classes[rank]
        look, dtype = logits.device.type == "cpu", wide(logits)
        z, base = logits.movedim(1, -1), self.rule.base
        if self.target.shape != z.shape[:-1]:
            raise InputError("target", f"of shape {tuple(z.shape[:-1])}", tuple(self.target.shape))
        counted, ignore = self.options["where"], self.options["ignore_index"]
        if ignore is not None:
            kept = self.target.long() != ignore
            counted = kept if counted is None else counted & kept
        labels = check_labels(xp, self.target, k, soft=False, counted=counted, validate=look)
        alpha, _ = _alpha(xp, labels, base, k, self.options["alpha"], dtype, counted, look)
        prior = self.options["prior"]
        if prior is not None and base.PRIOR == "by_row":
            prior = prior.movedim(1, -1)
        u = _prior(xp, labels, base, k, prior, dtype, counted, look)
        if u is not None:
            u = u[..., first : first + own]
            u = u[labels] if base.PRIOR == "by_class" else u
        weight = self.weight
        if weight is not None:
            if weight.shape != (k,):
                raise InputError("weight", f"of shape ({k},), all classes", tuple(weight.shape))
            weight = weight.to(dtype)[labels]
        if counted is not None:
            z = z.where(counted.unsqueeze(-1), 0)
        row = ShardedRow(z.to(dtype, copy=True), labels - first, u, _needed(self.rule), self.group)
        row.alpha = base.mixing(alpha, row.count.clamp(min=2))
        row.keep = 1 - row.alpha
        return row, counted, weight


class ShardedRow:
    """The statistics of :class:`softhot.core.row.Row`, from the shards of all processes.

    Args:
        z: own logits, classes last; overwritten.
        label: where the label is among the own classes; elsewhere it is out of range.
        prior: own part of ``u``, or None if uniform.
        needed: the names of the statistics the rule asks for.
    """

    xp = xp
    mass = 1.0
    alpha: Any
    keep: Any
    linear, squared_lse = Row.linear, Row.squared_lse

    def __init__(
        self, z: Tensor, label: Tensor, prior: Tensor | None, needed: frozenset[Any], group: Any
    ) -> None:
        self.own, self.prior_of_class, rank = z.shape[-1], prior, dist.get_rank(group)
        if not self.own:  # a shard without classes is one whose only class is masked
            z = z.new_full((*z.shape[:-1], 1), -math.inf)
            self.prior_of_class = None if prior is None else z.new_zeros(1)
        is_own = (label >= 0) & (label < self.own)
        self.is_own, self.label = is_own, label.where(is_own, 0).unsqueeze(-1)
        self.first_peak: Any
        self.z: Any
        top, self.first_peak = z.max(-1) if "max" in needed else (z.amax(-1), None)
        z.sub_(top.where(top != -math.inf, 0).unsqueeze(-1))
        sums = {"top": top, "is_own": is_own.to(z.dtype), "total": z.sum(-1)}
        sums["true"] = z.gather(-1, self.label).squeeze(-1).where(is_own, 0)
        self.finite = None
        if may_hold_minus_inf(sums["total"]):
            self.finite = z != -math.inf
            sums["total"] = z.where(self.finite, 0).sum(-1)
        count = torch.full_like(top, z.shape[-1]) if self.finite is None else self.finite.sum(-1)
        sums["count"] = count.to(z.dtype)
        if self.prior_of_class is not None:
            u = self.prior_of_class
            u = u.expand(z.shape) if self.finite is None else u.where(self.finite, 0)
            sums["mass"] = u.sum(-1)
            sums["prior"] = (u * z).where(u > 0, 0).sum(-1)
        self.z, exp = (z, z.exp()) if "expected" in needed else (None, z.exp_())
        if self.z is not None:
            sums["expected"] = (exp * z).where(exp > 0, 0).sum(-1)
        at_label = exp.gather(-1, self.label)
        exp.scatter_(-1, self.label, at_label.where(~is_own.unsqueeze(-1), 0))
        sums["rest"] = exp.sum(-1)
        self.exp = exp.scatter_(-1, self.label, at_label)

        packed = torch.stack(list(sums.values()))
        gathered = [torch.empty_like(packed) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, packed, group=group)
        self.parts = dict(zip(sums, torch.stack(gathered, dim=1), strict=True))
        tops = self.parts["top"]
        self.top = highest = tops.amax(0)
        # How much lower each process's maximum is. One without a class that counts adds only zeros.
        self.lower = (tops - highest).where(tops != -math.inf, 0)
        self.own_lower = self.lower[rank]
        self.has_peak = (tops == highest).to(torch.int8).argmax(0) == rank

    def _summed(self, name: str, by: Tensor) -> Tensor:
        """A sum over all classes of what is ``name`` less the own maximum, and ``by`` without."""
        return (self.parts[name] + by * self.lower).sum(0)

    @cached_property
    def count(self) -> Tensor:
        """How many classes are allowed."""
        return self.parts["count"].sum(0)

    @cached_property
    def true(self) -> Tensor:
        return self._summed("true", self.parts["is_own"])

    @cached_property
    def more(self) -> Tensor:
        """The sum of exponentials, less 1."""
        rest = (self.parts["rest"] * self.lower.exp()).sum(0)
        return rest + torch.expm1(self.true)

    @cached_property
    def lse(self) -> Tensor:
        return self.more.log1p()

    @cached_property
    def mean(self) -> Tensor:
        return self._summed("total", self.parts["count"]) / self.count

    @cached_property
    def prior(self) -> Tensor:
        if self.prior_of_class is None:
            return self.mean
        return self._summed("prior", self.parts["mass"]) / self.parts["mass"].sum(0)

    @cached_property
    def max(self) -> Tensor:
        return torch.zeros_like(self.more)

    @cached_property
    def expected(self) -> Tensor:
        parts = self.parts
        mass = parts["rest"] + parts["is_own"] * parts["true"].exp()
        total = (parts["expected"] + mass * self.lower) * self.lower.exp()
        return total.sum(0) / (1 + self.more)

    def gradient(self, partials: dict[str, Any]) -> Tensor:
        """The gradient by own logit from the partial derivatives by statistic."""
        share = {name: self._column(value) for name, value in partials.items()}
        probs = self.exp.mul_(self._column(self.own_lower.exp() / (1 + self.more)))
        slope = probs
        if self.z is None:
            slope.mul_(share["lse"])
        else:
            by_logit = self.z.add_(self._column(1 + self.own_lower - self.expected))
            slope.mul_(by_logit.mul_(share["expected"]).add_(share.get("lse", 0)))
        even = share.get("mean", 0)
        if self.prior_of_class is None:
            even = even + share.get("prior", 0)
        elif "prior" in share:
            mass = self._column(self.parts["mass"].sum(0))
            slope.addcmul_(share["prior"] / mass, self.prior_of_class)
        slope.add_(even / self._column(self.count))
        if "max" in share:
            at_peak = share["max"] * self._column(self.has_peak)
            slope.scatter_add_(-1, self.first_peak.unsqueeze(-1), at_peak)
        if "true" in share:
            slope.scatter_add_(-1, self.label, share["true"] * self._column(self.is_own))
        if self.finite is not None:
            slope.masked_fill_(~self.finite, 0)
        return slope[..., : self.own]

    def _column(self, value: Any) -> Tensor:
        """A number, or one a row, as a column."""
        value = torch.as_tensor(value, dtype=self.exp.dtype, device=self.exp.device)
        return value.expand(self.exp.shape[:-1]).unsqueeze(-1)


def _small_row() -> Row:
    """Any row at all: on it a rule shows which statistics it asks for."""
    target = Target(np.zeros(1, dtype=np.int64), 0.0, None, 2, None, np_compat)
    return Row(np.zeros((1, 2)), target, None)


def _own(input: Tensor) -> int:
    if input.ndim < 2:
        raise InputError("input", "of shape (N, C_r) or (N, C_r, d1, ...)", tuple(input.shape))
    return input.shape[1]


def _classes(own: int, device: torch.device, group: dist.ProcessGroup | None) -> list[int]:
    """How many classes every process holds."""
    mine = torch.tensor([own], device=device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, mine, group=group)
    return [int(count) for count in counts]
