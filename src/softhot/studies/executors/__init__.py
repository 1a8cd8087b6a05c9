"""Where trials are trained: here, in processes of this machine, or on somebody's cluster.

An executor is one small file. Its function ``start(place, jobs)`` is a context that gives a
:data:`Map`: what calls a function on every item, wherever that is, and yields the results as they
come. Of an item whose process was killed it yields nothing; whoever calls it sees that the item
is missing, and asks again. A row of :data:`EXECUTORS` names the file.

All processes must see the run's folder under the same path, as on a shared file system.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import socket
import threading
import urllib.parse
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing import resource_tracker
from typing import Any

from softhot.core.check import InputError, Interval, OneOf

Results = Generator[Any, None, None]
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Results]

JOBS = Interval(1, 4096, integer=True)
EXECUTORS = {"dask": "dask", "ray": "ray", "slurm": "slurm"}
EXAMPLE = "For instance dask://127.0.0.1:8786, dask://local, ray://local or slurm://partition."
CONNECT = 5  # seconds


def start(address: str | None, jobs: int | None) -> AbstractContextManager[Map]:
    """The executor at ``address``; None is this machine.

    Args:
        address: ``<name>://<place>`` with a name from :data:`EXECUTORS`, or None.
        jobs: Trials at a time, where the executor starts its own processes; None is one for each
            processor. One job on this machine stays in this process.

    Raises:
        InputError: No such executor, or nobody answers there.
    """
    jobs = None if jobs is None else JOBS.check("jobs", jobs)
    if address is None:
        from softhot.studies.executors import local

        return local.start("", jobs)
    name, slashes, place = str(address).partition("://")
    if not slashes or not place:
        raise InputError("executor", f"{' or '.join(EXECUTORS)} with ://", address, EXAMPLE)
    OneOf(*EXECUTORS).check("executor", name, hint=EXAMPLE)
    try:
        module = importlib.import_module(f"softhot.studies.executors.{EXECUTORS[name]}")
        return module.start(place, jobs)
    except ModuleNotFoundError as error:
        hint = f"{error.name} is missing: pip install 'softhot[{name}]'."
        raise InputError("executor", "one whose library is installed", address, hint) from None


@contextlib.contextmanager
def interrupts_noted() -> Iterator[Callable[[], None]]:
    """Ctrl-C inside is noted. The function that is given raises it when called, as does the end.

    Python raises KeyboardInterrupt wherever its main thread happens to be: in the middle of
    somebody's start-up, or in a callback of the garbage collector, where it is lost.
    """
    handler = signal.getsignal(signal.SIGINT)
    noted: list[bool] = []

    def raise_noted() -> None:
        if noted:
            noted.clear()
            raise KeyboardInterrupt

    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield raise_noted
        return
    signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    try:
        yield raise_noted
    finally:
        signal.signal(signal.SIGINT, handler)
        if noted:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def children_deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside, or by threads that are, never see Ctrl-C; this one at the end.

    A terminal sends Ctrl-C to all of them. This process ends the others, but each would first
    print where it was. The block holds for this thread alone: another one, of a library or of the
    progress bar, may take the signal, and Python then handles it here all the same.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started inside, it would lift the block
    with interrupts_noted():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def processors() -> int:
    """How many processors this process may use."""
    import joblib

    return joblib.cpu_count()


def answered(scheme: str, place: str) -> tuple[str, int]:
    """Host and port of ``place``, where somebody accepts a connection.

    Raises:
        InputError: It is no ``host:port``, or nobody does.
    """
    address = f"{scheme}://{place}"
    try:
        parts = urllib.parse.urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise InputError("executor", f"{scheme}://host:port or {scheme}://local", address, EXAMPLE)
    try:
        socket.create_connection((host, port), CONNECT).close()
    except OSError as error:
        hint = f"{error.strerror or error}. Start the cluster, or leave the option out."
        raise InputError("executor", "a cluster that answers", address, hint) from None
    return host, port
