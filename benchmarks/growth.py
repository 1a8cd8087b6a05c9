"""How cost grows: with classes, with rows, and with the trials of a study."""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.logits import DTYPES, LOSSES, batch
from benchmarks.timing import interleaved

CLASSES = tuple(2**i for i in range(1, 19))
ROWS = tuple(4**i for i in range(9))
LOGITS = 2**21  # of a batch while classes grow
K = 100  # classes while rows grow
SEEDS = (2, 5, 10, 20, 40)


def arguments(parser: argparse.ArgumentParser) -> None:
    names = ("classes", "rows", "trials")
    parser.add_argument("--only", choices=names, action="append", help="of what grows; repeatable")


def rows(options: argparse.Namespace):
    """One record a point: what grows, its value, and seconds by name."""
    points = {
        "classes": ((k, lambda k: losses(LOGITS // k, k, options.rounds)) for k in CLASSES),
        "rows": ((n, lambda n: losses(n, K, options.rounds)) for n in ROWS),
        "trials": ((seeds, study) for seeds in SEEDS),
    }
    for name in options.only or points:
        for at, measure in points[name]:
            yield {"grows": name, "at": at, **measure(at)}


def losses(n: int, k: int, rounds: int) -> dict[str, object]:
    found: dict[str, object] = {"logits": n * k}
    for dtype in DTYPES:
        logits, labels = batch(n, k, dtype)
        variants = {
            f"{name}, {dtype}": lambda run=LOSSES[name], z=logits, y=labels: run(z, y)
            for name in ("softhot", "torch")
        }
        times = interleaved(variants, f"torch, {dtype}", rounds)
        found |= {name: t.seconds for name, t in times.items()}
    return found


def study(seeds: int) -> dict[str, object]:
    """Seconds to save, read, compare and report the trials of a study that nobody had to train."""
    from tests.studies_cases import fabricate

    from softhot.report import render
    from softhot.studies import Store, StudySpec, compare

    spec = StudySpec("digits", seeds=seeds)
    results = {trial: fabricate(trial) for trial in spec.trials()}
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "run", spec)
        lap()
        for trial, result in results.items():
            store.save(trial, result)
        seconds = {"save": lap()}
        records = Store.open(Path(folder) / "run").records()
        seconds["read"] = lap()
        comparison = compare(records, spec)
        seconds["compare"] = lap()
        page = render(comparison, records, command="-", versions={}, split_digest="-")
        seconds["report"] = lap()
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {"at": len(results), **seconds, "page_bytes": len(page.encode()), "store_bytes": size}


def table(records) -> str:
    lines = [f"{'grows':<8} {'to':>8}  per logit, ns: softhot, torch (float32); or seconds, bytes"]
    for row in records:
        if row["grows"] == "trials":
            text = ", ".join(
                f"{name} {row[name]:.2f} s" for name in ("save", "read", "compare", "report")
            )
            text += f", page {row['page_bytes'] / 1e6:.2f} MB"
        else:
            names = ("softhot, float32", "torch, float32")
            text = ", ".join(f"{1e9 * row[name] / row['logits']:.3f}" for name in names)
        lines.append(f"{row['grows']:<8} {row['at']:>8}  {text}")
    return "\n".join(lines)
