"""Run every Python block of the documentation, all pages in one process; prints JSON.

A comment below a statement is what it prints, or the repr of its value. Run by test_docs.py with a
Keras backend that trains.
"""

import json
import sys
import traceback
import warnings
from pathlib import Path

from blocks import run_blocks

DOCS = Path(__file__).parent.parent / "docs"
# What a page takes for granted: the reader's own things.
GIVEN = {"diagnosis.md": "import softhot, torch\nmy_loss = torch.nn.CrossEntropyLoss()"}


def pages() -> list[Path]:
    written = [p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in SKIPPED]
    return sorted(written)


SKIPPED = ("_build", "reference")  # docstrings, whose examples are doctested where they stand


def main() -> None:
    failures = {}
    counts = {}
    warnings.simplefilter("error")
    for page in pages():
        name = str(page.relative_to(DOCS))
        try:
            counts[name] = run_blocks(page.read_text(), GIVEN.get(name, ""))
        except BaseException:
            failures[name] = traceback.format_exc(limit=-3)
    json.dump({"blocks": counts, "failures": failures}, sys.stdout)


if __name__ == "__main__":
    main()
