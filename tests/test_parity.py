"""The parity table: it says what the installed frameworks give today."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def numbers(text):
    """The page without its line of versions: new ones that give the same change nothing."""
    return [line for line in text.splitlines() if not line.startswith("Versions: ")]


def test_the_page_is_what_its_code_gives():
    code = "import docs.parity as d, sys; sys.stdout.write(d.page())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "parity.md").read_text()
    assert numbers(done.stdout) == numbers(page), "python -m docs.parity"
    assert "## Keras on TensorFlow, JAX, PyTorch" in page
