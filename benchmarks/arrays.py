"""NumPy's loss with its gradient against the reference; JAX's under jit against optax."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import softhot
import softhot.jax
from benchmarks.timing import interleaved
from softhot.core.losses import cross_entropy_and_gradient as reference

SHAPES = ((65536, 10), (8192, 100), (4096, 1000), (256, 32000))
RULE = softhot.Uniform(0.1)
HARD = "optax, hard"


def rows(options: argparse.Namespace):
    """One record a library and shape: milliseconds, and the ratio to its rivals."""
    for n, k in SHAPES:
        yield measured("NumPy", n, k, numpy_ways(n, k), "reference", options.rounds)
    for n, k in SHAPES:
        yield measured("JAX", n, k, jax_ways(n, k), HARD, options.rounds)


def measured(library: str, n: int, k: int, variants, rival: str, rounds: int) -> dict[str, object]:
    times = interleaved(variants, rival, rounds)
    return {
        "library": library,
        "shape": [n, k],
        "rival": rival,
        "milliseconds": {name: 1e3 * t.seconds for name, t in times.items()},
        "times_rival": {name: t.ratio for name, t in times.items()},
        "disturbed": max(t.disturbed for t in times.values()),
    }


def batch(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return 3 * random.standard_normal((n, k), np.float32), random.integers(k, size=n)


def numpy_ways(n: int, k: int):
    logits, labels = batch(n, k)
    return {
        name: lambda way=way: way(logits, labels, RULE, reduction="mean")
        for name, way in (("softhot", softhot.cross_entropy_and_gradient), ("reference", reference))
    }


def jax_ways(n: int, k: int):
    logits, labels = map(jnp.asarray, batch(n, k))
    losses = {
        "softhot": lambda z: softhot.jax.cross_entropy(z, labels, RULE).mean(),
        HARD: lambda z: optax.softmax_cross_entropy_with_integer_labels(z, labels).mean(),
        "optax, smooth": lambda z: optax.softmax_cross_entropy(
            z, optax.smooth_labels(jax.nn.one_hot(labels, k), 0.1)
        ).mean(),
    }
    steps = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in losses.items()}
    return {
        name: lambda step=step: jax.block_until_ready(step(logits)) for name, step in steps.items()
    }


def table(records) -> str:
    lines = [f"{'':<6} {'N x K':>14}  {'softhot':>12}  times its rival's speed"]
    for row in records:
        n, k = row["shape"]
        ours = row["times_rival"]["softhot"]
        others = [
            f"{ours / ratio:.2f} x {name}"
            for name, ratio in row["times_rival"].items()
            if name != "softhot"
        ]
        lines.append(
            f"{row['library']:<6} {f'{n} x {k}':>14}  {row['milliseconds']['softhot']:>9.3f} ms  "
            f"{', '.join(others)}"
        )
    return "\n".join(lines)
