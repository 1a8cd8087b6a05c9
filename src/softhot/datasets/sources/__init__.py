"""Where data comes from: one file a source, each with what :class:`Source` asks for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Contents:
    """What a source holds; the fields are those of :class:`softhot.datasets.Dataset`."""

    features: Any
    labels: Any
    soft_labels: Any = None
    test_start: int | None = None


class Source(Protocol):
    """One way to come by a data set."""

    @property
    def origin(self) -> str:
        """Where the data comes from, for people."""

    @property
    def present(self) -> bool:
        """Whether :meth:`read` would find it here, without reading it."""

    def read(self, folder: Path | None) -> Contents:
        """The data, from ``folder`` or from where this source keeps it; downloads nothing."""

    def fetch(self) -> Path:
        """Download it, verify its checksum, keep it; returns where."""


def cache() -> Path:
    """Where fetched data is kept: ``$SOFTHOT_DATA``, or ``softhot`` in the user's cache."""
    if chosen := os.environ.get("SOFTHOT_DATA"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softhot"
