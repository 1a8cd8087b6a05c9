"""Trials on real clusters: workers die in the middle, the tables stay those of a serial run."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

import pytest
from distributed import LocalCluster

from softhot.core.check import InputError
from softhot.studies import StudySpec, compare, run
from softhot.studies import claims as claiming
from studies_cases import TINY
from test_studies_run import written

# Long enough for a worker to be killed in the middle of its trial.
STUDY = StudySpec(dataset="wine", alphas=(0.1,), seeds=3, hidden=(8,), epochs=600)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    return run(STUDY, tmp_path_factory.mktemp("serial") / "run", jobs=1)


@contextlib.contextmanager
def one_killed(folder):
    """Kills the first process that is seen training, while it is at it."""
    killed, over = [], threading.Event()

    def watch():
        while not killed and not over.is_set():
            for claim in claiming.running(folder):
                log = folder / "logs" / f"{claim.key}.log"
                if claim.process != os.getpid() and log.exists() and log.read_text():
                    os.kill(claim.process, signal.SIGKILL)
                    killed.append(claim)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def attempts(store):
    """How often the training of each trial began."""
    logs = [path.read_text() for path in sorted((store.folder / "logs").iterdir())]
    return sorted(log.count(" started ") for log in logs)


def check(store, killed, serial):
    assert len(killed) == 1
    assert attempts(store) == [1] * 5 + [2]  # only what the killed worker was at began again
    assert written(store) == written(serial)
    one, two = (compare(s.records(), STUDY).to_dict() for s in (store, serial))
    assert one == two


def test_dask_loses_only_the_attempt_of_a_killed_worker(serial, tmp_path):
    with one_killed(tmp_path / "run") as killed:
        store = run(STUDY, tmp_path / "run", jobs=2, executor="dask://local")
    check(store, killed, serial)


def test_ray_loses_only_the_attempt_of_a_killed_worker(serial, tmp_path):
    with one_killed(tmp_path / "run") as killed:
        store = run(STUDY, tmp_path / "run", jobs=2, executor="ray://local")
    check(store, killed, serial)


def test_ray_that_does_not_start_is_one_line(monkeypatch, tmp_path):
    import ray

    def slow(**_):
        raise Exception("The current node timed out during startup.")  # as Ray raises it

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(InputError, match=r"ray://local.*timed out during startup\. Start Ray"):
        run(TINY, tmp_path / "run", executor="ray://local")
    assert not (tmp_path / "run").exists()


def test_slurm_s_jobs_as_processes_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = run(TINY, tmp_path / "one", jobs=1)
    two = run(TINY, tmp_path / "two", jobs=1, executor="slurm://local?time=5")
    assert written(one) == written(two)
    assert (tmp_path / "softhot-slurm").is_dir()


def test_a_scheduler_elsewhere_is_used_and_left_running(tmp_path):
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        protocol="tcp://",
        host="127.0.0.1",
    ) as cluster:
        place = cluster.scheduler_address.removeprefix("tcp://")
        store = run(TINY, tmp_path / "run", executor=f"dask://{place}")
        assert store.pending() == ()
        assert cluster.workers


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("dask://127.0.0.1:{port}", "Connection refused"),
        ("ray://127.0.0.1:{port}", "Connection refused"),
        ("ray://auto", "Could not find any running Ray"),
        ("slurm://gpu", "srun"),
        ("slurm://local?no=1", "no"),
        ("dask://nowhere", "host:port"),
        ("ray://127.0.0.1:99999", "host:port"),
        ("dask://", "with ://"),
        ("dask", "with ://"),
        ("dusk://127.0.0.1:{port}", "one of 'dask'"),
        (3, "with ://"),
    ],
)
def test_unreachable_clusters_are_named_in_one_line(tmp_path, monkeypatch, address, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers there
        port = free.getsockname()[1]
        address = address.format(port=port) if isinstance(address, str) else address
        with pytest.raises(InputError) as error:
            run(TINY, tmp_path / "run", executor=address)
    assert error.value.argument == "executor"
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_what_answers_must_be_a_scheduler(tmp_path, monkeypatch):
    monkeypatch.setattr("softhot.studies.executors.dask.CONNECT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="address of a Dask scheduler"):
            run(TINY, tmp_path / "run", executor=f"dask://{place}")


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "softhot.studies.executors.dask", raising=False)
    with pytest.raises(InputError, match=r"distributed is missing: pip install 'softhot\[dask\]'"):
        run(TINY, tmp_path / "run", executor="dask://127.0.0.1:1")
