"""Predictions from any array library, with soft labels, and streamed: all the same numbers."""

from __future__ import annotations

import math
import tracemalloc

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

import softhot.metrics as M
from softhot.core.check import InputError
from softhot.metrics import CATALOGUE, Predictions, Stream, score

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(50, 4))).astype(np.float32)
LABELS = RNG.integers(4, size=50)
SOFT = RNG.dirichlet(np.ones(4), size=50)


def streamed(logits=LOGITS, labels=LABELS, size=7, kind="logits"):
    blocks = [logits[start : start + size] for start in range(0, len(logits), size)]
    return Predictions.from_blocks(lambda: iter(blocks), labels, kind=kind)


# --- Array libraries ---------------------------------------------------------------------------

LIBRARIES = {
    "list": lambda x: np.asarray(x).tolist(),
    "torch": lambda x: torch.tensor(np.asarray(x)),
    "torch with gradient": lambda x: torch.tensor(
        np.asarray(x), requires_grad=np.asarray(x).dtype.kind == "f"
    ),
    "jax": jnp.asarray,
    "array_api_strict": array_api_strict.asarray,
    "fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_array_library_scores_alike(library):
    convert = LIBRARIES[library]
    expected = score(Predictions.from_logits(LOGITS, LABELS), CATALOGUE)
    assert score(Predictions.from_logits(convert(LOGITS), convert(LABELS)), CATALOGUE) == expected
    probs = M.Predictions.from_logits(LOGITS, LABELS).probs.astype(np.float32)
    soft = SOFT.astype(np.float32)
    given = Predictions.from_probs(convert(probs), convert(soft))
    assert M.nll(given) == pytest.approx(M.nll(Predictions.from_probs(probs, soft)), rel=1e-6)


@pytest.mark.parametrize("make", [jnp.asarray, torch.tensor], ids=["jax", "torch"])
def test_the_floor_is_that_of_the_dtype_given(make):
    for name, bits in {"float16": 24, "bfloat16": 133, "float32": 149}.items():
        dtype = getattr(jnp if make is jnp.asarray else torch, name)
        p = Predictions.from_probs(make([[0.0, 1.0]], dtype=dtype), [0])
        assert p.floored == 1
        assert p.log_probs[0, 0] == pytest.approx(-bits * math.log(2))


def test_what_jax_traces_has_no_numbers():
    import jax

    with pytest.raises(InputError, match="compiled"):
        jax.jit(lambda z: M.nll(Predictions.from_logits(z, [0])))(jnp.zeros((1, 2)))


# --- Soft labels -------------------------------------------------------------------------------


def test_soft_labels_are_scored_as_distributions():
    p = Predictions.from_logits(LOGITS, SOFT)
    probs = p.probs
    assert M.nll(p) == pytest.approx(-(SOFT * np.log(probs)).sum(1).mean())
    assert M.brier(p) == pytest.approx(((probs - SOFT) ** 2).sum(1).mean())
    assert M.accuracy(p) == sklearn.metrics.accuracy_score(SOFT.argmax(1), LOGITS.argmax(1))
    assert M.nll(p) == pytest.approx(
        float(torch.nn.functional.cross_entropy(torch.tensor(LOGITS).double(), torch.tensor(SOFT)))
    )


def test_one_hot_rows_are_hard_labels():
    p = Predictions.from_logits(LOGITS, np.eye(4)[LABELS])
    assert p.targets is None
    assert score(p, CATALOGUE) == score(Predictions.from_logits(LOGITS, LABELS), CATALOGUE)


@given(st.integers(0, 2**32 - 1))
def test_soft_labels_that_are_nearly_hard_score_nearly_alike(seed):
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(20, 3)), rng.integers(3, size=20)
    hard = Predictions.from_logits(z, y)
    soft = Predictions.from_logits(z, (1 - 1e-9) * np.eye(3)[y] + 1e-9 / 3)
    assert soft.targets is not None
    assert score(soft, CATALOGUE) == pytest.approx(score(hard, CATALOGUE), abs=1e-6)


def test_rows_without_a_most_probable_class_are_counted():
    soft = [[0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.2, 0.4, 0.4]]
    p = Predictions.from_logits(np.zeros((3, 3)), soft)
    assert p.labels.tolist() == [0, 0, 1]
    assert p.tied == 2
    assert p[[0, 0]].tied == 2
    assert Predictions.from_logits(np.zeros((3, 3)), [0, 1, 2]).tied == 0


def test_a_soft_class_of_probability_zero_meets_the_floor():
    p = Predictions.from_logits([[0.0, -math.inf, -math.inf]], [[0.5, 0.5, 0.0]])
    assert p.floored == 1
    assert np.isneginf(p.log_probs).tolist() == [[False, False, True]]
    assert M.nll(p) == pytest.approx(0.5 * 1074 * math.log(2))


def test_the_best_temperature_of_soft_labels_is_a_minimum():
    p = Predictions.from_logits(LOGITS, 0.7 * np.eye(4)[LOGITS.argmax(1)] + 0.3 * SOFT)
    t = M.fit_temperature(p)
    for near in (0.99 * t, 1.01 * t):
        assert M.nll(M.apply_temperature(p, t)) < M.nll(M.apply_temperature(p, near))


# --- Streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 50])
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_a_stream_scores_like_its_matrix(size, kind):
    values = LOGITS if kind == "logits" else Predictions.from_logits(LOGITS, LABELS).probs
    make = Predictions.from_logits if kind == "logits" else Predictions.from_probs
    whole, stream = make(values, LABELS), streamed(values, size=size, kind=kind)
    assert isinstance(stream.log_probs, Stream)
    assert len(stream) == 50
    assert stream.num_classes == 4
    assert score(stream, CATALOGUE) == pytest.approx(score(whole, CATALOGUE), abs=1e-12)
    assert score(stream) == score(whole)
    assert np.asarray(stream.log_probs) == pytest.approx(whole.log_probs, abs=1e-15)
    assert stream.probs == pytest.approx(whole.probs, abs=1e-15)


def test_rows_of_a_stream_are_in_memory():
    rows = [44, 3, 3, 0, 49]
    whole, stream = Predictions.from_logits(LOGITS, LABELS)[rows], streamed()[rows]
    assert isinstance(stream.log_probs, np.ndarray)
    np.testing.assert_array_equal(stream.log_probs, whole.log_probs)
    assert score(stream) == score(whole)


def test_maps_of_a_stream_are_lazy_and_chain():
    passes = []

    def read():
        passes.append(1)
        return iter([LOGITS])

    stream = Predictions.from_blocks(read, LABELS)
    before = len(passes)
    twice = M.apply_temperature(M.apply_temperature(stream, 2.0), np.linspace(0.5, 2, 50))
    assert len(passes) == before
    whole = Predictions.from_logits(LOGITS, LABELS)
    expected = M.apply_temperature(M.apply_temperature(whole, 2.0), np.linspace(0.5, 2, 50))
    assert score(twice) == score(expected)
    assert len(passes) == before + 1  # one pass scores everything


def test_a_stream_floors_and_masks_and_names_rows_by_their_place():
    logits = np.array([[0.0, 1.0, -np.inf], [-np.inf, 0.0, 0.0], [0.0, 1.0, 2.0]])
    whole = Predictions.from_logits(logits, [0, 0, 1])
    stream = streamed(logits, np.array([0, 0, 1]), size=1)
    assert stream.floored == whole.floored == 1
    assert score(stream) == score(whole)
    bad = LOGITS.copy()
    bad[33, 2] = np.nan
    with pytest.raises(InputError, match=r"logits\[33\].*class 2"):
        score(streamed(bad))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Predictions.from_blocks(lambda: iter([]), [0]), ["read()", "nothing"]),
        (lambda: streamed(labels=LABELS[:40]).rows, ["40 rows"]),
        (lambda: streamed(labels=np.append(LABELS, 0)).rows, ["51 rows", "50 rows"]),
        (lambda: streamed(labels=SOFT), ["Soft labels", "memory"]),
        (lambda: streamed(labels=LABELS + 1), ["labels[", "[0, 3]"]),
        (lambda: Predictions.from_blocks(lambda: [LOGITS], 3), ["labels", "()"]),
        (lambda: Predictions.from_blocks(lambda: [LOGITS], None), ["labels"]),
        (lambda: streamed(kind="scores"), ["kind", "logits"]),
        (lambda: Predictions.from_blocks(lambda: [[1.0, 2.0]], [0]), ["(N, K)"]),
        (
            lambda: Predictions.from_blocks(lambda: [[[1.0, 2]], [[1.0, 2, 3]]], [0, 0]).rows,
            ["2 classes"],
        ),
    ],
)
def test_bad_streams(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_stream_holds_a_block_and_a_few_numbers_a_row():
    n, k, size = 40_000, 200, 2000
    labels = np.arange(n) % k

    def read():
        rng = np.random.default_rng(0)
        for _ in range(n // size):
            yield rng.normal(size=(size, k)).astype(np.float32)

    tracemalloc.start()
    stream = Predictions.from_blocks(read, labels)
    scores = score(M.apply_temperature(stream, 2.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 <= scores["accuracy"] < 0.02
    assert peak < n * k * 8 / 1.2  # of the 64 MB that the matrix would take


def test_map_masks_floors_and_predicts_anew():
    p = Predictions.from_logits([[0.0, 1.0, -np.inf], [3.0, 0.0, 0.0]], [0, 0])
    turned = p.map(lambda at, z: -z, keeps_order=False)
    assert np.isneginf(turned.log_probs[0, 2])
    assert turned.predicted.tolist() == [0, 1]
    kept = p[[1]].map(lambda at, z: np.where(z > -2, -np.inf, z), keeps_order=True)
    assert kept.predicted.tolist() == [0]
    assert kept.floored == 1
    for nothing in (np.nan, -np.inf):
        with pytest.raises(InputError, match=r"mapped logits\[0\]"):
            p.map(lambda at, z, x=nothing: np.full_like(z, x), keeps_order=True)
