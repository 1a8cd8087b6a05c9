"""Running a study: train what the store does not hold yet, in one process or in several."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from softhot.core.check import InputError, SofthotWarning
from softhot.datasets import Dataset, Split, load, prepare, split
from softhot.studies import executors
from softhot.studies.claims import claimed, held
from softhot.studies.executors import Map
from softhot.studies.groups import Group, together
from softhot.studies.leader import Best, Leader
from softhot.studies.logs import Log, prints_into
from softhot.studies.search import search
from softhot.studies.spec import StudySpec, TrialSpec
from softhot.studies.status import name
from softhot.studies.store import Failure, Record, Store, TrialResult
from softhot.studies.train import check_data, train, train_all, versions

CHECKPOINTS = "checkpoints"  # of models of the user's own, by trial
POLL = 0.5  # seconds between two looks at what other runs are doing
STUCK = 3  # times that every trial may lose its process before the run gives up


@dataclass(frozen=True)
class Progress:
    """One trial is over: ``done`` of ``total`` are finished, those of earlier runs included.

    ``seconds`` is how long it took, 0 if another run trained it; ``failure`` says why it failed,
    or is None; ``best`` is the arm that leads on validation so far.
    """

    done: int
    total: int
    trial: TrialSpec
    seconds: float
    failure: str | None = None
    best: Best | None = None


def run(
    spec: StudySpec,
    folder: str | Path,
    *,
    jobs: int | None = None,
    executor: str | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Store:
    """Train every trial of ``spec`` that ``folder`` does not hold yet.

    Interrupted at any moment, be it by Ctrl-C or by losing power, the same call continues where
    it stopped: no finished trial is trained again, and the logits are the same bytes, whatever
    the number of jobs and wherever they run. Several runs may share a folder: each trial is
    trained by one of them. A process that is killed loses the trial, or the group of trials that
    train together (:mod:`softhot.studies.groups`), that it was at, which is tried again.

    Args:
        spec: The study.
        folder: A new folder, or one that an earlier run of the same study has written.
        jobs: Trials at a time; None is one for each processor. 1 stays in this process.
        executor: Where to train: None is this machine, else the address of a cluster, such as
            ``"dask://host:port"`` or ``"ray://local"``, see :mod:`softhot.studies.executors`.
        progress: Called in this process after each trial.

    Returns:
        The store. Its ``failures`` lists the trials that raised an error; nothing of them is
        stored, and the next run tries them again.

    Raises:
        InputError: ``folder`` cannot be used, see :meth:`Store.create`; the data has too few rows
            for the split; nobody answers at ``executor``; processes are killed again and again,
            as happens when memory runs out.
        KeyboardInterrupt: Ctrl-C; what was finished is kept.

    Warns:
        SofthotWarning: A record is damaged (its name and what is wrong with it; it is not read,
            its trial is trained again), or was trained by other versions of the libraries.
    """
    if jobs is not None:
        executors.JOBS.check("jobs", jobs)
    if spec.search != "grid":
        again = functools.partial(_run, folder=folder, jobs=jobs, executor=executor)
        return search(spec, folder, functools.partial(again, progress=progress))
    return _run(spec, folder=folder, jobs=jobs, executor=executor, progress=progress)


def _run(
    spec: StudySpec,
    *,
    folder: str | Path,
    jobs: int | None,
    executor: str | None,
    progress: Callable[[Progress], object] | None,
) -> Store:
    """Train the trials of a study whose arms are known."""
    check(spec)
    started = executors.start(executor, jobs)
    store = Store.planned(folder, spec)
    leader, pending = _looked_through(store)
    total = len(spec.trials())
    done = total - len(pending)
    try:
        with started if pending else executors.start(None, 1) as mapped:
            store.begin()  # not before somebody is there to train
            with contextlib.closing(_outcomes(store, mapped, pending)) as outcomes:
                for outcome in outcomes:
                    if outcome.failure is None:
                        done += 1
                        leader.add(store.look(outcome.trial))
                    else:
                        store.failures.append(Failure(outcome.trial, outcome.failure))
                    if progress is not None:
                        event = (outcome.trial, outcome.seconds, outcome.failure, leader.best)
                        progress(Progress(done, total, *event))
    finally:
        if pending:
            store.sweep()  # a process may have been killed while it was writing
    return store


def check(spec: StudySpec) -> None:
    """Read the data of a study and refuse what cannot be trained on it.

    Raises:
        InputError: The data, its split, or a model or a method that does not take it.
    """
    _data.cache_clear()  # a file may have changed since
    _loaded.cache_clear()
    dataset, _ = data(spec)
    for trial in spec.trials()[: len(spec.arms)]:
        check_data(trial, dataset)


def _looked_through(store: Store) -> tuple[Leader, tuple[TrialSpec, ...]]:
    """What is there, read once: who leads, and what is still to be trained."""
    leader, pending, now = Leader(), [], versions(store.spec.model)
    other: dict[str, str] = {}
    for trial in store.spec.trials():
        found = store.look(trial)
        if isinstance(found, Record):
            leader.add(found)
            _same_data(store, found)
            other |= {n: was for n, was in found.versions.items() if now.get(n) != was}
            continue
        pending.append(trial)
        if found is not None:
            text = f"{found.name}: {found.reason}. The trial is trained again."
            warnings.warn(text, SofthotWarning, stacklevel=3)
    if other:
        there = ", ".join(f"{name} {was}" for name, was in other.items())
        here = ", ".join(f"{name} {now.get(name)}" for name in other)
        text = (
            f"Trials in {store.folder} were trained with {there}, now there is {here}. For "
            "numbers that compare to the last digit, run the study in a new folder."
        )
        warnings.warn(text, SofthotWarning, stacklevel=3)
    return leader, tuple(pending)


def _same_data(store: Store, record: Record) -> None:
    """Refuse to go on with data that is not what earlier trials of the run were trained on."""
    dataset, parts = data(record.trial)
    if (record.data, record.split) != (dataset.digest, parts.digest):
        changed = f"{record.trial.dataset} has changed since its trials were trained"
        hint = f"{changed}: give a new folder, or the data as it was."
        raise InputError("folder", "a run on the same data", str(store.folder), hint)


def data(of: StudySpec | TrialSpec) -> tuple[Dataset, Split]:
    """The data set and its split, of a trial that of its fold; loaded once in each process."""
    fold = of.fold if isinstance(of, TrialSpec) else None
    names = ("dataset", "image_size", "label_noise", "imbalance", "subset", "test", "split_seed")
    shared = [getattr(of, name) for name in names]
    return _data(*shared, of.folds, of.train, of.validation, fold)


@functools.lru_cache(maxsize=2)
def _data(
    name: str,
    image_size: int | None,
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
    dataset = _loaded(name, image_size)
    parts = split(dataset, train, validation, test, seed)
    if fold is not None and folds > 1:
        parts = folded(dataset, parts, folds, fold)
    return prepare(dataset, parts, subset=subset, imbalance=imbalance, noise=label_noise, seed=seed)


@functools.lru_cache(maxsize=1)
def _loaded(name: str, image_size: int | None) -> Dataset:
    return load(name, image_size=image_size)


def folded(dataset: Dataset, parts: Split, folds: int, fold: int) -> Split:
    """Training and validation rows together, cut anew: the fold is the validation part.

    Classes take turns through the folds, so each has them in nearly the same proportions, and the
    sizes of two folds differ by at most one row.
    """
    rows = np.concatenate([parts.train, parts.validation])
    order = rows[np.argsort(dataset.labels[rows], kind="stable")]
    held = np.arange(len(order)) % folds == fold
    return Split(np.sort(order[~held]), np.sort(order[held]), parts.test)


class Outcome(NamedTuple):
    """What became of a trial: finished if there is neither ``failure`` nor ``refusal``.

    ``failure`` is the error that training raised, in words; ``refusal`` one that ends the run, as
    a full disk does. ``elsewhere``: another process trains it.
    """

    trial: TrialSpec
    seconds: float = 0.0
    failure: str | None = None
    refusal: InputError | None = None
    elsewhere: bool = False


class Work(NamedTuple):
    """A group of trials that train together, and which of them are wanted."""

    group: Group
    wanted: Group


def attempt(store: Store, work: Work) -> list[Outcome]:
    """Train and save what is wanted, unless another process is at it or has finished it.

    The process that trained also saves, so nothing large goes between processes: a pipe that is
    full when its reader is killed would hold its writers for ever.
    """
    with contextlib.ExitStack() as claims:
        for trial in work.wanted:
            if not claims.enter_context(claimed(store.folder, trial.key, name(trial))):
                return [Outcome(trial, elsewhere=True) for trial in work.wanted]
        pending = store.pending(work.wanted)
        found = [Outcome(trial) for trial in work.wanted if trial not in pending]
        logs = {trial: Log(store.folder, trial.key) for trial in pending}
        for log in logs.values():
            log.started()
        checkpoints = store.folder / CHECKPOINTS
        for trial, result, seconds in _results(work.group, logs, checkpoints):
            if isinstance(result, Exception):
                logs[trial].failed(result)
                failure = f"{type(result).__name__}: {result}"
                found.append(Outcome(trial, seconds, failure))
                continue
            try:
                store.save(trial, result)
            except InputError as refusal:  # a disk that refuses is no fault of the trial
                return [*found, Outcome(trial, refusal=refusal)]
            shutil.rmtree(checkpoints / trial.key, ignore_errors=True)
            logs[trial].finished(seconds)
            found.append(Outcome(trial, seconds))
        return found


def _results(
    group: Group, logs: Mapping[TrialSpec, Log], folder: Path
) -> Iterator[tuple[TrialSpec, TrialResult | Exception, float]]:
    """Results, or errors, of the trials that have a log, with the seconds they took.

    Should a whole group fail, its trials are tried one by one, so that none fails for another.
    """
    began = time.perf_counter()
    if len(group) > 1 and logs:
        first = next(iter(logs.values()))
        try:
            with prints_into(first):
                results = train_all(group, *data(group[0]))
        except Exception as error:
            first.printed(f"not together: {type(error).__name__}: {error}\n")
        else:
            seconds = (time.perf_counter() - began) / len(group)
            for trial, result in zip(group, results, strict=True):
                if trial in logs:
                    yield trial, result, seconds
            return
    for trial, log in logs.items():
        began = time.perf_counter()
        found: TrialResult | Exception
        try:
            with prints_into(log):
                found = train(trial, *data(trial), folder / trial.key)
        except Exception as error:
            found = error
        yield trial, found, time.perf_counter() - began


def _outcomes(
    store: Store, mapped: Map, trials: tuple[TrialSpec, ...]
) -> Generator[Outcome, None, None]:
    """What became of each trial, as it comes, wherever it was trained.

    Trials that another run is at are waited for. Those whose process was killed are tried again,
    as long as others get on.
    """
    groups = together(store.spec.trials())
    stuck = 0
    while trials:
        elsewhere: set[TrialSpec] = set()
        over: set[TrialSpec] = set()
        left = set(trials)
        wanted = [Work(group, tuple(t for t in group if t in left)) for group in groups]
        works = [work for work in wanted if work.wanted]
        with contextlib.closing(mapped(functools.partial(attempt, store), works)) as lists:
            for outcome in itertools.chain.from_iterable(lists):
                if outcome.refusal is not None:
                    raise outcome.refusal
                if outcome.elsewhere:
                    elsewhere.add(outcome.trial)
                else:
                    over.add(outcome.trial)
                    yield outcome
        lost = len(trials) - len(over) - len(elsewhere)
        stuck = 0 if over or not lost else stuck + 1
        if stuck == STUCK:
            hint = "Processes were killed from outside; mostly, memory had run out. Finished "
            hint += "trials are kept: run again with fewer jobs."
            raise InputError("jobs", "no more processes than fit into memory", lost, hint)
        if lost:
            text = "A process was killed from outside; mostly, memory had run out."
            warnings.warn(f"{text} What it was at is tried again.", SofthotWarning, stacklevel=3)
        elif elsewhere:
            _await_any(store, elsewhere)
        trials = tuple(trial for trial in trials if trial not in over)


def _await_any(store: Store, elsewhere: set[TrialSpec]) -> None:
    """Wait until another run is done with one of these trials, whether it finished or not."""
    while all(held(store.folder, trial.key) for trial in elsewhere):
        time.sleep(POLL)
