"""Saved predictions: every layout that is read, and every file that is refused."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from softhot import InputError, files
from softhot.files import read_predictions
from softhot.metrics import Predictions, Stream, score

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(20, 3)) * 2
LABELS = RNG.integers(3, size=20)
PROBS = Predictions.from_logits(LOGITS, LABELS).probs


def table(values, name, labels=LABELS, label="label"):
    columns = {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}
    return pa.table({"id": [f"row {i}" for i in range(len(labels))], label: labels, **columns})


def save(path, kind, values, labels=LABELS):
    if path.suffix == ".npz":
        np.savez(path, labels=labels, **{kind: values})
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table(values, kind[:-1], labels), path)
    else:
        pyarrow.parquet.write_table(table(values, kind[:-1], labels), path)
    return path


@pytest.mark.parametrize("memory", [0, 1e9])
@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_every_layout_reads_the_same(tmp_path, monkeypatch, suffix, kind, memory):
    monkeypatch.setattr(files, "_BLOCK", 20)  # 6 rows
    values = LOGITS if kind == "logits" else PROBS
    read = read_predictions(save(tmp_path / f"p{suffix}", kind, values), memory=memory)
    assert isinstance(read.log_probs, Stream) == (memory == 0)
    np.testing.assert_allclose(read.probs, PROBS, rtol=1e-12)
    np.testing.assert_array_equal(read.labels, LABELS)
    assert score(read) == pytest.approx(score(Predictions.from_probs(PROBS, LABELS)), abs=1e-12)


@pytest.mark.parametrize("memory", [0, 1e9])
@pytest.mark.parametrize("how", ["compressed", "float16", "columns first", "big-endian"])
def test_every_npz_reads_the_same(tmp_path, how, memory):
    values = {
        "float16": LOGITS.astype(np.float16),
        "columns first": np.asfortranarray(LOGITS),
        "big-endian": LOGITS.astype(">f4"),
    }.get(how, LOGITS)
    write = np.savez_compressed if how == "compressed" else np.savez
    write(tmp_path / "p.npz", labels=LABELS, logits=values)
    read = read_predictions(tmp_path / "p.npz", memory=memory)
    expected = Predictions.from_logits(values, LABELS)
    np.testing.assert_allclose(np.asarray(read.log_probs), expected.log_probs, rtol=1e-14)


@pytest.mark.parametrize("memory", [0, 1e9])
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3)])
def test_a_column_of_lists_is_a_matrix(tmp_path, kind, memory):
    lists = pa.array(LOGITS.astype(np.float32).tolist(), kind)
    pyarrow.parquet.write_table(
        pa.table({"label": LABELS, "logits": lists}), tmp_path / "p.parquet", row_group_size=7
    )
    read = read_predictions(tmp_path / "p.parquet", memory=memory)
    np.testing.assert_allclose(read.probs, PROBS, rtol=1e-5)


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ([[1.0, 2.0], [1.0]], ["p.parquet: ", "logits", "one length", "[1, 2]"]),
        ([[1.0, 2.0], None], ["logits", "row 1"]),
        ([[1.0, 2.0], [3.0, None]], ["logits", "entry 3"]),
    ],
)
def test_lists_that_are_no_matrix(tmp_path, lists, words):
    pyarrow.parquet.write_table(
        pa.table({"label": [0, 1], "logits": lists}), tmp_path / "p.parquet"
    )
    with pytest.raises(InputError) as error:
        read_predictions(tmp_path / "p.parquet")
    assert all(word in str(error.value) for word in words), str(error.value)


def test_soft_labels_are_read(tmp_path):
    soft = RNG.dirichlet(np.ones(3), size=20)
    np.savez(tmp_path / "p.npz", labels=soft, logits=LOGITS)
    np.testing.assert_allclose(read_predictions(tmp_path / "p.npz").targets, soft)


@pytest.mark.parametrize("compress", [False, True])
def test_a_large_npz_is_never_in_memory(tmp_path, compress):
    n, k = 40_000, 250
    logits = np.tile(RNG.normal(size=(200, k)).astype(np.float32), (200, 1))
    write = np.savez_compressed if compress else np.savez
    write(tmp_path / "p.npz", labels=np.arange(n) % k, logits=logits)
    expected = score(Predictions.from_logits(logits, np.arange(n) % k))
    del logits
    tracemalloc.start()
    found = score(read_predictions(tmp_path / "p.npz", memory=0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == expected
    assert peak < n * k * 8 / 1.5  # of the matrix as float64; blocks do not grow with n


@pytest.mark.parametrize("compress", [False, True])
def test_damage_inside_a_stream_is_an_error_and_no_number(tmp_path, compress):
    logits = RNG.normal(size=(5000, 40))
    write = np.savez_compressed if compress else np.savez
    write(tmp_path / "p.npz", labels=np.zeros(5000, int), logits=logits)
    content = bytearray((tmp_path / "p.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(InputError, match="readable"):
        score(read_predictions(tmp_path / "p.npz", memory=0))


def test_columns_are_sorted_by_class_not_by_place(tmp_path):
    columns = table(LOGITS, "logit")
    shuffled = columns.select(["logit_2", "label", "logit_0", "id", "logit_1"])
    pyarrow.parquet.write_table(shuffled, tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    np.testing.assert_allclose(read.probs, PROBS, rtol=1e-12)


def test_whole_numbers_saved_as_floats_are_class_ids(tmp_path):
    path = save(tmp_path / "p.npz", "logits", LOGITS, LABELS.astype(np.float32))
    np.testing.assert_array_equal(read_predictions(path).labels, LABELS)


BAD_ROWS = PROBS.copy()
BAD_ROWS[4] *= 1.9
NAN = LOGITS.copy()
NAN[7, 1] = np.nan


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"labels": LABELS}, ["predictions", "logits", "probs"]),
        ({"logits": LOGITS}, ["labels"]),
        ({"labels": LABELS, "logits": LOGITS, "probs": PROBS}, ["exactly one"]),
        ({"labels": LABELS, "y": LABELS, "logits": LOGITS}, ["labels", "exactly one"]),
        ({"labels": LABELS + 1, "logits": LOGITS}, ["labels[", "3"]),
        ({"labels": LABELS - 1, "logits": LOGITS}, ["labels[", "-1"]),
        ({"labels": LABELS[:5], "logits": LOGITS}, ["labels"]),
        ({"labels": LABELS + 0.5, "logits": LOGITS}, ["labels"]),
        ({"labels": LABELS, "logits": NAN}, ["logits", "7", "nan"]),
        ({"labels": LABELS, "probs": BAD_ROWS}, ["probs[4]", "1.9"]),
        ({"labels": LABELS, "probs": LOGITS}, ["probs"]),
        ({"labels": LABELS, "logits": LOGITS[:, :1]}, ["p.npz: logits", "1"]),
        ({"labels": LABELS, "logits": np.float64(1)}, ["p.npz: logits", "()"]),
        ({"labels": np.array([]), "logits": np.zeros((0, 3))}, ["logits"]),
    ],
)
def test_what_a_file_holds_is_checked(tmp_path, content, parts):
    np.savez(tmp_path / "p.npz", **content)
    with pytest.raises(InputError) as error:
        read_predictions(tmp_path / "p.npz")
    for part in parts:
        assert part in str(error.value)


def test_pickles_are_not_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    np.savez(tmp_path / "p.npz", labels=LABELS, logits=np.array([Bomb()], dtype=object))
    with pytest.raises(InputError, match="without pickled objects"):
        read_predictions(tmp_path / "p.npz")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("p.npz", b"not a zip", ["readable .npz"]),
        ("p.parquet", b"PAR1", ["readable .parquet"]),
        ("p.csv", b"label,logit_0,logit_1\n0,1.0\n", ["readable .csv"]),
        ("p.csv", b"label,logit_0,logit_1\n0,1.0,high\n", ["p.csv: ", "logit_1", "numbers"]),
        ("p.csv", b"label,logit_0,logit_1\n0,1.0,2\n1,,3\n", ["logit_0", "row 1"]),
        ("p.csv", b"label,logit_0,logit_2\n0,1.0,2\n", ["none for class 1"]),
        ("p.csv", b"label,logit_0,logit_99999999999\n0,1.0,2\n", ["none for class 1"]),
        ("p.csv", b"label,logit_0,logit_0\n0,1.0,2\n", ["different names", "logit_0"]),
        ("p.csv", b"label,a,b\n0,1.0,2\n", ["columns logit_0"]),
        ("p.csv", b"logit_0,logit_1\n1.0,2\n", ["labels"]),
        ("p.csv", b"label,logit_0,logit_1\ncat,1.0,2\n", ["label", "numbers", "cat"]),
        ("p.csv", b"label,logit_0,logits0,logit_1\n0,1.0,2,3\n", ["logits0", "one for each"]),
        ("p.csv", b"label,logit_0,logit_1\n", ["logits", "(0, 2)"]),
        ("p.csv", b"", ["readable .csv"]),
        ("p.pkl", b"", ["'.npz'", ".pkl"]),
        ("p", b"", ["ending"]),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, parts):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_predictions(tmp_path / name)
    for part in parts:
        assert part in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.npz"):
        read_predictions(tmp_path / "absent.npz")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="existing file"):
        read_predictions(tmp_path / "folder.npz")
