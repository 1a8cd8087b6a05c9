"""The arguments of a batch of class ids as numbers for each row, if nothing is out of order.

Everything here answers None where the reference (:mod:`softhot.core.losses`) would have to look
closer or raise; it is asked then, and says what. Values are looked at on a CPU only, so that
nothing waits for a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softhot.core.rule import Base
from softhot.core.weights import PerClass, PerSample
from softhot.torch.closed_form import wide

IDS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Rows:
    """What the kernel needs to know of every row beside its logits.

    Attributes:
        labels: int64 in 0 .. K - 1, 0 where a row does not count.
        counted: which rows count; None for all.
        alpha: a number or one a row.
        weight: of each row, 0 where it does not count; None for 1.
    """

    labels: Tensor
    counted: Tensor | None
    alpha: Any
    weight: Tensor | None

    def total(self, dtype: torch.dtype) -> Any:
        """The summed weights of the rows that count; 1 if there are none."""
        if self.weight is not None:
            total = self.weight.sum()
            return total.where(total > 0, 1)
        if self.counted is not None:
            return self.counted.sum(dtype=dtype).clamp_(min=1)
        return self.labels.numel()


def plain_rows(logits: Tensor, target: Tensor, base: Base, options: dict[str, Any]) -> Rows | None:
    """The rows of a batch, or None."""
    shape = list(logits.shape)
    k = shape.pop(options["axis"]) if shape else 0
    if k < 2 or not target.numel() or list(target.shape) != shape or target.dtype not in IDS:
        return None
    if not logits.is_floating_point() or options["prior"] is not None:
        return None
    look, dtype = logits.device.type == "cpu", wide(logits)
    found = _labels(target.long(), options["where"], options["ignore_index"], k, look)
    if found is None:
        return None
    labels, counted = found
    alpha = _alpha(base, options["alpha"], labels, counted, k, dtype, look)
    weight = _weight(options["weight"], labels, counted, k, dtype, look)
    if alpha is None or weight is None:
        return None
    return Rows(labels, counted, alpha, weight if options["weight"] is not None else None)


def _labels(
    labels: Tensor, where: Any, ignore_index: Any, k: int, look: bool
) -> tuple[Tensor, Tensor | None] | None:
    """Ids in range and which rows count."""
    counted = where
    if counted is not None and not _fits(counted, labels, torch.bool):
        return None
    if ignore_index is not None and type(ignore_index) is not int:
        return None
    least, most = _extremes(labels, look)
    if ignore_index is not None and (not look or least <= ignore_index <= most):
        kept = labels != ignore_index
        counted = kept if counted is None else counted & kept
    if counted is not None:
        labels = labels.where(counted, 0)
        least, most = _extremes(labels, look)
    if look and not 0 <= least <= most < k:
        return None
    return labels, counted


def _alpha(
    base: Base,
    given: Any,
    labels: Tensor,
    counted: Tensor | None,
    k: int,
    dtype: torch.dtype,
    look: bool,
) -> Any:
    """The strength of the rule, in its own convention."""
    alpha: Any = base.alpha
    allowed: Any = base.RANGES["alpha"]
    if isinstance(alpha, PerSample):
        if given is None or not _fits(given, labels) or not given.is_floating_point():
            return None
        seen = given if counted is None or not look else given[counted]
        if look and seen.numel():
            least, most = _extremes(seen, look)
            if least not in allowed or most not in allowed or not base.mixing(most, k) < 1:
                return None
        return given.to(dtype)
    if given is not None:
        return None
    if isinstance(alpha, PerClass):
        if len(alpha.values) != k or not base.mixing(max(alpha.values), k) < 1:
            return None
        return torch.tensor(alpha.values, dtype=dtype, device=labels.device)[labels]
    return alpha if base.mixing(alpha, k) < 1 else None


def _weight(
    weight: Any, labels: Tensor, counted: Tensor | None, k: int, dtype: torch.dtype, look: bool
) -> Any:
    """The weight of each row; 1 if there are no class weights."""
    if weight is None:
        return 1
    if not (_fits(weight, labels.new_empty(k)) and weight.is_floating_point()):
        return None
    least, most = _extremes(weight, look)
    if look and not 0 <= least <= most < math.inf:
        return None
    weight = weight.to(dtype)[labels]
    return weight if counted is None else weight.where(counted, 0)


def _fits(value: Any, beside: Tensor, dtype: torch.dtype | None = None) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == beside.shape
        and value.device == beside.device
        and dtype in (None, value.dtype)
    )


def _extremes(values: Tensor, look: bool) -> tuple[Any, Any]:
    """The least and the largest value, if they may be looked at."""
    if not look:
        return None, None
    least, most = values.aminmax()
    return least.item(), most.item()
