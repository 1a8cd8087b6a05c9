"""The two products of :mod:`softhot.kernels.filtered` on a GPU.

No program writes where another does, and none adds to what another wrote: sums are taken in one
order, always. Which blocks are multiplied is decided on the device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from softhot.kernels.filtered import CLASSES, ROWS, block_sums

HIDDEN = 128  # of a tile of the output


@triton.jit(do_not_specialize=["n"])
def survey(
    dz,
    threshold,
    large,
    means,
    n,
    classes,
    stride,
    threshold_stride,
    blocks,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """Which blocks have an entry beyond the threshold; of the others the mean of every row."""
    i, j = tl.program_id(0), tl.program_id(1)
    row = i * ROWS + tl.arange(0, ROWS)
    k = j * CLASSES + tl.arange(0, CLASSES)
    at = dz + row.to(tl.int64)[:, None] * stride + k[None, :]
    valid = (row < n)[:, None] & (k < classes)[None, :]
    g = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    limit = tl.load(threshold + row * threshold_stride, mask=row < n, other=0.0)
    # Only a comparison that fails for NaN is small: what is not finite is multiplied.
    small = tl.where(tl.abs(g) <= limit[:, None], 1, 0)
    every = tl.min(tl.min(small, axis=1), axis=0)
    tl.store(large + i * blocks + j, 1 - every)
    size = tl.minimum(classes - j * CLASSES, CLASSES)
    mean = tl.where(every == 1, tl.sum(g, axis=1) / size, 0.0)
    tl.store(means + row.to(tl.int64) * blocks + j, mean, mask=row < n)


@triton.jit(do_not_specialize=["n"])
def by_hidden(
    dz,
    weight,
    large,
    out,
    n,
    classes,
    width,
    stride,
    blocks,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``out += dz @ weight`` over the blocks that are large. Grid: blocks of rows, of columns."""
    i, j = tl.program_id(0), tl.program_id(1)
    row = i * ROWS + tl.arange(0, ROWS)
    column = j * HIDDEN + tl.arange(0, HIDDEN)
    here = (row < n)[:, None] & (column < width)[None, :]
    out_at = out + row.to(tl.int64)[:, None] * width + column[None, :]
    total = tl.load(out_at, mask=here, other=0.0).to(tl.float32)
    for block in tl.range(0, blocks):
        if tl.load(large + i * blocks + block) != 0:
            k = block * CLASSES + tl.arange(0, CLASSES)
            g = tl.load(
                dz + row.to(tl.int64)[:, None] * stride + k[None, :],
                mask=(row < n)[:, None] & (k < classes)[None, :],
                other=0.0,
            )
            w = tl.load(
                weight + k.to(tl.int64)[:, None] * width + column[None, :],
                mask=(k < classes)[:, None] & (column < width)[None, :],
                other=0.0,
            )
            total = tl.dot(g, w, total, input_precision=PRECISION)
    tl.store(out_at, total, mask=here)


@triton.jit(do_not_specialize=["n"])
def by_weight(
    dz,
    hidden,
    large,
    means,
    out,
    n,
    classes,
    width,
    stride,
    blocks,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``out (+)= dz.T @ hidden``, means for small blocks. Grid: blocks of classes, of columns."""
    j, at_column = tl.program_id(0), tl.program_id(1)
    k = j * CLASSES + tl.arange(0, CLASSES)
    column = at_column * HIDDEN + tl.arange(0, HIDDEN)
    here = (k < classes)[:, None] & (column < width)[None, :]
    out_at = out + k.to(tl.int64)[:, None] * width + column[None, :]
    total = tl.zeros([CLASSES, HIDDEN], tl.float32)
    if FIRST == 0:
        total = tl.load(out_at, mask=here, other=0.0).to(tl.float32)
    flat = tl.zeros([HIDDEN], tl.float32)
    for i in tl.range(0, tl.cdiv(n, ROWS)):
        row = i * ROWS + tl.arange(0, ROWS)
        h = tl.load(
            hidden + row.to(tl.int64)[:, None] * width + column[None, :],
            mask=(row < n)[:, None] & (column < width)[None, :],
            other=0.0,
        )
        if tl.load(large + i * blocks + j) != 0:
            g = tl.load(
                dz + row.to(tl.int64)[None, :] * stride + k[:, None],
                mask=(row < n)[None, :] & (k < classes)[:, None],
                other=0.0,
            )
            total = tl.dot(g, h, total, input_precision=PRECISION)
        else:
            mean = tl.load(means + row.to(tl.int64) * blocks + j, mask=row < n, other=0.0)
            flat += tl.sum(mean[:, None] * h.to(tl.float32), axis=0)
    tl.store(out_at, total + flat[None, :], mask=here)


def products(
    dz: Tensor,
    weight: Tensor,
    hidden: Tensor,
    threshold: Tensor,
    *,
    dh: Tensor | None,
    dw: Tensor | None,
    first: bool,
) -> Tensor:
    """As :func:`softhot.kernels.filtered.products`; ``dw`` is written over if this is the first.

    Returns:
        Which blocks were multiplied, on the device.
    """
    n, classes = dz.shape
    blocks, width = -(-classes // CLASSES), weight.shape[1]
    weight, hidden = weight.contiguous(), hidden.contiguous()
    large = torch.empty((-(-n // ROWS), blocks), dtype=torch.int32, device=dz.device)
    means = torch.empty((n, blocks), dtype=torch.float32, device=dz.device)
    tile = {"ROWS": ROWS, "CLASSES": CLASSES}
    survey[large.shape](
        *(dz, threshold.float(), large, means, n, classes, dz.stride(0)),
        *(threshold.stride(0) if threshold.ndim else 0, blocks),
        num_warps=8,
        **tile,
    )
    options = {
        **tile,
        "HIDDEN": min(HIDDEN, max(16, triton.next_power_of_2(width))),
        "PRECISION": "ieee" if dz.dtype == torch.float32 else "tf32",
        "num_warps": 8,
    }
    columns = triton.cdiv(width, options["HIDDEN"])
    if dh is not None:
        dh.copy_(means @ block_sums(weight.float()))
        by_hidden[(len(large), columns)](
            *(dz, weight, large, dh, n, classes, width, dz.stride(0), blocks), **options
        )
    if dw is not None:
        by_weight[(blocks, columns)](
            *(dz, hidden, large, means, dw, n, classes, width, dz.stride(0), blocks),
            FIRST=int(first),
            **options,
        )
    return large
