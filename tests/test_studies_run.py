"""Runs that are cut off, fail or share a folder must end where an undisturbed run ends."""

import contextlib
import dataclasses
import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from softhot.core.check import InputError, SofthotWarning
from softhot.studies import Progress, Store, StudySpec, compare, executors, run
from studies_cases import TINY, contents

running = importlib.import_module("softhot.studies.run")

# Trials of some 30 ms each, so that a kill mostly falls into training or saving.
STUDY = StudySpec(dataset="wine", alphas=(0.1, 0.3), seeds=6, hidden=(8,), epochs=80)
TRIALS = len(STUDY.trials())

CHILD = """
import dataclasses, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
sys.path.insert(0, sys.argv[1])
import torch
from test_studies_run import STUDY
from softhot.studies import run
study = dataclasses.replace(STUDY, seeds=int(os.environ.get("SEEDS", STUDY.seeds)))
while len(sys.argv) > 4 and not os.path.exists(sys.argv[4]):
    time.sleep(0.01)
run(study, sys.argv[2], jobs=int(sys.argv[3]), progress=lambda p: print(p.done, flush=True))
"""


def written(store):
    """Records and arrays, byte for byte: nothing in them differs from one run to the next."""
    found = {name: content[0] for name, content in contents(store.folder).items()}
    return {name: data for name, data in found.items() if name.startswith("trials/")}


def parent(stat):
    """The parent of a process, from its file in /proc."""
    with contextlib.suppress(OSError):
        return int(stat.read_text().rpartition(")")[2].split()[1])


def alive(process):
    """Whether a process runs; one that only waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def loaded(process, library):
    """Whether a process has loaded a library, which takes most of the time before it trains."""
    with contextlib.suppress(OSError):
        return library in Path(f"/proc/{process}/maps").read_text()


def finished(folder):
    """The files of the finished trials, with their times of writing."""
    if not (folder / "study.toml").exists():
        return {}
    keys = {record.trial.key for record in Store.open(folder).records()}
    files = contents(folder).items()
    return {name: content for name, content in files if os.path.basename(name)[:16] in keys}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(STUDY, tmp_path_factory.mktemp("runs") / "undisturbed", jobs=1)


@pytest.fixture
def start(tmp_path):
    """Starts the study in a process group of its own; none of it survives the test."""
    children = []

    def starting(jobs, *signal):
        here = os.path.dirname(__file__)
        command = [sys.executable, "-c", CHILD, here, str(tmp_path / "run"), str(jobs), *signal]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )
        children.append(child)
        return child

    yield starting
    for child in children:
        kill_with_workers(child)
        child.wait()
        child.stdout.close()
        child.stderr.close()


def kill_with_workers(child):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def wait_for(child, trials):
    """Until so many more trials are finished, and then a moment that nobody chose."""
    for _ in range(trials):
        assert child.stdout.readline()
    time.sleep(random.uniform(0, 0.03))


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_continued_is_as_if_never_killed(undisturbed, start, tmp_path, jobs):
    folder, before, children = tmp_path / "run", {}, []
    for trials in (1, 4):
        children.append(child := start(jobs))
        wait_for(child, trials)
        child.kill()
        child.wait()
        after = finished(folder)
        assert before.items() <= after.items()  # neither lost nor written again
        assert len(after) >= 2 * trials
        before = after
    for child in children:
        kill_with_workers(child)  # one that still writes would be seen doing so
    store = run(STUDY, folder, jobs=1)
    assert before.items() <= contents(folder).items()
    assert written(store) == written(undisturbed)
    one, two = (compare(s.records(), STUDY).to_dict() for s in (store, undisturbed))
    assert one == two


def test_ctrl_c_stops_cleanly_and_keeps_what_is_finished(start, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDS", "100")  # it must not be over before the interrupt comes
    child = start(2)
    wait_for(child, 3)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the processes of the pool get it too
    _, errors = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    store = Store.open(tmp_path / "run")
    assert 3 <= len(store.records()) < len(store.spec.trials())
    assert store.damaged == ()


def test_an_interrupt_while_processes_start_comes_afterwards_whoever_takes_it():
    over = threading.Event()
    other = threading.Thread(target=over.wait)  # it does not block the signal, and so takes it
    other.start()
    before, reached = signal.getsignal(signal.SIGINT), []
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background: ignored
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117  # raised only at the end of the inner block
            with executors.children_deaf_to_interrupts():
                with contextlib.suppress(KeyboardInterrupt):  # as a callback of somebody's might
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.1)
                reached.append(True)
        assert reached
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, before)
        over.set()
        other.join()


def test_jobs_do_not_change_a_byte(undisturbed, tmp_path):
    events = []
    store = run(STUDY, tmp_path / "parallel", jobs=2, progress=events.append)
    assert written(store) == written(undisturbed)
    assert [event.done for event in events] == list(range(1, TRIALS + 1))
    assert {event.trial for event in events} == set(STUDY.trials())


def test_an_error_in_the_callback_ends_the_pool_quietly(tmp_path):
    def failing(event):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(STUDY, tmp_path / "run", jobs=2, progress=failing)
    assert 1 <= len(Store.open(tmp_path / "run").records()) < TRIALS


def test_a_killed_process_loses_only_what_it_was_at(undisturbed, tmp_path):
    from joblib.externals.loky import reusable_executor

    def kill(event):
        if event.done in (2, 5):
            os.kill(min(reusable_executor._executor._processes), signal.SIGKILL)

    with pytest.warns(SofthotWarning, match="killed from outside.*tried again"):
        store = run(STUDY, tmp_path / "run", jobs=2, progress=kill)
    assert written(store) == written(undisturbed)


def test_processes_that_die_again_and_again_end_the_run(tmp_path, monkeypatch):
    def dying(function, items):
        yield from map(function, items[:2] if len(items) == 6 else ())

    there = contextlib.nullcontext(dying)
    monkeypatch.setattr(executors, "start", lambda address, jobs: there)
    with (
        pytest.warns(SofthotWarning, match="tried again"),
        pytest.raises(
            InputError, match=r"got 4\. Processes were killed.*run again with fewer jobs"
        ),
    ):
        run(TINY, tmp_path / "run", jobs=2)
    assert len(Store.open(tmp_path / "run").records()) == 2


def test_processes_end_with_the_one_that_started_them(start, tmp_path):
    child = start(2)
    wait_for(child, 2)
    pool = [
        int(path.parent.name) for path in Path("/proc").glob("*/stat") if parent(path) == child.pid
    ]
    assert len(pool) >= 2
    child.kill()
    child.wait()
    while any(map(alive, pool)):
        time.sleep(0.05)  # without end, should one of them stay


def test_two_runs_share_a_folder(undisturbed, start, tmp_path):
    """Each trial is trained once, by one of them, and both end with all of them."""
    signal = tmp_path / "begin"
    children = [start(1, str(signal)), start(1, str(signal))]
    while not all(loaded(child.pid, "libtorch") for child in children):
        time.sleep(0.05)
    signal.touch()
    for child in children:
        child.communicate(timeout=300)
        assert child.returncode == 0
    store = Store.open(tmp_path / "run")
    assert written(store) == written(undisturbed)
    logs = [path.read_text() for path in (store.folder / "logs").iterdir()]
    assert [log.count(" started ") for log in logs] == [1] * TRIALS


# --- In this process, with little training -----------------------------------------------------


def test_progress_counts_what_was_there_before(tmp_path):
    events = []

    def stop_at_two(event):
        events.append(event)
        if event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path / "run", jobs=1, progress=stop_at_two)
    run(TINY, tmp_path / "run", jobs=1, progress=events.append)
    assert [(event.done, event.total) for event in events] == [(n, 6) for n in range(1, 7)]
    assert [event.trial for event in events] == list(TINY.trials())
    assert all(event.seconds > 0 and event.failure is None for event in events)
    again = []
    run(TINY, tmp_path / "run", jobs=1, progress=again.append)
    assert again == []


def test_a_failing_trial_is_reported_and_stops_nothing(tmp_path, monkeypatch):
    bad, train, events = TINY.trials()[3], running.train, []

    def failing(trial, *data):
        if trial == bad:
            raise ZeroDivisionError("by hand")
        return train(trial, *data)

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", failing)
        store = run(TINY, tmp_path / "run", jobs=1, progress=events.append)
    assert store.failures == [(bad, "ZeroDivisionError: by hand")]
    assert store.pending() == (bad,)
    assert store.load(bad.key) is None
    best = events[2].best
    assert best.seeds == 1
    assert events[3] == Progress(3, 6, bad, events[3].seconds, "ZeroDivisionError: by hand", best)
    assert [event.done for event in events] == [1, 2, 3, 3, 4, 5]
    comparison = compare(store.records(), TINY)
    assert (comparison.seeds, comparison.complete) == ((0,), False)
    again = run(TINY, tmp_path / "run", jobs=1)
    assert (again.failures, again.pending()) == ([], ())


def test_damage_is_named_and_trained_again(tmp_path):
    store = run(TINY, tmp_path / "run", jobs=1)
    before = contents(store.folder)
    path = next(store.folder.glob("trials/*.npz"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(SofthotWarning, match=rf"{path.name}: .*bytes.* The trial is trained again"):
        run(TINY, store.folder, jobs=1)
    after = contents(store.folder)
    changed = {name for name in before if before[name] != after[name]}
    assert {os.path.basename(name)[:16] for name in changed} == {path.name[:16]}
    assert after[f"trials/{path.name}"][0] == before[f"trials/{path.name}"][0]


def test_what_a_killed_process_was_writing_is_gone_at_the_end(tmp_path):
    def leave(event):
        (tmp_path / "run/trials/.softhot-writing-1").write_text("half")

    store = run(TINY, tmp_path / "run", jobs=1, progress=leave)
    assert not list(store.folder.rglob(".softhot-writing-*"))


def test_other_versions_are_named(tmp_path, monkeypatch):
    run(TINY, tmp_path / "run", jobs=1)
    now = {**running.versions(), "torch": "9.9"}
    monkeypatch.setattr(running, "versions", lambda *_: now)
    with pytest.warns(
        SofthotWarning, match=r"trained with torch 2.*, now there is torch 9.9\. For"
    ):
        run(TINY, tmp_path / "run", jobs=1)


def test_jobs_are_as_many_as_processors(tmp_path, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    assert run(TINY, tmp_path / "run").pending() == ()


def test_one_job_needs_no_joblib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert run(TINY, tmp_path / "run", jobs=1).pending() == ()


def test_a_full_disk_ends_the_run(tmp_path, monkeypatch):
    def full(trial, result):
        raise InputError("folder", "one that can be written to", "here", "No space left.")

    monkeypatch.setattr(Store, "save", lambda self, trial, result: full(trial, result))
    with pytest.raises(InputError, match="No space left"):
        run(TINY, tmp_path / "run", jobs=1)


@pytest.mark.parametrize("jobs", executors.JOBS.bad_values())
def test_bad_jobs_write_nothing(tmp_path, jobs):
    if jobs is not None:  # one for each processor
        with pytest.raises(InputError, match="jobs must be"):
            run(TINY, tmp_path / "run", jobs=jobs)
    assert not (tmp_path / "run").exists()


def test_a_split_that_does_not_fit_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="train"):
        run(dataclasses.replace(TINY, train=170), tmp_path / "run", jobs=1)
    assert not (tmp_path / "run").exists()
