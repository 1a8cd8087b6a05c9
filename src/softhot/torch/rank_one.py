r"""Smoothing for fused kernels that only know hard labels.

The uniform part of a smoothed loss is linear in the logits, and these are linear in the hidden
states, so with :math:`\bar W = \sum_k u_k W_k` and :math:`\bar b = \sum_k u_k b_k`

.. math:: L_{smoothed} = L_{hard} + \alpha\, h \cdot (W_y - \bar W) + \alpha\,(b_y - \bar b)

exactly: a row of ``weight`` for every label and one product of a matrix and a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softhot.core.check import InputError
from softhot.core.losses import REDUCTION
from softhot.core.rule import Base, Rule
from softhot.core.weights import PerClass, PerSample
from softhot.torch import gpu
from softhot.torch.categorical import rule_of
from softhot.torch.closed_form import keeps_graph, slices, wide

Kernel = Callable[..., Tensor]
BAND = 2**24  # elements that are taken to float32 at a time


def with_smoothing(
    kernel: Kernel, *, ignore_index: int = -100, reduction: str = "mean"
) -> Callable[..., Tensor]:
    """Label smoothing for any fused linear cross entropy that only knows hard labels.

    Args:
        kernel: called as ``kernel(hidden, weight, labels, bias)`` with ``(N, H)``, ``(C, H)``,
            ``(N)`` and ``(C)`` or None, such as a call of Liger's, Apple's cut-cross-entropy's or
            QuACK's; differentiable in all but the labels.
        ignore_index: the id of rows that ``kernel`` leaves out.
        reduction: what ``kernel`` returns: ``"mean"`` over the rows that count, ``"sum"`` or
            ``"none"``.

    Returns:
        A function of ``(hidden, weight, labels, bias=None, rule=None, *, label_smoothing=0.0,
        alpha=None)``: the loss under :class:`softhot.Uniform`, :class:`softhot.Others` or
        :class:`softhot.Prior`; ``alpha`` comes with rules that say :class:`softhot.PerSample`.

    Raises:
        InputError: for other rules, when called.

    The kernel's own gradients are corrected in place, so no second one of the size of ``weight``
    is made. Once differentiable. On a GPU the rows of ``weight`` are added to in no fixed order;
    ``torch.use_deterministic_algorithms`` fixes it. Where the kernel itself can smooth, as
    :func:`softhot.torch.linear_cross_entropy` does, that is more precise in half precision: here
    what is added cancels against what was already rounded.

    >>> import torch
    >>> import torch.nn.functional as F
    >>> def hard(hidden, weight, labels, bias):
    ...     return F.cross_entropy(F.linear(hidden, weight, bias), labels)
    >>> hidden, weight = torch.eye(2), torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    >>> with_smoothing(hard)(hidden, weight, torch.tensor([0, 1]), label_smoothing=0.1)
    tensor(0.4556)
    """
    reduction = REDUCTION.check("reduction", reduction)

    def smoothed(
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        bias: Tensor | None = None,
        rule: Rule | None = None,
        *,
        label_smoothing: float = 0.0,
        alpha: Tensor | None = None,
    ) -> Tensor:
        base = _base(rule_of(rule, label_smoothing))
        plan = _Plan(kernel, labels, base, alpha, ignore_index, reduction)
        return _Smoothed.apply(hidden, weight, bias, plan)

    return smoothed


def _base(rule: Rule) -> Base:
    base = rule.base
    plain = type(base).terms is Base.terms and base.PRIOR in ("uniform", "shared")
    if rule.penalties or not plain:
        hint = "softhot.torch.linear_cross_entropy takes any rule."
        raise InputError("rule", "Uniform, Others or Prior, without penalties", rule, hint)
    return base


class _Plan:
    """What the correction is made of, but for the tensors that want gradients."""

    def __init__(
        self,
        kernel: Kernel,
        labels: Tensor,
        base: Base,
        alpha: Tensor | None,
        ignore_index: int,
        reduction: str,
    ) -> None:
        if isinstance(base.alpha, PerSample) and (alpha is None or alpha.shape != labels.shape):
            given = alpha if alpha is None else tuple(alpha.shape)
            raise InputError("alpha", f"one for each row, shape {tuple(labels.shape)}", given)
        if alpha is not None and not isinstance(base.alpha, PerSample):
            hint = f"Write {type(base).__name__}(PerSample()) to pass it with the batch."
            raise InputError("alpha", f"left out, since the rule says {base.alpha!r}", alpha, hint)
        self.kernel, self.labels, self.base, self.alpha = kernel, labels, base, alpha
        self.counted = labels != ignore_index
        self.ids = labels.long().where(self.counted, 0)
        self.reduction = reduction

    def prior(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """``u`` over the allowed classes, and how many these are."""
        k, dtype = len(weight), wide(weight)
        if self.base.PRIOR == "uniform":
            u = torch.ones(k, dtype=dtype, device=weight.device)
        else:
            u = gpu.table(self.base, "prior", k, weight.device, dtype)
        allowed = torch.ones_like(u) if bias is None else (bias != -torch.inf).to(dtype)
        u = u * allowed
        return u / u.sum(), allowed.sum()

    def shares(self, k: int, count: Tensor | float, dtype: torch.dtype) -> Tensor:
        """The mass of every row that goes to the prior; 0 where a row does not count."""
        alpha: Any = self.base.alpha
        if self.alpha is not None:
            alpha = self.alpha.to(dtype)
        elif isinstance(alpha, PerClass):
            if len(alpha.values) != k:
                raise InputError("alpha", f"{k} weights, one for each class", len(alpha.values))
            alpha = gpu.table(self.base, "alpha", k, self.labels.device, dtype)[self.ids]
        alpha = self.base.mixing(alpha, count)
        rows = torch.as_tensor(alpha, dtype=dtype, device=self.labels.device)
        return rows.expand(self.labels.shape).where(self.counted, 0)

    def divisor(self, dtype: torch.dtype) -> Any:
        return self.counted.sum(dtype=dtype).clamp(min=1) if self.reduction == "mean" else 1


class _Smoothed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:3]
        leaves = [
            None if x is None else x.detach().requires_grad_(w)
            for x, w in zip((hidden, weight, bias), wanted, strict=True)
        ]
        with torch.set_grad_enabled(any(wanted)):
            hard = plan.kernel(leaves[0], leaves[1], plan.labels, leaves[2])
        dtype, ids = wide(hidden), plan.ids
        u, count = plan.prior(weight, bias)
        share = plan.shares(len(weight), count, dtype)
        mean = _by_classes(u, weight)
        gap = torch.empty_like(share)
        for cut in slices(len(ids), max(1, BAND // hidden.shape[1])):
            gap[cut] = (hidden[cut].to(dtype) * (weight[ids[cut]].to(dtype) - mean)).sum(-1)
        if bias is not None:
            b = bias.to(dtype)
            at_label = b[ids]
            masked = at_label == -torch.inf  # the hard loss is inf already
            gap += at_label.where(~masked, 0) - (b.where(u > 0, 0) * u).sum()
        rows = (share * gap).where(plan.counted, 0)
        more = rows if plan.reduction == "none" else rows.sum() / plan.divisor(dtype)
        ctx.plan, ctx.hard, ctx.leaves = plan, hard, leaves
        ctx.save_for_backward(hidden, weight, u, share, mean)
        return hard.detach() + more

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, u, share, mean = ctx.saved_tensors
        plan, wanted, dtype = ctx.plan, ctx.needs_input_grad[:3], wide(hidden)
        again = keeps_graph()
        leaves = [x for x, w in zip(ctx.leaves, wanted, strict=True) if w]
        found = torch.autograd.grad(ctx.hard, leaves, upstream.to(ctx.hard), retain_graph=again)
        slopes = iter([g.clone() if again else g for g in found])
        dh, dw, db = (next(slopes) if w else None for w in wanted)
        factor = upstream.to(dtype) * share / plan.divisor(dtype)
        total = torch.zeros(hidden.shape[1], dtype=dtype, device=hidden.device)
        for cut in slices(len(factor), max(1, BAND // hidden.shape[1])):
            by, ids = factor[cut].unsqueeze(-1), plan.ids[cut]
            if dh is not None:
                dh[cut] += (by * (weight[ids].to(dtype) - mean)).to(dh.dtype)
            # 0 times what a row holds that doesn't count
            h = by * hidden[cut].to(dtype).where(plan.counted[cut].unsqueeze(-1), 0)
            total += h.sum(0)
            if dw is not None:
                dw.index_add_(0, ids, h.to(dw.dtype))
        if dw is not None:
            for band in slices(len(dw), max(1, BAND // dw.shape[1])):
                dw[band] -= (u[band].unsqueeze(-1) * total).to(dw.dtype)
        if db is not None:
            db.index_add_(0, plan.ids, factor.to(db.dtype))
            db -= (u * factor.sum()).to(db.dtype)
        return dh, dw, db, None


def _by_classes(u: Tensor, weight: Tensor) -> Tensor:
    """``u @ weight`` in float32 or wider."""
    if weight.dtype == u.dtype:
        return u @ weight
    total = torch.zeros(weight.shape[1], dtype=u.dtype, device=u.device)
    for band in slices(len(weight), max(1, BAND // weight.shape[1])):
        total += u[band] @ weight[band].to(u.dtype)
    return total
