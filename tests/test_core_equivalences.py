"""Different names for one thing: each identity between rules and published methods holds."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import softhot
from softhot import (
    Bernoulli,
    ConfidencePenalty,
    Focal,
    Margin,
    MaxSup,
    NegativeUniform,
    Online,
    Others,
    PerClass,
    Prior,
    Similarity,
    Teacher,
    Uniform,
)

RNG = np.random.default_rng(3)
N, K = 40, 7
Z = RNG.normal(size=(N, K)) * 4
Y = RNG.integers(K, size=N)
ONE_HOT = np.eye(K)[Y]
P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
LOG_P = Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))
NLL = -LOG_P[np.arange(N), Y]


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def loss(rule, labels=Y, logits=Z, **options):
    return softhot.cross_entropy(logits, labels, rule, **options)


def both(rule, labels=Y, **options):
    return softhot.cross_entropy_and_gradient(Z, labels, rule, **options)


@pytest.mark.parametrize("a", [0.0, 0.05, 0.1, 0.5])
def test_smoothing_is_cross_entropy_plus_a_logit_gap(a):
    same(loss(Uniform(a)), NLL + a * (Z[np.arange(N), Y] - Z.mean(axis=1)))


@pytest.mark.parametrize("a", [0.05, 0.1, 0.5])
def test_smoothing_is_a_divergence_from_uniform(a):
    divergence = (np.log(1 / K) - LOG_P).mean(axis=1)  # KL(u || p)
    same(loss(Uniform(a)), (1 - a) * NLL + a * (divergence + math.log(K)))


@pytest.mark.parametrize("e", [0.0, 0.1, 0.3])
def test_others_is_uniform_at_another_alpha(e):
    for ours, theirs in zip(both(Others(e)), both(Uniform(e * K / (K - 1))), strict=True):
        same(ours, theirs)


def test_equal_counts_and_equal_rows_are_uniform():
    rows = tuple(map(tuple, np.full((K, K), 1 / K)))
    for rule in (Prior(0.2, (3,) * K), Similarity(0.2, rows), Uniform(PerClass([0.2] * K))):
        same(loss(rule), loss(Uniform(0.2)))
    same(loss(Prior(0.2, range(1, K + 1), temperature=1e13)), loss(Uniform(0.2)))
    same(loss(Teacher(0.2), prior=np.full((N, K), 1 / K)), loss(Uniform(0.2)))
    same(loss(Online(0.2), prior=softhot.OnlineMeans(K).means), loss(Uniform(0.2)))


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4])
def test_negative_smoothing_is_backward_correction(rate):
    """Patrini et al. 2017: with transition matrix T the corrected loss is T^-1 l."""
    rho = rate * K / (K - 1)
    transition = (1 - rho) * np.eye(K) + rho / K
    corrected = (np.linalg.inv(transition) @ -LOG_P.T)[Y, np.arange(N)]
    same(loss(NegativeUniform.from_noise(rate, K)), corrected)
    same(loss(NegativeUniform(-rho / (1 - rho))), corrected)


@pytest.mark.parametrize("a", [0.1, 0.3])
def test_negative_smoothing_undoes_smoothing(a):
    smoothed = softhot.smooth_labels(Y, a, num_classes=K)
    back = softhot.smooth_labels(
        smoothed, NegativeUniform(-a / (1 - a)), num_classes=K, smooth_again=True
    )
    same(back, ONE_HOT)


def preferences():
    delta = RNG.normal(size=(N, 1)) * 3
    return delta, np.ones((N, 1)), F.logsigmoid(torch.tensor(delta)).numpy()


@pytest.mark.parametrize("e", [0.05, 0.1, 0.25])
def test_conservative_preferences_are_binary_smoothing(e):
    """cDPO: a share e of the pairs is flipped."""
    delta, wins, log_sigmoid = preferences()
    conservative = -(1 - e) * log_sigmoid - e * (log_sigmoid - delta)
    same(softhot.binary_cross_entropy(delta, wins, Bernoulli(2 * e)), conservative)


@pytest.mark.parametrize("e", [0.05, 0.1, 0.3])
def test_robust_preferences_are_negative_smoothing(e):
    """rDPO: the unbiased estimate of the loss under flips of rate e."""
    delta, _, log_sigmoid = preferences()
    robust = (-(1 - e) * log_sigmoid + e * (log_sigmoid - delta)) / (1 - 2 * e)
    logits = np.concatenate([delta, np.zeros_like(delta)], axis=1)
    rule = NegativeUniform(-2 * e / (1 - 2 * e))
    same(loss(rule, np.zeros(N, int), logits), robust[:, 0])


@pytest.mark.parametrize("a", [0.1, 0.3])
def test_two_classes_are_one_sigmoid(a):
    delta, wins, _ = preferences()
    logits = np.concatenate([delta, np.zeros_like(delta)], axis=1)
    binary = softhot.binary_cross_entropy(delta, wins, Bernoulli(a))
    same(loss(Uniform(a), np.zeros(N, int), logits), binary[:, 0])


@pytest.mark.parametrize("weight", [0.01, 0.1])
def test_margin_zero_is_max_suppression(weight):
    rules = Margin(weight, margin=0.0), MaxSup(K * weight)
    for ours, theirs in zip(*map(both, rules), strict=True):
        same(ours, theirs)


def test_max_suppression_is_smoothing_where_the_prediction_is_right():
    right = Z.argmax(axis=1) == Y
    same(loss(MaxSup(0.1))[right], loss(Uniform(0.1))[right])
    assert (loss(MaxSup(0.1))[~right] > loss(Uniform(0.1))[~right]).all()


def test_confidence_penalty_is_the_reverse_divergence():
    divergence = (P * (LOG_P - np.log(1 / K))).sum(axis=1)  # KL(p || u)
    same(loss(ConfidencePenalty(0.3)), NLL + 0.3 * (divergence - math.log(K)))
    threshold = 1.0
    entropy = -(P * LOG_P).sum(axis=1)
    hinge = 0.3 * np.maximum(0, threshold - entropy)
    same(loss(ConfidencePenalty(0.3, threshold)), NLL + hinge)
    assert (hinge == 0).any()
    assert (hinge > 0).any()


def jensen(a, p):
    """Meister et al. 2020: the skew Jensen divergence between p and uniform, G = -H."""

    def negentropy(q):
        return (q * np.log(q)).sum(axis=1)

    u = np.full_like(p, 1 / K)
    mixed = negentropy(a * p + (1 - a) * u)
    return (a * negentropy(p) + (1 - a) * negentropy(u) - mixed) / (a * (1 - a))


def test_the_generalised_family_ends_in_both():
    """Its ends are KL(p || u), the confidence penalty, and KL(u || p), smoothing."""
    logits, beta = Z / 8, 0.3
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    hard = loss(Uniform(0.0), logits=logits)
    penalty = loss(ConfidencePenalty(beta), logits=logits) + beta * math.log(K)
    np.testing.assert_allclose(hard + beta * jensen(1e-6, p), penalty, atol=1e-5)
    a = beta / (1 + beta)
    smoothed = (loss(Uniform(a), logits=logits) - a * math.log(K)) / (1 - a)
    np.testing.assert_allclose(hard + beta * jensen(1 - 1e-6, p), smoothed, atol=1e-5)


def test_focal_at_zero_is_cross_entropy():
    for ours, theirs in zip(both(Focal(0.0)), both(Uniform(0.0)), strict=True):
        same(ours, theirs)
    same(loss(Focal(2.0)), (1 - np.exp(-NLL)) ** 2 * NLL)


def test_teacher_free_distillation_is_smoothing():
    """Yuan et al. 2020: softmax over *probabilities* at T = 20 is uniform to 5e-4."""
    virtual = 0.99 * ONE_HOT + 0.01 / (K - 1) * (1 - ONE_HOT)
    tempered = np.exp(virtual / 20)
    tempered /= tempered.sum(axis=1, keepdims=True)
    off = loss(Teacher(0.1), prior=tempered) - loss(Uniform(0.1))
    assert np.abs(off).max() < 0.1 * 0.05 * np.abs(LOG_P).max()
    assert np.abs(tempered - 1 / K).max() < 0.01


@pytest.mark.parametrize("rule", [Uniform(0.1), Others(0.2), Prior(0.3, range(1, K + 1))])
def test_mixing_and_smoothing_commute(rule):
    other = np.roll(ONE_HOT, 1, axis=0)
    share = RNG.random((N, 1))
    mixed = share * ONE_HOT + (1 - share) * other
    smooth = {"num_classes": K, "kind": "soft", "smooth_again": True}
    first, second = (softhot.smooth_labels(x, rule, **smooth) for x in (ONE_HOT, other))
    same(softhot.smooth_labels(mixed, rule, **smooth), share * first + (1 - share) * second)
    parts = (loss(rule, x, smooth_again=True) for x in (ONE_HOT, other))
    same(
        loss(rule, mixed, smooth_again=True),
        sum(s * p for s, p in zip((share[:, 0], 1 - share[:, 0]), parts, strict=True)),
    )


ALIKE = 0.5 * np.eye(K) + 0.5 * RNG.dirichlet(np.ones(K), size=K)


@pytest.mark.parametrize(
    "rule",
    [
        Uniform(0.3),
        Others(0.3),
        Prior(0.3, range(1, K + 1)),
        Similarity(0.5, ALIKE),
        Uniform(PerClass(np.linspace(0, 0.5, K))),
        NegativeUniform(-0.2),
    ],
    ids=repr,
)
def test_desmoothing_is_the_inverse(rule):
    options = {"num_classes": K, "kind": "soft", "smooth_again": True}
    soft = RNG.dirichlet(np.full(K, 5.0), size=N) * 0.5 + 0.5 / K  # far enough from the corners
    smoothed = softhot.smooth_labels(soft, rule, **options)
    same(softhot.desmooth(smoothed, rule, clip=False), soft)
    same(softhot.desmooth(smoothed, rule), soft)


def test_rank_one_identity_of_a_linear_head():
    """With z = W h + b smoothing is the hard loss plus a h (W_y - mean W) + a (b_y - mean b)."""
    hidden, weight, bias = RNG.normal(size=(N, 5)), RNG.normal(size=(K, 5)), RNG.normal(size=K)
    logits = hidden @ weight.T + bias
    gap = (hidden * (weight[Y] - weight.mean(axis=0))).sum(axis=1) + bias[Y] - bias.mean()
    hard = loss(Uniform(0.0), logits=logits)
    same(loss(Uniform(0.1), logits=logits), hard + 0.1 * gap)


@pytest.mark.parametrize(("k", "floor"), [(2, 0.199), (10, 0.500), (100, 0.778), (50257, 1.408)])
def test_the_floor_of_the_loss_is_the_entropy_of_the_target(k, floor):
    assert softhot.explain(0.1, k).loss_floor == pytest.approx(floor, abs=6e-4)


def test_weights_by_class_flip_the_optimum_at_the_stated_ratio():
    """Two classes, alpha 0.1: from a weight ratio of 19 on the wrong class is best."""
    assert softhot.explain(0.1, 2).flip_ratio == pytest.approx(19)
    for ratio, wrong in ((18.9, False), (19.1, True)):
        weighted = np.array([1, ratio]) * softhot.smooth_labels([0], 0.1, num_classes=2)[0]
        assert bool(weighted.argmax() == 1) is wrong
        logits = np.log(weighted / weighted.sum())[None]
        options = {"weight": [1.0, ratio], "weighting": "class"}
        if wrong:
            with pytest.warns(softhot.SofthotWarning, match="19"):
                _, slope = softhot.cross_entropy_and_gradient(
                    logits, np.array([0]), Uniform(0.1), **options
                )
        else:
            _, slope = softhot.cross_entropy_and_gradient(
                logits, np.array([0]), Uniform(0.1), **options
            )
        np.testing.assert_allclose(slope, 0, atol=1e-12)
