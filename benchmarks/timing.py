"""Interleaved timing: every round runs all variants in a new random order on the same input."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Variant = Callable[[], object]
LEAST = 0.02  # seconds that one sample lasts, by repeating short calls
# A sample is disturbed if this process was ready to run and had to wait for this part of the time.
DISTURBED, TRIES = 0.02, 4
LONG = 1.0  # seconds after which a sample is not taken again: rounds even out what is left


@dataclass(frozen=True)
class Timing:
    """Median seconds of a call, the median over rounds of rival's time / own time, and which part
    of the samples was disturbed by other processes, however often they were taken again."""

    seconds: float
    ratio: float
    disturbed: float


def interleaved(variants: dict[str, Variant], rival: str, rounds: int = 7) -> dict[str, Timing]:
    """Time every variant against ``rival``.

    A ratio is formed within each round, so that what slows the machine down for a while slows down
    both; the median over rounds is reported. Above 1 the variant is faster than the rival.
    """
    calls = {name: _calls(run) for name, run in variants.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    disturbed = dict.fromkeys(variants, 0)
    order = list(variants)
    shuffle = random.Random(0)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            seconds, waited = _calm_sample(variants[name], calls[name])
            samples[name].append(seconds)
            disturbed[name] += waited > DISTURBED
    result = {}
    for name, own in samples.items():
        ratios = [theirs / ours for theirs, ours in zip(samples[rival], own, strict=True)]
        part = disturbed[name] / rounds
        result[name] = Timing(statistics.median(own), statistics.median(ratios), part)
    return result


def _calm_sample(run: Variant, calls: int) -> tuple[float, float]:
    """The least disturbed of a few samples, and the part of its time that was spent waiting."""
    best = (0.0, float("inf"))
    for _ in range(TRIES):
        before = _waited()
        seconds = _sample(run, calls)
        waited = (_waited() - before) / (seconds * calls)
        best = min(best, (seconds, waited), key=lambda sample: sample[1])
        if best[1] <= DISTURBED or seconds * calls > LONG:
            break
    return best


def _waited() -> float:
    """Seconds that the threads of this process were ready to run, and others ran (Linux)."""
    total = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[1])
        except OSError:  # a thread that has just ended
            continue
    return total * 1e-9


def _calls(run: Variant) -> int:
    run()  # warm up: caches, lazy initialisation
    if _sample(run, 1) > LEAST:
        return 1
    return max(1, min(500, int(LEAST / max(min(_sample(run, 1) for _ in range(3)), 1e-7))))


def _sample(run: Variant, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls
