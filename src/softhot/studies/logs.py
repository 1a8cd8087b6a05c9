"""A log for each trial, ``logs/<key>.log``: when it began, what it printed, how it ended.

A line that begins with a time is an event: "started", "finished" or "failed". What training
prints follows with a bar in front, a traceback indented. Logs vouch for nothing: a run without
them is whole. So whatever is wrong with one, no training ends for it.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import re
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LOGS = "logs"
EVENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (started|finished|failed) (.*)")


class Ending(NamedTuple):
    """The last event in a log: its name, and what is said of it."""

    event: str
    words: str

    @property
    def seconds(self) -> float:
        """How long the training took, NaN if it did not finish."""
        match = re.match(r"after ([0-9.]+) s", self.words)
        return float(match[1]) if match and self.event == "finished" else float("nan")


class Log:
    """The log of one trial; adds to the file, so that former attempts stay."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / LOGS / f"{key}.log"

    def started(self) -> None:
        """The training begins, in this process."""
        self._event("started", f"by process {os.getpid()} on {socket.gethostname()}")

    def finished(self, seconds: float) -> None:
        """The trial is in the store."""
        self._event("finished", f"after {seconds:.3f} s")

    def failed(self, error: BaseException) -> None:
        """The training raised ``error``."""
        lines = "".join(traceback.format_exception(error)).splitlines()
        self._event("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        self._add("".join(f"  {line}\n" for line in lines))

    def printed(self, text: str) -> None:
        """The training printed ``text``."""
        self._add("".join(f"| {line}\n" for line in text.splitlines()))

    def _event(self, event: str, words: str) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._add(f"{now} {event} {words}\n")

    def _add(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)


def ending(folder: Path, key: str) -> Ending | None:
    """The last event in the trial's log, None if there is none."""
    try:
        text = (folder / LOGS / f"{key}.log").read_text("utf-8", errors="replace")
    except OSError:
        return None
    matches = [EVENT.fullmatch(line) for line in text.splitlines()]
    found = [match for match in matches if match]
    return Ending(found[-1][1], found[-1][2]) if found else None


@contextlib.contextmanager
def prints_into(log: Log) -> Iterator[None]:
    """What is printed inside goes into the log, not between the lines of a progress bar."""
    if threading.current_thread() is not threading.main_thread():
        yield  # standard output belongs to the whole process
        return
    before, sys.stdout = sys.stdout, _Lines(log)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before


class _Lines(io.TextIOBase):
    """A text file that hands whole lines to a log."""

    def __init__(self, log: Log) -> None:
        self.log, self.rest = log, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        if lines:
            self.log.printed("\n".join(lines) + "\n")
        return len(text)

    def flush(self) -> None:
        if self.rest:
            self.log.printed(self.rest)
            self.rest = ""
