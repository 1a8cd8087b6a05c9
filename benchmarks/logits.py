"""The PyTorch loss on the CPU: forward and backward, against torch's own and the memory's speed."""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

import softhot.torch
from benchmarks import limits
from benchmarks.timing import interleaved

SHAPES = ((128, 10), (65536, 10), (8192, 100), (4096, 1000), (1024, 32000), (256, 128000))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALPHA = 0.1
RIVAL = "torch"
LIMITS = ("copy", "exponentials")  # no loss can be faster than the slower of the two


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", action="append", help="only this one, as 4096x1000; repeatable")
    parser.add_argument("--dtype", choices=DTYPES, help="only this one")
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="torch.compile as a rival too, which takes some ten seconds a row (default)",
    )


def rows(options: argparse.Namespace):
    """One record a shape and dtype: milliseconds, ratios to rivals and to the limit, memory, error.

    The rivals are torch's loss and ``torch.compile`` of it.
    """
    chosen = [tuple(int(part) for part in text.split("x")) for text in options.shape or ()]
    for dtype in [options.dtype] if options.dtype else DTYPES:
        for n, k in chosen or SHAPES:
            yield measure(n, k, dtype, options.rounds, options.compiled)


def measure(n: int, k: int, dtype: str, rounds: int, compiled: bool) -> dict[str, object]:
    logits, labels = batch(n, k, dtype)
    names = ["torch", "softhot", *(["compiled"] if compiled else [])]
    variants = {name: (lambda run=LOSSES[name]: run(logits, labels)) for name in names}
    variants["copy"] = limits.copy(logits.detach())
    variants["exponentials"] = limits.exponentials(n * k)
    times = interleaved(variants, RIVAL, rounds)
    limit = max(times[name].seconds for name in LIMITS)
    return {
        "shape": [n, k],
        "dtype": dtype,
        "disturbed": max(t.disturbed for t in times.values()),
        "milliseconds": {name: 1e3 * t.seconds for name, t in times.items()},
        "times_torch": {name: t.ratio for name, t in times.items()},
        "times_limit": times["softhot"].seconds / limit,
        "extra_memory": {name: extra_memory(name, n, k, dtype) for name in MEMORY},
        "error": {name: error(name, n, k, dtype) for name in ("torch", "softhot")},
    }


def batch(n: int, k: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(n, k, generator=generator)).to(DTYPES[dtype]).requires_grad_()
    return logits, torch.randint(k, (n,), generator=generator)


def step(loss: Callable[..., torch.Tensor]) -> Callable[..., None]:
    def run(logits: torch.Tensor, labels: torch.Tensor) -> None:
        loss(logits, labels, label_smoothing=ALPHA).backward()
        logits.grad = None  # who made it pays for giving it back

    return run


@torch.compile
def _compiled(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


LOSSES = {
    "torch": step(F.cross_entropy),
    "softhot": step(softhot.torch.cross_entropy),
    "compiled": step(_compiled),
    "in place": step(
        lambda z, y, **options: softhot.torch.cross_entropy(
            z.view_as(z), y, inplace=True, **options
        )
    ),
}
MEMORY = ("torch", "softhot", "in place")


def error(name: str, n: int, k: int, dtype: str) -> float:
    """Largest error of the gradient of a few rows against float64, over the largest entry."""
    logits, labels = batch(min(n, 32), k, dtype)
    loss = {"torch": F.cross_entropy, "softhot": softhot.torch.cross_entropy}[name]

    def slope(values: torch.Tensor, loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        return torch.autograd.grad(loss(values, labels, label_smoothing=ALPHA), values)[0].double()

    exact = slope(logits.detach().double().requires_grad_(), F.cross_entropy)
    return float((slope(logits, loss) - exact).abs().max() / exact.abs().max())


def extra_memory(name: str, n: int, k: int, dtype: str) -> float | None:
    """Peak memory above the logits, in multiples of them, in a process of its own."""
    if n * k < 2**24:  # smaller than what the interpreter moves by itself
        return None
    code = f"from benchmarks.logits import peak; print(peak({name!r}, {n}, {k}, {dtype!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return round(float(done.stdout), 2)


def peak(name: str, n: int, k: int, dtype: str) -> float:
    small = batch(8, 8, dtype)
    LOSSES[name](*small)
    logits, labels = batch(n, k, dtype)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The peak so far includes making the batch: fill up to it, so that all that follows counts.
    filler = torch.ones(max(0, before * 1024 - _resident()), dtype=torch.uint8)
    LOSSES[name](logits, labels)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del filler
    return (after - before) * 1024 / (logits.numel() * logits.element_size())


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def table(records) -> str:
    lines = [
        f"{'N x K':>14}  {'dtype':<9} {'softhot':>10} {'x torch':>8} {'x compiled':>10} "
        f"{'x limit':>8}  {'error (torch)':<17} {'disturbed':>9}  extra memory"
    ]
    for row in records:
        n, k = row["shape"]
        memory, times = row["extra_memory"], row["times_torch"]
        shown = (
            f"{memory['softhot']}, in place {memory['in place']} (torch {memory['torch']})"
            if memory["torch"]
            else "-"
        )
        compiled = f"{times['softhot'] / times['compiled']:.2f}" if "compiled" in times else "-"
        errors = f"{row['error']['softhot']:.0e} ({row['error']['torch']:.0e})"
        lines.append(
            f"{f'{n} x {k}':>14}  {row['dtype']:<9} {row['milliseconds']['softhot']:>7.3f} ms "
            f"{times['softhot']:>8.2f} {compiled:>10} {row['times_limit']:>8.2f}  {errors:<17} "
            f"{row['disturbed']:>9.0%}  {shown}"
        )
    return "\n".join(lines)
