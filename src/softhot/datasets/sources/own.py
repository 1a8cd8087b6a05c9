"""Your own data: ``.npz``, ``.csv``, ``.parquet`` or a folder of images; checked, never guessed."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.datasets.dataset import Dataset
from softhot.files import LABELS, different, one_of, readable

LAYOUT = (
    "An .npz holds 'labels' (N,) and 'features', (N, D) or images (N, C, H, W), or 'texts' (N,); "
    "a .csv or .parquet a column 'label' and columns of numbers, or a column 'text'; a folder a "
    "subfolder of images for each class."
)
FEATURES = ("features", "images", "texts", "X", "x")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
IGNORED = ("thumbs.db", "desktop.ini")  # and every name that begins with a dot
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}  # 8 bits a channel
SIZE = Interval(1, 4096, integer=True)
MEMORY = 8 << 30  # bytes of pixels


def read_own(path: Path, image_size: int | None = None) -> Dataset:
    """The data set in a file or a folder, see :func:`softhot.datasets.load`."""
    if os.path.isdir(path):
        return _folder(path, image_size)
    formats: dict[str, Callable[[Path], Dataset]] = {
        ".npz": _npz,
        ".csv": _table,
        ".parquet": _table,
    }
    OneOf(*formats).check("the data file's ending", path.suffix.lower(), hint=LAYOUT)
    if image_size is not None:
        raise InputError("image_size", "left out: only a folder is resized", image_size)
    if not os.path.isfile(path):
        raise InputError("data", "an existing file or folder", str(path), "Check the path.")
    return formats[path.suffix.lower()](path)


def _npz(path: Path) -> Dataset:
    with readable(path, ".npz without pickled objects"):
        with zipfile.ZipFile(path) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist()]
        feature = one_of(path, there, FEATURES, "features", LAYOUT)
        label = one_of(path, there, LABELS, "labels", LAYOUT)
        with np.load(path, allow_pickle=False) as file:
            features, labels = file[feature], file[label]
            names = file["class_names"] if "class_names" in there else None
            soft = file["soft_labels"] if "soft_labels" in there else None
    texts = features.dtype.kind == "U"
    if texts and features.ndim != 1:
        raise InputError(f"{path.name}: {feature}", "texts of shape (N,)", features.shape)
    if features.ndim == 4 and features.shape[1] > 4 >= features.shape[3]:
        hint = "Put the channels first: features.transpose(0, 3, 1, 2)."
        raise InputError(f"{path.name}: {feature}", "(N, C, H, W)", features.shape, hint)
    return _made(path, features.tolist() if texts else features, labels, names, soft)


def _table(path: Path) -> Dataset:
    columns = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
    label = one_of(path, columns, LABELS, "a column of labels", LAYOUT)
    labels = columns.pop(label)
    votes = {name: columns.pop(name) for name in list(columns) if re.fullmatch(r"soft_\d+", name)}
    soft = None
    if votes:
        order = [f"soft_{k}" for k in range(len(votes))]
        if sorted(votes) != sorted(order):
            hint = "One for each class, from soft_0 on."
            raise InputError(f"{path.name}: columns soft_k", f"{order}", sorted(votes), hint)
        soft = np.stack([_reals(path, name, votes[name]) for name in order], axis=1)
    if "text" in columns:
        if len(columns) > 1:
            other = next(name for name in columns if name != "text")
            hint = "Drop it: a text is learned from alone."
            raise InputError(f"{path.name}: columns", "label and text alone", other, hint)
        return _made(path, _strings(path, "text", columns["text"]), labels, None, soft)
    if not columns:
        raise InputError(f"{path.name}: columns", "numbers or a text", "none", LAYOUT)
    reals = {name: _reals(path, name, column) for name, column in columns.items()}
    for name, column in reals.items():
        if len(column) > 2 and (column == column[0] + np.arange(len(column))).all():
            hint = "It numbers the rows, and would give labels away that are sorted. Drop it."
            raise InputError(f"{path.name}: column {name!r}", "a feature", column[:3], hint)
    return _made(path, np.stack(list(reals.values()), axis=1), labels, None, soft)


def _csv(path: Path) -> dict[str, Any]:
    """Every cell as text: what it is, is for those to say who know what belongs there."""
    with (
        readable(path, ".csv table in UTF-8"),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        rows = csv.reader(file, strict=True)
        names = next(rows, [])
        cells: list[list[str]] = []
        for row in rows:
            if len(row) != len(names) and row:
                at = f"{path.name}: line {rows.line_num}"
                hint = "Put cells with commas in quotes; leave no comma out for an empty cell."
                raise InputError(at, f"{len(names)} cells, as the header has", len(row), hint)
            if row:  # an empty line is no row
                cells.append(row)
    different(path, names)
    if not cells:
        raise InputError(path.name, "a header and rows", f"{len(names)} columns, no row", LAYOUT)
    return dict(zip(names, map(list, zip(*cells, strict=True)), strict=True))


def _parquet(path: Path) -> dict[str, Any]:
    import pyarrow.parquet

    with readable(path, ".parquet table"), pyarrow.parquet.ParquetFile(path) as file:
        different(path, file.schema_arrow.names)
        table = file.read()
        return {name: table.column(name).to_pylist() for name in table.column_names}


def _reals(path: Path, name: str, column: list[Any]) -> np.ndarray:
    """(N,) float64 of a column of numbers, or of text that writes numbers."""
    found = np.asarray(column) if column else np.empty(0)
    if found.dtype.kind in "iufU":
        with contextlib.suppress(ValueError):  # words
            if np.isfinite(numbers := found.astype(np.float64)).all():
                return numbers
    for row, value in enumerate(column):
        try:
            good = not isinstance(value, bool) and np.isfinite(float(value))
        except (TypeError, ValueError):
            good = False
        if not good:
            hint = "Fill in or drop what is missing; encode or drop a column of words."
            raise InputError(f"{path.name}: column {name!r}, row {row}", "a number", value, hint)
    return np.array([float(value) for value in column])


def _strings(path: Path, name: str, column: list[Any]) -> list[str]:
    for row, value in enumerate(column):
        if not isinstance(value, str) or not value.strip():
            hint = "Drop the row."
            raise InputError(f"{path.name}: column {name!r}, row {row}", "a text", value, hint)
    return column


def _made(path: Path, features: Any, labels: Any, names: Any, soft: Any) -> Dataset:
    """A data set of one's own: its labels are class numbers from 0 on, or the classes' names."""
    known = None if names is None else [str(name) for name in np.ravel(names)]
    labels, found = _numbered(path, labels, known)
    if known is not None and len(known) < len(found):
        allowed = f"a name for each of {len(found)} classes"
        raise InputError(f"{path.name}: class_names", allowed, known)
    return _dataset(path, features, labels, known or found, soft)


def _dataset(path: Path, features: Any, labels: Any, names: list[str], soft: Any) -> Dataset:
    if len(names) < 2:
        hint = "There is nothing to learn from one class."
        raise InputError(f"{path.name}: labels", "of two classes or more", names, hint)
    try:
        return Dataset(str(path), features, labels, tuple(names), str(path), "your own", soft)
    except InputError as error:
        at = f"{path.name}: {error.argument}"
        raise InputError(at, error.allowed, error.value, error.hint) from None


def _numbered(path: Path, labels: Any, known: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Class numbers and the classes' names; ``known`` are names that came with the labels."""
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if isinstance(labels, np.ndarray) and labels.ndim != 1:
        raise InputError(f"{path.name}: labels", "of shape (N,)", labels.shape)
    for row, value in enumerate(values):
        if value is None or value == "" or value != value:
            hint = "Fill in or drop the row."
            raise InputError(f"{path.name}: labels[{row}]", "a class", value, hint)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            allowed = "a class number or a name"
            raise InputError(f"{path.name}: labels[{row}]", allowed, value)
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:  # names
        if not all(isinstance(value, str) for value in values):
            raise InputError(f"{path.name}: labels", "numbers or names alone", "both") from None
        names = known or sorted(set(values))
        where = {name: k for k, name in enumerate(names)}
        if strange := set(values) - set(names):
            at = f"{path.name}: labels"
            raise InputError(at, f"among class_names {names}", sorted(strange)[0]) from None
        return np.array([where[name] for name in values]), names
    whole = numbers == np.floor(numbers)
    if not whole.all() or (numbers < 0).any() or (numbers > 1e6).any():
        row = int((~whole | (numbers < 0) | (numbers > 1e6)).argmax())
        hint = "Classes are numbered from 0 on, or named."
        raise InputError(f"{path.name}: labels[{row}]", "a class number", values[row], hint)
    integers = numbers.astype(np.int64)
    classes = int(integers.max()) + 1 if len(integers) else 0
    missing = np.setdiff1d(np.arange(classes), integers)
    if len(missing) and known is None:
        hint = f"There is no row of class {missing[0]}: number the classes from 0 on, without gaps."
        allowed = f"every class 0 .. {classes - 1}"
        raise InputError(f"{path.name}: labels", allowed, sorted(set(integers.tolist())), hint)
    return integers, [str(k) for k in range(classes)]


# --- Images ------------------------------------------------------------------------------------


def _folder(path: Path, image_size: int | None) -> Dataset:
    """One subfolder a class, named after it; every image of one size, or brought to one."""
    if image_size is not None:
        SIZE.check("image_size", image_size)
    visible = _inside(path)
    folders = [entry for entry in visible if entry.is_dir()]
    if stray := [entry for entry in visible if not entry.is_dir()]:
        hint = "Beside the classes' subfolders nothing belongs there."
        raise InputError("folder of images", "subfolders alone", str(stray[0]), hint)
    if len(folders) < 2:
        raise InputError("folder of images", "of two classes or more", str(path), LAYOUT)
    images: list[np.ndarray] = []
    labels: list[int] = []
    first: Path | None = None
    for k, folder in enumerate(folders):
        files = _inside(folder)
        if not files:
            raise InputError("folder of a class", "one with images", str(folder), "Drop it.")
        for file in files:
            image = _image(file, image_size)
            first = first or file
            if images and image.shape[:2] != images[0].shape[:2]:
                sizes = [" × ".join(map(str, i.shape[1::-1])) for i in (images[0], image)]
                hint = (
                    f"{first.name} is {sizes[0]}. Bring all to one: load(folder, image_size=...)."
                )
                raise InputError(str(file), "of the others' size", sizes[1], hint)
            images.append(image)
            labels.append(k)
            if image.size * len(images) > MEMORY:
                hint = "Give a smaller image_size."
                raise InputError("folder of images", "at most 8 GiB of pixels", str(path), hint)
    if any(image.ndim == 3 for image in images):
        colours = [i if i.ndim == 3 else np.repeat(i[..., None], 3, axis=2) for i in images]
        stacked = np.stack(colours).transpose(0, 3, 1, 2)
    else:
        stacked = np.stack(images)[:, None]
    names = [folder.name for folder in folders]
    return _dataset(path, stacked, np.array(labels), names, None)


def _inside(folder: Path) -> list[Path]:
    """What counts in a folder, by name."""
    with readable(folder, "folder"):
        names = sorted(os.listdir(folder))
    return [folder / n for n in names if not (n.startswith(".") or n.lower() in IGNORED)]


def _image(path: Path, size: int | None) -> np.ndarray:
    """(H, W) of a grey image, else (H, W, 3); uint8."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        text = "Folders of images are read with Pillow: pip install 'softhot[study]'."
        raise ModuleNotFoundError(text, name=error.name) from error
    if path.suffix.lower() not in IMAGES:
        raise InputError(str(path), "an image", path.suffix, f"Endings are {' '.join(IMAGES)}.")
    with readable(path, "image"), Image.open(path) as opened:
        if opened.mode not in MODES:
            raise InputError(str(path), "an image of 8 bits a channel", opened.mode)
        upright = ImageOps.exif_transpose(opened)
        image = upright.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
        if size is not None:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image)
