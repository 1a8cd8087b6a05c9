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
    waits = {"softhot --help": (_help, options.rounds), "first trial": (_first_trial, 3)}
    for name, (wait, rounds) in waits.items():
        yield {"until": name, "seconds": statistics.median(wait() for _ in range(rounds))}


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def _first_trial() -> float:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "run"
        study = [*COMMAND, "study", "digits", "--out", str(out)]
        with subprocess.Popen(study, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while not any(out.rglob("*.npz")):
                if run.poll() is not None:
                    raise RuntimeError("the study ended before it had a trial")
                time.sleep(0.02)
            waited = time.perf_counter() - began
            run.terminate()
    return waited


def table(records) -> str:
    return "\n".join(f"{row['until']:<16} {row['seconds']:.2f} s" for row in records)
