"""The `softhot` command: how it begins, and how it ends whatever happens."""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from softhot.core.check import InputError, SofthotWarning

FAILED = 1  # exit codes: some trials failed,
BAD_INPUT = 2  # something given cannot be used,
INTERRUPTED = 130  # Ctrl-C,
BROKEN_PIPE = 141  # nobody reads the output any more

PATIENCE = 3  # seconds after an interrupt in which another one does nothing


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        with _interrupted_once():
            return _run(arguments)
    except InputError as error:
        say(str(error))
        return BAD_INPUT
    except ModuleNotFoundError as error:
        say(f"{error.name} is missing: pip install 'softhot[study]'.")
        return BAD_INPUT
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Rich has seen to the output itself
            return BROKEN_PIPE
        raise
    except OSError as error:  # a file or a folder may refuse at any time
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return BAD_INPUT
    except MemoryError as error:
        say(f"Memory ran out. {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("Interrupted. What was finished is kept; the same command continues.")
        return INTERRUPTED


def say(line: str) -> None:
    """Tell something beside the result: one line on standard error."""
    print(f"softhot: {' '.join(line.split())}", file=sys.stderr)


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt; pressed twice it does not cut off what then ends in order.

    Processes and clusters that were started here would be left behind. After ``PATIENCE`` seconds
    another one counts again: somebody may have swallowed the first.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    last = -math.inf

    def handle(*_: object) -> None:
        nonlocal last
        if (now := time.monotonic()) > last + PATIENCE:
            last = now
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        ended = signal.default_int_handler if last == -math.inf else signal.SIG_IGN
        signal.signal(signal.SIGINT, ended)


def _run(arguments: list[str] | None) -> int:
    """Load the commands, here where an interrupt ends in one line, and run the one asked for."""
    from cyclopts import CycloptsError

    from softhot.cli.commands import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a minus sign that Latin-1 lacks ends no command
            stream.reconfigure(errors="backslashreplace")
    options: dict[str, Any] = {"exit_on_error": False, "print_error": False}
    with warnings.catch_warnings():
        warnings.simplefilter("always", SofthotWarning)
        warnings.showwarning = lambda message, *_: say(f"warning: {message}")
        try:
            return int(app(arguments, result_action="return_value", **options) or 0)
        except CycloptsError as error:
            say(str(error))
            return BAD_INPUT
