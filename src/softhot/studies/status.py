"""How far a run is, seen from outside: while it trains, after it was cut off, from any machine."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhot.studies.claims import Running, running
from softhot.studies.leader import Best, Leader
from softhot.studies.logs import ending
from softhot.studies.spec import TrialSpec
from softhot.studies.store import Damage, Failure, Record, Store


@dataclass(frozen=True)
class Status:
    """What :func:`status` finds.

    Attributes:
        folder: The run's.
        total: Trials of the study.
        finished: How many of them are finished and whole.
        running: Those that some process trains now, with how far it is.
        failed: Those whose last training raised an error, and which nobody trains now.
        damaged: Records that cannot be trusted; the next run trains those trials again.
        best: The arm that leads on validation.
        seconds_left: Expected, at the present pace; NaN if nobody is training, or nothing is
            finished to judge by.
    """

    folder: Path
    total: int
    finished: int
    running: tuple[Running, ...]
    failed: tuple[Failure, ...]
    damaged: tuple[Damage, ...]
    best: Best | None
    seconds_left: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "folder": str(self.folder),
            "total": self.total,
            "finished": self.finished,
            "running": [claim.to_dict() for claim in self.running],
            "failed": [{"trial": name(f.trial), "error": f.reason} for f in self.failed],
            "damaged": [damage._asdict() for damage in self.damaged],
            "best": None if self.best is None else self.best._asdict(),
            "seconds_left": None if math.isnan(self.seconds_left) else round(self.seconds_left, 3),
        }


def status(folder: str | Path) -> Status:
    """How far the run in ``folder`` is; changes nothing in it.

    Raises:
        InputError: There is no run in ``folder``, or its settings are damaged.
    """
    store = Store.open(folder, sweep=False)
    claims = running(store.folder)
    active = {claim.key for claim in claims}
    leader, damaged, failed, seconds, finished = Leader(), [], [], [], 0
    trials = store.spec.trials()
    for trial in trials:
        found = store.look(trial)
        leader.add(found)
        if isinstance(found, Record):
            finished += 1
            seconds.append(found.seconds)
        elif trial.key not in active:
            if isinstance(found, Damage):
                damaged.append(found)
            failed += _failure(store, trial)
    known = [value for value in seconds if not math.isnan(value)]
    left = math.nan
    if known and claims:
        left = _seconds_left(len(trials) - finished, sum(known) / len(known), claims, time.time())
    found_all = (tuple(claims), tuple(failed), tuple(damaged), leader.best, left)
    return Status(store.folder, len(trials), finished, *found_all)


def _seconds_left(missing: int, each: float, claims: Iterable[Running], now: float) -> float:
    """Until ``missing`` trials are there, each taking so long; a process may train many at once."""
    groups: dict[tuple[str, int], list[float]] = {}
    for claim in claims:
        groups.setdefault((claim.host, claim.process), []).append(claim.since)
    gone = sum(min(now - min(since), len(since) * each) for since in groups.values())
    return max(0.0, missing * each - gone) / len(groups)


def name(trial: TrialSpec) -> str:
    """What a trial is called in lists: its arm and its seed."""
    return f"{trial.arm.name}, seed {trial.seed}"


def failures(store: Store, records: Iterable[Record]) -> tuple[Failure, ...]:
    """The trials that have no record because their last training raised an error, by their logs."""
    there = {record.trial.key for record in records}
    missing = [trial for trial in store.spec.trials() if trial.key not in there]
    return tuple(found for trial in missing for found in _failure(store, trial))


def _failure(store: Store, trial: TrialSpec) -> list[Failure]:
    """Why the trial failed when it was last trained; nothing if it did not."""
    last = ending(store.folder, trial.key)
    return [Failure(trial, last.words)] if last is not None and last.event == "failed" else []
