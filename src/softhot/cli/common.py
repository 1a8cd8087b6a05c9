"""What all commands share: the app, the kinds of arguments, and how they print."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import App, Parameter, Token, convert

from softhot import __version__


def converted(kind: Any, tokens: tuple[Token, ...]) -> Any:
    """What cyclopts makes of an argument, except that it would round 1.5 to an integer."""
    value = tokens[0].value
    if kind is int and "." in value:
        raise ValueError(f"{value} is not an integer.")
    return convert(kind, tokens)


app = App(
    name="softhot",
    version=__version__,
    help="Label smoothing: whether to smooth, how much, and what it costs.",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(converter=converted),
)

Json = Annotated[bool, Parameter(name="--json", negative=())]


def versions() -> dict[str, str]:
    """Of softhot and of what a page is made with."""
    from importlib.metadata import version

    return {"softhot": __version__} | {name: version(name) for name in ("numpy", "altair")}


def print_json(content: dict[str, Any]) -> None:
    """Print a result as JSON to standard output."""
    print(json.dumps(content, indent=2))
