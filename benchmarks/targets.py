"""Dense smoothed targets in NumPy: against writing that memory once, and the usual recipe."""

import argparse

import numpy as np

import softhot
from benchmarks.timing import interleaved

SHAPES = ((65536, 10), (8192, 1000), (1024, 32000))
ALPHA = 0.1


def rows(options: argparse.Namespace):
    """One record a shape: milliseconds, and times over one write of a new array."""
    for n, k in SHAPES:
        labels = np.random.default_rng(0).integers(k, size=n)

        def written_once(n=n, k=k):
            return np.full((n, k), ALPHA / k)

        def recipe(n=n, k=k, labels=labels):
            hot = np.zeros((n, k))
            hot[np.arange(n), labels] = 1
            return (1 - ALPHA) * hot + ALPHA / k

        def softhots(k=k, labels=labels):
            return softhot.smooth_labels(labels, ALPHA, num_classes=k)

        assert np.allclose(softhots(), recipe(), rtol=1e-15)
        variants = {"softhot": softhots, "one write": written_once, "recipe": recipe}
        times = interleaved(variants, "one write", options.rounds)
        yield {
            "shape": [n, k],
            "milliseconds": {name: 1e3 * t.seconds for name, t in times.items()},
            "writes": {name: 1 / t.ratio for name, t in times.items()},
            "disturbed": max(t.disturbed for t in times.values()),
        }


def table(records) -> str:
    lines = [f"{'N x K':>14}  {'targets':>12} {'x one write':>12} {'recipe x one write':>19}"]
    for row in records:
        n, k = row["shape"]
        writes = row["writes"]
        lines.append(
            f"{f'{n} x {k}':>14}  {row['milliseconds']['softhot']:>9.3f} ms "
            f"{writes['softhot']:>12.2f} {writes['recipe']:>19.2f}"
        )
    return "\n".join(lines)
