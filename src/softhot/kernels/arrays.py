"""NumPy arrays through the native kernel, where it can take them; the core's text where not."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from softhot.core import losses
from softhot.core.rule import Rule
from softhot.kernels import native
from softhot.kernels.buffers import lend

REDUCTIONS = ("none", "sum", "mean")


@functools.wraps(losses.cross_entropy_and_gradient)
def cross_entropy_and_gradient(logits: Any, labels: Any, rule: Rule, **options: Any) -> Any:  # noqa: D103  # the docstring is the core's
    done = _native(logits, labels, rule, gradient=True, **options)
    return done or losses.cross_entropy_and_gradient(logits, labels, rule, **options)


@functools.wraps(losses.cross_entropy)
def cross_entropy(logits: Any, labels: Any, rule: Rule, **options: Any) -> Any:  # noqa: D103  # the docstring is the core's
    done = _native(logits, labels, rule, gradient=False, **options)
    return done[0] if done else losses.cross_entropy(logits, labels, rule, **options)


def _native(
    logits: Any,
    labels: Any,
    rule: Any,
    *,
    gradient: bool,
    axis: Any = -1,
    ignore_index: Any = None,
    reduction: Any = "none",
    validate: bool = True,
    **others: Any,
) -> tuple[Any, Any] | None:
    """Loss and gradient, or None if anything is out of the ordinary: the core then sees to it."""
    if not (type(logits) is np.ndarray is type(labels) and logits.ndim == 2 and labels.ndim == 1):
        return None
    (n, k), (stride, step) = logits.shape, logits.strides
    size = logits.itemsize
    if (
        any(option is not None for option in others.values())
        or axis not in (-1, 1)
        or reduction not in REDUCTIONS
        or logits.dtype.name not in ("float32", "float16")
        or labels.dtype != np.int64
        or labels.shape != (n,)
        or not (labels.flags.c_contiguous and labels.flags.aligned and logits.flags.aligned)
        or step != size
        or stride % size
        or stride < k * size
        or not (ignore_index is None or type(ignore_index) is int)
        or not (n and 2 <= k < 2**31)
        or not isinstance(rule, Rule)
    ):
        return None
    share, prior = native.share(rule, k), native.prior(rule, k)
    if share is None:
        return None
    rows = np.empty(n if reduction == "none" else 1, np.float32)
    slopes = lend(n * k * size).view(logits.dtype).reshape(n, k) if gradient else None
    done = native.run(
        rule,
        dtype=logits.dtype.name,
        logits=logits.ctypes.data,
        labels=labels.ctypes.data,
        shape=(n, k),
        stride=stride // size,
        loss=rows.ctypes.data,
        gradient=0 if slopes is None else slopes.ctypes.data,
        alpha=share,
        prior=0 if prior is None else prior.ctypes.data,
        ignore_index=ignore_index,
        reduction=reduction,
        pool=native.any_pool(),
        threads=native.processors(),
    )
    if not done:
        return None
    return rows if reduction == "none" else rows[0], slopes
