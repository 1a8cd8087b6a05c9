"""Tensors on a GPU through the Triton kernels: from the arguments of a call to a plan.

The forward pass reads the logits once and keeps, beside them, seven numbers a row; the backward
pass reads them once more and writes the gradient, for whatever reached the loss. Nothing waits for
the device, and everything can be captured in a CUDA graph.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softhot.core.rule import Base
from softhot.core.weights import PerClass, PerSample
from softhot.kernels import native, triton

if TYPE_CHECKING:
    from softhot.kernels.triton.launch import Rows
    from softhot.torch.categorical import Categorical

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PLAIN = (Tensor, torch.nn.Parameter)
IDS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
KINDS = {"uniform": 0, "shared": 1, "by_class": 2}
WEIGHTS = {"sample": 1, "class": 2}


def is_laid_out(logits: Tensor, target: Tensor) -> bool:
    """Whether the kernels can read them where they are."""
    if triton.reason(logits.device.type):
        return False
    if not (type(logits) in PLAIN and logits.ndim == 2 and logits.dtype in DTYPES):
        return False
    (n, k), (stride, step) = logits.shape, logits.stride()
    rows = step == 1 and (stride >= k or n == 1) and k >= 2 and n == target.numel() > 0
    return rows and type(target) in PLAIN and target.ndim == 1 and target.dtype in IDS


def rows_of(loss: Categorical, logits: Tensor) -> Rows | None:
    """The batch as the kernels take it, or None where other ways have to be taken."""
    from softhot.kernels.triton.launch import Rows

    options, base, k = loss.options, loss.rule.base, logits.shape[1]
    if options["allowed"] is not None or options["prior"] is not None:
        return None
    if type(options["ignore_index"]) not in (int, type(None)):
        return None
    where, weight, weighting = options["where"], options["weight"], options["weighting"]
    labels = loss.target.long().contiguous()
    for mask, shape, kinds in ((where, (len(labels),), (torch.bool,)), (weight, (k,), None)):
        if mask is not None and not _fits(mask, logits, shape, kinds):
            return None
    share = _share(base, options["alpha"], labels, k)
    extra = native.coefficients(loss.rule.penalties)
    if share is None or extra is None or weighting not in WEIGHTS:
        return None
    if weight is None and weighting == "class":
        return None
    return Rows(
        labels=labels,
        counted=None if where is None else where.contiguous(),
        ignore=options["ignore_index"],
        share=share,
        others=type(base).mixing is not Base.mixing,
        extra=extra,
        prior=None if base.PRIOR == "uniform" else table(base, "prior", k, logits.device),
        prior_kind=KINDS[base.PRIOR],
        weight=None if weight is None else weight.detach().float().contiguous(),
        weight_kind=0 if weight is None else WEIGHTS[weighting],
        classes=k,
    )


def total(loss: Categorical, rows: Rows) -> Tensor | None:
    """What a mean is divided by, float32 ``()``."""
    if loss.reduction != "mean":
        return None
    counted = rows.counted
    if rows.ignore is not None:
        kept = rows.labels != rows.ignore
        counted = kept if counted is None else counted & kept
    if rows.weight is not None:
        of_row = rows.weight[rows.labels.clamp(0, rows.classes - 1)]
        found = (of_row if counted is None else of_row.where(counted, 0)).sum()
    elif counted is None:
        size = float(len(rows.labels))
        return torch.full((), size, dtype=torch.float32, device=rows.labels.device)
    else:
        found = counted.sum(dtype=torch.float32)
    return found.where(found > 0, 1)


def evaluate(
    loss: Categorical, logits: Tensor, *, gradient: bool, upstream: Tensor | None
) -> tuple[Tensor, Tensor | None, Any] | None:
    """What :meth:`Categorical.evaluate` returns, or None where other ways have to be taken."""
    rows = rows_of(loss, logits)
    if rows is None:
        return None
    from softhot.kernels.triton import launch

    divisor = total(loss, rows)
    slopes = None
    if gradient:
        by, over = upstream, None
        if by is None:
            by, over = torch.ones((), device=logits.device), divisor
        if loss.overwrite:
            values, slopes = launch.in_place(logits, rows, by, over)
        else:
            values, plan = launch.forward(logits, rows)
            slopes = launch.gradient(logits, rows, plan, by, over)
    else:
        values, _ = launch.forward(logits, rows)
    return _reduced(loss, values, divisor), slopes, None if gradient else divisor


def apply(loss: Categorical, logits: Tensor) -> Tensor | None:
    """The loss, its backward pass from the plan of the forward; None if others have to do it."""
    rows = rows_of(loss, logits)
    return None if rows is None else _Planned.apply(logits, loss, rows)


class _Planned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: Categorical, rows: Rows) -> Tensor:
        from softhot.kernels.triton import launch

        divisor = total(loss, rows)
        values, plan = launch.forward(logits, rows)
        ctx.save_for_backward(logits, plan, divisor)
        ctx.loss, ctx.rows = loss, rows
        return _reduced(loss, values, divisor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        from softhot.kernels.triton import launch

        logits, plan, divisor = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient is to be differentiated
            value = ctx.loss.differentiable(logits)
            return torch.autograd.grad(value, logits, upstream, create_graph=True)[0], None, None
        return launch.gradient(logits, ctx.rows, plan, upstream, divisor), None, None


def _reduced(loss: Categorical, rows: Tensor, divisor: Tensor | None) -> Tensor:
    if loss.reduction == "none":
        return rows
    return rows.sum() if divisor is None else rows.sum() / divisor


def _share(base: Base, given: Any, labels: Tensor, k: int) -> Any:
    """The strength of the rule in its own convention: a number, or float32 ``(N,)``."""
    alpha: Any = base.alpha
    if isinstance(alpha, PerSample):
        if given is None or given.shape != labels.shape or not given.is_floating_point():
            return None
        return given.detach().float().contiguous()
    if given is not None or type(base).terms is not Base.terms or base.FROM_BATCH:
        return None
    if isinstance(alpha, PerClass):
        if len(alpha.values) != k or not base.mixing(max(alpha.values), k) < 1:
            return None
        return table(base, "alpha", k, labels.device)[labels.clamp(0, k - 1)]
    fits = type(base).mixing is Base.mixing or base.mixing(alpha, k) < 1
    return alpha if fits else None


def _fits(value: Any, logits: Tensor, shape: tuple[int, ...], kinds: Any) -> bool:
    if type(value) not in PLAIN or value.device != logits.device or value.shape != shape:
        return False
    return value.dtype in kinds if kinds else value.is_floating_point()


# Copies of a rule's own arrays on devices, so that no call has to wait for one.
_TABLES: dict[tuple[Any, ...], Tensor] = {}


def table(
    base: Base, name: str, k: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The prior of a rule, or its weights by class, on a device."""
    key = (id(base), name, k, device, dtype)
    if key not in _TABLES:
        alpha: Any = base.alpha
        values = base.prior(k) if name == "prior" else alpha.values
        _TABLES[key] = torch.as_tensor(values, dtype=dtype).to(device)
        weakref.finalize(base, _TABLES.pop, key, None)
    return _TABLES[key]
