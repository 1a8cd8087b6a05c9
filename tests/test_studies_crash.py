"""A small crash campaign (`make crash` is the large one), and files that are only there to help."""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softhot.core.check import InputError
from softhot.studies import Store, run, status
from softhot.studies.claims import claimed, held, running, tick
from softhot.studies.logs import Log, ending
from softhot.studies.run import Work, attempt
from studies_cases import TINY, contents, fabricate

FIRST, SECOND, *_ = TINY.trials()


def test_runs_survive_kills_full_disks_and_damage():
    command = [sys.executable, str(Path(__file__).parent / "crash.py"), "--points", "8"]
    done = subprocess.run([*command, "--seed", "7"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["kill"] + counts["two"] == 8
    assert counts["runs"] >= 1


@pytest.fixture
def store(tmp_path):
    made = Store.create(tmp_path / "run", TINY)
    made.save(FIRST, fabricate(FIRST))
    return made


def test_a_claim_is_owned_by_one_and_seen_by_all(store):
    with claimed(store.folder, FIRST.key, "the first") as mine:
        assert mine
        with claimed(store.folder, FIRST.key) as second:
            assert not second
        assert held(store.folder, FIRST.key)
        (claim,) = running(store.folder)
        assert (claim.key, claim.name, claim.process) == (FIRST.key, "the first", os.getpid())
        Store.open(store.folder)  # sweeps away the claims of the dead alone
        assert held(store.folder, FIRST.key)
        assert attempt(store, Work((FIRST,), (FIRST,)))[0].elsewhere
    assert not held(store.folder, FIRST.key)
    assert running(store.folder) == ()
    assert list((store.folder / "claims").iterdir()) == []
    tick(1, 2)  # nobody listens, nothing happens


def test_the_dead_own_nothing(store):
    code = "import os, sys; from pathlib import Path; from softhot.studies.claims import claimed\n"
    code += "with claimed(Path(sys.argv[1]), sys.argv[2]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, store.folder, FIRST.key], check=False)
    assert (store.folder / "claims" / f"{FIRST.key}.json").exists()
    assert not held(store.folder, FIRST.key)
    assert status(store.folder).running == ()
    Store.open(store.folder)
    assert not (store.folder / "claims" / f"{FIRST.key}.json").exists()


def test_how_far_a_training_is_shows_in_its_claim(store, monkeypatch):
    monkeypatch.setattr("softhot.studies.claims.EVERY", 0)
    with claimed(store.folder, SECOND.key, "a name that is longer than all that follows it"):
        tick(100, 300)
        tick(7, 9)
        (claim,) = running(store.folder)
        assert (claim.done, claim.total, claim.share) == (7, 9, 7 / 9)
        path = store.folder / "claims" / f"{SECOND.key}.json"
        whole = path.read_bytes()
        for length in range(len(whole.rstrip())):
            os.truncate(path, length)
            assert running(store.folder) == ()
            path.write_bytes(whole)


def test_logs_tell_what_was_printed_and_how_it_ended(tmp_path, monkeypatch):
    def talking(trial, *_):
        print("hello")
        print("loss", 0.5, end="")
        if trial == SECOND:
            raise ValueError("by\nhand")
        return fabricate(trial)

    monkeypatch.setattr(importlib.import_module("softhot.studies.run"), "train", talking)
    store = run(TINY, tmp_path / "run", jobs=1)
    text = (store.folder / "logs" / f"{SECOND.key}.log").read_text()
    lines = text.splitlines()
    assert lines[1:3] == ["| hello", "| loss 0.5"]
    assert lines[3].endswith("Z failed ValueError: by hand")
    assert "  Traceback (most recent call last):" in lines
    assert ending(store.folder, SECOND.key) == ("failed", "ValueError: by hand")
    assert ending(store.folder, FIRST.key).seconds > 0
    assert [f.trial for f in status(store.folder).failed] == [SECOND]


def test_no_log_however_damaged_harms_a_run(store):
    Log(store.folder, FIRST.key).finished(1.5)
    path = store.folder / "logs" / f"{FIRST.key}.log"
    whole, chance = path.read_bytes(), random.Random(0)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert np.isnan(store.look(FIRST).seconds) or store.look(FIRST).seconds <= 1.5
    path.write_bytes(chance.randbytes(1000))
    assert np.isnan(store.look(FIRST).seconds)
    path.unlink()
    path.mkdir()  # nothing can be written there
    Log(store.folder, FIRST.key).started()
    assert np.isnan(store.look(FIRST).seconds)
    assert status(store.folder).finished == 1


def test_status_changes_nothing(store):
    (store.folder / ".softhot-writing-1").write_text("half")
    before = contents(store.folder)
    assert status(store.folder).total == len(TINY.trials())
    assert contents(store.folder) == before


def test_a_run_of_other_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{'ab'[i % 2]},{i % 7},{i % 2 + i % 5}" for i in range(60)]
    Path("own.csv").write_text("\n".join(["label,one,two", *rows]))
    spec = type(TINY)(dataset="own.csv", alphas=(0.1,), seeds=1, hidden=(4,), epochs=2)
    run(spec, "run", jobs=1)
    assert run(spec, "run", jobs=1).pending() == ()
    Path("own.csv").write_text("\n".join(["label,one,two", *rows]).replace("0,1", "0,9"))
    with pytest.raises(InputError, match=r"own.csv has changed since"):
        run(spec, "run", jobs=1)
