r"""The two products with a gradient by logit, without the blocks in which nothing is large.

Late in training nearly all of ``p - q`` is tiny. A block of rows by classes in which no entry
exceeds a threshold is not multiplied; only the mean of each of its rows is kept, and stands for all
of its entries:

.. math:: \sum_{k \in B} g_{ik} W_k \approx \bar g_{iB} \sum_{k \in B} W_k

What is left out sums to zero over every row of every block, so nothing is lost on average. Leaving
the means out too, as filters do that were made for hard labels, loses exactly what smoothing adds:
a share of alpha in entries of alpha/K each.

This is the plain form, for any device; :mod:`softhot.kernels.triton.products` is that for GPUs.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, CLASSES = 128, 128  # of a block


def products(
    dz: Tensor,
    weight: Tensor,
    hidden: Tensor,
    threshold: Tensor,
    *,
    dh: Tensor | None,
    dw: Tensor | None,
    compensate: bool = True,
) -> float:
    """``dh = dz @ weight`` and ``dw += dz.T @ hidden``, both approximately; what is None is not.

    Args:
        dz: ``(N, C)``.
        weight: ``(C, H)``.
        hidden: ``(N, H)``.
        threshold: ``()`` or ``(N,)``: entries up to it count as tiny.
        compensate: False drops the means too, to show what that costs.

    Returns:
        The share of blocks that were multiplied.
    """
    classes, wide = len(weight), dz.dtype if dz.dtype == torch.float64 else torch.float32
    sums = _by_block(weight.to(wide))
    kept = blocks = 0
    for i in range(0, len(dz), ROWS):
        here = slice(i, i + ROWS)
        limit = threshold[here, None] if threshold.ndim else threshold
        large = _by_block((dz[here].abs() > limit).any(0).to(wide)[:, None])[:, 0] > 0
        kept, blocks = kept + int(large.sum()), blocks + len(large)
        columns = large.repeat_interleave(CLASSES)[:classes]
        means = _by_block(dz[here].T.to(wide)).T / _sizes(classes, dz.device)
        means.masked_fill_(large, 0)
        part = dz[here][:, columns]
        if dh is not None:
            product = (part @ weight[columns]).to(wide)
            dh[here] = product + means @ sums if compensate else product
        if dw is not None:
            dw[columns] += (part.T @ hidden[here]).to(dw.dtype)
            if compensate:
                flat = (means.T @ hidden[here].to(wide)).to(dw.dtype)
                dw += flat.repeat_interleave(CLASSES, 0)[:classes]
    return kept / max(1, blocks)


def _sizes(classes: int, device: torch.device) -> Tensor:
    """How many classes each block has: the last may have fewer."""
    starts = torch.arange(0, classes, CLASSES, device=device)
    return (classes - starts).clamp(max=CLASSES)


def _by_block(values: Tensor) -> Tensor:
    """Sums over blocks of the first axis."""
    padded = torch.nn.functional.pad(values, (0, 0, 0, -len(values) % CLASSES))
    return padded.reshape(-1, CLASSES, values.shape[1]).sum(1)


def block_sums(weight: Tensor) -> Tensor:
    """The sum of ``weight`` over the classes of each block, ``(blocks, H)``."""
    return _by_block(weight)
