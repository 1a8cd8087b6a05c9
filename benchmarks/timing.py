"""Interleaved timing: every round runs all variants in a new random order on the same input."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Variant = Callable[[], object]
LEAST = 0.02  # seconds that one sample lasts, by repeating short calls


@dataclass(frozen=True)
class Timing:
    """Median seconds of a call, and the median over rounds of rival's time / own time."""

    seconds: float
    ratio: float


def interleaved(variants: dict[str, Variant], rival: str, rounds: int = 7) -> dict[str, Timing]:
    """Time every variant against ``rival``.

    A ratio is formed within each round, so that what slows the machine down for a while slows down
    both; the median over rounds is reported. Above 1 the variant is faster than the rival.
    """
    calls = {name: _calls(run) for name, run in variants.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    shuffle = random.Random(0)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            samples[name].append(_sample(variants[name], calls[name]))
    result = {}
    for name, own in samples.items():
        ratios = [theirs / ours for theirs, ours in zip(samples[rival], own, strict=True)]
        result[name] = Timing(statistics.median(own), statistics.median(ratios))
    return result


def _calls(run: Variant) -> int:
    run()  # warm up: caches, lazy initialisation
    return max(1, min(200, int(LEAST / max(_sample(run, 1), 1e-7))))


def _sample(run: Variant, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls
