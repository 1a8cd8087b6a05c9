"""Small data that scikit-learn brings along in its own package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softhot.core.check import InputError
from softhot.datasets.sources import Contents


@dataclass(frozen=True)
class Bundled:
    """``sklearn.datasets.load_<name>``."""

    name: str
    origin: str = "comes with scikit-learn"

    @property
    def present(self) -> bool:
        return importlib.util.find_spec("sklearn") is not None

    def read(self, folder: Path | None) -> Contents:
        if folder is not None:
            raise InputError("folder", f"left out: {self.name} {self.origin}", str(folder))
        if self.name == "digits" and (file := _digits()):
            table = np.loadtxt(file, delimiter=",")
            return Contents(table[:, :-1], table[:, -1].astype(int))
        try:
            import sklearn.datasets
        except ModuleNotFoundError as error:
            text = "These data sets come with scikit-learn: pip install 'softhot[study]'."
            raise ModuleNotFoundError(text, name=error.name) from error
        return Contents(*getattr(sklearn.datasets, f"load_{self.name}")(return_X_y=True))

    def fetch(self) -> Path:
        hint = "There is nothing to fetch: pip install 'softhot[study]' brings it."
        raise InputError("data set", "one that is downloaded", self.name, hint)


def _digits() -> Path | None:
    """The file that ``load_digits`` reads, where it is where it always was.

    Most studies start with it, and importing scikit-learn takes a second or more.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found.submodule_search_locations or ()) if found else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.exists():
            return file
    return None
