"""Ray: ``ray://local`` starts it here; ``ray://auto`` is the cluster that this machine belongs to;
``ray://host:port`` is one elsewhere, through its client server (mostly port 10001)."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from softhot.core.check import InputError
from softhot.studies.executors import (
    Map,
    Results,
    answered,
    children_deaf_to_interrupts,
    processors,
)


@contextlib.contextmanager
def start(place: str, jobs: int | None, **options: Any) -> Iterator[Map]:
    """A connection to that cluster; ``options`` are those of ``ray.init``."""
    options |= {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if place == "local":
        options |= {"num_cpus": processors() if jobs is None else jobs, "include_dashboard": False}
    elif place == "auto":
        options["address"] = "auto"
    else:
        answered("ray", place)
        options["address"] = f"ray://{place}"
    mine = not ray.is_initialized()
    main = threading.current_thread() is threading.main_thread()
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        # Where Ray's own processes end by Ctrl-C, it aborts this one.
        with children_deaf_to_interrupts(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that will change in some next version
            ray.init(ignore_reinit_error=True, **options)
    except Exception as error:  # Ray raises a plain one where a node is too slow to start
        hint = (
            f"{' '.join(str(error).split())[:300].rstrip('.')}. Start Ray, or leave the option out."
        )
        raise InputError("executor", "a cluster that answers", f"ray://{place}", hint) from None
    try:
        yield _mapped
    finally:
        if mine:
            ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, terminate)  # Ray has put its own there


def _mapped(function: Callable[[Any], Any], items: Sequence[Any]) -> Results:
    remote: Any = ray.remote(num_cpus=1, max_retries=3)(lambda item: function(item))
    waiting = [remote.remote(item) for item in items]
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            try:
                yield ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            except RayError:
                continue  # its process was killed, again and again
    finally:
        for task in waiting:
            ray.cancel(task, force=True)
