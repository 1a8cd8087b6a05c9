"""What `softhot reproduce` shows: how far training is, and the findings in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from softhot.reproduce import Reproduction


def claims_table(found: Reproduction) -> Table:
    """Each claim with what it expects; below it a line for each condition."""
    from softhot.reproduce import CLAIMS

    table = Table(
        title=f"\nClaims, over {found.seeds} pairs of runs",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    table.add_column("estimate", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for claim in CLAIMS:
        if of := found.of(claim):
            side = "above" if claim.direction > 0 else "below"
            head = f"{claim.number} {claim.title}: {side} 0, in {claim.unit}"
            table.add_row(head, style="bold")
        for one in of:
            interval = f"{one.low:+.3f} to {one.high:+.3f}"
            where = f"  {one.dataset}, {one.condition}"
            table.add_row(where, f"{one.estimate:+.3f}", interval, one.word)
    return table


class Training:
    """A context that gives a callback ``(name, share)`` and draws a bar for each name.

    In a pipe it says when something new is trained.
    """

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Any:
        self.bar.start()
        return self.update

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, name: str, share: float) -> None:
        """``share`` of the training called ``name`` is done."""
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(name, total=1.0)
            if not self.console.is_terminal:
                self.console.print(f"Training {name} ...")
        self.bar.update(self.tasks[name], completed=share)
