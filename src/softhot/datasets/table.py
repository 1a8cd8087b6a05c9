"""Data sets by name: one row each. Adding one is a row here, and a source if it has a new one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhot.core.check import InputError, OneOf
from softhot.datasets.dataset import Dataset
from softhot.datasets.sources import Source
from softhot.datasets.sources.bundled import Bundled
from softhot.datasets.sources.fashion import FashionMnist
from softhot.datasets.sources.own import read_own
from softhot.datasets.sources.snippets import Snippets


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

    def to_dict(self) -> dict[str, Any]:
        """What a list of data sets says about this one, as plain JSON."""
        return {
            "title": self.title,
            "kind": self.kind,
            "rows": self.size,
            "classes": list(self.class_names),
            "here": self.origin.present,
            "origin": self.origin.origin,
            "licence": self.licence,
            "source": self.source,
        }


def _snippets(kind: str, files: str, title: str, size: int) -> dict[str, DatasetInfo]:
    """The row of one of the four sets that share raters, classes and archive."""
    validation = size // 5
    info = DatasetInfo(
        title=f"{title}, their sentiment by the votes of about 20 people",
        kind="texts",
        size=size,
        class_names=("negative", "neutral", "positive"),
        train=size // 2,
        validation=validation,
        test=size - size // 2 - validation,
        source="C. Hutto and E. Gilbert (2014), VADER: A Parsimonious Rule-based Model for "
        "Sentiment Analysis of Social Media Text, ICWSM",
        licence="MIT (the texts are their authors')",
        origin=Snippets(f"{kind}_snippets", files),
    )
    return {f"{kind}_snippets": info}


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
    "fashion_mnist": DatasetInfo(
        title="Fashion-MNIST: grey pictures of clothes, 28 × 28 pixels",
        kind="images",
        size=70_000,
        class_names=(
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        train=10_000,
        validation=5_000,
        test=10_000,
        source="H. Xiao, K. Rasul and R. Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset "
        "for Benchmarking Machine Learning Algorithms, arXiv:1708.07747",
        licence="MIT",
        origin=FashionMnist(),
    ),
    **_snippets("movie", "movieReviewSnippets", "Sentences from film reviews", 10_603),
    **_snippets("tweet", "tweets", "Tweets", 4_001),
    **_snippets("amazon", "amazonReviewSnippets", "Sentences from product reviews", 3_697),
    **_snippets("nyt", "nytEditorialSnippets", "Sentences from newspaper opinion", 5_119),
}


def load(
    name: str | Path, *, folder: str | Path | None = None, image_size: int | None = None
) -> Dataset:
    """A data set by its name in :data:`DATASETS`, or your own by its path.

    Your own is one of

    - an ``.npz`` with ``labels`` (N,) and ``features``: (N, D), images (N, C, H, W), or ``texts``
      (N,); and, if you like, ``class_names`` (K,) and ``soft_labels`` (N, K);
    - a ``.csv`` or ``.parquet`` with a column ``label`` and either columns of numbers, every one
      of them a feature, or a column ``text``; and, if you like, ``soft_0`` ... ``soft_{K-1}``;
    - a folder with a subfolder of images for each class, named after it.

    Labels are class numbers from 0 on, without gaps, or names, which are sorted.

    Args:
        name: A name from the table, or a path.
        folder: Where the files of a named data set lie, if not where its source keeps them.
        image_size: Bring the images in a folder to so many pixels square; without it they must
            be of one size.

    Raises:
        InputError: An unknown name; data that is not here or damaged; a file with a missing
            number, rows of unequal length, words where numbers belong, one class only.

    >>> digits = load("digits")
    >>> digits.features.shape, digits.class_names[3]
    ((1797, 64), '3')
    """
    if isinstance(name, Path) or (isinstance(name, str) and name not in DATASETS and _path(name)):
        if folder is not None:
            raise InputError("folder", "left out beside a path", str(folder))
        return read_own(Path(name), image_size)
    hint = "" if isinstance(name, str) and name else "Or the path of your own data."
    info = DATASETS[OneOf(*DATASETS).check("dataset", name, hint)]
    if image_size is not None:
        raise InputError("image_size", "left out: only a folder of images is resized", image_size)
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


def _path(name: str) -> bool:
    """Whether this is meant as a path: it has a slash or an ending, or there is such a folder."""
    return name != "" and (
        "/" in name or "\\" in name or bool(Path(name).suffix) or os.path.isdir(name)
    )


def fetch(name: str) -> Path:
    """Download a data set, verify it, and keep it for this user; returns where.

    Raises:
        InputError: An unknown name, one that is not downloaded, a download that fails.
    """
    OneOf(*DATASETS).check("dataset", name)
    return DATASETS[name].origin.fetch()
