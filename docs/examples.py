"""Write what the examples print and draw into docs/guide/_results, which the guide shows.

    python -m docs.examples [NAME ...]

Without names, all of them. Those of Keras run on the backend that KERAS_BACKEND names.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "guide" / "_results"
NOT = ("small", "torch_vocabulary_parallel")  # no example, and one that torchrun starts
NOISE = ("WARNING: All log", "I0000", "Loaded pretrained")  # of other libraries


def shown(text: str) -> str:
    """What an example printed, without what others print."""
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith(NOISE)]
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    """Run the examples named, one after another; not what needs a launcher of its own."""
    words = argparse.ArgumentParser("python -m docs.examples", description=main.__doc__)
    words.add_argument("name", nargs="*", help="such as torch_digits; by default all")
    scripts = [ROOT / "examples" / f"{name}.py" for name in words.parse_args().name]
    RESULTS.mkdir(exist_ok=True)
    style = RESULTS / ".matplotlibrc"  # text stays text, and the same figure is the same file
    style.write_text("svg.fonttype: none\nsvg.hashsalt: softhot\nfont.size: 9\n")
    environment = {"KERAS_BACKEND": "torch", **os.environ, "MATPLOTLIBRC": str(style)}
    environment |= {"MPLBACKEND": "svg", "SOURCE_DATE_EPOCH": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for script in scripts or sorted((ROOT / "examples").glob("*.py")):
        if script.stem in NOT or "def main" not in script.read_text():  # models for softhot study
            continue
        figure = RESULTS / f"{script.stem}.svg"
        draws = "def draw" in script.read_text()
        command = [sys.executable, str(script), *([str(figure)] if draws else [])]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{script.name}: {done.stderr}")
        (RESULTS / f"{script.stem}.txt").write_text(shown(done.stdout))
        print(f"{script.stem}: {'text and figure' if draws else 'text'}")
    style.unlink()


if __name__ == "__main__":
    main()
