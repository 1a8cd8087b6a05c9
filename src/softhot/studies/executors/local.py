"""This machine: this process, or several of them through joblib."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import Any

from softhot.studies.executors import Map, Results, children_deaf_to_interrupts, processors

IDLE = 20  # seconds after which a process without work ends


@contextlib.contextmanager
def start(place: str, jobs: int | None) -> Iterator[Map]:
    """With one job the function is called here, in the order of the items."""
    jobs = processors() if jobs is None else jobs

    def mapped(function: Callable[[Any], Any], items: Sequence[Any]) -> Results:
        if min(jobs, len(items)) > 1:
            return _parallel(function, items, min(jobs, len(items)))
        return (function(item) for item in items)

    yield mapped


def _parallel(function: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Results:
    import joblib

    parallel = joblib.Parallel(
        jobs,
        backend="loky",
        batch_size=1,
        return_as="generator_unordered",
        idle_worker_timeout=IDLE,
    )
    function = WithParent(function, os.getpid())
    # Of a process that was killed: whoever calls this sees it, and says it once.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", module="joblib")
    try:
        with children_deaf_to_interrupts():
            outcomes = parallel(joblib.delayed(function)(item) for item in items)
        try:
            for outcome in outcomes:  # noqa: UP028  ("yield from" would close it unfiltered)
                yield outcome
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that tasks are cancelled, which is what is meant
                outcomes.close()
    except BrokenExecutor:
        return  # a process was killed, and joblib has ended the others: their items are missing


@dataclass(frozen=True)
class WithParent:
    """Calls ``function`` in a process that ends as soon as its parent does.

    Who kills the study with a signal that cannot be caught means all of it; and a process of the
    pool, left alone, would wait for work for a minute.
    """

    function: Callable[[Any], Any]
    parent: int

    def __call__(self, item: Any) -> Any:
        """The function's result."""
        if os.name == "posix" and "softhot-parent" not in {t.name for t in threading.enumerate()}:
            watch = threading.Thread(target=self._watch, name="softhot-parent", daemon=True)
            watch.start()
        return self.function(item)

    def _watch(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(0.5)
        os._exit(1)
