"""Predictions that somebody saved: checked and named, never guessed, and never unpickled.

Each format knows how to hand out its rows a block at a time. What is small enough is put together
in memory; what is not stays on disk and is read again whenever it is needed.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.metrics import Predictions

KINDS = OneOf("logits", "probs")
LABELS = ("labels", "label", "y_true", "y", "target")
LAYOUT = (
    "Save labels (N,) as 'labels' and predictions (N, K) as 'logits' or 'probs': arrays of an "
    ".npz, or in a .csv or .parquet the columns label, logit_0 ... logit_{K-1} (or prob_0 ...)."
)
MEMORY = 1 << 30  # bytes of float64 that a matrix may take before it is left on disk
_BLOCK = 1 << 20  # numbers read at a time
_BYTES = Interval(0, np.inf, integer=False)


@dataclass(frozen=True, eq=False)
class Saved:
    """What a file holds: its labels, and how to read the rows of its matrix from the start."""

    kind: str
    labels: np.ndarray
    shape: tuple[int, ...]
    read: Callable[[], Iterator[np.ndarray]]


def read_predictions(path: str | Path, *, memory: float = MEMORY) -> Predictions:
    """Predictions with their true labels from ``.npz``, ``.csv`` or ``.parquet``.

    An ``.npz`` holds ``labels`` (N,), or soft ones (N, K), and either ``logits`` or ``probs``
    (N, K). A table has a row for each sample: one column ``label``, and either the columns
    ``logit_0`` ... ``logit_{K-1}`` or ``prob_0`` ... ``prob_{K-1}``, in any order, or in a
    ``.parquet`` one column of lists, ``logits`` or ``probs``; other columns are left alone.

    Args:
        path: the file.
        memory: the matrix is read into memory if it takes at most so many bytes as float64, else
            it stays on disk (:meth:`softhot.metrics.Predictions.from_blocks`) and the file must
            stay as it is while it is used. The numbers are the same.

    Raises:
        InputError: a file that is missing, unreadable or of another layout; and everything that
            :class:`softhot.metrics.Predictions` refuses, with the row.
    """
    path = Path(path)
    _BYTES.check("memory", memory)
    formats = {".npz": _npz, ".csv": _csv, ".parquet": _parquet}
    OneOf(*formats).check("the file's ending", path.suffix.lower(), hint=LAYOUT)
    if not path.is_file():
        raise InputError("file", "an existing file", str(path), "Check the path.")
    try:
        return _read(formats[path.suffix.lower()](path), memory)
    except InputError as error:
        if error.argument == "file" or error.argument.startswith(path.name):
            raise
        at = f"{path.name}: {error.argument}"  # one of several files, perhaps
        raise InputError(at, error.allowed, error.value, error.hint) from None


def _read(saved: Saved, memory: float) -> Predictions:
    labels = saved.labels
    real = labels.ndim == 1 and labels.dtype.kind == "f" and np.isfinite(labels).all()
    if real and (labels % 1 == 0).all():
        labels = labels.astype(np.int64)  # a table's column, or a careless save
    read = Predictions.from_logits if saved.kind == "logits" else Predictions.from_probs
    if 8 * prod(saved.shape) > memory:
        return Predictions.from_blocks(saved.read, labels, kind=saved.kind)
    return read(_together(saved), labels)


def _together(saved: Saved) -> np.ndarray:
    blocks = list(saved.read())
    return np.concatenate(blocks) if blocks else np.empty(saved.shape)


# --- .npz --------------------------------------------------------------------------------------


def _npz(path: Path) -> Saved:
    with readable(path, ".npz without pickled objects"):
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).stem: name for name in archive.namelist()}
        kind = one_of(path, members, KINDS.names, "predictions")
        label = one_of(path, members, LABELS, "labels")
        with np.load(path, allow_pickle=False) as arrays:
            labels = arrays[label]
        with zipfile.ZipFile(path) as archive, archive.open(members[kind]) as member:
            shape, fortran, dtype = _header(member)
            if dtype.hasobject:
                raise ValueError("Object arrays are pickles.")
            if fortran and len(shape) > 1:  # columns first: there are no rows to read one by one
                values = np.load(path, allow_pickle=False)[kind]
                return Saved(kind, labels, shape, lambda: iter([values]))

    def read() -> Iterator[np.ndarray]:
        width = prod(shape[1:])
        step = max(1, _BLOCK // max(width, 1))
        with (
            readable(path, ".npz without pickled objects"),
            zipfile.ZipFile(path) as archive,
            archive.open(members[kind]) as member,
        ):
            _header(member)
            for start in range(0, shape[0], step):
                rows = min(step, shape[0] - start)
                data = member.read(rows * width * dtype.itemsize)
                yield np.frombuffer(data, dtype).reshape(rows, *shape[1:])

    return Saved(kind, labels, shape, read if shape else lambda: iter(()))


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of the .npy that starts here; the next byte is the first number."""
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


# --- Tables ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Which columns of a table hold what; ``classes`` is one column of lists, or K columns."""

    kind: str
    label: str
    classes: tuple[str, ...]


def _layout(path: Path, names: Sequence[str], lists: Sequence[bool] | None = None) -> Layout:
    """The layout of a table with columns of these names; True marks columns of lists."""
    columns = dict(zip(names, lists, strict=True)) if lists else dict.fromkeys(names, False)
    label = one_of(path, columns, LABELS, "a column of labels")
    found: dict[str, dict[int, str]] = {"logits": {}, "probs": {}}
    for name, of_lists in columns.items():
        match = re.fullmatch(r"(logit|prob)s?_?(\d+)", name)
        if not match or of_lists:
            continue
        of_kind, k = found[match[1] + "s"], int(match[2])
        if k in of_kind:
            raise InputError(f"columns {match[1]}_k", "one for each class", [of_kind[k], name])
        of_kind[k] = name
    there = {kind: by_class for kind, by_class in found.items() if by_class}
    there |= {kind: {0: kind} for kind in found if columns.get(kind)}
    kind = one_of(path, there, KINDS.names, "columns logit_0 ...")
    by_class = there[kind]
    if sorted(by_class) != list(range(len(by_class))):
        missing = next(k for k in itertools.count() if k not in by_class)  # the last may be huge
        wanted = f"one for each class 0 .. {max(by_class)}"
        raise InputError(f"columns {kind[:-1]}_k", wanted, f"none for class {missing}", LAYOUT)
    classes = tuple(by_class[k] for k in sorted(by_class))
    different(path, [name for name in names if name in (label, *classes)])
    return Layout(kind, label, classes)


def _parquet(path: Path) -> Saved:
    import pyarrow as pa
    import pyarrow.parquet

    def opened() -> Any:
        # Pages are read as they are needed: a row group may be as large as the whole file.
        return pyarrow.parquet.ParquetFile(path, buffer_size=1 << 16)

    with readable(path, ".parquet table"), opened() as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        of_lists = [any(test(field.type) for test in lists) for field in schema]
        layout = _layout(path, schema.names, of_lists)
        labels = _numbers(layout.label, file.read([layout.label]).column(0))
    one = of_lists[schema.names.index(layout.classes[0])]

    def read() -> Iterator[np.ndarray]:
        start = 0
        with readable(path, ".parquet table"), opened() as file:
            step = max(1, _BLOCK // max(len(layout.classes), 100 if one else 1))
            for batch in file.iter_batches(step, columns=list(layout.classes)):
                take = _lists if one else _columns
                yield take(layout.classes, batch, start)
                start += len(batch)

    width = len(next(read())[0]) if one and count else len(layout.classes)
    return Saved(layout.kind, labels, (count, width), read)


def _csv(path: Path) -> Saved:
    import pyarrow as pa
    import pyarrow.csv

    def opened(*names: str) -> Any:
        types = {name: pa.float64() for name in names}
        convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=names)
        block = pyarrow.csv.ReadOptions(block_size=1 << 24)
        return pyarrow.csv.open_csv(path, read_options=block, convert_options=convert)

    with readable(path, ".csv table"), opened() as file:
        header = file.schema.names
    layout = _layout(path, header)

    def read(*names: str) -> Iterator[np.ndarray]:
        start = 0
        with readable(path, ".csv table", header), opened(*names) as file:
            for batch in file:
                if len(batch):
                    yield _columns(names, batch, start)
                start += len(batch)

    labels = np.concatenate([np.empty((0, 1)), *read(layout.label)])[:, 0]
    shape = len(labels), len(layout.classes)
    return Saved(layout.kind, labels, shape, lambda: read(*layout.classes))


def _columns(names: tuple[str, ...], batch: Any, start: int) -> np.ndarray:
    """(rows, K) of a batch with a column for each class; ``start`` is the number of its row 0."""
    return np.stack([_numbers(name, batch.column(name), start) for name in names], axis=1)


def _lists(names: tuple[str, ...], batch: Any, start: int) -> np.ndarray:
    """(rows, K) of a batch with a column of lists."""
    import pyarrow.compute

    (name,) = names
    column = batch.column(name)
    _numbers(name, pyarrow.compute.list_value_length(column), start)  # no list is missing
    lengths = np.unique(pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False))
    if len(lengths) != 1:
        allowed = "of one length, the number of classes"
        raise InputError(f"column {name!r}", allowed, lengths.tolist())
    values = _numbers(name, column.flatten(), start * int(lengths[0]), "entry")
    return values.reshape(len(batch), int(lengths[0]))


def _numbers(name: str, column: Any, start: int = 0, what: str = "row") -> np.ndarray:
    if column.null_count:
        at = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        hint = "Fill or drop the row."
        raise InputError(f"column {name!r}, {what} {at}", "a number", None, hint)
    array = np.asarray(column)
    if array.dtype.kind not in "iuf":
        raise InputError(f"column {name!r}", "numbers", array[0] if len(array) else array.dtype)
    return array


# --- Messages ----------------------------------------------------------------------------------


@contextmanager
def readable(path: Path, what: str, header: list[str] | None = None) -> Iterator[None]:
    """Turn whatever a reader raises into one error that names the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zipfile, NumPy, pyarrow and the disk each have their own
        hint = f"{type(error).__name__}: {' '.join(str(error).split())}"
        found = re.search(r"column #(\d+).*invalid value '(.*)'", hint)
        if found and header:
            at = f"{path.name}: column {header[int(found[1])]!r}"
            raise InputError(at, "numbers", found[2], LAYOUT) from None
        raise InputError("file", f"a readable {what}", str(path), hint) from None


def different(path: Path, names: Sequence[str]) -> None:
    """Refuse columns of the same name."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path.name}: columns", "of different names", twice)


def one_of(path: Path, there: Any, wanted: tuple[str, ...], what: str, hint: str = LAYOUT) -> str:
    """The one of ``wanted`` that is there."""
    names = [name for name in wanted if name in there]
    if len(names) != 1:
        value = names or list(there)[:8]
        raise InputError(f"{path.name}: {what}", f"exactly one of {list(wanted)}", value, hint)
    return names[0]
