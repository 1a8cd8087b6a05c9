"""One autograd function for every loss: the gradient is computed with the loss, in closed form.

What it keeps for the backward pass is the logits, which exist anyway, and the gradient: one buffer
of their size. float16 keeps the logits alone and computes the gradient in the backward pass, when
the scale of a ``GradScaler`` is known: without it small probabilities would be flushed to zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from softhot.core.check import InputError
from softhot.kernels import chunked


class Loss(Protocol):
    """A loss that knows all of its arguments but the logits.

    Attributes:
        overwrite: whether the gradient may take the place of the logits. A loss that may say so is
            a dataclass.
    """

    @property
    def overwrite(self) -> bool: ...

    def evaluate(
        self, logits: Tensor, *, gradient: bool, upstream: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss; gradient, if asked for; and what the gradient has yet to be divided by, or None.

        The gradient is that of the reduced loss, of the summed one for ``reduction="none"``; with
        ``upstream`` it is multiplied by that and divided by nothing more.
        """

    def differentiable(self, logits: Tensor) -> Tensor:
        """The loss in operations that can be differentiated, to any order."""

    def beside_logits(self, upstream: Tensor) -> Tensor:
        """The gradient that reached the loss, in a shape that broadcasts to the logits."""


def apply(loss: Loss, logits: Tensor, *others: Any) -> Tensor:
    """The loss of ``logits``; ``others`` are all that else came with the call."""
    if is_traced(logits, *others):
        return loss.differentiable(logits)
    if not (logits.requires_grad and torch.is_grad_enabled()):
        return loss.evaluate(logits, gradient=False)[0]
    check_in_place(loss.overwrite, logits)
    return _ClosedForm.apply(logits, loss)


def check_in_place(overwrite: bool, logits: Tensor) -> None:
    """Refuse to overwrite what somebody keeps."""
    if overwrite and logits.is_leaf:
        hint = "Their memory is overwritten: leave it out for logits that are kept."
        raise InputError("inplace", "False for logits that no operation made", True, hint)


def is_traced(logits: Tensor, *others: Any) -> bool:
    """Whether the operations themselves are asked for: see :func:`softhot.kernels.choose`."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    graded = torch.is_grad_enabled()
    for other in others:
        if isinstance(other, Tensor) and ((graded and other.requires_grad) or is_wrapper(other)):
            return True
    return is_wrapper(logits)


def is_wrapper(tensor: Tensor) -> bool:
    """Whether it is a tensor that stands for others, such as a ``DTensor``."""
    if type(tensor) is Tensor:
        return False
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


class _ClosedForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: Loss) -> Tensor:
        late = _is_half(logits) and (logits.dtype == torch.float16 or logits.is_cuda)
        value, gradient, ctx.divisor = loss.evaluate(logits, gradient=not late)
        if gradient is not None and loss.overwrite and _is_over(gradient, logits):
            ctx.save_for_backward(None, taken(logits))
        else:
            ctx.save_for_backward(logits, gradient)
        ctx.loss = loss
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None]:
        logits, gradient = ctx.saved_tensors
        loss: Any = ctx.loss
        if torch.is_grad_enabled():  # create_graph=True: the gradient is to be differentiated
            if logits is None:
                raise InputError("inplace", "False where the gradient is differentiated", True)
            value = loss.differentiable(logits)
            return torch.autograd.grad(value, logits, upstream, create_graph=True)[0], None
        if ctx.divisor is not None:
            upstream = upstream / ctx.divisor
        if gradient is not None:
            return scaled(gradient, loss.beside_logits(upstream)), None
        if loss.overwrite and keeps_graph():
            loss = replace(loss, overwrite=False)
        gradient = loss.evaluate(logits, gradient=True, upstream=upstream)[1]
        return taken(logits) if loss.overwrite and _is_over(gradient, logits) else gradient, None


# Whether a backward pass is to leave what was saved for a second one; without it, it may be.
keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def _is_over(gradient: Tensor, logits: Tensor) -> bool:
    """Whether the gradient is where the logits were."""
    return gradient.data_ptr() == logits.data_ptr()


def taken(logits: Tensor) -> Tensor:
    """The memory of logits that are gone; autograd refuses whatever else has saved them."""
    torch.autograd.graph.increment_version(logits)
    return logits.data


def scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """``gradient * factor``, in place where nobody will ask for it again."""
    if keeps_graph():
        gradient = gradient.clone()
    if factor.ndim == 0 and factor.is_cpu and factor.item() == 1:
        return gradient
    if not _is_half(gradient) or not gradient.numel():
        return gradient.mul_(factor)
    # In half precision the product is taken in float32, part by part.
    for cut in slices(len(gradient), chunked.CPU_BLOCK * len(gradient) // gradient.numel()):
        by = factor[cut] if factor.ndim and len(factor) > 1 else factor
        gradient[cut] = gradient[cut].float().mul_(by)
    return gradient


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def wide(tensor: Tensor) -> torch.dtype:
    """The dtype that sums over ``tensor`` are taken in."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def slices(n: int, step: int) -> Iterator[slice]:
    """Slices of at most ``step``, and at least 1, that cover ``n``."""
    for i in range(0, n, max(step, 1)):
        yield slice(i, i + max(step, 1))


def no_autocast(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Arithmetic in the dtypes it is written in."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


def check_once(label_smoothing: float) -> None:
    """Refuse a strength beside a rule."""
    if label_smoothing != 0:
        hint = "Smoothing is given twice: keep the rule."
        raise InputError("label_smoothing", "left out beside a rule", label_smoothing, hint)
