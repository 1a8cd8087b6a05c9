"""What all commands share: the app, exit codes, and how they print."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from softhot import __version__

FAILED = 1  # exit codes: some trials failed,
BAD_INPUT = 2  # something given cannot be used,
INTERRUPTED = 130  # Ctrl-C,
BROKEN_PIPE = 141  # nobody reads the output any more

app = App(
    name="softhot",
    version=__version__,
    help="Label smoothing: whether to smooth, how much, and what it costs.",
    suppress_keyboard_interrupt=False,
)

Json = Annotated[bool, Parameter(name="--json", negative=())]


def versions() -> dict[str, str]:
    """Of softhot and of what a page is made with."""
    from importlib.metadata import version

    return {"softhot": __version__} | {name: version(name) for name in ("numpy", "altair")}


def print_json(content: dict[str, Any]) -> None:
    """Print a result as JSON to standard output."""
    print(json.dumps(content, indent=2))


def say(line: str) -> None:
    """Tell something beside the result: one line on standard error."""
    print(f"softhot: {line}", file=sys.stderr)
