"""What the machine can do at best: one copy, one pass of exponentials, three matrix products."""

from collections.abc import Callable

import torch

BLOCK = 2**18  # float32 numbers that stay in the caches


def copy(values: torch.Tensor) -> Callable[[], object]:
    """Every value read once and written once, into memory that is there already."""
    space = torch.empty_like(values)
    return lambda: space.copy_(values)


def exponentials(count: int) -> Callable[[], object]:
    """``count`` of them in float32, out of the cache and into it."""
    size = min(count, BLOCK)
    values, space = torch.rand(size) - 1, torch.empty(size)
    times = -(-count // size)

    def run() -> None:
        for _ in range(times):
            torch.exp(values, out=space)

    return run


def fill(values: torch.Tensor) -> Callable[[], object]:
    """Every value written once, into memory that is there already."""
    space = torch.empty_like(values)
    return lambda: space.fill_(0.5)


def matrix_products(n: int, d: int, k: int, dtype: torch.dtype = torch.float32) -> Callable:
    """Logits of ``(n, d)`` features and ``(k, d)`` weights, and both gradients from theirs."""
    h, w = torch.randn(n, d).to(dtype), torch.randn(k, d).to(dtype)
    z, dh, dw = (torch.empty(shape, dtype=dtype) for shape in ((n, k), (n, d), (k, d)))

    def run() -> None:
        torch.mm(h, w.T, out=z)
        torch.mm(z, w, out=dh)
        torch.mm(z.T, h, out=dw)

    return run
