"""Running a study: train what the store does not hold yet, in one process or in several."""

from __future__ import annotations

import contextlib
import functools
import signal
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np

from softhot.core.check import InputError, Interval, SofthotWarning
from softhot.datasets import Dataset, Split, load, prepare, split
from softhot.studies.spec import StudySpec, TrialSpec
from softhot.studies.store import Failure, Store
from softhot.studies.train import check_data, train, versions

JOBS = Interval(1, 4096, integer=True)
IDLE = 20  # seconds after which a process without work ends, should this one have been killed


@dataclass(frozen=True)
class Progress:
    """One trial is over: ``done`` of ``total`` are finished, those of earlier runs included.

    ``seconds`` is how long it took; ``failure`` says why it failed, or is None.
    """

    done: int
    total: int
    trial: TrialSpec
    seconds: float
    failure: str | None = None


def run(
    spec: StudySpec,
    folder: str | Path,
    *,
    jobs: int | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Store:
    """Train every trial of ``spec`` that ``folder`` does not hold yet.

    Interrupted at any moment, be it by Ctrl-C or by losing power, the same call continues where
    it stopped: no finished trial is trained again, and the logits are the same bytes, whatever
    the number of jobs.

    Args:
        spec: The study.
        folder: A new folder, or one that an earlier run of the same study has written.
        jobs: Processes to train in; None is one for each processor. 1 stays in this process.
        progress: Called in this process after each trial.

    Returns:
        The store. Its ``failures`` lists the trials that raised an error; nothing of them is
        stored, and the next run tries them again.

    Raises:
        InputError: ``folder`` cannot be used, see :meth:`Store.create`; the data has too few rows
            for the split; a process was killed, as happens when memory runs out.
        KeyboardInterrupt: Ctrl-C; what was finished is kept.

    Warns:
        SofthotWarning: A record is damaged (its name and what is wrong with it; it is not read,
            its trial is trained again), or was trained by other versions of the libraries.
    """
    jobs = _processors() if jobs is None else JOBS.check("jobs", jobs)
    dataset, _ = data(spec)  # or an InputError
    for trial in spec.trials()[: len(spec.arms)]:
        check_data(trial, dataset)
    store = Store.create(folder, spec)
    for damage in store.damaged:
        text = f"{damage.name}: {damage.reason}. The trial is trained again."
        warnings.warn(text, SofthotWarning, stacklevel=2)
    _warn_of_other_versions(store)
    pending = store.pending()
    total = len(spec.trials())
    done = total - len(pending)
    with contextlib.closing(_outcomes(store, pending, min(jobs, len(pending)))) as outcomes:
        for trial, seconds, failure in outcomes:
            if failure is None:
                done += 1
            else:
                store.failures.append(Failure(trial, failure))
            if progress is not None:
                progress(Progress(done, total, trial, seconds, failure))
    return store


def _warn_of_other_versions(store: Store) -> None:
    now = versions()
    for record in store.records():
        other = {name: was for name, was in record.versions.items() if now.get(name) != was}
        if other:
            there = ", ".join(f"{name} {was}" for name, was in other.items())
            here = ", ".join(f"{name} {now.get(name)}" for name in other)
            text = (
                f"Trials in {store.folder} were trained with {there}, now there is {here}. For "
                "numbers that compare to the last digit, run the study in a new folder."
            )
            warnings.warn(text, SofthotWarning, stacklevel=3)
            return


def data(of: StudySpec | TrialSpec) -> tuple[Dataset, Split]:
    """The data set and its split, of a trial that of its fold; loaded once in each process."""
    fold = of.fold if isinstance(of, TrialSpec) else None
    names = ("dataset", "label_noise", "imbalance", "subset", "test", "split_seed", "folds")
    return _data(*(getattr(of, name) for name in names), of.train, of.validation, fold)


@functools.lru_cache(maxsize=2)
def _data(
    name: str,
    label_noise: float,
    imbalance: float,
    subset: int,
    test: int,
    seed: int,
    folds: int,
    train: int,
    validation: int,
    fold: int | None,
) -> tuple[Dataset, Split]:
    dataset = _loaded(name)
    parts = split(dataset, train, validation, test, seed)
    if fold is not None and folds > 1:
        parts = folded(dataset, parts, folds, fold)
    return prepare(dataset, parts, subset=subset, imbalance=imbalance, noise=label_noise, seed=seed)


@functools.lru_cache(maxsize=1)
def _loaded(name: str) -> Dataset:
    return load(name)


def folded(dataset: Dataset, parts: Split, folds: int, fold: int) -> Split:
    """Training and validation rows together, cut anew: the fold is the validation part.

    Classes take turns through the folds, so each has them in nearly the same proportions, and the
    sizes of two folds differ by at most one row.
    """
    rows = np.concatenate([parts.train, parts.validation])
    order = rows[np.argsort(dataset.labels[rows], kind="stable")]
    held = np.arange(len(order)) % folds == fold
    return Split(np.sort(order[~held]), np.sort(order[held]), parts.test)


Outcome = tuple[TrialSpec, float, str | None]


def attempt(store: Store, trial: TrialSpec) -> Outcome:
    """Train the trial and save it; returns its seconds and, in words, the error it raised.

    The process that trained also saves, so nothing large goes between processes: a pipe that is
    full when its reader is killed would hold its writers for ever.
    """
    began = time.perf_counter()
    failure = None
    try:
        result = train(trial, *data(trial))
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    else:
        store.save(trial, result)  # a disk that refuses ends the run: it is no fault of the trial
    return trial, time.perf_counter() - began, failure


def _outcomes(
    store: Store, trials: tuple[TrialSpec, ...], jobs: int
) -> Generator[Outcome, None, None]:
    """Outcomes as they come; with one job in the order of ``trials``."""
    if jobs <= 1:
        for trial in trials:
            yield attempt(store, trial)
        return
    import joblib

    parallel = joblib.Parallel(
        jobs,
        backend="loky",
        batch_size=1,
        return_as="generator_unordered",
        idle_worker_timeout=IDLE,
    )
    try:
        with _children_deaf_to_interrupts():
            outcomes = parallel(joblib.delayed(attempt)(store, trial) for trial in trials)
        try:
            for outcome in outcomes:  # noqa: UP028  ("yield from" would close it unfiltered)
                yield outcome
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that tasks are cancelled, which is what is meant
                outcomes.close()
    except BrokenExecutor:
        hint = "A process was killed from outside; mostly, memory had run out. Finished trials "
        hint += "are kept: run again with fewer jobs."
        raise InputError("jobs", "no more processes than fit into memory", jobs, hint) from None


@contextlib.contextmanager
def _children_deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside never see Ctrl-C; this one sees it at the latest at the end.

    A terminal sends Ctrl-C to all of them. This process ends the others, but each would first
    print where it was.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started inside, it would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _processors() -> int:
    import joblib

    return joblib.cpu_count()
