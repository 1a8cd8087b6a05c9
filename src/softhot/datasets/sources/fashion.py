"""Fashion-MNIST from its four published IDX files.

An IDX file is two zero bytes, a code of the type of its numbers (8: unsigned byte), the number of
axes, the length of each as a big-endian 32-bit integer, and then the numbers, last axis fastest.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softhot.core.check import InputError
from softhot.datasets.sources import Contents, cache
from softhot.datasets.sources.fetching import contained, kept, verified

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# SHA-256 of the content, unpacked: how it is packed differs between those who offer it.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
TRAIN = 60_000


@dataclass(frozen=True)
class FashionMnist:
    """The files in a folder of yours, in that of Debian's package, or fetched from OpenML."""

    origin: str = "Debian's package dataset-fashion-mnist, or fetched from OpenML, 31 MB"

    @property
    def present(self) -> bool:
        return any(all(_file(folder, name).is_file() for name in FILES) for folder in _folders())

    def read(self, folder: Path | None) -> Contents:
        folders = [folder] if folder is not None else list(_folders())
        for candidate in folders:
            if all(_file(candidate, name).is_file() for name in FILES):
                parts = [read_idx(_file(candidate, name), digest) for name, digest in FILES.items()]
                images, labels = np.concatenate(parts[::2]), np.concatenate(parts[1::2])
                return Contents(images[:, None], labels.astype(np.int64), test_start=TRAIN)
        hint = "Run: apt install dataset-fashion-mnist, or: softhot datasets --fetch fashion_mnist."
        where = ", ".join(map(str, folders))
        raise InputError("folder of fashion_mnist", f"one with {next(iter(FILES))}.gz", where, hint)

    def fetch(self) -> Path:
        from sklearn.datasets import fetch_openml

        try:
            pixels, labels = fetch_openml(
                data_id=40996, data_home=str(cache()), return_X_y=True, as_frame=False
            )
        except Exception as error:  # the network, OpenML and the disk each have their own
            hint = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError("OpenML", "reachable", "data set 40996", hint) from None
        images = np.asarray(pixels, np.uint8).reshape(-1, 28, 28)
        labels = np.asarray(labels, np.uint8)
        folder = cache() / "fashion-mnist"
        arrays = (images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])
        for (name, digest), array in zip(FILES.items(), arrays, strict=True):
            path = _file(folder, name)
            data = verified(idx(array), digest, path)
            kept(path, gzip.compress(data, 6, mtime=0))
        return folder


def _folders() -> Iterator[Path]:
    yield from (cache() / "fashion-mnist", DEBIAN)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.gz"


def idx(array: np.ndarray) -> bytes:
    """An array of unsigned bytes as the content of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, gzipped or not; ``sha256`` of its content."""
    data = contained(path)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError("file", "a whole .gz", str(path), f"{error}.") from None
    if sha256 is not None:
        verified(data, sha256, path)
    axes = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    begin = 4 + 4 * axes
    whole = len(data[4:begin]) == 4 * axes > 0
    shape = tuple(np.frombuffer(data[4:begin], ">u4").tolist()) if whole else ()
    if not whole or len(data) != begin + math.prod(shape):
        found = f"{len(data):,} bytes that begin with {data[:4].hex()}"
        raise InputError(f"{path.name}", "an IDX file of unsigned bytes", found)
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)
