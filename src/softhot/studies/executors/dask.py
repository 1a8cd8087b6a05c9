"""Dask: ``dask://host:port`` of a scheduler, or ``dask://local`` for a cluster of its own here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distributed import Client, LocalCluster, as_completed
from distributed.client import FutureCancelledError
from distributed.comm import connect
from distributed.scheduler import KilledWorker

from softhot.core.check import InputError
from softhot.studies.executors import (
    CONNECT,
    Map,
    Results,
    answered,
    children_deaf_to_interrupts,
    interrupts_noted,
    processors,
)

POLL = 0.1  # seconds between two looks at what is finished


@contextlib.contextmanager
def start(place: str, jobs: int | None) -> Iterator[Map]:
    """A client of that cluster, which notices dead workers and sends their trials elsewhere."""
    with contextlib.ExitStack() as stack:
        quiet = logging.getLogger("distributed")
        stack.callback(quiet.setLevel, quiet.level)
        quiet.setLevel(logging.CRITICAL)  # it tells at length what ends well
        if place == "local":
            workers = processors() if jobs is None else jobs
            # So is the thread that starts workers, also later. Dask warns of ports that are taken.
            with children_deaf_to_interrupts(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cluster: Any = stack.enter_context(
                    LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        dashboard_address=None,
                        silence_logs=logging.CRITICAL,
                    )
                )
        else:
            host, port = answered("dask", place)
            cluster = f"tcp://{host}:{port}"
            try:
                asyncio.run(asyncio.wait_for(_greet(cluster), CONNECT))
            except Exception as error:  # a stranger may answer anything
                reason = str(error).strip() or "It does not answer as one"
                raise InputError(
                    "executor", "the address of a Dask scheduler", f"dask://{place}", f"{reason}."
                ) from None
        client = stack.enter_context(Client(cluster, set_as_default=False))
        yield lambda function, items: _mapped(client, function, items)


async def _greet(address: str) -> None:
    """Shake hands with a scheduler; a client of Dask would wait for one that says nothing."""
    comm = await connect(address, timeout=CONNECT)
    await comm.close()


def _mapped(client: Client, function: Callable[[Any], Any], items: Sequence[Any]) -> Results:
    with interrupts_noted() as raise_noted:  # Dask has callbacks that would lose them
        futures = client.map(function, items, pure=False)
        try:
            finished = as_completed(futures, loop=client.loop)
            while not finished.is_empty():
                raise_noted()
                done = finished.next_batch(block=False)
                for future in done:
                    try:
                        yield future.result()
                    except (KilledWorker, FutureCancelledError):
                        continue  # its workers died, again and again
                if not done:
                    time.sleep(POLL)
        finally:
            client.cancel(futures, force=True)
