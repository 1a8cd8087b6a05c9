"""The loss of a linear layer's outputs on the CPU: against all logits at once, and the products."""

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F

import softhot.torch
from benchmarks import limits
from benchmarks.memory import above
from benchmarks.timing import interleaved

SHAPES = ((2048, 512, 32000), (1024, 1024, 128000))
ALPHA = 0.1
FEW = 256
RIVAL = "torch"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layer", action="append", help="only this one, as 2048x512x32000")
    parser.add_argument(
        "--chunked", action="store_true", help="against torch's own chunks instead: minutes"
    )


def rows(options: argparse.Namespace):
    """One record a shape: seconds, ratios to torch and to the products, memory, error.

    Or, with ``--chunked``, the ratios to torch's own chunks.
    """
    chosen = [tuple(int(part) for part in text.split("x")) for text in options.layer or ()]
    for shape in chosen or SHAPES:
        yield (chunked if options.chunked else measure)(shape, options.rounds)


def measure(shape: tuple[int, int, int], rounds: int) -> dict[str, object]:
    inputs = batch(*shape)
    load = os.getloadavg()[0]
    variants = {name: (lambda run=LOSSES[name]: run(*inputs)) for name in ("torch", "softhot")}
    variants["products"] = limits.matrix_products(*shape)
    times = interleaved(variants, RIVAL, rounds)
    return {
        "shape": list(shape),
        "rival": RIVAL,
        "dtype": "float32",
        "load": round(load, 1),
        "seconds": {name: t.seconds for name, t in times.items()},
        "times_torch": {name: t.ratio for name, t in times.items()},
        "times_products": {
            name: t.seconds / times["products"].seconds for name, t in times.items()
        },
        "extra_megabytes": {name: extra_memory(name, shape) for name in ("torch", "softhot")},
        "error": {name: error(name, shape) for name in ("torch", "softhot")},
    }


def chunked(shape: tuple[int, int, int], rounds: int) -> dict[str, object]:
    """Under smoothing torch's own chunks are all logits at once, with a warning; of hard labels
    they take many times as long: a few rows, three times.
    """
    inputs = batch(*shape)
    variants = {name: (lambda run=LOSSES[name]: run(*inputs)) for name in SMOOTH}
    smooth = interleaved(variants, SMOOTH[0], rounds)
    few = (inputs[0][:FEW].detach().requires_grad_(), inputs[1], inputs[2][:FEW])
    LOSSES[HARD[1]](*few)  # warm up
    hard = [[_seconds(lambda name=name: LOSSES[name](*few)) for name in HARD] for _ in range(3)]
    return {
        "shape": list(shape),
        "rival": SMOOTH[0],
        "dtype": "float32",
        "seconds": {name: t.seconds for name, t in smooth.items()},
        "times_chunked": {
            "smooth": smooth["softhot"].ratio,
            "hard": statistics.median(theirs / own for theirs, own in hard),
        },
        "rows_hard": FEW,
    }


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def batch(n: int, h: int, v: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, h, generator=generator).requires_grad_()
    weight = (3 * torch.randn(v, h, generator=generator) / h**0.5).requires_grad_()
    return hidden, weight, torch.randint(v, (n,), generator=generator)


def step(loss: Callable[..., torch.Tensor]) -> Callable[..., None]:
    def run(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> None:
        hidden.grad = weight.grad = None
        loss(hidden, weight, labels).backward()

    return run


def dense(hidden, weight, labels):
    return F.cross_entropy(F.linear(hidden, weight), labels, label_smoothing=ALPHA)


def ours(hidden, weight, labels):
    return softhot.torch.linear_cross_entropy(hidden, weight, labels, label_smoothing=ALPHA)


def torch_chunked(hidden, weight, labels, label_smoothing=ALPHA):
    options = torch.nn.LinearCrossEntropyOptions()
    with warnings.catch_warnings(action="ignore"):
        return F.linear_cross_entropy(
            hidden, weight, labels, label_smoothing=label_smoothing, options=options
        )


def torch_chunked_hard(hidden, weight, labels):
    return torch_chunked(hidden, weight, labels, label_smoothing=0.0)


LOSSES = {
    "torch": step(dense),
    "softhot": step(ours),
    "torch chunked": step(torch_chunked),
    "torch chunked, hard": step(torch_chunked_hard),
    "softhot, hard": step(softhot.torch.linear_cross_entropy),
}
SMOOTH = ("torch chunked", "softhot")
HARD = ("torch chunked, hard", "softhot, hard")


def error(name: str, shape: tuple[int, int, int]) -> float:
    """Largest error of both gradients of a few rows against float64, over the largest entry."""
    inputs = batch(32, shape[1], min(shape[2], 32000))
    LOSSES[name](*inputs)
    exact = [t.detach().double().requires_grad_() for t in inputs[:2]]
    LOSSES["torch"](*exact, inputs[2])
    pairs = [(a.grad.double(), b.grad) for a, b in zip(inputs[:2], exact, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def extra_memory(name: str, shape: tuple[int, int, int]) -> float:
    """Peak megabytes beyond inputs and both gradients, in a process of its own."""
    code = f"from benchmarks.linear import peak; print(peak({name!r}, {shape}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak(name: str, shape: tuple[int, int, int]) -> float:
    LOSSES[name](*batch(8, 8, 8))
    inputs = batch(*shape)
    gradients = sum(t.numel() * t.element_size() for t in inputs[:2])
    return round((above(lambda: LOSSES[name](*inputs)) - gradients) / 1e6, 1)


def table(records) -> str:
    lines = [
        f"{'N x H x C':>18} {'softhot':>9} {'x torch':>8} {'(limit)':>8} {'x products':>10}  "
        f"{'error (torch)':<17} {'load':>5}  extra MB (torch)"
    ]
    for row in records:
        start = f"{' x '.join(map(str, row['shape'])):>18} {row['seconds']['softhot']:>7.3f} s"
        if row["rival"] != RIVAL:
            times = row["times_chunked"]
            text = f"{times['smooth']:.2f} x smoothed, {times['hard']:.1f} x with hard labels"
            lines.append(f"{start}  torch's own chunks: {text}")
            continue
        memory, times = row["extra_megabytes"], row["times_torch"]
        errors = f"{row['error']['softhot']:.0e} ({row['error']['torch']:.0e})"
        lines.append(
            f"{start} {times['softhot']:>8.2f} {times['products']:>8.2f} "
            f"{row['times_products']['softhot']:>10.2f}  {errors:<17} {row['load']:>5}  "
            f"{memory['softhot']:.0f} ({memory['torch']:.0f})"
        )
    return "\n".join(lines)
