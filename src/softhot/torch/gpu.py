"""Tensors on a GPU through the Triton kernels: from the arguments of a call to a plan.

The forward pass reads the logits once and keeps, beside them, seven numbers a row; the backward
pass reads them once more and writes the gradient, for whatever reached the loss. Nothing waits for
the device, and everything can be captured in a CUDA graph.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from softhot.core.check import InputError
from softhot.core.rule import Base
from softhot.core.weights import PerClass, PerSample
from softhot.kernels import native, triton
from softhot.torch.closed_form import check_in_place, keeps_graph, taken

if TYPE_CHECKING:
    from softhot.kernels.triton.launch import Rows
    from softhot.torch.categorical import Categorical

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PLAIN = (Tensor, torch.nn.Parameter)
IDS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
KINDS = {"uniform": 0, "shared": 1, "by_class": 2}
WEIGHTS = {"sample": 1, "class": 2}


class Reduced(Protocol):
    """What is asked of a loss here."""

    @property
    def reduction(self) -> str: ...
    @property
    def overwrite(self) -> bool: ...


Gather = Callable[[Tensor], Tensor]


def is_laid_out(logits: Tensor, target: Tensor) -> bool:
    """Whether the kernels can read them where they are."""
    if triton.reason(logits.device.type):
        return False
    if not (type(logits) in PLAIN and logits.ndim == 2 and logits.dtype in DTYPES):
        return False
    (n, k), (stride, step) = logits.shape, logits.stride()
    rows = step == 1 and (stride >= k or n == 1) and k >= 2 and n == target.numel() > 0
    return rows and type(target) in PLAIN and target.ndim == 1 and target.dtype in IDS


def rows_of(
    loss: Categorical, logits: Tensor, first: int = 0, classes: int | None = None
) -> Rows | None:
    """The batch as the kernels take it, or None where other ways have to be taken.

    Of all ``classes`` the logits may be those from ``first`` on.
    """
    from softhot.kernels.triton.launch import Rows

    options, base, k = loss.options, loss.rule.base, classes or logits.shape[1]
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
        first=first,
    )


def total(loss: Reduced, rows: Rows) -> Tensor | None:
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
    return None if rows is None else evaluate_rows(loss, rows, logits, gradient, upstream)


def evaluate_rows(
    loss: Reduced,
    rows: Rows,
    logits: Tensor,
    gradient: bool,
    upstream: Tensor | None,
    gather: Gather | None = None,
) -> tuple[Tensor, Tensor | None, Any]:
    """Loss, gradient and divisor; ``gather`` brings together what all processes have."""
    from softhot.kernels.triton import launch

    divisor, slopes = total(loss, rows), None
    by, over = upstream, None
    if by is None:
        by, over = torch.ones((), device=logits.device), divisor
    if gradient and loss.overwrite and gather is None:
        values, slopes = launch.in_place(logits, rows, by, over)
    else:
        values, plan = _forward(logits, rows, gather)
        if gradient:
            out = logits if loss.overwrite else None
            slopes = launch.gradient(logits, rows, plan, by, over, out)
    return _reduced(loss, values, divisor), slopes, None if gradient else divisor


def apply(loss: Any, logits: Tensor, rows: Rows | None, gather: Gather | None = None) -> Any:
    """The loss, its backward pass from the plan of the forward; None if others have to do it."""
    if rows is None:
        return None
    check_in_place(loss.overwrite, logits)
    return _Planned.apply(logits, loss, rows, gather)


def _forward(logits: Tensor, rows: Rows, gather: Gather | None) -> tuple[Tensor, Tensor]:
    from softhot.kernels.triton import launch

    if gather is None:
        return launch.forward(logits, rows)
    return launch.finish(gather(launch.statistics(logits, rows)), rows)


class _Planned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: Any, rows: Rows, gather: Gather | None) -> Tensor:
        from softhot.kernels.triton import launch

        divisor = total(loss, rows)
        ctx.loss, ctx.rows = loss, rows
        # What comes later: factors by row, and the one that keeps float16 from underflowing.
        late = gather is not None or loss.reduction == "none" or logits.dtype == torch.float16
        if loss.overwrite and not late:
            ones = torch.ones((), device=logits.device)
            values, _ = launch.in_place(logits, rows, ones, divisor)
            ctx.save_for_backward(None, taken(logits), None)
        else:
            values, plan = _forward(logits, rows, gather)
            ctx.save_for_backward(logits, plan, divisor)
        return _reduced(loss, values, divisor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        from softhot.kernels.triton import launch

        logits, plan, divisor = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient is to be differentiated
            if logits is None:
                raise InputError("inplace", "False where the gradient is differentiated", True)
            value = ctx.loss.differentiable(logits)
            slopes = torch.autograd.grad(value, logits, upstream, create_graph=True)[0]
        elif logits is None:
            slopes = launch.scale(plan.clone() if keeps_graph() else plan, upstream)
        else:
            over = ctx.loss.overwrite and not keeps_graph()
            out = taken(logits) if over else None
            slopes = launch.gradient(logits, ctx.rows, plan, upstream, divisor, out)
        return slopes, None, None, None


def _reduced(loss: Reduced, rows: Tensor, divisor: Tensor | None) -> Tensor:
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
