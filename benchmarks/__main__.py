"""`python -m benchmarks cpu`: measure, print the table, append it to benchmarks/results."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["cpu"], default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default 7)")
    parser.add_argument("--shape", help="one shape only, as 4096x1000")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as a rival too")
    parser.add_argument("--dry", action="store_true", help="print, but append nothing")
    options = parser.parse_args()

    import torch

    from benchmarks import cpu
    from softhot.kernels.native import library

    torch.set_num_threads(options.threads)
    shapes = cpu.SHAPES
    if options.shape:
        shapes = (tuple(int(part) for part in options.shape.split("x")),)
    records = []
    for row in cpu.rows(shapes, rounds=options.rounds, compiled=options.compiled):
        records.append(row)
        print(cpu.table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    print(cpu.table(records))
    if not options.dry:
        RESULTS.mkdir(exist_ok=True)
        content = {
            "machine": describe(),
            "kernel": library().reason,
            "threads": options.threads,
            "rows": records,
        }
        with (RESULTS / "cpu.jsonl").open("a") as file:
            file.write(json.dumps(content) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
