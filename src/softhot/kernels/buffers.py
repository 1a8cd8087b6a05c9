"""Memory for gradients that is used again once nobody holds it.

A large array fresh from the system costs a page fault for every 4 KB that is written for the first
time; at a large K that is most of the time a loss takes. A gradient lives from the loss to the
optimiser, so the next step can have the same memory: :func:`lend` hands out a part of a block and
knows by the references to it when it is back. Whoever keeps a gradient keeps it: the block is
simply not free. What is kept is never more than was in use at one time.
"""

from __future__ import annotations

import sys
import threading

import numpy as np

SMALLEST = 2**16  # bytes; below, the allocator reuses memory itself
ALIGNMENT = 64  # a cache line
_blocks: list[np.ndarray] = []
_lock = threading.Lock()


def lend(size: int) -> np.ndarray:
    """``size`` bytes, aligned to cache lines, as a NumPy array of uint8; they hold anything.

    >>> first, second = lend(2**20), lend(2**20)
    >>> bool(np.shares_memory(first, second))
    False
    >>> at = first.ctypes.data
    >>> del first
    >>> lend(2**20).ctypes.data == at
    True
    """
    if size < SMALLEST or not _COUNTED:
        return np.empty(size, np.uint8)
    with _lock:
        fitting = [i for i in _idle() if _blocks[i].size >= size + ALIGNMENT]
        if not fitting:
            _drop_idle()
            _blocks.append(np.empty(size + ALIGNMENT, np.uint8))
        return _part(_blocks[fitting[0] if fitting else -1], size)


def release() -> int:
    """Give what is not in use back to the system; how many bytes that was."""
    with _lock:
        return _drop_idle()


def _drop_idle() -> int:
    return sum(_blocks.pop(i).size for i in reversed(_idle()))


def _idle() -> list[int]:
    return [i for i, count in enumerate(_references(_blocks)) if count == _IDLE]


def _part(block: np.ndarray, size: int) -> np.ndarray:
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def _references(blocks: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


# How often a block that nobody holds is referred to while it is counted, which differs between
# versions of Python; without a global interpreter lock the count means little.
_IDLE = _references([np.empty(0, np.uint8)])[0]
_COUNTED = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
