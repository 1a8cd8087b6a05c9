"""The crash campaign: runs are killed, filled up and damaged at random; they must end the same.

    python tests/crash.py --points 200 --seed 0      (or: make crash)

One process imports PyTorch once and forks a child for each point, so that a child spends its life
on what is to be interrupted: making the folder, training, saving, opening. Each point does one of

- kill: SIGKILL after a random time; every tenth a run that trains in processes of its own;
- two: two runs in one folder, one of them killed;
- full: a limit on the size of files that the kernel keeps in the middle of a write, at any byte;
- cut: a file of the run cut off at a random byte;
- flip: a random bit of a file of the run flipped.

After each point: what was finished and not harmed is there, untouched; what was harmed is named;
and nothing else is said to be finished. When a run is through, its trials are the same bytes as
those of a run that nothing happened to.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

from softhot.core.check import InputError
from softhot.studies import Store, StudySpec, run
from softhot.studies.claims import running

STUDY = StudySpec(dataset="wine", alphas=(0.1,), seeds=3, hidden=(8,), epochs=40)
KINDS = ("kill", "kill", "kill", "two", "full", "cut", "flip")


def child(folder: Path, jobs: int = 1, limit: int | None = None) -> int:
    """Forks a process that runs the study; returns its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setpgid(0, 0)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        warnings.simplefilter("ignore")
        run(STUDY, folder, jobs=jobs)
        code = 0
    except InputError as error:
        code = 3 if "Finished trials are safe" in str(error) else 4
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """Waits for a child; its exit code, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed(process: int, after: float) -> int:
    """Kills a child after that time and waits for it."""
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    return ended(process)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of the run by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def trials(folder: Path) -> dict[str, bytes]:
    """Records and arrays."""
    return {n: data for n, data in files(folder).items() if n.startswith("trials/")}


def finished(folder: Path) -> dict[str, bytes]:
    """The files of the finished trials."""
    keys = {record.trial.key for record in Store.open(folder, sweep=False).records()}
    return {n: data for n, data in trials(folder).items() if Path(n).stem in keys}


def harm(folder: Path, kind: str, chance: random.Random) -> tuple[str, bytes]:
    """Cut off or flip a bit in one file; which one, and what it holds now."""
    path = chance.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: chance.randrange(len(data))] if data else data
    elif data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return str(path.relative_to(folder)), bytes(data)


def point(folder: Path, chance: random.Random, number: int, length: float) -> str:
    """One point of the campaign on the run in ``folder``; returns what happened."""
    there = (folder / "study.toml").exists()
    before = finished(folder) if there else {}
    kind = chance.choice(KINDS) if there else "kill"
    if kind in ("cut", "flip"):
        name, data = harm(folder, kind, chance)
        key = Path(name).stem
        if name == "study.toml":
            try:
                assert Store.open(folder).spec == STUDY  # a comment or white space was harmed
            except InputError:
                (folder / name).unlink()  # as the error advises
                assert Store.create(folder, STUDY).spec == STUDY
        store = Store.open(folder)
        untouched = {n: d for n, d in before.items() if Path(n).stem != key}
        assert untouched.items() <= finished(folder).items(), "an innocent trial was lost"
        if name in before and data != before[name]:
            named = {Path(damage.name).stem for damage in store.damaged}
            assert key in named, f"{name} was harmed and is believed"
        return kind
    if kind == "full":
        largest = max(map(len, trials(folder).values()), default=8192)
        code = ended(child(folder, limit=chance.randrange(largest)))
        assert code in (0, 3, 4), code
    elif kind == "two":
        first, second = child(folder), child(folder)
        killed(first, chance.uniform(0, length))
        assert ended(second) == 0
        assert len(Store.open(folder).records()) == len(STUDY.trials())
    else:
        jobs = 2 if number % 10 == 9 else 1
        killed(child(folder, jobs), chance.uniform(0, length * (8 if jobs > 1 else 1)))
        while running(folder):  # its own processes notice it within half a second
            time.sleep(0.02)
    if (folder / "study.toml").exists():
        assert before.items() <= finished(folder).items(), "a finished trial was lost"
    return kind


def campaign(points: int, seed: int, folder: Path) -> dict[str, int]:
    """Points until so many runs were killed; the count of each kind, and of runs put through."""
    chance, counts = random.Random(seed), collections.Counter()
    run(STUDY, folder / "first", jobs=1)  # here, so that every child finds all of it imported
    began = time.perf_counter()
    assert ended(child(folder / "reference")) == 0
    length = time.perf_counter() - began
    reference = trials(folder / "reference")
    assert len(reference) == 2 * len(STUDY.trials())
    at = folder / "0"
    while (number := counts["kill"] + counts["two"]) < points:
        counts[point(at, chance, number, length)] += 1
        through = (at / "study.toml").exists() and not Store.open(at).pending()
        if through or counts["kill"] + counts["two"] == points or chance.random() < 0.1:
            assert ended(child(at)) == 0
            assert trials(at) == reference, "the run does not end the same"
            counts["runs"] += 1
            shutil.rmtree(at)
            at = folder / str(counts["runs"])
    return dict(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            counts = campaign(given.points, given.seed, Path(folder))
        except AssertionError:
            print(f"seed {given.seed}", file=sys.stderr)
            raise
    print(json.dumps({"points": given.points, "seed": given.seed, **counts}))


if __name__ == "__main__":
    main()
