"""What an example prints, against what its page shows: docs/guide/_results/NAME.txt."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parent.parent / "docs" / "guide" / "_results"
NUMBER = r"[-+]?\d[\d.,]*(?:e[-+]\d+)?%?"


def skeleton(text):
    """The words of an output: its numbers vary with the machine and the size of the run.

    Several numbers in a row, and the signs behind them, count as one.
    """
    words = re.sub(rf"{NUMBER}( [-+=](?= ))?|'[^']+'", "#", text)
    words = re.sub(r"#( +#)+", "#", words)
    return [" ".join(line.split()) for line in words.splitlines()]


def numbers(text):
    """Every number in an output."""
    return [float(found.rstrip("%.,")) for found in re.findall(NUMBER, text)]


def check_shown(name, printed, *, whole=False):
    """Assert that the page of ``name`` shows what was printed.

    Args:
        whole: The example was run as a reader runs it, so that its numbers are those of the page,
            up to what another processor makes of them. Else only the words are compared.
    """
    page = (RESULTS / f"{name}.txt").read_text()
    lines = [line for line in printed.splitlines() if not line.startswith("Loaded")]
    printed = "\n".join(lines).strip() + "\n"
    assert skeleton(printed) == skeleton(page)
    if whole:
        assert numbers(printed) == pytest.approx(numbers(page), rel=0.05, abs=0.02)
