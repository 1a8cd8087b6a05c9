"""Tensors into the Triton kernels: pointers, strides, grids and block sizes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from softhot.kernels.native import Coefficients
from softhot.kernels.triton import row
from softhot.kernels.triton import rows as kernels

WHOLE_ROW = 2**15  # classes that one program reads, if many rows keep the others busy
GRADIENT_BLOCK = 4096


@dataclass(frozen=True)
class Rows:
    """A batch as the kernels see it, all but the logits.

    Attributes:
        labels: int64 ``(N,)``, among all classes.
        counted: booleans ``(N,)`` or None.
        ignore: the id of rows that don't count, or None.
        share: of the target that goes to the prior: a number, or float32 ``(N,)``.
        others: whether the share is meant for the wrong classes only.
        extra: what penalties add to the coefficients.
        prior: float32, or None if it is uniform; ``prior_kind`` says of what.
        weight: float32 class weights or None; ``weight_kind`` says what they multiply.
        first: where the classes at hand begin among all; ``classes`` is how many there are.
    """

    labels: Tensor
    counted: Tensor | None
    ignore: int | None
    share: float | Tensor
    others: bool
    extra: Coefficients
    prior: Tensor | None
    prior_kind: int
    weight: Tensor | None
    weight_kind: int
    classes: int
    first: int = 0

    @property
    def features(self) -> dict[str, Any]:
        """What kernels are compiled for; alphas and coefficients are none of it."""
        return {
            "PRIOR": self.prior_kind,
            "WEIGHT": self.weight_kind,
            "MAX": self.extra.max != 0,
            "EXPECTED": self.extra.expected != 0,
        }

    @property
    def skips(self) -> dict[str, Any]:
        return {"HAS_IGNORE": self.ignore is not None, "HAS_COUNTED": self.counted is not None}

    @property
    def prior_stride(self) -> int:
        return 0 if self.prior is None else self.prior.stride(0)

    def coefficients(self) -> tuple[float, ...]:
        """share, others, by_lse, by_mean, by_expected, by_square."""
        share = 0.0 if isinstance(self.share, Tensor) else self.share
        extra = self.extra
        return share, float(self.others), extra.lse, extra.mean, extra.expected, extra.square

    def alpha(self) -> tuple[Any, bool]:
        return (self.share, True) if isinstance(self.share, Tensor) else (self.labels, False)


def forward(logits: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """The loss of every row, float32 ``(N,)``, and the plan of its gradient."""
    n, k = logits.shape
    parts = _parts(logits)
    if parts > 1:
        return finish(statistics(logits, rows, parts), rows)
    loss, plan = _outputs(logits.device, n)
    alpha, has_alpha = rows.alpha()
    with _on(logits):
        kernels.forward[(n,)](
            *(logits, *_pointers(rows), alpha, loss, plan),
            *(n, k, logits.stride(0), rows.prior_stride, rows.ignore or 0),
            *rows.coefficients(),
            HAS_ALPHA=has_alpha,
            **rows.skips,
            **rows.features,
            **_tiles(logits),
        )
    return loss, plan


def statistics(logits: Tensor, rows: Rows, parts: int = 1) -> Tensor:
    """``(parts, STATISTICS, N)``: what each part of the classes at hand comes to."""
    n, k = logits.shape
    shape = (parts, len(row.STATISTICS), n)
    out = torch.empty(shape, dtype=torch.float32, device=logits.device)
    tiles = _tiles(logits)
    width = -(-k // parts)
    width += -width % tiles["VEC"]
    with _on(logits):
        kernels.statistics[(n, parts)](
            *(logits, *_pointers(rows), out),
            *(n, k, logits.stride(0), rows.prior_stride, width, rows.first, rows.ignore or 0),
            **rows.skips,
            **rows.features,
            **tiles,
        )
    return out


def finish(parts: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Loss and plan from the statistics of all parts, of however many processes."""
    number, _, n = parts.shape
    loss, plan = _outputs(parts.device, n)
    alpha, has_alpha = rows.alpha()
    block = 128
    with _on(parts):
        kernels.finish[(-(-n // block),)](
            *(parts, rows.labels, _or(rows.counted, rows.labels), alpha, loss, plan),
            *(n, number, rows.ignore or 0, *rows.coefficients()),
            HAS_ALPHA=has_alpha,
            ROWS=block,
            num_warps=4,
            **rows.skips,
            **rows.features,
        )
    return loss, plan


def gradient(
    logits: Tensor,
    rows: Rows,
    plan: Tensor,
    upstream: Tensor,
    divisor: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The gradient by logit times ``upstream`` ``()`` or ``(N,)`` over ``divisor`` ``()``."""
    n, k = logits.shape
    if out is None:
        out = torch.empty_strided((n, k), logits.stride(), dtype=logits.dtype, device=logits.device)
    block = min(GRADIENT_BLOCK, max(128, _power(k)))
    vec = _vec(logits)
    blocks = -(-(k + vec - 1) // block)
    with _on(logits):
        kernels.gradient[(n * blocks,)](
            *(logits, *_pointers(rows), plan, upstream, _or(divisor, plan), out),
            *(n, k, logits.stride(0), rows.prior_stride, rows.first, rows.classes, blocks),
            *(upstream.stride(0) if upstream.ndim else 0, rows.ignore or 0, rows.extra.max),
            HAS_DIVISOR=divisor is not None,
            BLOCK=block,
            VEC=vec,
            num_warps=max(1, min(8, block // 512)),
            **rows.skips,
            **rows.features,
        )
    return out


def in_place(
    logits: Tensor, rows: Rows, upstream: Tensor, divisor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of every row, and the gradient in the place of the logits."""
    n, k = logits.shape
    loss = torch.empty(n, dtype=torch.float32, device=logits.device)
    alpha, has_alpha = rows.alpha()
    with _on(logits):
        kernels.in_place[(_programs(logits),)](
            *(logits, *_pointers(rows), alpha, loss, upstream, _or(divisor, loss)),
            *(n, k, logits.stride(0), rows.prior_stride),
            *(upstream.stride(0) if upstream.ndim else 0, rows.ignore or 0),
            *(*rows.coefficients()[:4], rows.extra.max, *rows.coefficients()[4:]),
            HAS_ALPHA=has_alpha,
            HAS_DIVISOR=divisor is not None,
            **rows.skips,
            **rows.features,
            **_tiles(logits),
        )
    return loss, logits


def scale(values: Tensor, factor: Tensor) -> Tensor:
    """``values`` times a number on the device, in place; free if that is 1."""
    block = 4096
    with _on(values):
        kernels.scale[(-(-values.numel() // block),)](
            values, factor, values.numel(), BLOCK=block, num_warps=8
        )
    return values


def _pointers(rows: Rows) -> tuple[Tensor, ...]:
    """Labels, counted, prior, weight; any pointer stands for one that is not read."""
    labels = rows.labels
    return labels, _or(rows.counted, labels), _or(rows.prior, labels), _or(rows.weight, labels)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    return other if tensor is None else tensor


def _outputs(device: torch.device, n: int) -> tuple[Tensor, Tensor]:
    loss = torch.empty(n, dtype=torch.float32, device=device)
    return loss, torch.empty((len(row.PLAN), n), dtype=torch.float32, device=device)


def _vec(logits: Tensor) -> int:
    """Neighbours that a thread reads at once: 16 bytes."""
    return 16 // logits.element_size()


def _tiles(logits: Tensor) -> dict[str, int]:
    """A thread reads up to four times 16 bytes before it looks at the first."""
    k, vec = logits.shape[1], _vec(logits)
    lanes = max(32, min(256, _power(-(-k // vec))))
    tiles = max(1, min(4, _power(-(-k // (lanes * vec)))))
    return {"VEC": vec, "LANES": lanes, "TILES": tiles, "num_warps": lanes // 32}


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(0, number - 1).bit_length()


def _parts(logits: Tensor) -> int:
    """Into how many parts rows are cut so that a few long ones keep the whole device busy."""
    n, k = logits.shape
    wanted = -(-4 * _processors(logits.device) // max(1, n))
    return max(1, min(wanted, k // (WHOLE_ROW // 2)))


def _programs(logits: Tensor) -> int:
    """As many as the device can run whose rows fit in half of its L2 cache, one a row at most."""
    n, k = logits.shape
    many = _processors(logits.device)
    fitting = _cache(logits.device) // 2 // (many * k * logits.element_size())
    return max(1, min(n, many * max(1, min(8, fitting))))


@cache
def _properties(device: torch.device) -> Any:
    return torch.cuda.get_device_properties(device)


def _processors(device: torch.device) -> int:
    return _properties(device).multi_processor_count if device.type == "cuda" else 2


def _cache(device: torch.device) -> int:
    return _properties(device).L2_cache_size if device.type == "cuda" else 2**20


def _on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Kernels are launched on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
