"""A run on disk: a folder that only ever grows by whole, verified trials.

::

    study.toml              the settings, guarded by their digest
    trials/<key>.npz        validation and test logits with their labels, no pickle; of a network
                            also the Gram matrix and the bias of its last layer
    trials/<key>.json       the record: the trial, versions, digests of split, data and the .npz
    logs/<key>.log          how the training went, for people (:mod:`softhot.studies.logs`)
    claims/<key>.json       who trains it just now (:mod:`softhot.studies.claims`)

Every file of ``trials`` is written under a temporary name, flushed to the disk and renamed, the
arrays before the record that vouches for them. So a trial is finished if and only if both files
verify, and a process killed at any moment leaves a finished trial or none. What differs from one
run to the next, such as the time that training took, is in the log alone: the same study with the
same versions of the libraries leaves the same bytes in ``trials``, however often it was cut off.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from softhot.core.check import InputError
from softhot.metrics import LastLayer, Predictions
from softhot.studies.claims import CLAIMS, swept
from softhot.studies.logs import LOGS, ending
from softhot.studies.spec import StudySpec, TrialSpec, canonical

SETTINGS = "study.toml"
TRIALS = "trials"
PAGE = "report.html"  # what else a run's folder may hold
TEMPORARY = ".softhot-writing-"  # how the name of an unfinished file begins
FORMAT = 3
READABLE = (2, FORMAT)  # 2 knew no last layer
RECORD_LIMIT = 1 << 20  # bytes; a record is about 1,000


@dataclass(frozen=True, eq=False)
class TrialResult:
    """What training one trial gives: held-out logits, and how they came about.

    Attributes:
        validation_logits, test_logits: float32, (rows, classes).
        validation_labels, test_labels: int64, (rows,).
        seconds: Wall time of the training.
        versions: Name to version of what computed the numbers.
        split: Digest of the split of the data.
        data: Digest of the data itself, with the labels that were trained on.
        layer: The last layer if it is linear, float32; None where there is none or it was left out.
    """

    validation_logits: np.ndarray
    validation_labels: np.ndarray
    test_logits: np.ndarray
    test_labels: np.ndarray
    seconds: float
    versions: dict[str, str]
    split: str
    data: str = ""
    layer: LastLayer | None = None

    def arrays(self) -> dict[str, Any]:
        """What is stored, by name, in the types that are stored."""
        types = {"logits": np.float32, "labels": np.int64}
        found = {n: np.asarray(getattr(self, n), types[n.partition("_")[2]]) for n in ARRAYS}
        if self.layer is not None:
            found |= {n: np.asarray(getattr(self.layer, n), np.float32) for n in LAYER}
        return found


ARRAYS = ("validation_logits", "validation_labels", "test_logits", "test_labels")
LAYER = ("gram", "bias")


@dataclass(frozen=True, eq=False)
class Record:
    """A finished, verified trial; ``seconds`` of training is NaN if its log is lost."""

    trial: TrialSpec
    seconds: float
    versions: dict[str, str]
    split: str
    validation: Predictions
    test: Predictions
    data: str = ""
    layer: LastLayer | None = None


class Damage(NamedTuple):
    """A record that cannot be trusted: the file's name and what is wrong with it."""

    name: str
    reason: str


class Failure(NamedTuple):
    """A trial whose training raised an error; it is never stored."""

    trial: TrialSpec
    reason: str


class Store:
    """A run's folder. Make one with :meth:`create` or :meth:`open`.

    Attributes:
        folder: Where it lies.
        spec: The study.
        failures: Trials that failed in this process, see :func:`softhot.studies.run`.
    """

    def __init__(self, folder: Path, spec: StudySpec) -> None:
        self.folder = folder
        self.spec = spec
        self.failures: list[Failure] = []

    @classmethod
    def create(cls, folder: str | Path, spec: StudySpec) -> Store:
        """The run of ``spec`` in ``folder``: a new one, or the one that is there, to be continued.

        A run may grow: where ``spec`` has every trial of the study that is there, and more seeds
        or arms, its settings replace those.

        Raises:
            InputError: ``folder`` holds something else, or the run of another study, or cannot
                be written. Nothing in it has been changed then.
        """
        store = cls.planned(folder, spec)
        store.begin()
        return store

    @classmethod
    def planned(cls, folder: str | Path, spec: StudySpec) -> Store:
        """As :meth:`create`, but nothing is written before :meth:`begin`."""
        folder = _path(folder)
        if _exists(folder / SETTINGS):
            _check_grows(folder, spec)
        else:
            _check_free(folder, spec)
        return cls(folder, spec)

    def begin(self) -> None:
        """Write the settings if they are not there; remove what a killed process was writing.

        Raises:
            InputError: The folder cannot be written, or another study has taken it meanwhile.
        """
        path, content = self.folder / SETTINGS, self.spec.to_toml().encode()
        if not _exists(path):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unusable(self.folder, error) from None
            _write(path, content)
        if _check_grows(self.folder, self.spec) != self.spec:
            _write(path, content)
        self.sweep()

    @classmethod
    def open(cls, folder: str | Path, *, sweep: bool = True) -> Store:
        """The run in ``folder``; files left half-written by a killed process are removed.

        With ``sweep=False`` nothing is, and nothing at all is changed.

        Raises:
            InputError: There is no run in ``folder``, or its settings are damaged.
        """
        folder = _path(folder)
        store = cls(folder, _settings(folder))
        if sweep:
            store.sweep()
        return store

    def pending(self, trials: Iterable[TrialSpec] | None = None) -> tuple[TrialSpec, ...]:
        """Those of ``trials`` (default: all of the study) that are not finished, in their order."""
        chosen = self.spec.trials() if trials is None else trials
        return tuple(t for t in chosen if not isinstance(self.look(t), Record))

    def save(self, trial: TrialSpec, result: TrialResult) -> None:
        """Write a finished trial: first its arrays, then the record that vouches for them.

        Raises:
            InputError: The disk refuses; what was finished before is untouched.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **result.arrays())
        arrays = buffer.getvalue()
        record = {
            "format": FORMAT,
            "key": trial.key,
            "trial": trial.to_dict(),
            "versions": dict(result.versions),
            "split": result.split,
            "data": result.data,
            "arrays": {"bytes": len(arrays), "sha256": hashlib.sha256(arrays).hexdigest()},
        }
        _write(self._path(trial.key, "npz"), arrays)
        _write(self._path(trial.key, "json"), _sealed(record))

    def load(self, key: str) -> Record | Damage | None:
        """The trial of that key: a :class:`Record`, a :class:`Damage`, or None if not finished.

        Raises:
            InputError: The study has no such trial.
        """
        for trial in self.spec.trials():
            if trial.key == key:
                return self.look(trial)
        raise InputError("key", "the key of one of the study's trials", key)

    def records(self) -> tuple[Record, ...]:
        """Every finished trial, in the study's order."""
        return tuple(r for r in map(self.look, self.spec.trials()) if isinstance(r, Record))

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Every record that is there and cannot be trusted, in the study's order."""
        return tuple(d for d in map(self.look, self.spec.trials()) if isinstance(d, Damage))

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / TRIALS / f"{key}.{suffix}"

    def look(self, trial: TrialSpec) -> Record | Damage | None:
        """That trial of the study: a :class:`Record`, a :class:`Damage`, None if not finished."""
        path = self._path(trial.key, "json")
        if not _exists(path):
            return None
        try:
            record = _unsealed(_bytes(path, RECORD_LIMIT))
            _require(record.get("format") in READABLE, "another format than this version reads")
            _require(record["key"] == trial.key, f"it is the record of {record['key']}")
            _require(record["trial"] == trial.to_dict(), "it is the record of another trial")
            path = self._path(trial.key, "npz")
            arrays = _bytes(path, most := record["arrays"]["bytes"])
            _require(len(arrays) == most, f"{len(arrays):,} bytes where {most:,} were written")
            digest = hashlib.sha256(arrays).hexdigest()
            _require(digest == record["arrays"]["sha256"], "its SHA-256 is not the recorded one")
            validation, test, layer = _verified(arrays, trial)
            last = ending(self.folder, trial.key)
            return Record(
                trial=trial,
                seconds=last.seconds if last else math.nan,
                versions=record["versions"],
                split=record["split"],
                data=record["data"],
                validation=validation,
                test=test,
                layer=layer,
            )
        except _Untrue as untrue:
            return Damage(path.name, str(untrue))
        except OSError as error:
            return Damage(path.name, f"cannot be read: {error.strerror or error}")
        except Exception as error:  # a file may be anything: whatever it is, it ends no run
            return Damage(path.name, f"not what softhot writes: {type(error).__name__}: {error}")

    def sweep(self) -> None:
        """Remove what a killed process was writing.

        Should another process be writing just now, it notices and writes its file once more.
        """
        for folder in (self.folder, self.folder / TRIALS):
            for path in folder.glob(TEMPORARY + "*"):
                with contextlib.suppress(OSError):
                    path.unlink()
        swept(self.folder)


class _Untrue(Exception):
    """A check of a record failed."""


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise _Untrue(otherwise)


def _sealed(record: dict[str, Any]) -> bytes:
    """The record's file: its JSON with the SHA-256 of its canonical JSON in front."""
    checksum = hashlib.sha256(canonical(record)).hexdigest()
    return json.dumps({"checksum": checksum, **record}, indent=1, allow_nan=False).encode("ascii")


def _unsealed(data: bytes) -> dict[str, Any]:
    """The record in ``data``, which must be, byte for byte, what :func:`_sealed` makes of it."""
    try:
        record = json.loads(data)
        del record["checksum"]
        whole = data == _sealed(record)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    _require(whole, "cut short or changed: its checksum does not match")
    return record


def _verified(data: bytes, trial: TrialSpec) -> tuple[Predictions, Predictions, LastLayer | None]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        names = set(archive.files)
        known = names in (set(ARRAYS), {*ARRAYS, *LAYER})
        _require(known, f"it holds {', '.join(archive.files)}")
        arrays = {name: archive[name] for name in names}
    for part, rows in (("validation", trial.validation), ("test", trial.test)):
        logits, labels = arrays[f"{part}_logits"], arrays[f"{part}_labels"]
        _require(logits.dtype == np.float32 and labels.dtype == np.int64, "not of the right type")
        _require(
            logits.ndim == 2 and len(logits) == rows and labels.shape == (rows,),
            f"{part} has shape {logits.shape} where {rows:,} rows belong",
        )
        _require(bool(np.isfinite(logits).all()), f"{part} holds numbers that are not finite")
    return (
        Predictions.from_logits(arrays["validation_logits"], arrays["validation_labels"]),
        Predictions.from_logits(arrays["test_logits"], arrays["test_labels"]),
        _layer(arrays) if "gram" in arrays else None,
    )


def _layer(arrays: dict[str, np.ndarray]) -> LastLayer:
    found, k = LastLayer(arrays["gram"], arrays["bias"]), arrays["test_logits"].shape[1]
    for name, array, shape in (("gram", found.gram, (k, k)), ("bias", found.bias, (k,))):
        fits = array.dtype == np.float32 and array.shape == shape
        _require(fits, f"{name} is {array.dtype} of shape {array.shape}, not float32 of {shape}")
        _require(bool(np.isfinite(array).all()), f"{name} holds numbers that are not finite")
    return found


def _path(folder: str | Path) -> Path:
    """``folder``, made absolute: processes of a pool may have another working directory."""
    try:
        return Path(os.path.realpath(folder))
    except (TypeError, ValueError):
        raise InputError("folder", "a path", folder) from None


def _exists(path: Path) -> bool:
    """Whether there is anything of that name, be it a broken link."""
    return os.path.lexists(path)


def _bytes(path: Path, most: int) -> bytes:
    """What is in the file ``path``, unless that is more than ``most`` bytes."""
    _require(_exists(path), "missing")
    _require(path.is_file(), "not a regular file")  # a pipe would keep us waiting
    size = path.stat().st_size
    _require(size <= most, f"{size:,} bytes, more than the {most:,} that belong there")
    return path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    """Put ``data`` into ``path`` so that a crash leaves the old file or the new one, whole."""
    try:
        path.parent.mkdir(exist_ok=True)
        while True:
            temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
                break
            except FileNotFoundError:
                if not path.parent.is_dir():  # otherwise: swept away by another process
                    raise
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink()
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    hint = f"{reason}. Finished trials are safe: put that right and run the same command again."
    return InputError("folder", "one that can be written to", str(path), hint)


def _check_free(folder: Path, spec: StudySpec) -> None:
    """Refuse a folder that is not new or empty, unless it is a run that lost just its settings."""
    try:
        inside = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        inside = []
    except OSError as error:
        raise _unusable(folder, error) from None
    strangers = [name for name in inside if not name.startswith(TEMPORARY)]
    if strangers and not _ours(folder, strangers, spec):
        raise InputError(
            "folder",
            f"new, empty or a run (with its {SETTINGS})",
            str(folder),
            f"It holds {strangers[0]!r}. Give the name of a folder that does not exist yet.",
        )


def _ours(folder: Path, names: list[str], spec: StudySpec) -> bool:
    """Whether a folder with just these names in it is a run of ``spec`` that lost its settings."""
    parts = {TRIALS, CLAIMS, LOGS}
    known = {trial.key for trial in spec.trials()}
    inside = [path for part in parts for path in (folder / part).glob("*")]
    ours = all(path.stem in known or path.name.startswith(TEMPORARY) for path in inside)
    return ours and bool(parts.intersection(names)) and {*parts, PAGE}.issuperset(names)


def _settings(folder: Path) -> StudySpec:
    """The study whose run is in ``folder``."""
    path = folder / SETTINGS
    if not _exists(path):
        hint = f"It has no {SETTINGS}. Give a folder that `softhot study` has written."
        raise InputError("folder", "the folder of a run", str(folder), hint)
    try:
        spec = StudySpec.read(path)
        if "\ndigest = " in path.read_text("utf-8"):
            return spec
        reason = "its digest is missing."
    except InputError as error:
        reason = str(error)
    raise InputError(
        "folder",
        f"a run whose {SETTINGS} is whole",
        str(folder),
        f"It is damaged: {reason} Restore it from a copy, or delete it and run the study's "
        "command again: finished trials are kept.",
    )


def _check_grows(folder: Path, spec: StudySpec) -> StudySpec:
    """The study whose run is in ``folder``; refused if ``spec`` lacks a trial of it."""
    there = _settings(folder)
    if not {trial.key for trial in there.trials()} <= {trial.key for trial in spec.trials()}:
        allowed = "a new folder or a run of this study"
        raise InputError("folder", allowed, str(folder), _other(there, spec))
    return there


def _other(there: StudySpec, here: StudySpec) -> str:
    """In which settings two studies differ, and what to do about it."""
    old, new = there.to_dict(), here.to_dict()
    names = [n for n in dict.fromkeys([*old, *new]) if old.get(n) != new.get(n)]
    differences = "; ".join(f"{n} = {old.get(n)} there, {new.get(n)} here" for n in names)
    hint = "Give another folder, or the settings of that run, to which seeds and arms may be added"
    return f"The run there has {differences}. {hint}."
