"""A run in the terminal: the bar while it trains, and what `softhot status` says."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from softhot.studies import Progress as Event
    from softhot.studies.leader import Best
    from softhot.studies.status import Status

LOOK = 0.5  # seconds between two looks at how far the trials are that are being trained
SHOWN = 4  # of them


class TrialProgress:
    """A context that gives a callback for :func:`softhot.studies.run` and draws how far it is.

    In a terminal a bar over trials and the epochs of those being trained, with the time left;
    below it what is being trained, and the arm that leads on validation. In a pipe a line for
    every tenth of the trials.

    Args:
        total: How many trials there are.
        folder: The folder of the run.
        quiet: Say nothing.
        console: Where to draw; standard error if None.
    """

    def __init__(
        self, total: int, folder: Path, quiet: bool, console: Console | None = None
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet) if console is None else console
        self.bar = Progress(
            TextColumn("Training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("trials,"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            auto_refresh=False,
        )
        self.task = self.bar.add_task("", total=total)
        self.total, self.folder = total, folder
        self.began, self.first, self.done = time.monotonic(), -1, 0
        self.failed, self.best = 0, ""
        self.live = Live(
            console=self.console, get_renderable=self._drawn, refresh_per_second=1 / LOOK
        )

    def __enter__(self) -> Any:
        if self.console.is_terminal:
            self.live.start()
        return self.update

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def update(self, event: Event) -> None:
        """One more trial is over."""
        if self.first < 0:  # trials of an earlier run took no time in this one
            self.first = event.done - 1
        self.done, self.total = event.done, event.total
        self.failed += event.failure is not None
        self.best = leading(event.best)
        over = self.done + self.failed
        if not self.console.is_terminal and over % max(self.total // 10, 1) == 0:
            each = (time.monotonic() - self.began) / max(over - self.first, 1)
            left = duration(each * (self.total - over))
            failed = f", {self.failed} failed" if self.failed else ""
            line = f"{self.done} of {self.total} trials{failed}, about {left} left"
            line = f"{line}; {self.best}" if self.best else line
            self.console.print(line, markup=False, soft_wrap=True)
            sys.stderr.flush()

    def _drawn(self) -> Group:
        from softhot.studies.claims import running

        now = running(self.folder)
        completed = self.done + self.failed + sum(claim.share for claim in now)
        self.bar.update(self.task, completed=completed, total=self.total)
        lines = [f"{self.failed} failed, see softhot status"] if self.failed else []
        for claim in now[:SHOWN]:
            epoch = f", epoch {claim.done} of {claim.total}" if claim.total else ""
            lines.append(f"{claim.name}{epoch}")
        if len(now) > SHOWN:
            lines.append(f"and {len(now) - SHOWN} more")
        lines += [self.best] if self.best else []
        return Group(self.bar, *(Text(f"  {line}", "dim", no_wrap=True) for line in lines))


def leading(best: Best | None) -> str:
    """The arm that leads, in words."""
    if best is None:
        return ""
    seeds = f"{best.seeds} {'seed' if best.seeds == 1 else 'seeds'}"
    return f"{best.arm} leads: NLL after scaling {best.nll:.4f} on validation, {seeds}"


def status_parts(status: Status) -> list[Any]:
    """How far a run is: a line for it all, a row for each trial that runs, failed or is damaged."""
    from softhot.studies.status import name

    left = status.seconds_left
    headline = f"{status.finished} of {status.total} trials finished"
    headline += "" if math.isnan(left) else f", about {duration(left)} left"
    table = Table(box=None, pad_edge=False, show_header=False)
    for claim in status.running:
        epochs = f"epoch {claim.done} of {claim.total}, " if claim.total else ""
        since = duration(max(0.0, time.time() - claim.since))
        words = f"{epochs}for {since}, process {claim.process} on {claim.host}"
        table.add_row("running", Text(claim.name), words)
    for failure in status.failed:
        words = f"{failure.reason} (logs/{failure.trial.key}.log)"
        table.add_row("failed", Text(name(failure.trial)), Text(words))
    for damage in status.damaged:
        table.add_row("damaged", damage.name, Text(damage.reason))
    parts: list[Any] = [headline]
    if table.row_count:
        parts.append(table)
    if not status.running and status.finished < status.total:
        parts.append("Nobody trains it now: the command that began it continues.")
    if status.best:
        parts.append(f"{leading(status.best)}. A preview without its uncertainty.")
    return parts


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(5), duration(90), duration(7400)
    ('5 s', '1 min 30 s', '2 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
