"""The PyTorch loss on the CPU: forward and backward, against torch's own."""

import resource
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

import softhot.torch
from benchmarks.timing import interleaved

SHAPES = ((128, 10), (65536, 10), (8192, 100), (4096, 1000), (1024, 32000), (256, 128000))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALPHA = 0.1
RIVAL = "torch"


def rows(shapes=SHAPES, dtypes=tuple(DTYPES), rounds: int = 7):
    """One record a shape and dtype: milliseconds, ratio to torch, share of the copy limit."""
    for dtype in dtypes:
        for n, k in shapes:
            yield measure(n, k, dtype, rounds)


def measure(n: int, k: int, dtype: str, rounds: int) -> dict[str, object]:
    logits, labels = batch(n, k, dtype)
    space = torch.empty_like(logits)
    variants = {name: (lambda run=run: run(logits, labels)) for name, run in LOSSES.items()}
    variants["copy"] = lambda: space.copy_(logits)  # one read and one write: no loss can beat it
    times = interleaved(variants, RIVAL, rounds)
    return {
        "shape": [n, k],
        "dtype": dtype,
        "milliseconds": {name: 1e3 * t.seconds for name, t in times.items()},
        "times_torch": {name: t.ratio for name, t in times.items()},
        "times_copy": times["softhot"].seconds / times["copy"].seconds,
        "extra_memory": {name: extra_memory(name, n, k, dtype) for name in LOSSES},
    }


def batch(n: int, k: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(n, k, generator=generator)).to(DTYPES[dtype]).requires_grad_()
    return logits, torch.randint(k, (n,), generator=generator)


def step(loss: Callable[..., torch.Tensor]) -> Callable[..., None]:
    def run(logits: torch.Tensor, labels: torch.Tensor) -> None:
        logits.grad = None
        loss(logits, labels, label_smoothing=ALPHA).backward()

    return run


LOSSES = {"torch": step(F.cross_entropy), "softhot": step(softhot.torch.cross_entropy)}


def extra_memory(name: str, n: int, k: int, dtype: str) -> float | None:
    """Peak memory above the logits, in multiples of them, in a process of its own."""
    if n * k < 2**24:  # smaller than what the interpreter moves by itself
        return None
    code = f"from benchmarks.cpu import peak; print(peak({name!r}, {n}, {k}, {dtype!r}))"
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
        f"{'N x K':>14}  {'dtype':<9} {'softhot':>10} {'x torch':>8} {'x copy':>7}  extra memory"
    ]
    for row in records:
        n, k = row["shape"]
        memory = row["extra_memory"]
        shown = f"{memory['softhot']} (torch {memory['torch']})" if memory["torch"] else "-"
        lines.append(
            f"{f'{n} x {k}':>14}  {row['dtype']:<9} {row['milliseconds']['softhot']:>7.3f} ms "
            f"{row['times_torch']['softhot']:>8.2f} {row['times_copy']:>7.1f}  {shown}"
        )
    return "\n".join(lines)
