r"""Uniform smoothing in plain PyTorch: loss and gradient of every row in one pass, block by block.

For class ids and a uniform prior three statistics of a row are enough. With :math:`s` the
logits less their maximum, :math:`R = \sum_{k \ne y} e^{s_k}` and :math:`S = R + e^{s_y}`:

.. math:: L = \log S - (1 - \alpha) s_y - \alpha\,\bar s, \qquad
          g_k = e^{s_k} / S - \alpha / K, \qquad g_y = \alpha - \alpha / K - R / S

No term of the loss is negative, and :math:`R` leaves the true class out, so nothing cancels however
confident the prediction. A block is exponentiated in place, where its gradient is to be, while it
is in the cache: the gradient is the one buffer of the size of the logits. Half precision is taken
to float32 block by block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Elements a block holds: 1 MB of float32 on a CPU; on other devices enough to keep them busy.
CPU_BLOCK, DEVICE_BLOCK = 2**18, 2**26


def loss_and_gradient(
    logits: Tensor,
    labels: Tensor,
    alpha: float | Tensor,
    mixing: Callable[[Any, Any], Any],
    *,
    scale: float | Tensor = 1.0,
    counted: Tensor | None = None,
    gradient: bool = True,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The loss of every row, and the gradient of their sum, row by row times ``scale``.

    Args:
        logits: ``(..., K)``, the class axis last, any strides. -inf is a class that is not allowed.
        labels: ``(...)`` int64 in 0 .. K - 1.
        alpha: a number or ``(...)``.
        mixing: from ``alpha`` and K to the weight of the uniform part, see
            :meth:`softhot.core.rule.Base.mixing`.
        scale: a number or ``(...)``; enters the gradient only.
        counted: ``(...)`` booleans: other rows get loss 0 and gradient 0, whatever they hold.
        gradient: False leaves it out.
        overwrite: whether it takes the place of the logits.

    Returns:
        Loss ``(...)``, float32 or float64, and gradient of the shape and dtype of ``logits``.
    """
    shape, k = logits.shape, logits.shape[-1]
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    size = CPU_BLOCK if logits.device.type == "cpu" else DEVICE_BLOCK
    if logits.numel() <= size:
        out = _place(logits, gradient, overwrite)
        return _block(logits, labels, alpha, scale, counted, mixing, out, wide), out
    z = logits.flatten(1, -2) if logits.ndim > 2 else logits.reshape(1, -1, k)
    grid = z.shape[:2]
    loss = torch.empty(grid, dtype=wide, device=z.device)
    out = _place(z, gradient, overwrite)
    y = labels.reshape(grid)
    by_row: list[Any] = [
        value.reshape(grid) if isinstance(value, Tensor) and value.ndim else value
        for value in (alpha, scale, counted)
    ]
    for block in _blocks(grid[0], grid[1], k, size):
        a, by, here = (v[block] if isinstance(v, Tensor) and v.ndim else v for v in by_row)
        into = None if out is None else out[block]
        loss[block] = _block(z[block], y[block], a, by, here, mixing, into, wide)
    return loss.reshape(shape[:-1]), None if out is None else out.reshape(shape)


def _place(logits: Tensor, gradient: bool, overwrite: bool) -> Tensor | None:
    """Where the gradient is to be."""
    if not gradient:
        return None
    return logits if overwrite else torch.empty_like(logits)


def _blocks(a: int, m: int, k: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Slices that cut ``a x m`` rows of ``k`` elements into blocks of about ``size`` elements."""
    down = min(m, max(1, size // k))
    across = max(1, size // (k * m)) if down == m else 1
    for i in range(0, a, across):
        for j in range(0, m, max(down, 1)):
            yield slice(i, i + across), slice(j, j + down)


def _block(
    z: Tensor,
    labels: Tensor,
    alpha: Any,
    scale: Any,
    counted: Tensor | None,
    mixing: Callable[[Any, Any], Any],
    out: Tensor | None,
    wide: torch.dtype,
) -> Tensor:
    y = labels.unsqueeze(-1)
    if z.dtype != wide:
        s = z.to(wide)
        s.sub_(s.amax(-1, keepdim=True))
    else:
        s = torch.sub(z, z.amax(-1, keepdim=True), out=out)
    true = s.gather(-1, y)
    alpha, scale = _column(alpha), _column(scale)
    k: Any = z.shape[-1]
    finite = total = None
    if isinstance(alpha, Tensor) or alpha != 0:
        total = s.sum(-1, keepdim=True)
        if may_hold_minus_inf(total):
            finite = s != -math.inf
            k = finite.sum(-1, keepdim=True, dtype=wide)
            total = s.where(finite, 0).sum(-1, keepdim=True)
        alpha = mixing(alpha, k.clamp(min=2) if isinstance(k, Tensor) else k)
    even = alpha / k
    s.exp_().scatter_(-1, y, 0)
    rest = s.sum(-1, keepdim=True)
    more = torch.expm1(true).add_(rest)  # the sum of exponentials, less 1
    loss = _less(_less(torch.log1p(more), true, 1 - alpha), total, even).squeeze(-1)
    if counted is not None:
        loss = loss.where(counted, 0)
    if out is None:
        return loss
    over = more.add_(1).reciprocal_()
    if isinstance(scale, Tensor) or scale != 1:
        over.mul_(scale)
    at_label = torch.rsub(over * rest, scale * (alpha - even))
    s.mul_(over)
    if total is not None:
        s.sub_(scale * even)  # two passes, in the cache; faster than one addcmul
        if finite is not None:
            s.masked_fill_(~finite, 0)
    s.scatter_(-1, y, at_label)
    if counted is not None:
        s.masked_fill_(~counted.unsqueeze(-1), 0)
    if s is not out:
        out.copy_(s)
    return loss


def _less(value: Tensor, other: Tensor | None, factor: Any) -> Tensor:
    """``value - factor * other``, in place."""
    if other is None:
        return value
    if isinstance(factor, Tensor):
        return value.sub_(factor * other)
    return value.sub_(other, alpha=factor)


def may_hold_minus_inf(total: Tensor) -> bool:
    """Whether a row may have a -inf logit; only a CPU can be asked without waiting for it."""
    if total.device.type != "cpu":
        return True
    return not math.isfinite(total.sum().item()) and bool((total == -math.inf).any())


def _column(rows: Any) -> Any:
    return rows.unsqueeze(-1) if isinstance(rows, Tensor) and rows.ndim else rows
