"""Who trains what just now: several processes, on one machine or many, share a run's folder.

A claim is a file ``claims/<key>.json`` that its owner holds locked. The system drops the lock
together with the process, however that ends, so nothing is ever claimed by the dead. Inside it
says who owns it and how far the training is. Claims only save work: two processes that train the
same trial write the same bytes, one after the other. So where a file system knows no locks, all
is granted.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]  # None says that there are no locks

CLAIMS = "claims"
SIZE = 400  # bytes of a claim, so that a shorter one covers a longer one
EVERY = 0.5  # seconds between two notes of how far the training is

# One for each trial that is claimed here: those that train together are at the same epoch.
_ticks: contextvars.ContextVar[tuple[Callable[[int, int], object], ...]] = contextvars.ContextVar(
    "ticks", default=()
)


def tick(done: int, total: int) -> None:
    """A training loop says that ``done`` of ``total`` epochs are over. Costs next to nothing."""
    for note in _ticks.get():
        note(done, total)


@dataclass(frozen=True)
class Running:
    """A trial that some process is training now.

    ``since`` is in seconds since 1970; ``done`` of ``total`` epochs are over, 0 of 0 if it does
    not say.
    """

    key: str
    name: str
    host: str
    process: int
    since: float
    done: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "trial": self.name,
            "key": self.key,
            "host": self.host,
            "process": self.process,
            "seconds": round(max(0.0, time.time() - self.since), 1),
            "epochs": [self.done, self.total],
        }


@contextlib.contextmanager
def claimed(folder: Path, key: str, name: str = "") -> Iterator[bool]:
    """Own a trial for a while; False if somebody else does. ``name`` is for people."""
    path = folder / CLAIMS / f"{key}.json"
    try:
        file = _locked(path)
    except BlockingIOError:
        yield False
        return
    except OSError:  # no locks here, or a full disk: whoever saves the trial will say so
        yield True
        return
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
    last = -EVERY

    def note(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY or not total:
            last = time.monotonic()
            data = json.dumps({"name": name, **owner, "done": done, "total": total}).encode()
            with contextlib.suppress(OSError):
                os.pwrite(file, data.ljust(SIZE), 0)

    note(0, 0)
    token = _ticks.set((*_ticks.get(), note))
    try:
        yield True
    finally:
        _ticks.reset(token)
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


def running(folder: Path) -> tuple[Running, ...]:
    """The trials that are being trained now, longest first."""
    found = []
    for path in (folder / CLAIMS).glob("*.json"):
        if _held(path):
            try:
                content = json.loads(path.read_bytes())
                found.append(Running(key=path.stem, **content))
            except (OSError, ValueError, TypeError):
                continue  # over in this moment
    return tuple(sorted(found, key=lambda claim: (claim.since, claim.key)))


def held(folder: Path, key: str) -> bool:
    """Whether somebody owns that trial."""
    return _held(folder / CLAIMS / f"{key}.json")


def _locked(path: Path) -> int:
    """A file descriptor of the file ``path``, made if need be, with its lock."""
    path.parent.mkdir(exist_ok=True)
    if fcntl is None:
        raise OSError("no locks")
    tries = 3
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.path.exists(path) and os.path.samestat(os.fstat(file), path.stat())
        except FileNotFoundError:
            there = False
        except BlockingIOError:
            os.close(file)
            tries -= 1  # perhaps somebody only looked whether it is held
            if not tries:
                raise
            time.sleep(0.01)
            continue
        except BaseException:
            os.close(file)
            raise
        if there:
            return file
        os.close(file)  # its last owner has just removed it: once more


def _held(path: Path) -> bool:
    if fcntl is None:
        return False
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def swept(folder: Path) -> None:
    """Remove the claims of the dead: files that nobody holds locked."""
    for path in (folder / CLAIMS).glob("*.json"):
        try:
            file = _locked(path)
        except OSError:
            continue
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)
