"""Seconds until the command answers, and until a default study has its first trial."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "softhot.cli")


def rows(options: argparse.Namespace):
    """One record a thing that is waited for."""
    yield {"until": "softhot --help", "seconds": _median(_help, options.rounds)}
    yield {"until": "first trial", "seconds": _median(_first_trial, min(options.rounds, 3))}


def _median(wait, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        wait()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _help() -> None:
    subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)


def _first_trial() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        study = [*COMMAND, "study", "digits", "--out", str(out)]
        with subprocess.Popen(study, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while not any(out.rglob("*.npz")):
                if run.poll() is not None:
                    raise RuntimeError("the study ended before it had a trial")
                time.sleep(0.02)
            run.terminate()


def table(records) -> str:
    return "\n".join(f"{row['until']:<16} {row['seconds']:.2f} s" for row in records)
