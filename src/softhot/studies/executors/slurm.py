"""SLURM through submitit: ``slurm://partition``, with options of ``sbatch`` behind a question mark.

``slurm://gpu?time=120&gres=gpu:1&cpus_per_task=4`` asks for two hours each. ``slurm://local`` runs
the same jobs as processes of this machine, to try it out. Jobs, their logs and what submitit writes
for itself lie in a folder ``softhot-slurm`` where the command is called.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import submitit

from softhot.core.check import InputError
from softhot.studies.executors import Map, Results

FOLDER = "softhot-slurm"
MINUTES = 24 * 60
POLL = 0.5  # seconds


@contextlib.contextmanager
def start(place: str, jobs: int | None) -> Iterator[Map]:
    """An array of ``jobs`` jobs that share the items; None is a job for each item."""
    partition, _, query = place.partition("?")
    given = dict(urllib.parse.parse_qsl(query))
    new = not Path(FOLDER).exists()
    try:
        minutes = int(given.pop("time", MINUTES))
        local = partition in ("local", "debug")
        executor = submitit.AutoExecutor(Path(FOLDER), cluster=partition if local else "slurm")
        slurm: dict[str, Any] = {} if local else {"slurm_partition": partition}
        executor.update_parameters(
            name="softhot",
            timeout_min=minutes,
            **slurm,
            **{f"slurm_{name}": value for name, value in given.items()},
        )
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        if new:
            shutil.rmtree(FOLDER, ignore_errors=True)  # submitit makes it before it looks
        hint = f"{' '.join(str(error).split())[:300].rstrip('.?')}."  # it lists all options
        raise InputError("executor", "a SLURM that is here", f"slurm://{place}", hint) from None
    yield lambda function, items: _mapped(executor, function, items, jobs or len(items))


def _mapped(
    executor: Any, function: Callable[[Any], Any], items: Sequence[Any], jobs: int
) -> Results:
    shares = [items[i::jobs] for i in range(min(jobs, len(items)))]
    with _quiet_children():
        waiting = executor.map_array(functools.partial(_each, function), shares)
    try:
        while waiting:
            done = [job for job in waiting if job.done()]
            waiting = [job for job in waiting if job not in done]
            for job in done:
                try:
                    results = job.result()
                except submitit.core.utils.UncompletedJobError:
                    continue  # it was killed
                yield from results
            if not done:
                time.sleep(POLL)
    finally:
        for job in waiting:
            job.cancel(check=False)


@contextlib.contextmanager
def _quiet_children() -> Iterator[None]:
    """Processes started inside have no standard error.

    Here, those that watch over jobs of this machine end by an interrupt, Ctrl-C's or that of
    ``cancel``, and would tell where they were. What jobs themselves say is in their files.
    """
    with contextlib.ExitStack() as stack:
        before = os.dup(2)
        stack.callback(os.close, before)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        os.dup2(nowhere, 2)
        stack.callback(os.dup2, before, 2)
        yield


def _each(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]
