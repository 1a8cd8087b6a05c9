"""The store against crashes, rot and strangers. Nothing is trained here."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from softhot.core.check import InputError
from softhot.studies import Damage, Record, Store
from softhot.studies import store as storing
from softhot.studies.logs import Log
from softhot.studies.store import TEMPORARY, _sealed
from studies_cases import TINY, contents, fabricate

FIRST, SECOND = TINY.trials()[:2]


def files(store, trial=FIRST):
    return (store.folder / "trials" / f"{trial.key}.{suffix}" for suffix in ("json", "npz"))


def rewrite(store, change):
    """Change the record's content and seal it again, as an enemy would."""
    path, _ = files(store)
    record = json.loads(path.read_bytes())
    del record["checksum"]
    change(record)
    path.write_bytes(_sealed(record))


# --- What is stored comes back -----------------------------------------------------------------


def test_a_saved_trial_comes_back(store):
    result, record = fabricate(FIRST), store.load(FIRST.key)
    assert isinstance(record, Record)
    assert record.trial == FIRST
    assert record.versions == {"made": "up"}
    assert np.isnan(record.seconds)
    Log(store.folder, FIRST.key).finished(0.25)
    assert store.look(FIRST).seconds == 0.25
    assert (record.validation.labels == result.validation_labels).all()
    assert (record.layer.gram == result.layer.gram).all()
    assert (record.layer.bias == result.layer.bias).all()
    z = result.test_logits.astype(np.float64)
    log_probs = z - np.log(np.exp(z).sum(1, keepdims=True))
    np.testing.assert_allclose(record.test.log_probs, log_probs, atol=1e-12)
    assert store.pending() == TINY.trials()[1:]
    assert store.pending([SECOND, FIRST]) == (SECOND,)
    assert store.load(SECOND.key) is None
    assert store.damaged == ()
    assert [r.trial for r in store.records()] == [FIRST]
    with pytest.raises(InputError, match="key must be"):
        store.load("0" * 16)


def test_the_same_arrays_are_the_same_bytes(store, tmp_path):
    other = Store.create(tmp_path / "other", TINY)
    other.save(FIRST, fabricate(FIRST))
    for one, two in zip(files(store), files(other), strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_opening_again_changes_nothing(store):
    before = contents(store.folder)
    assert Store.create(store.folder, TINY).pending() == store.pending()
    assert Store.open(store.folder).spec == TINY
    assert contents(store.folder) == before


def test_files_are_readable_without_softhot(store):
    path, arrays = files(store)
    record = json.loads(path.read_text())
    assert record["trial"]["arm"]["rule"] == {"rule": "Uniform", "alpha": 0.0}
    assert record["arrays"]["sha256"] == hashlib.sha256(arrays.read_bytes()).hexdigest()
    with np.load(arrays, allow_pickle=False) as archive:
        assert archive["test_logits"].dtype == np.float32
        assert sorted(archive) == [
            "bias",
            "gram",
            "test_labels",
            "test_logits",
            "validation_labels",
            "validation_logits",
        ]


# --- Rot ---------------------------------------------------------------------------------------


def test_a_record_cut_anywhere_is_damage(store):
    path, _ = files(store)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        damage = store.load(FIRST.key)
        assert isinstance(damage, Damage), length
        assert damage.name == path.name
    assert store.damaged == (damage,)
    assert store.pending() == TINY.trials()
    assert store.records() == ()
    path.write_bytes(whole)
    assert isinstance(store.load(FIRST.key), Record)


def test_arrays_cut_anywhere_are_damage(store):
    _, path = files(store)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        damage = store.load(FIRST.key)
        assert isinstance(damage, Damage), length
        assert damage.name == path.name
    path.write_bytes(whole + b"\0")
    assert isinstance(store.load(FIRST.key), Damage)


@pytest.mark.parametrize("which", [0, 1])
def test_no_flipped_bit_is_read(store, which):
    path = list(files(store))[which]
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        assert isinstance(store.load(FIRST.key), Damage), position


def test_saving_mends_damage(store):
    for path in files(store):
        path.write_bytes(b"junk")
        assert len(store.damaged) == 1
        store.save(FIRST, fabricate(FIRST))
        assert store.damaged == ()


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_far_too_large_is_not_read(store, which):
    path = list(files(store))[which]
    os.truncate(path, 1 << 40)  # a hole: it takes no space
    damage = store.load(FIRST.key)
    assert damage.name == path.name
    assert damage.reason.startswith("1,099,511,627,776 bytes, more than the ")


def test_missing_arrays_are_named(store):
    _, path = files(store)
    path.unlink()
    assert store.load(FIRST.key) == Damage(path.name, "missing")


def test_arrays_without_a_record_are_an_unfinished_trial(store):
    path, _ = files(store)
    path.unlink()
    assert store.load(FIRST.key) is None
    assert store.damaged == ()


def test_a_record_under_another_key_is_damage(store):
    for one, two in zip(files(store, FIRST), files(store, SECOND), strict=True):
        two.write_bytes(one.read_bytes())
    damage = store.load(SECOND.key)
    assert isinstance(damage, Damage)
    assert FIRST.key in damage.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r["trial"].update(epochs=4), "another trial"),
        (lambda r: r.update(key="0" * 16), "record of 0000"),
        (lambda r: r.update(format=1), "another format"),
        (lambda r: r.pop("arrays"), "not what softhot writes"),
        (lambda r: r.update(arrays=[]), "not what softhot writes"),
        (lambda r: r["arrays"].update(sha256="0" * 64), "SHA-256"),
        (lambda r: r["arrays"].update(bytes=10), "bytes"),
        (lambda r: r["arrays"].update(bytes=10**12), "bytes"),
        (lambda r: r["arrays"].update(bytes=-5), "bytes"),
        (lambda r: r["arrays"].update(bytes="many"), "not what softhot writes"),
        (lambda r: r.pop("split"), "not what softhot writes"),
    ],
)
def test_a_sealed_record_must_still_be_true(store, change, reason):
    rewrite(store, change)
    damage = store.load(FIRST.key)
    assert isinstance(damage, Damage)
    assert reason in damage.reason


def replace_arrays(store, **changes):
    """Other arrays, with their checksums in the record."""
    arrays = fabricate(FIRST).arrays() | changes
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    vouch_for(store, buffer.getvalue())


def vouch_for(store, data):
    """Other bytes, with their checksums in the record."""
    _, path = files(store)
    path.write_bytes(data)
    sums = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(store, lambda record: record.update(arrays=sums))


@pytest.mark.parametrize(
    "changes",
    [
        {"test_logits": None},
        {"extra": np.zeros(3)},
        {"gram": None},
        {"bias": None},
        {"gram": np.eye(3)},
        {"gram": np.eye(2, dtype=np.float32)},
        {"gram": np.full((3, 3), np.nan, np.float32)},
        {"bias": np.zeros(3)},
        {"bias": np.zeros((3, 1), np.float32)},
        {"bias": np.full(3, np.inf, np.float32)},
        {"test_logits": np.zeros((78, 3))},
        {"test_logits": np.zeros((77, 3), np.float32)},
        {"test_logits": np.zeros(78, np.float32)},
        {"test_logits": np.full((78, 3), np.nan, np.float32)},
        {"test_logits": np.full((78, 3), -np.inf, np.float32)},
        {"test_logits": np.full((78, 3), [0, 0, -np.inf], np.float32)},
        {"test_labels": np.full(78, 3)},
        {"test_labels": np.full(78, -1)},
        {"test_labels": np.zeros(78)},
        {"test_labels": np.array([len] * 78, object)},  # a pickle
    ],
    ids=str,
)
def test_vouched_for_arrays_must_still_make_sense(store, changes):
    replace_arrays(store, **changes)
    assert isinstance(store.load(FIRST.key), Damage)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"junk" * 99, b"\x93NUMPY\x01\x00"])
def test_vouched_for_junk_is_damage(store, data):
    vouch_for(store, data)
    damage = store.load(FIRST.key)
    assert isinstance(damage, Damage)
    assert "not what softhot writes" in damage.reason


def test_what_the_disk_cannot_read_is_damage(store, monkeypatch):
    def failing(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(storing.Path, "read_bytes", failing)
    assert store.damaged == (Damage(f"{FIRST.key}.json", "cannot be read: Input/output error"),)


def test_a_pickle_is_never_loaded(store, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    replace_arrays(store, test_labels=np.array([Bomb()] * 78, object))
    assert isinstance(store.load(FIRST.key), Damage)
    _, path = files(store)
    path.write_bytes(pickle.dumps(Bomb()))
    assert isinstance(store.load(FIRST.key), Damage)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "junk",
    [b"", b"null", b"[]", b"{}", b'{"checksum": 1}', b"NaN", b"\xff", b"[" * 99_999, b"9" * 9_999],
    ids=lambda junk: repr(junk[:12]),
)
def test_junk_is_damage(store, junk):
    path, _ = files(store)
    path.write_bytes(junk)
    assert isinstance(store.load(FIRST.key), Damage)


# --- Strangers ---------------------------------------------------------------------------------


def test_strangers_in_the_folder_are_left_alone(store):
    trials = store.folder / "trials"
    strangers = [store.folder / "notes.txt", trials / "notes.json", trials / f"{'0' * 16}.json"]
    for path in strangers:
        path.write_text("mine")
    (trials / "folder.json").mkdir()
    again = Store.create(store.folder, TINY)
    assert (again.damaged, len(again.records())) == ((), 1)
    assert all(path.read_text() == "mine" for path in strangers)


def test_what_is_no_file_is_damage(store):
    path, arrays = files(store)
    whole = path.read_bytes()
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    assert store.load(FIRST.key) == Damage(path.name, "not a regular file")
    path.unlink()
    path.symlink_to(store.folder / "nowhere")
    assert store.load(FIRST.key) == Damage(path.name, "not a regular file")
    store.save(FIRST, fabricate(FIRST))
    assert path.read_bytes() == whole
    assert not path.is_symlink()
    arrays.unlink()
    arrays.mkdir()
    assert store.load(FIRST.key) == Damage(arrays.name, "not a regular file")
    with pytest.raises(InputError, match="folder must be one that can be written to"):
        store.save(FIRST, fabricate(FIRST))


def test_a_folder_taken_by_another_study_meanwhile_is_refused(tmp_path):
    planned = Store.planned(tmp_path / "run", TINY)
    Store.create(tmp_path / "run", dataclasses.replace(TINY, epochs=9))
    with pytest.raises(InputError, match="epochs = 9 there, 3 here"):
        planned.begin()


# --- Crashes -----------------------------------------------------------------------------------

# Runs in a process of its own that loads nothing heavy: a child for every step at which a save
# calls the system, killed just before that step.
CRASHES = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from studies_cases import TINY, fabricate
from softhot.studies import Store
trials = TINY.trials()[:2]
results = [fabricate(trial) for trial in trials]

def child(folder, step):
    def killing(function):
        def call(*args, **kwargs):
            nonlocal step
            step -= 1
            if step < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    os.fsync, os.replace = killing(os.fsync), killing(os.replace)
    store = Store.create(folder, TINY)
    for trial, result in zip(trials, results):
        store.save(trial, result)

step, status = 0, None
while status != 0:
    folder = Path(sys.argv[2]) / f"{step:02}"
    pid = os.fork()
    if pid == 0:
        child(folder, step)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    step += 1
"""


def test_a_kill_at_any_step_leaves_whole_trials_or_none(tmp_path):
    here = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", CRASHES, here, str(tmp_path)], check=True)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 1 + 3 * 5  # three calls for each of five files; the last one is whole
    counts = []
    for folder in folders:
        store = Store.create(folder, TINY)
        assert store.damaged == ()
        assert not list(folder.rglob(TEMPORARY + "*"))
        counts.append(len(store.records()))
        for trial in store.pending(TINY.trials()[:2]):
            store.save(trial, fabricate(trial))
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2}
    bytes_of = [{name: c[0] for name, c in contents(folder).items()} for folder in folders]
    assert all(found == bytes_of[0] for found in bytes_of)


def test_a_full_disk_is_said_and_harms_nothing(store, monkeypatch):
    before = contents(store.folder)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"No space left on device. Finished trials are safe"):
            store.save(SECOND, fabricate(SECOND))
        with pytest.raises(InputError, match="No space left"):
            Store.create(store.folder / "new", TINY)
    assert contents(store.folder) == before
    store.save(SECOND, fabricate(SECOND))
    assert len(store.records()) == 2


def test_writers_and_openers_may_share_a_folder(store):
    """Opening sweeps temporary files away, those of living writers too: they write again."""
    result, done = fabricate(SECOND), threading.Event()

    def write(_):
        for _ in range(15):
            store.save(SECOND, result)
            assert isinstance(store.load(SECOND.key), Record)

    def open_often():
        while not done.is_set():
            Store.open(store.folder)

    with ThreadPoolExecutor(5) as pool:
        opener = pool.submit(open_often)
        try:
            list(pool.map(write, range(4)))
        finally:
            done.set()
        opener.result()
    assert len(store.records()) == 2
    assert not list(store.folder.rglob(TEMPORARY + "*"))
