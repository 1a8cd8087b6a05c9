"""The losses on a GPU: against every kernel that is installed, memory's speed and the products.

Everything is interleaved on the same inputs in one run. ``--tiny`` goes through all of it with
small shapes, on the CPU too: for a look at whether it works, not at the numbers.
"""

import argparse
import operator
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from benchmarks import rivals
from softhot.kernels import filtered, triton

CLASSES = (1000, 32768, 50257, 65536, 131072, 262144)  # one whose rows start anywhere
ELEMENTS = 2**29  # logits of a batch
LAYERS = ((4096, 4096, 128256), (8192, 2304, 256000), (8192, 4096, 128256))
TINY_LOGITS, TINY_LAYERS = ((4, 1000), (2, 1021)), ((8, 16, 300),)
ALPHA, FILTER = 0.1, 2.0**-12
SMOOTHING_KERNELS = ("torch", "torch.compile", "Liger", "flash-attention")
SAMPLE = 16  # rows whose gradients are compared with float64


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tiny", action="store_true", help="small shapes, on any device")
    parser.add_argument("--only", choices=("logits", "layer"), help="only this half")


def rows(options: argparse.Namespace) -> Iterator[dict]:
    """One record a shape: milliseconds, distance from the limits, memory and error of each loss."""
    missing = triton.reason("cuda") or ("" if torch.cuda.is_available() else "there is no GPU")
    if missing and not options.tiny:
        print(f"python -m benchmarks gpu: {missing}; --tiny shows that it works", file=sys.stderr)
        raise SystemExit(2)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds = 1 if options.tiny else max(options.rounds, 7)
    limits = ceilings(device, options.tiny)
    about = {"device": _name(device), "gpu_versions": rivals.versions(), "limits": limits}
    about["left_out"] = rivals.missing(device)
    if options.only != "layer":
        shapes = TINY_LOGITS if options.tiny else [(ELEMENTS // k, k) for k in CLASSES]
        for shape in shapes:
            record = logits_in(shape, device, rounds, limits["copy_gb_s"])
            yield about | record | {"bars": {} if options.tiny else bars(record)}
    if options.only != "logits":
        for shape in TINY_LAYERS if options.tiny else LAYERS:
            record = hidden_in(shape, device, rounds, limits["matrix_tflop_s"])
            yield about | record | {"bars": {} if options.tiny else bars(record)}


def bars(record: dict) -> dict[str, tuple[float, str, float]]:
    """What is asked of us, where it is asked: what came out, and what it has to be.

    Only an H200 can tell whether a time in milliseconds is met.
    """
    ms, share = record["milliseconds"], record["share_of_limit"]
    asked = {"time that smoothing adds": (ms["softhot"] / ms["softhot, hard"] - 1, "<", 0.03)}
    if record["part"] == "logits":
        if record["shape"][1] >= 32768:
            asked["share of copy bandwidth"] = (share["softhot"], ">=", 0.9)
        rivals = [ms[name] for name in SMOOTHING_KERNELS if name in ms]
        if rivals:
            asked["times faster than the fastest smoothing kernel"] = (
                min(rivals) / ms["softhot"],
                ">=",
                2.0,
            )
    else:
        if record["shape"] == list(LAYERS[0]):
            asked["milliseconds"] = (ms["softhot"], "<=", 17.3)
            asked["milliseconds, filtered"] = (ms["softhot, filtered"], "<", 16.3)
        memory = record["extra_megabytes"]["softhot"]
        if memory is not None:
            asked["memory beyond the two gradients"] = (
                memory / record["gradient_megabytes"],
                "<",
                0.05,
            )
    return asked


HOLDS = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


# ---------------------------------------------------------------------------------- logits in


def logits_in(shape: tuple[int, int], device: torch.device, rounds: int, copy: float) -> dict:
    n, k = shape
    logits = (3 * torch.randn(n, k, device=device)).to(_dtype(device)).requires_grad_()
    labels = torch.randint(k, (n,), device=device)
    losses = rivals.logits_in(device)
    steps = {name: _step(loss, (logits,), labels) for name, loss in losses.items()}
    forward = {name: _no_grad(loss, (logits,), labels) for name, loss in losses.items()}
    # One read forward, one read and one write backward: what no loss that takes any upstream
    # gradient can go below.
    least = 3 * n * k * logits.element_size() / (copy * 1e6)
    record = _timed(steps, forward, rounds, device)
    record["share_of_limit"] = {name: least / ms for name, ms in record["milliseconds"].items()}
    record["error"] = {
        name: _error(loss, (logits,), labels, "hard" in name) for name, loss in losses.items()
    }
    return {"part": "logits", "shape": list(shape), "limit_ms": least, **record}


# ---------------------------------------------------------------------------------- hidden in


def hidden_in(shape: tuple[int, int, int], device: torch.device, rounds: int, rate: float) -> dict:
    n, h, v = shape
    hidden = torch.randn(n, h, device=device).to(_dtype(device)).requires_grad_()
    weight = (3 * torch.randn(v, h, device=device) / h**0.5).to(hidden.dtype).requires_grad_()
    labels = torch.randint(v, (n,), device=device)
    losses = rivals.hidden_in(device, ALPHA, FILTER)
    steps = {name: _step(loss, (hidden, weight), labels) for name, loss in losses.items()}
    forward = {name: _no_grad(loss, (hidden, weight), labels) for name, loss in losses.items()}
    least = 6 * n * h * v / (rate * 1e9)
    record = _timed(steps, forward, rounds, device)
    record["share_of_limit"] = {name: least / ms for name, ms in record["milliseconds"].items()}
    few = (hidden[:SAMPLE].detach().requires_grad_(), weight)
    record["error"] = {
        name: _error(loss, few, labels[:SAMPLE], "hard" in name) for name, loss in losses.items()
    }
    record["gradient_megabytes"] = (hidden.nbytes + weight.nbytes) / 1e6
    record["filter_error"] = filter_errors(min(n, 128), min(h, 64), min(v, 32768), device)
    return {"part": "layer", "shape": list(shape), "limit_ms": least, **record}


def filter_errors(n: int, h: int, v: int, device: torch.device) -> dict[str, float]:
    """Relative error of the gradient by hidden states near the smoothed optimum, float64.

    What exceeds the threshold is exact in both; they differ in what becomes of the rest.
    """
    weight = torch.randn(v, h, device=device, dtype=torch.float64) / h**0.5 + 0.3
    hidden = torch.randn(n, h, device=device, dtype=torch.float64)
    labels = torch.randint(v, (n,), device=device)
    q = torch.full((n, v), ALPHA / v, device=device, dtype=torch.float64)
    q.scatter_add_(1, labels[:, None], torch.full_like(hidden[:, :1], 1 - ALPHA))
    dz = (q.log() + 0.5 * torch.randn_like(q)).softmax(-1) - q
    limit, truth, found = q.new_tensor(FILTER), dz @ weight, {}
    for name, compensate in (("dropped, as the smoothing fork does", False), ("means", True)):
        dh = torch.empty_like(hidden)
        filtered.products(dz, weight, hidden, limit, dh=dh, dw=None, compensate=compensate)
        found[name] = float((dh - truth).norm() / truth.norm())
    return found


# ----------------------------------------------------------------------------------- measuring


def ceilings(device: torch.device, tiny: bool) -> dict[str, float]:
    """What the device can do at best: gigabytes a second, read plus written; 10**12 flop/s."""
    size, edge = (2**16, 64) if tiny else (2**31, 8192)
    source = torch.randint(0, 100, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(edge, edge, device=device).to(_dtype(device)) for _ in range(2))
    copy = statistics.median(_clock(lambda: target.copy_(source), device) for _ in range(7))
    product = statistics.median(_clock(lambda: a @ b, device) for _ in range(7))
    return {"copy_gb_s": 2 * size / copy / 1e6, "matrix_tflop_s": 2 * edge**3 / product / 1e9}


def _timed(steps: dict, forward: dict, rounds: int, device: torch.device) -> dict:
    memory = {name: _extra_memory(run, device) for name, run in steps.items()}  # warms up, too
    for run in forward.values():
        run()
    times: dict[tuple[str, str], list[float]] = {}
    order = [(kind, name) for kind in ("both", "forward") for name in steps]
    shuffle = random.Random(0)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for kind, name in order:
            run = steps[name] if kind == "both" else forward[name]
            times.setdefault((kind, name), []).append(_clock(run, device))
    median = {key: statistics.median(found) for key, found in times.items()}
    return {
        "milliseconds": {name: median["both", name] for name in steps},
        "forward_milliseconds": {name: median["forward", name] for name in steps},
        "extra_megabytes": memory,
        "rounds": rounds,
    }


def _clock(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _extra_memory(run: Callable[[], object], device: torch.device) -> float | None:
    """Peak megabytes beyond inputs and gradients; None where nobody counts."""
    run()
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()  # gradients of the first call included
    run()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _step(loss: Callable, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> Callable:
    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        loss(*inputs, labels).backward()

    return run


def _no_grad(loss: Callable, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> Callable:
    def run() -> None:
        with torch.no_grad():
            loss(*inputs, labels)

    return run


def _error(
    loss: Callable, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, hard: bool = False
) -> float:
    """Relative error of the first input's gradient, of a few rows, against float64."""
    few, others = inputs[0][:SAMPLE].detach().clone().requires_grad_(), inputs[1:]
    labels = labels[:SAMPLE]
    exact = few.detach().double().requires_grad_()  # before a loss that writes over its input
    (ours,) = torch.autograd.grad(loss(few, *others, labels), few)
    wide = [tensor.detach().double() for tensor in others]
    logits = F.linear(exact, wide[0]) if wide else exact
    value = F.cross_entropy(logits, labels, label_smoothing=0.0 if hard else ALPHA)
    (truth,) = torch.autograd.grad(value, exact)
    return float((ours.double() - truth).norm() / truth.norm())


def _dtype(device: torch.device) -> torch.dtype:
    # The interpreter's bfloat16 is not that of a GPU.
    return torch.bfloat16 if device.type == "cuda" else torch.float16


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


def table(records: list[dict]) -> str:
    lines = [
        f"{'shape':>20}  {'loss':<28} {'ms':>9} {'forward':>9} {'of limit':>9} "
        f"{'extra MB':>9}  error"
    ]
    for record in records:
        shape = " x ".join(map(str, record["shape"]))
        for name, ms in record["milliseconds"].items():
            memory = record["extra_megabytes"][name]
            lines.append(
                f"{shape:>20}  {name:<28} {ms:>9.3f} {record['forward_milliseconds'][name]:>9.3f} "
                f"{record['share_of_limit'][name]:>8.0%} "
                f"{'-' if memory is None else f'{memory:.0f}':>9}  {record['error'][name]:.1e}"
            )
        for what, (value, sign, bar) in record["bars"].items():
            said = "holds" if HOLDS[sign](value, bar) else "missed"
            lines.append(f"{shape:>20}  {what}: {value:.3g}, asked {sign} {bar:g}: {said}")
    return "\n".join(lines)
