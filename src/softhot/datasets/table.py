"""Data sets by name: one row each. Adding one is a row here, and a source if it has a new one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from softhot.core.check import OneOf
from softhot.datasets.dataset import Dataset
from softhot.datasets.sources import Source
from softhot.datasets.sources.bundled import Bundled


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set before it is loaded.

    ``size`` is N; ``train``, ``validation`` and ``test`` are default numbers of rows for
    :func:`softhot.datasets.split`; ``kind`` as in :class:`softhot.datasets.Dataset`; ``origin``
    reads it, and downloads it if asked.
    """

    title: str
    kind: str
    size: int
    class_names: tuple[str, ...]
    train: int
    validation: int
    test: int
    source: str
    licence: str
    origin: Source

    @property
    def classes(self) -> int:
        """K."""
        return len(self.class_names)


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        title="Handwritten digits, 8 × 8 pixels",
        kind="tabular",
        size=1797,
        class_names=tuple("0123456789"),
        train=600,
        validation=300,
        test=897,
        source="E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, "
        "UCI Machine Learning Repository, doi:10.24432/C50P49 (its test part)",
        licence="CC BY 4.0",
        origin=Bundled("digits"),
    ),
    "wine": DatasetInfo(
        title="Wine cultivars from chemical analyses",
        kind="tabular",
        size=178,
        class_names=("cultivar 1", "cultivar 2", "cultivar 3"),
        train=60,
        validation=40,
        test=78,
        source="S. Aeberhard and M. Forina (1992), Wine, "
        "UCI Machine Learning Repository, doi:10.24432/C5PC7J",
        licence="CC BY 4.0",
        origin=Bundled("wine"),
    ),
    "breast_cancer": DatasetInfo(
        title="Breast cancer, Wisconsin (diagnostic)",
        kind="tabular",
        size=569,
        class_names=("malignant", "benign"),
        train=200,
        validation=120,
        test=249,
        source="W. Wolberg, O. Mangasarian, N. Street and W. Street (1993), Breast Cancer "
        "Wisconsin (Diagnostic), UCI Machine Learning Repository, doi:10.24432/C5DW2B",
        licence="CC BY 4.0",
        origin=Bundled("breast_cancer"),
    ),
}


def load(name: str, *, folder: str | Path | None = None) -> Dataset:
    """The data set of that name in :data:`DATASETS`; features are raw, see the module.

    Args:
        name: A name from the table.
        folder: Where its files lie, if not where its source keeps them.

    Raises:
        InputError: An unknown name; data that is not here, or whose files are damaged.

    >>> digits = load("digits")
    >>> digits.features.shape, digits.class_names[3]
    ((1797, 64), '3')
    """
    OneOf(*DATASETS).check("dataset", name)
    info = DATASETS[name]
    contents = info.origin.read(None if folder is None else Path(folder))
    return Dataset(
        name,
        contents.features,
        contents.labels,
        info.class_names,
        info.source,
        info.licence,
        contents.soft_labels,
        (info.train, info.validation, info.test),
        contents.test_start,
    )


def fetch(name: str) -> Path:
    """Download a data set, verify it, and keep it for this user; returns where.

    Raises:
        InputError: An unknown name, one that is not downloaded, a download that fails.
    """
    OneOf(*DATASETS).check("dataset", name)
    return DATASETS[name].origin.fetch()
