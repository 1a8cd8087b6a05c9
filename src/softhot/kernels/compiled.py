"""Uniform smoothing as one expression of PyTorch operations, for ``torch.compile`` to fuse.

The formulas are those of :mod:`softhot.kernels.chunked`; the gradient is left to autograd, which
finds the same one, since the maximum that is subtracted counts as a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float | Tensor,
    mixing: Callable[[Any, Any], Any],
    counted: Tensor | None = None,
) -> Tensor:
    """The loss of every row; arguments as in :func:`softhot.kernels.chunked.loss_and_gradient`.

    Rows that are not counted have loss 0 and gradient 0; a label out of range gives NaN.
    """
    k: Any = logits.shape[-1]
    if counted is not None:
        logits = torch.where(counted.unsqueeze(-1), logits, 0)
        labels = torch.where(counted, labels, 0)
    z = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    valid = (labels >= 0) & (labels < k)
    is_label = labels.unsqueeze(-1) == torch.arange(k, device=z.device)
    s = z - z.amax(-1, keepdim=True).detach()
    true = torch.where(is_label, s, 0).sum(-1)
    rest = torch.where(is_label, 0, s.exp()).sum(-1)
    value = torch.log1p(rest + torch.expm1(true))
    if isinstance(alpha, Tensor) or alpha != 0:
        finite = s != -math.inf
        count = finite.sum(-1, dtype=z.dtype)
        alpha = mixing(alpha, count.clamp(min=2))
        value = value - alpha * torch.where(finite, s, 0).sum(-1) / count
    value = value - (1 - alpha) * true
    value = torch.where(valid, value, math.nan)
    return value if counted is None else torch.where(counted, value, 0)
