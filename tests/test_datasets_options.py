"""Harm on purpose: known rates, the right rows, and the same rows on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softhot.core.check import InputError
from softhot.datasets import (
    NOISE,
    RATIO,
    SEED,
    corrupt_labels,
    imbalance,
    load,
    prepare,
    split,
    subset,
)

seeds = st.integers(0, 2**63 - 1)


@st.composite
def problems(draw):
    """Labels, K, and a confusion matrix or a rate."""
    classes = draw(st.integers(2, 6))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=60))
    noise = draw(st.one_of(st.floats(0, 1), st.just(None)))
    if noise is None:
        weights = st.lists(st.integers(0, 5), min_size=classes, max_size=classes).filter(any)
        rows = np.array([draw(weights) for _ in range(classes)], float)
        noise = rows / rows.sum(axis=1, keepdims=True)
    return np.array(labels), classes, noise


def matrix(noise, classes):
    if np.ndim(noise):
        return noise
    others = noise / (classes - 1)
    return np.full((classes, classes), others) + np.eye(classes) * (1 - noise - others)


@given(problems(), seeds)
def test_every_class_gives_away_what_the_matrix_says(problem, seed):
    labels, classes, noise = problem
    before = labels.copy()
    found = corrupt_labels(labels, classes, noise, seed)
    assert (labels == before).all()
    assert (found == corrupt_labels(labels, classes, noise, seed)).all()
    for k, row in enumerate(matrix(noise, classes)):
        mine = found[labels == k]
        assert (np.abs(np.bincount(mine, minlength=classes) - row * len(mine)) < 1 + 1e-6).all()


def test_the_rates_are_exact_on_average_and_no_row_is_preferred():
    labels, noise = np.repeat([0, 1, 2], [7, 5, 4]), [[0.8, 0.05, 0.15], [0.3, 0.7, 0], [0, 0, 1]]
    runs = np.array([corrupt_labels(labels, 3, noise, seed) for seed in range(3000)])
    for k, row in enumerate(noise):
        for j, share in enumerate(row):
            by_row = (runs[:, labels == k] == j).mean(axis=0)
            np.testing.assert_allclose(by_row, share, atol=0.04)  # 4.4 standard errors


def test_nothing_and_everything():
    labels = np.arange(50) % 5
    assert (corrupt_labels(labels, 5, 0.0, 3) == labels).all()
    assert (corrupt_labels(labels, 5, 1.0, 3) != labels).all()
    assert (corrupt_labels(labels, 5, np.roll(np.eye(5), 1, axis=1), 3) == (labels + 1) % 5).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=99), st.floats(1, 1000), seeds)
def test_a_tail_keeps_its_share_of_every_class(labels, ratio, seed):
    kept = imbalance(labels, 5, ratio, seed)
    assert (np.diff(kept) > 0).all()
    there, left = np.bincount(labels, minlength=5), np.bincount(np.array(labels)[kept], minlength=5)
    wanted = np.maximum(there > 0, np.round(there * ratio ** (-np.arange(5) / 4)))
    assert left.tolist() == wanted.tolist()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=99), st.data())
def test_a_subset_has_its_size_and_proportions(labels, data):
    size = data.draw(st.integers(1, len(labels)))
    seed = data.draw(seeds)
    there = np.bincount(labels, minlength=3)
    try:
        kept = subset(labels, 3, size, seed)
    except InputError:
        assert (there * size / len(labels) < 1)[there > 0].any()
        return
    assert (np.diff(kept) > 0).all()
    left = np.bincount(np.array(labels)[kept], minlength=3)
    assert left.sum() == size
    assert (np.abs(left - there * size / len(labels)) < 1).all()


def test_only_training_rows_are_harmed():
    data = load("digits")
    parts = split(data, 600, 300, 897, seed=0)
    harmed, few = prepare(data, parts, subset=400, imbalance=4, noise=0.4, seed=1)
    clean = np.concatenate([parts.validation, parts.test, np.setdiff1d(parts.train, few.train)])
    assert (harmed.labels[clean] == data.labels[clean]).all()
    wrong = (harmed.labels != data.labels)[few.train].mean()
    assert wrong == pytest.approx(0.4, abs=10 / len(few.train))
    assert set(few.train) < set(parts.train)
    assert (few.test is parts.test, few.validation is parts.validation) == (True, True)
    assert data.digest != harmed.digest
    untouched, same = prepare(data, parts)
    assert untouched is data
    assert same is parts


def test_the_same_rows_on_every_machine():
    """Pinned: a change here changes every study with label noise, a tail or a subset."""
    data = load("digits")
    parts = split(data, 600, 300, 897, seed=0)
    harmed, few = prepare(data, parts, subset=400, imbalance=4, noise=0.4, seed=1)
    assert few.digest == "baabebac144a54d1e32cd929c8820dca9a9919ed5599f4c0f1ff75b13d95aab3"
    assert (
        hashlib.sha256(harmed.labels.tobytes()).hexdigest()
        == "3ae9cafbc50c45b0b9867cebcd76eb0260cf12a1da0a45c74b3a3c1b5dad998b"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: corrupt_labels([0, 1], 2, 1.5, 0), ["noise", "[0, 1]", "1.5"]),
        (lambda: corrupt_labels([0, 1], 2, np.eye(3), 0), ["noise", "(2, 2)"]),
        (lambda: corrupt_labels([0, 1], 2, [[1, 0], [0.4, 0.4]], 0), ["noise[1]", "sum to 1"]),
        (lambda: corrupt_labels([0, 1], 2, [[1, 0], [2, -1]], 0), ["noise[1]", "sum to 1"]),
        (lambda: corrupt_labels([0, 1], 2, [[np.nan, 0], [0, 1]], 0), ["noise[0]", "sum to 1"]),
        (lambda: corrupt_labels([0, 1], 2, [[1, 0], [1]], 0), ["noise", "(2, 2)"]),
        (lambda: corrupt_labels([0, 1], 2, "lots", 0), ["noise", "'lots'"]),
        (lambda: corrupt_labels([0, 2], 2, 0.1, 0), ["labels[1]", "2"]),
        (lambda: corrupt_labels([0.0, 1], 2, 0.1, 0), ["labels", "integers"]),
        (lambda: corrupt_labels([], 2, 0.1, 0), ["labels"]),
        (lambda: corrupt_labels([0, 0], 1, 0.1, 0), ["classes", "1"]),
        (lambda: subset([0, 1, 1], 2, 4, 0), ["subset", "[1, 3]", "4"]),
        (lambda: subset([0, 0, 0, 1], 2, 1, 0), ["subset", "every class", "Class 1"]),
    ],
)
def test_bad_harm(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        *(("noise", bad) for bad in NOISE.bad_values() if not isinstance(bad, list)),
        *(("imbalance", bad) for bad in RATIO.bad_values()),
        *(("seed", bad) for bad in SEED.bad_values()),
        *(("subset", bad) for bad in (-1, 0.5, True, "9", 10**6)),
    ],
)
def test_bad_options(argument, bad):
    data = load("wine")
    parts = split(data, 60, 40, 78, seed=0)
    with pytest.raises(InputError, match=argument):
        prepare(data, parts, **{"noise": 0.2, argument: bad})
