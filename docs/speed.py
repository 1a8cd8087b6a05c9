"""Write docs/speed.md and docs/growth.svg from what `python -m benchmarks` measured.

    python -m docs.speed

The latest line of benchmarks/results for every row counts; speeds of losses and studies are shown
for every processor they were measured on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import linear

PAGE = Path(__file__).with_suffix(".md")
PLOT = Path(__file__).with_name("growth.svg")
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
Row = dict[str, Any]
# Times faster than torch that were promised before anything was measured here.
BARS = {
    ("float32", 128, 10): 1.9,
    ("float32", 65536, 10): 4,
    ("float32", 8192, 100): 4,
    ("float32", 4096, 1000): 4.5,
    ("float32", 1024, 32000): 12,
    ("float32", 256, 128000): 12,
    ("bfloat16", 65536, 10): 10,
    ("bfloat16", 8192, 100): 3,
    ("bfloat16", 4096, 1000): 3,
    ("bfloat16", 1024, 32000): 6,
}
LAYER_BARS = {(2048, 512, 32000): 1.35, (1024, 1024, 128000): 1.1}
INTRO = """# Speed on a CPU

Written by `python -m docs.speed` from what `python -m benchmarks` measured and appended to
`benchmarks/results`, every line with machine, versions and commit. Ratios are medians over
interleaved rounds in one process, with the default allocator. A sample during which other
processes took the processor was taken again; *disturbed* says which part of the samples stayed
so.

The kernel has code for AVX-512, AVX2, NEON and any other processor, and its tests run through all
that the machine has; through NEON also in an emulator, if QEMU and a cross compiler are installed.
What NEON's speed is nobody has measured.

"""


def latest(name: str, key: Iterable[str]) -> list[Row]:
    """The last line for every value of ``key``."""
    path, found = RESULTS / f"{name}.jsonl", {}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        found[json.dumps([row.get(part) for part in key])] = row
    return list(found.values())


def by_kernel(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each of the kernel's codes, as measured on one kind of processor each."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["kernel"], []).append(row)
    return list(found.values())


def size(row: Row) -> str:
    return " x ".join(f"{n:,}".replace(",", " ") for n in row["shape"])


def lines(header: str, rows: Iterable[Iterable[str]]) -> str:
    names = [name.strip() for name in header.split("|")]
    body = [names, ["---", *["---:"] * (len(names) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body) + "\n\n"


def tables(header: str, rows: Iterable[Row], body: Callable[[list[Row]], Iterable[Any]]) -> str:
    """A table for each of the kernel's codes, below what it was measured on."""
    return "".join(of_machine(of[-1]) + lines(header, body(of)) for of in by_kernel(rows))


def of_machine(row: Row) -> str:
    machine = row["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {row['threads']} threads, Python "
        f"{machine['python']}, {versions}; the native kernel {row['kernel']}; "
        f"{row['rounds']} rounds, {machine['date'][:10]}, commit {machine['commit']}.\n\n"
    )


def logits(rows: list[Row]) -> str:
    text = (
        "## Logits in: loss and gradient in PyTorch\n\n"
        "`softhot.torch.cross_entropy(logits, labels, label_smoothing=0.1)` and `backward()`, "
        "against `F.cross_entropy(label_smoothing=0.1)` and `torch.compile` of it. The limit is "
        "the slower of copying the logits and taking their exponentials in the cache. Memory is "
        "what is needed at the peak beside the logits, in multiples of them; the error is the "
        "largest of the gradient against float64, over its largest entry.\n\n"
    )

    def cells(row: Row) -> Iterable[str]:
        times, memory, error = row["times_torch"], row["extra_memory"], row["error"]
        bar = BARS.get((row["dtype"], *row["shape"]))
        ratio = passed(times["softhot"], bar)
        compiled = "-"
        if "compiled" in times:
            compiled = f"{times['softhot'] / times['compiled']:.1f}"
        yield from (size(row), row["dtype"], f"{row['milliseconds']['softhot']:.3f}")
        yield from (ratio, compiled, f"{row['times_limit']:.1f}")
        known = memory["softhot"] is not None
        yield f"{memory['softhot']}, {memory['in place']}, {memory['torch']}" if known else "-"
        yield f"{error['softhot']:.0e}, {error['torch']:.0e}"
        yield f"{row['disturbed']:.0%}"

    header = (
        "N x K | dtype | ms | times torch (bar) | times compiled | of the limit "
        "| memory: softhot, in place, torch | error: softhot, torch | disturbed"
    )
    return text + tables(header, rows, lambda rows: map(cells, rows))


def targets(rows: list[Row]) -> str:
    text = (
        "## Dense targets in NumPy\n\n`softhot.smooth_labels` to a dense float64 array, over "
        "writing such an array once (`np.full`); the recipe is one-hot, times 1 - alpha, plus "
        "alpha / K.\n\n"
    )

    def cells(row: Row) -> Iterable[str]:
        yield from (size(row), f"{row['milliseconds']['softhot']:.2f}")
        yield from (f"{row['writes']['softhot']:.2f}", f"{row['writes']['recipe']:.2f}")

    header = "N x K | ms | softhot / one write | recipe / one write"
    return text + tables(header, rows, lambda rows: map(cells, rows))


def arrays(rows: list[Row]) -> str:
    text = (
        "## NumPy and JAX\n\nLoss and gradient, float32: NumPy's through the native kernel against "
        "the readable reference; JAX's under jit, where XLA calls the same kernel, against optax's "
        "hard-label loss, which does less, and its smoothed one.\n\n"
    )

    def cells(row: Row) -> Iterable[str]:
        ours = row["times_rival"]["softhot"]
        others = [
            f"{ours / ratio:.2f} times {name}"
            for name, ratio in row["times_rival"].items()
            if name != "softhot"
        ]
        yield from (row["library"], size(row), f"{row['milliseconds']['softhot']:.2f}")
        yield from (", ".join(others), f"{row['disturbed']:.0%}")

    header = "library | N x K | ms | speed | disturbed"
    return text + tables(header, rows, lambda rows: map(cells, rows))


def growth(rows: list[Row]) -> str:
    plot(rows)
    text = (
        "## How cost grows\n\n![Time a logit against the number of classes and of rows; time and "
        "size of a study's parts against its trials](growth.svg)\n\n"
    )
    trials = [row for row in rows if row["grows"] == "trials"]
    body = (
        (
            str(row["at"]),
            *(f"{row[name]:.2f}" for name in ("save", "read", "compare", "report")),
            f"{row['page_bytes'] / 1e6:.2f}",
            f"{row['store_bytes'] / 1e6:.2f}",
        )
        for row in trials
    )
    header = "trials | save, s | read, s | compare, s | report, s | page, MB | store, MB"
    return text + lines(header, body)


def plot(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "softhot", "font.size": 9, "axes.spines.top": False}
    plt.rcParams |= {"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
    colours = {"softhot": "#c2410c", "torch": "#64748b"}
    for axis, grows, label in zip(
        axes,
        ("classes", "rows"),
        ("classes K, of 2 million logits", "rows N, of 100 classes"),
        strict=False,
    ):
        chosen = [row for row in rows if row["grows"] == grows]
        at = [row["at"] for row in chosen]
        for name, colour in colours.items():
            for dtype, style in (("float32", "-"), ("bfloat16", "--")):
                each = [1e9 * row[f"{name}, {dtype}"] / row["logits"] for row in chosen]
                axis.plot(at, each, style, color=colour, label=f"{name}, {dtype}", linewidth=1.6)
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="nanoseconds a logit")
    axes[0].legend(frameon=False, fontsize=8)
    trials = [row for row in rows if row["grows"] == "trials"]
    at = [row["at"] for row in trials]
    shades = ("#c2410c", "#0f766e", "#7c3aed", "#64748b")
    for name, colour in zip(("report", "compare", "read", "save"), shades, strict=True):
        axes[2].plot(at, [row[name] for row in trials], "o-", color=colour, label=name, ms=3)
    axes[2].set(xlabel="trials of a study", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    axes[2].legend(frameon=False, fontsize=8)
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)


WHY = """## What was missed, and why

Looked into by timing the kernel alone, on data in the cache, cut off after each of its steps:

- **Distance to the limit at K = 10** (promised: at most 4). A block of 16 rows takes 97 ns on
  AVX-512: 11 to read and transpose it, 30 for the exponentials, 18 for logarithm and slopes, 28 to
  transpose it back and write, 10 for labels and sums. That alone is 4 times the exponentials.
  Around it a call through PyTorch costs about 25 microseconds of Python and 20 of autograd, and as
  much again where the logits have pushed the interpreter out of the second-level cache. At
  (128, 10) there is nothing else: of 45 microseconds 18 are an empty autograd function, 1 is the
  kernel.
- **Distance to the limit in bfloat16 at K >= 32 000** (1.5). The copy, which is the limit, takes
  4.8 ms at (1024, 32 000). The kernel takes 6.7 for as many logits that are in the cache already:
  5.2 for maximum and exponentials, for both of which every number is widened, and 1.5 to round and
  write. In float32 the copy takes twice as long, and the arithmetic is hidden behind it.
"""


def layer(rows: list[Row]) -> str:
    text = (
        "## Hidden in: the loss of a linear layer\n\n"
        "`softhot.torch.linear_cross_entropy` and `backward()`, against `F.linear` and "
        "`F.cross_entropy(label_smoothing=0.1)`. No loss can be faster than the three matrix "
        "products alone. Memory is what is needed at the peak beside inputs and gradients. "
        "torch's own chunks (`F.linear_cross_entropy` with options) are all logits at once under "
        "smoothing; "
        f"with hard labels {linear.FEW} rows are timed.\n\n"
    )

    def body(rows: list[Row]) -> Iterable[Iterable[str]]:
        chunked = {size(r): r["times_chunked"] for r in rows if r["rival"] != linear.RIVAL}
        for row in rows:
            if row["rival"] == linear.RIVAL:
                yield cells(row, chunked.get(size(row)))

    def cells(row: Row, times: Row | None) -> Iterable[str]:
        memory, error, ratio = row["extra_megabytes"], row["error"], row["times_torch"]
        yield from (size(row), f"{row['seconds']['softhot']:.3f}")
        yield passed(ratio["softhot"], LAYER_BARS[tuple(row["shape"])])
        yield f"{ratio['products']:.2f}"
        yield f"{times['smooth']:.2f}, {times['hard']:.1f}" if times else "-"
        yield f"{memory['softhot']:.0f}, {memory['torch']:.0f}"
        yield f"{error['softhot']:.0e}, {error['torch']:.0e}"

    header = (
        "N x H x C | s | times torch (bar) | limit: the products "
        "| times torch's chunks: smoothed, hard | memory, MB: softhot, torch "
        "| error: softhot, torch"
    )
    return text + tables(header, rows, body)


def passed(ratio: float, bar: float | None) -> str:
    """A ratio beside what was promised."""
    if bar is None:
        return f"{ratio:.3g}"
    return f"{ratio:.3g} ({bar:g})" if ratio >= bar else f"{ratio:.3g} (**missed {bar:g}**)"


def replicas(rows: list[Row]) -> str:
    text = (
        "## Studies: trials that train as one program\n\nA step of one replica, against the same "
        "trials one after another in plain PyTorch (`nn.Sequential`, `F.cross_entropy`, "
        "`torch.optim.Adam`). The products are those of a step alone, stacked.\n\n"
    )

    def cells(row: Row) -> Iterable[str]:
        yield from (row["what"], row["variant"], f"{row['step_us']:.0f}")
        yield passed(row["ratio"], row["bar"])

    header = "what | variant | microseconds | times plain (bar)"
    return text + tables(header, rows, lambda rows: map(cells, rows))


def startup(rows: list[Row]) -> str:
    body = ((row["until"], f"{row['seconds']:.2f}") for row in rows)
    return "## Start\n\n" + lines("until | seconds", body)


def page() -> str:
    found = {
        logits: latest("logits", ("kernel", "shape", "dtype")),
        layer: latest("linear", ("kernel", "shape", "rival")),
        targets: latest(
            "targets",
            (
                "kernel",
                "shape",
            ),
        ),
        arrays: latest("arrays", ("kernel", "library", "shape")),
        growth: latest("growth", ("grows", "at")),
        replicas: latest("replicas", ("kernel", "what", "variant")),
        startup: latest("startup", ("until",)),
    }
    parts = [part(rows) for part, rows in found.items() if rows]
    return INTRO + "".join(parts) + WHY


if __name__ == "__main__":
    PAGE.write_text(page())
