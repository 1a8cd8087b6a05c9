"""Whose a run's folder is, and its settings. Nothing is trained here."""

import dataclasses

import pytest

from softhot.core.check import InputError
from softhot.studies import Store
from softhot.studies.store import TEMPORARY
from studies_cases import TINY, contents

FIRST = TINY.trials()[0]


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"'thesis.tex'. Give the name of a folder that does not"):
        Store.create(tmp_path, TINY)
    for missing in (tmp_path, tmp_path / "absent", tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="folder must be the folder of a run"):
            Store.open(missing)
    with pytest.raises(InputError, match="Not a directory"):
        Store.create(tmp_path / "thesis.tex", TINY)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_of_another_study_is_refused_and_left_as_it_is(store):
    (store.folder / f"{TEMPORARY}half").write_text("of another run")
    before = contents(store.folder)
    other = dataclasses.replace(TINY, seeds=3, epochs=9)
    with pytest.raises(InputError, match="epochs = 3 there, 9 here; seeds = 2 there, 3 here"):
        Store.create(store.folder, other)
    assert contents(store.folder) == before


def test_settings_cut_anywhere_are_refused(store):
    path = store.folder / "study.toml"
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a run whose study.toml is whole.*damaged"):
            Store.open(store.folder)
        with pytest.raises(InputError, match="finished trials are kept"):
            Store.create(store.folder, TINY)
        assert path.read_bytes() == whole[:length]
    path.write_bytes(whole[:-1])  # the last newline says nothing
    assert Store.open(store.folder).spec == TINY


def test_settings_with_a_flipped_bit_are_refused_or_the_same(store):
    path = store.folder / "study.toml"
    whole = path.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            spec = Store.open(store.folder).spec
        except InputError:
            continue
        assert spec == TINY  # a comment, or white space


def test_lost_settings_are_written_again(store):
    (store.folder / "study.toml").unlink()
    again = Store.create(store.folder, TINY)
    assert [record.trial for record in again.records()] == [FIRST]
    (store.folder / "study.toml").unlink()
    with pytest.raises(InputError, match="It holds 'trials'"):
        Store.create(store.folder, dataclasses.replace(TINY, epochs=9))


def test_the_folder_is_known_wherever_one_stands(store, monkeypatch):
    monkeypatch.chdir(store.folder)
    here = Store.open(".")
    monkeypatch.chdir("/")
    assert len(here.records()) == 1


@pytest.mark.parametrize("folder", [None, 3.5, "nul\0"])
def test_what_is_no_path_is_refused(folder):
    for opening in (Store.open, lambda path: Store.create(path, TINY)):
        with pytest.raises(InputError, match="folder must be a"):
            opening(folder)
