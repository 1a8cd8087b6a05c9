"""Measure, print the tables, append them to benchmarks/results.

Every part is a module of this package with ``rows(options)``, which yields one record (plain JSON
values) after the other, and ``table(records)``, which shows them; ``arguments(parser)`` may add
options. Its first docstring line is its help.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results"
LOSSES = ("logits", "targets", "arrays", "linear")
PARTS = (*LOSSES, "growth", "startup", "replicas", "gpu", "judge")
GROUPS = {"cpu": LOSSES}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="what", required=True)
    for name in (*GROUPS, *PARTS):
        modules = [found for part in GROUPS.get(name, (name,)) if (found := _module(part))]
        if not modules:
            continue
        about = (modules[0].__doc__ or "").splitlines()[0]
        text = f"all of: {', '.join(GROUPS[name])}" if name in GROUPS else about
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--threads", type=int, default=2, help="threads (default 2)")
        command.add_argument("--rounds", type=int, default=7, help="interleaved (default 7)")
        command.add_argument("--dry", action="store_true", help="print, but append nothing")
        command.set_defaults(modules=modules)
        for module in modules:
            getattr(module, "arguments", lambda parser: None)(command)
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    for module in options.modules:
        _run(module, options)
    return 0


def _module(name: str):
    full = f"benchmarks.{name}"
    if (Path(__file__).parent / f"{name}.py").exists():
        return importlib.import_module(full)
    return None


def _run(module, options: argparse.Namespace) -> None:
    from softhot.kernels.native import library

    name, records = module.__name__.rpartition(".")[2], []
    about = {"machine": describe(), "kernel": library().reason}
    about |= {"threads": options.threads, "rounds": options.rounds}
    RESULTS.mkdir(exist_ok=True)
    for row in module.rows(options):
        records.append(row)
        print(module.table([row]).splitlines()[-1], file=sys.stderr, flush=True)
        if not options.dry:  # line by line: what is measured stays, whatever comes after
            with (RESULTS / f"{name}.jsonl").open("a") as file:
                file.write(json.dumps({**about, **row}) + "\n")
    print(module.table(records))


if __name__ == "__main__":
    sys.exit(main())
