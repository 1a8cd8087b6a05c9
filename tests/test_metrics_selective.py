"""Selective risk and cluster tightness: brute force, scikit-learn, identities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

import softhot.metrics as M
from softhot.core.check import InputError
from softhot.metrics import (
    LastLayer,
    Predictions,
    nc1,
    template_plane,
    template_plane_of_logits,
    within_over_between,
)

ROWS = st.lists(
    st.tuples(st.sampled_from([0.6, 0.75, 0.8, 1.0]), st.booleans()), min_size=1, max_size=6
)


def binary(rows):
    c, correct = (np.array(column) for column in zip(*rows, strict=True))
    return Predictions.from_probs(np.stack([c, 1 - c], 1), np.where(correct, 0, 1))


def orders(rows):
    """0/1 errors of every order of rows that keeps confidence falling."""
    for order in itertools.permutations(rows):
        if all(a[0] >= b[0] for a, b in itertools.pairwise(order)):
            yield np.array([not correct for _, correct in order], dtype=float)


@given(ROWS)
def test_augrc_is_the_trapezoid_over_every_order_of_ties(rows):
    n = len(rows)
    areas = []
    for errors in orders(rows):
        risk = np.concatenate([[0], np.cumsum(errors)]) / n
        areas.append(np.trapezoid(risk, np.arange(n + 1) / n))
    assert M.augrc(binary(rows)) == pytest.approx(np.mean(areas), abs=1e-12)


@given(ROWS)
def test_risk_at_a_coverage_averages_over_ties(rows):
    for k in range(1, len(rows) + 1):
        risks = [errors[:k].mean() for errors in orders(rows)]
        assert M.risk_at(binary(rows), k / len(rows)) == pytest.approx(np.mean(risks), abs=1e-12)


@given(ROWS)
def test_excess_aurc_is_measured_from_the_best_order(rows):
    errors = np.sort([not correct for _, correct in rows])
    best = (np.cumsum(errors) / np.arange(1, len(rows) + 1)).mean()
    p = binary(rows)
    assert M.e_aurc(p) == pytest.approx(M.aurc(p) - best, abs=1e-12)
    assert M.e_aurc(p) >= 0


@given(ROWS)
def test_auroc_is_that_of_scikit_learn_and_makes_augrc(rows):
    p = binary(rows)
    correct = [c for _, c in rows]
    if len(set(correct)) < 2:
        with pytest.raises(M.Undefined, match="right in some rows"):
            M.auroc(p)
        return
    area = sklearn.metrics.roc_auc_score(correct, p.confidence)
    assert M.auroc(p) == pytest.approx(area, abs=1e-12)
    wrong = 1 - M.accuracy(p)
    assert M.augrc(p) == pytest.approx((1 - area) * wrong * (1 - wrong) + wrong**2 / 2, abs=1e-12)


def test_the_surest_80_per_cent_of_ten_rows_are_eight():
    rows = [(0.9 - i / 100, i < 8) for i in range(10)]
    assert M.risk_at_80(binary(rows)) == 0
    assert M.risk_at(binary(rows), 1) == pytest.approx(0.2)
    assert M.risk_at(binary(rows), 0.81) == pytest.approx(1 / 9)
    assert M.risk_at(binary(rows), 1e-9) == 0


@pytest.mark.parametrize("coverage", M.COVERAGE.bad_values())
def test_bad_coverage(coverage):
    with pytest.raises(InputError, match="coverage"):
        M.risk_at(binary([(0.9, True)]), coverage)


def test_another_ranking_moves_what_ranks_and_nothing_else():
    rows = [(0.9, True), (0.8, False), (0.7, True), (0.6, False)]
    p = binary(rows)
    q = p.ranked_by([4.0, 1.0, 3.0, 2.0])
    assert M.auroc(p) == 0.75
    assert M.auroc(q) == 1
    assert M.aurc(q) < M.aurc(p)
    assert M.ece(q) == M.ece(p)
    assert M.aurc(q[[0, 1]]) == M.aurc(p[[0, 1]])
    assert M.auroc(M.apply_temperature(q, 2.0)) == 1
    for bad in ([1.0], [1.0, 2.0, 3.0, np.nan], 1.0):
        with pytest.raises(InputError, match="ranking"):
            p.ranked_by(bad)


# --- Clusters ----------------------------------------------------------------------------------


def clusters(seed=0, n=200, k=4, d=6, spread=0.3):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return rng.normal(size=(k, d))[labels] + spread * rng.normal(size=(n, d)), labels


@pytest.mark.parametrize("seed", range(3))
def test_clusters_by_their_covariance_matrices(seed):
    h, y = clusters(seed)
    k = 4
    means = np.stack([h[y == c].mean(0) for c in range(k)])
    within = sum(np.cov(h[y == c].T, bias=True) for c in range(k)) / k
    between = np.cov(means.T, bias=True)
    assert within_over_between(h, y) == pytest.approx(np.trace(within) / np.trace(between))
    inverse = np.linalg.pinv(between, rcond=1e-10)
    assert nc1(h, y) == pytest.approx(np.trace(within @ inverse) / k)


def test_clusters_do_not_feel_shift_scale_or_rotation_and_tightness_squares():
    h, y = clusters()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    for measure in (within_over_between, nc1):
        assert measure(3 * h @ turn + 5, y) == pytest.approx(measure(h, y))
        assert measure(torch.tensor(h), torch.tensor(y)) == measure(h, y)
    tight, _ = clusters(spread=0.03)
    assert within_over_between(tight, y) == pytest.approx(within_over_between(h, y) / 100, rel=0.2)
    # nc1 weighs directions by their own spread: any invertible map leaves it alone.
    skew = np.random.default_rng(2).normal(size=(6, 6))
    assert nc1((h[:, :3]) @ skew[:3, :3], y) == pytest.approx(nc1(h[:, :3], y))


def test_unequal_classes_count_by_rows():
    h = np.array([[0.0], [2.0], [2.0], [4.0]])
    assert within_over_between(h, [0, 1, 1, 1]) == pytest.approx((8 / 9 * 3 / 4) / (4 / 3))


def test_the_template_plane_keeps_distances_in_it_and_drops_the_rest():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 7))
    plane = template_plane(rng.normal(size=(20, 7)), weights, [4, 0, 2])
    three = weights[[4, 0, 2]]
    for a, b in itertools.combinations(range(3), 2):
        distance = np.linalg.norm(plane.corners[a] - plane.corners[b])
        assert distance == pytest.approx(np.linalg.norm(three[a] - three[b]))
    assert plane.corners[0].tolist() == [0, 0]
    assert plane.corners[1, 0] > 0
    assert plane.corners[1, 1] == pytest.approx(0)
    assert plane.corners[2, 1] > 0
    inside = template_plane(three.mean(0, keepdims=True), weights, [4, 0, 2])
    assert inside.points[0] == pytest.approx(plane.corners.mean(0))
    off = rng.normal(size=7)
    basis = np.linalg.qr((three[1:] - three[0]).T)[0]
    off -= basis @ (basis.T @ off)
    moved = template_plane(three + off, weights, [4, 0, 2])
    assert moved.points == pytest.approx(plane.corners)


def test_logits_and_the_gram_matrix_give_the_template_plane():
    rng = np.random.default_rng(0)
    h, w, b = rng.normal(size=(20, 7)), rng.normal(size=(5, 7)), rng.normal(size=5)
    log_probs = Predictions.from_logits(h @ w.T + b, np.zeros(20, int)).log_probs
    for classes in itertools.permutations(range(5), 3):
        real = template_plane(h, w, classes)
        found = template_plane_of_logits(log_probs, LastLayer(w @ w.T, b), classes)
        assert found.points == pytest.approx(real.points)
        assert found.corners == pytest.approx(real.corners)


def test_a_bias_is_one_more_dimension():
    h, w, b = np.array([[1.0, 1.0]]), np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([0.0, 0, 2])
    with_bias = template_plane(h, w, [0, 1, 2], bias=b)
    assert with_bias.corners[2, 1] == pytest.approx(np.sqrt(5))
    by_hand = template_plane([[1.0, 1, 1]], [[0.0, 0, 0], [1, 0, 0], [0, 1, 2]], [0, 1, 2])
    assert with_bias.points == pytest.approx(by_hand.points)


H, Y = clusters(n=8)
W = np.random.default_rng(0).normal(size=(4, 6))
LAYER = LastLayer(W @ W.T, np.zeros(4))
LINE = LastLayer(np.outer(W[0], W[0])[:4, :4].astype(np.float32), np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nc1(H, Y[:3]), ["labels", "(8,)"]),
        (lambda: nc1(H, Y + 0.5), ["labels", "class ids"]),
        (lambda: nc1(H, np.zeros(8)), ["two classes"]),
        (lambda: nc1(H[0], Y), ["features", "(N, D)", "(6,)"]),
        (lambda: nc1(np.full_like(H, np.nan), Y), ["features", "finite", "nan"]),
        (lambda: within_over_between(np.ones((8, 2)), Y), ["features", "equal means"]),
        (lambda: template_plane(H, W, [0, 1]), ["classes", "three different"]),
        (lambda: template_plane(H, W, [0, 1, 1]), ["classes", "three different"]),
        (lambda: template_plane(H, W, [0, 1, 4]), ["classes", "[0, 3]"]),
        (lambda: template_plane(H, W[:, :2], [0, 1, 2]), ["weights", "(K, 6)"]),
        (lambda: template_plane(H, W, [0, 1, 2], bias=[0.0]), ["bias", "(4,)"]),
        (lambda: template_plane(H, np.ones((4, 6)), [0, 1, 2]), ["not on one line"]),
        (lambda: template_plane_of_logits(H[:, :4], LAYER, [0, 1, 4]), ["classes", "[0, 3]"]),
        (lambda: template_plane_of_logits(H, LAYER, [0, 1, 2]), ["layer", "(6, 6) and (6,)"]),
        (lambda: template_plane_of_logits(H[:, :4], LINE, [0, 1, 2]), ["not on one line"]),
    ],
)
def test_bad_features(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)
