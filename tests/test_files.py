"""Saved predictions: every layout that is read, and every file that is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from softhot import InputError
from softhot.files import read_predictions
from softhot.metrics import Predictions

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


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_every_layout_reads_the_same(tmp_path, suffix, kind):
    values = LOGITS if kind == "logits" else PROBS
    read = read_predictions(save(tmp_path / f"p{suffix}", kind, values))
    np.testing.assert_allclose(read.probs, PROBS, rtol=1e-12)
    np.testing.assert_array_equal(read.labels, LABELS)


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
        ({"labels": LABELS, "logits": LOGITS[:, :1]}, ["logits", "1"]),
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
        ("p.csv", b"label,logit_0,logit_1\n0,1.0,high\n", ["logit_1", "numbers"]),
        ("p.csv", b"label,logit_0,logit_1\n0,1.0,2\n1,,3\n", ["logit_0", "row 1"]),
        ("p.csv", b"label,logit_0,logit_2\n0,1.0,2\n", ["none for class 1"]),
        ("p.csv", b"label,a,b\n0,1.0,2\n", ["columns logit_0"]),
        ("p.csv", b"logit_0,logit_1\n1.0,2\n", ["labels"]),
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
