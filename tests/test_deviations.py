"""The table of deviations: every row reproduces, and the page says what it gives today."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own: it chooses the backend of Keras."""
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_row_deviates_and_the_page_is_what_its_code_gives():
    code = """
import sys
import docs.deviations as d
for row in d.DEVIATIONS:
    assert d.answer(row.theirs()) != d.answer(row.ours()), row.title
    assert row.ours() == row.ours(), row.title  # no NaN of ours
assert len(d.DEVIATIONS) >= 17
sys.stdout.write(d.page())
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "deviations.md").read_text(), "python -m docs.deviations"


def test_elsewhere_the_libraries_agree():
    done = run("-m", "tests.differential", "--cases", "640")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "640 random cases, 0 of them" in done.stdout
