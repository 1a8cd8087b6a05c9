"""Predictions that somebody saved: checked and named, never guessed, and never unpickled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from softhot.core.check import InputError, OneOf
from softhot.metrics import Predictions

KINDS = OneOf("logits", "probs")
LABELS = ("labels", "label", "y_true", "y", "target")
LAYOUT = (
    "Save labels (N,) as 'labels' and predictions (N, K) as 'logits' or 'probs': arrays of an "
    ".npz, or in a .csv or .parquet the columns label, logit_0 ... logit_{K-1} (or prob_0 ...)."
)


def read_predictions(path: str | Path) -> Predictions:
    """Predictions with their true labels from ``.npz``, ``.csv`` or ``.parquet``.

    An ``.npz`` holds ``labels`` (N,) and either ``logits`` or ``probs`` (N, K). A table has a row
    for each sample: one column ``label`` and the columns ``logit_0`` ... ``logit_{K-1}`` or
    ``prob_0`` ... ``prob_{K-1}``, in any order; other columns are left alone.

    Raises:
        InputError: a file that is missing, unreadable or of another layout; and everything that
            :class:`softhot.metrics.Predictions` refuses, with the row.
    """
    path = Path(path)
    readers = {".npz": _npz, ".csv": _table, ".parquet": _table}
    OneOf(*readers).check("the file's ending", path.suffix.lower(), hint=LAYOUT)
    if not path.is_file():
        raise InputError("file", "an existing file", str(path), "Check the path.")
    kind, values, labels = readers[path.suffix.lower()](path)
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels % 1 == 0).all():
        labels = labels.astype(np.int64)  # a table's column with a gap in it, or a careless save
    read = Predictions.from_logits if kind == "logits" else Predictions.from_probs
    return read(values, labels)


def _npz(path: Path) -> tuple[str, np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, numpy and the disk each have their own
        hint = f"{type(error).__name__}: {error}"
        raise InputError(
            "file", "a readable .npz without pickled objects", str(path), hint
        ) from None
    kind = _one_of(path, arrays, KINDS.names, "predictions")
    return kind, arrays[kind], arrays[_one_of(path, arrays, LABELS, "labels")]


def _table(path: Path) -> tuple[str, np.ndarray, np.ndarray]:
    import pyarrow.csv
    import pyarrow.parquet

    try:
        reader = pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.parquet.read_table
        table = reader(path)
    except Exception as error:  # pyarrow has a family of its own
        hint = " ".join(str(error).split())
        raise InputError("file", f"a readable {path.suffix} table", str(path), hint) from None
    columns = {name: table.column(name) for name in table.column_names}
    found: dict[str, dict[int, str]] = {"logits": {}, "probs": {}}
    for name in columns:
        match = re.fullmatch(r"(logit|prob)s?_?(\d+)", name)
        if match:
            found[match[1] + "s"][int(match[2])] = name
    kind = _one_of(path, {k: v for k, v in found.items() if v}, KINDS.names, "columns logit_0 ...")
    by_class = found[kind]
    if sorted(by_class) != list(range(len(by_class))):
        missing = min(set(range(max(by_class))) - set(by_class))
        wanted = f"one for each class 0 .. {max(by_class)}"
        raise InputError(f"columns {kind[:-1]}_k", wanted, f"none for class {missing}", LAYOUT)
    values = [_numbers(name, columns[name]) for _, name in sorted(by_class.items())]
    label = _one_of(path, columns, LABELS, "a column of labels")
    return kind, np.stack(values, axis=1), _numbers(label, columns[label])


def _one_of(path: Path, there: Any, wanted: tuple[str, ...], what: str) -> str:
    names = [name for name in wanted if name in there]
    if len(names) != 1:
        value = names or list(there)[:8]
        raise InputError(f"{path.name}: {what}", f"exactly one of {list(wanted)}", value, LAYOUT)
    return names[0]


def _numbers(name: str, column: Any) -> np.ndarray:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise InputError(f"column {name!r}, row {row}", "a number", None, "Fill or drop the row.")
    array = column.to_numpy()
    if array.dtype.kind not in "iuf":
        raise InputError(f"column {name!r}", "numbers", array[0] if len(array) else array.dtype)
    return array
