"""Tensors through the native kernel: from the arguments of a call to addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softhot.core.weights import PerClass, PerSample
from softhot.kernels import buffers, native

if TYPE_CHECKING:
    from softhot.torch.categorical import Categorical

NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
PLAIN = (Tensor, torch.nn.Parameter)
_ONE = torch.empty((), dtype=torch.float32)


class Overwritten(Exception):
    """The logits are lost, and their gradient is not there."""


def evaluate(
    loss: Categorical, logits: Tensor, *, gradient: bool, upstream: Tensor | None
) -> tuple[Tensor, Tensor | None, Any] | None:
    """What :meth:`Categorical.evaluate` returns, or None where other ways have to be taken.

    For ``reduction="none"`` the gradient is left to the backward pass, which knows its factors.
    """
    options, target = loss.options, loss.target
    n, k = logits.shape
    given = _given(loss, n, k)
    if given is None:
        return None
    reduction = loss.reduction
    if upstream is not None:
        reduction = "none" if reduction == "none" else "sum"
        given["scale"] = upstream.float().expand(n).contiguous()
    elif reduction == "none":
        gradient = False
    # As a copy of something it takes half the time.
    value = torch.empty(n, dtype=torch.float32) if reduction == "none" else torch.empty_like(_ONE)
    slopes = divisor = None
    if gradient:
        slopes = logits if loss.overwrite else _slopes(logits)
    elif reduction == "mean":
        divisor = torch.empty((), dtype=torch.float64)
    labels, table = target.contiguous(), native.prior(loss.rule, k)
    addresses: dict[str, Any] = given
    if len(given) > 1 or type(given["alpha"]) is not float:
        addresses = {k: v if type(v) is float else v.data_ptr() for k, v in given.items()}
    done = native.run(
        loss.rule,
        dtype=NAMES[logits.dtype],
        logits=logits.data_ptr(),
        labels=labels.data_ptr(),
        shape=(n, k),
        stride=logits.stride(0),
        loss=value.data_ptr(),
        gradient=0 if slopes is None else slopes.data_ptr(),
        normalizer=0 if divisor is None else divisor.data_ptr(),
        prior=0 if table is None else table.ctypes.data,
        ignore_index=options["ignore_index"],
        weighting=options["weighting"],
        reduction=reduction,
        pool=native.any_pool(),
        threads=torch.get_num_threads(),
        lenient=True,
        **addresses,
    )
    if done:
        return value, slopes, divisor
    if slopes is logits and not native.in_place(loss.rule):
        raise Overwritten
    return None


def is_laid_out(logits: Tensor, target: Tensor) -> bool:
    """Whether the kernel can read them where they are."""
    if not (_is_plain(logits, 2) and _is_plain(target, 1)):
        return False
    if target.dtype != torch.int64 or logits.dtype not in NAMES or torch._C._is_tracing():
        return False
    (n, k), (stride, step) = logits.shape, logits.stride()
    return step == 1 and (stride >= k or n == 1) and 2 <= k < 2**31 and (n,) == target.shape != (0,)


def _is_plain(tensor: Tensor, ndim: int) -> bool:
    """Whether it is numbers in the processor's memory, and nothing that stands for them."""
    if type(tensor) not in PLAIN or tensor.ndim != ndim or not tensor.is_cpu:
        return False
    return tensor.layout is torch.strided and not tensor.is_neg()


def _given(loss: Categorical, n: int, k: int) -> dict[str, Any] | None:
    """Shares, weights and masks as the kernel takes them; None if anything is out of order."""
    options = loss.options
    if options["allowed"] is not None or options["prior"] is not None:
        return None
    if type(options["ignore_index"]) not in (int, type(None)):
        return None
    given: dict[str, Any] = {}
    where, weight, weighting = options["where"], options["weight"], options["weighting"]
    if where is not None:
        if not _is_plain(where, 1) or where.dtype != torch.bool or len(where) != n:
            return None
        given["counted"] = where.contiguous()
    alpha = _alpha(loss, n, k)
    if alpha is None:
        return None
    given["alpha"] = alpha
    if weight is None:
        return given if weighting == "sample" else None
    if not _is_plain(weight, 1) or not weight.is_floating_point() or len(weight) != k:
        return None
    least, most = weight.aminmax()
    if not 0 <= least <= most < float("inf"):
        return None
    if weighting not in ("sample", "class"):
        return None
    if weighting == "class" and not _keeps_the_optimum(loss, weight, alpha, k):
        return None  # the core warns
    given["weight"] = weight.float().contiguous()
    return given


def _alpha(loss: Categorical, n: int, k: int) -> Any:
    """A number, or float32 ``(N,)``."""
    base, given = loss.rule.base, loss.options["alpha"]
    if isinstance(base.alpha, PerSample):
        allowed: Any = base.RANGES["alpha"]
        if given is None or not _is_plain(given, 1) or not given.is_floating_point():
            return None
        if len(given) != n or not all(float(extreme) in allowed for extreme in given.aminmax()):
            return None
        mixed = base.mixing(given.double(), k)
    elif given is not None:
        return None
    elif isinstance(base.alpha, PerClass):
        if len(base.alpha.values) != k:
            return None
        table = torch.tensor(base.alpha.values, dtype=torch.float64)
        mixed = base.mixing(table, k)[loss.target.clamp(0, k - 1)]
    else:
        return native.share(loss.rule, k)
    return mixed.float() if base.mixing(0.5, k) == 0.5 or bool((mixed < 1).all()) else None


def _keeps_the_optimum(loss: Categorical, weight: Tensor, alpha: Any, k: int) -> bool:
    """Whether class weights in the target leave every true class on top, seen at a glance."""
    if isinstance(alpha, Tensor) or loss.rule.base.PRIOR != "uniform":
        return False
    others = alpha / k
    return bool((weight.max() * others < weight.min() * (1 - alpha + others)).item())


def _slopes(logits: Tensor) -> Tensor:
    size = logits.nbytes
    if size < buffers.SMALLEST:
        return torch.empty_like(logits, memory_format=torch.contiguous_format)
    return torch.frombuffer(buffers.lend(size), dtype=logits.dtype).view(logits.shape)
