"""Extremes: large K, large logits, masks and half precision, against float64 and the naive way."""

import numpy as np
import pytest
import torch

import softhot
from softhot import ConfidencePenalty, MaxSup, Others, Prior, Uniform

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = ((64, 10), (16, 1000), (4, 32001), (1, 262144))
RULES = (
    Uniform(0.1),
    Others(0.1),
    Uniform(0.1) + MaxSup(0.1),
    Uniform(0.1) + ConfidencePenalty(0.1),
)


def batch(n, k, dtype, scale=3.0):
    generator = torch.Generator().manual_seed(k)
    logits = (scale * torch.randn(n, k, generator=generator)).to(dtype)
    return logits, torch.randint(k, (n,), generator=generator)


def naive(logits, labels, rule, k):
    """Log-probabilities and a dense target, all in the dtype of the logits."""
    log_p = logits.log_softmax(-1)
    share = rule.base.mixing(rule.base.alpha, k)
    target = torch.full_like(log_p, share / k)
    target.scatter_(-1, labels[:, None], 1 - share + share / k)
    loss = -(target * log_p).sum(-1)
    gradient = log_p.exp() - target
    for penalty in rule.penalties:
        if isinstance(penalty, MaxSup):
            loss = loss + penalty.alpha * (logits.max(-1).values - logits.mean(-1))
            peak = torch.zeros_like(log_p).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
            gradient = gradient + penalty.alpha * (peak - 1 / k)
        else:
            p = log_p.exp()
            entropy = -(p * log_p).sum(-1, keepdim=True)
            loss = loss - penalty.beta * entropy[:, 0]
            gradient = gradient + penalty.beta * p * (log_p + entropy)
    return loss, gradient


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_are_no_larger_than_the_naive_way_s(dtype, shape, rule):
    n, k = shape
    logits, labels = batch(n, k, DTYPES[dtype])
    true = softhot.cross_entropy_and_gradient(logits.double(), labels, rule)
    ours = softhot.cross_entropy_and_gradient(logits, labels, rule)
    theirs = naive(logits, labels, rule, k)
    eps = torch.finfo(DTYPES[dtype]).eps
    # Stated constants: 8 float32 roundings of the loss, one rounding of the gradient's dtype.
    slack = (8 * 1.2e-7 * float(true[0].abs().max()), eps * float(true[1].abs().max()))
    for ideal, own, other, more in zip(true, ours, theirs, slack, strict=True):
        errors = [
            float((x.double() - ideal).abs().nan_to_num(torch.inf).max()) for x in (own, other)
        ]
        assert errors[0] <= errors[1] + more


@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_logits_of_any_number_of_classes_are_finite(dtype):
    """Summed in float16, 7500 flat log-probabilities overflow."""
    for k in (7_500, 50_257, 262_144):
        logits = torch.zeros(1, k, dtype=DTYPES[dtype])
        loss, gradient = softhot.cross_entropy_and_gradient(
            logits, torch.tensor([k - 1]), Uniform(0.1)
        )
        assert loss.item() == pytest.approx(np.log(k), rel=1e-6)
        assert torch.isfinite(gradient).all()
        assert gradient[0, k - 1].item() == pytest.approx(-0.9, abs=2e-3)


@pytest.mark.parametrize("rule", [*RULES, Prior(0.1, (1, 2, 3, 4))], ids=repr)
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_large_logits_and_offsets_change_nothing_they_should_not(rule, scale):
    rng = np.random.default_rng(0)
    logits = rng.integers(-4, 5, size=(50, 4)) * scale  # exact in float64 with any offset below
    labels = rng.integers(4, size=50)
    plain = softhot.cross_entropy_and_gradient(logits, labels, rule)
    for offset in (-1e4, 1e4, 2.0**40):
        moved = softhot.cross_entropy_and_gradient(logits + offset, labels, rule)
        for a, b in zip(plain, moved, strict=True):
            assert np.isfinite(a).all()
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", [*RULES, Prior(0.1, (1, 2, 3, 4))], ids=repr)
@pytest.mark.parametrize("how", ["-inf", "allowed", "both"])
def test_a_masked_class_is_as_good_as_gone(rule, how):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(30, 4)) * 3
    labels = rng.integers(3, size=30)
    shut = logits.copy()
    if how != "allowed":
        shut[:, 3] = -np.inf
    options = {} if how == "-inf" else {"allowed": np.array([True, True, True, False])}
    loss, gradient = softhot.cross_entropy_and_gradient(shut, labels, rule, **options)
    if isinstance(rule, Prior):
        rule = Prior(rule.alpha, rule.counts[:3])
    fewer = softhot.cross_entropy_and_gradient(logits[:, :3], labels, rule)
    np.testing.assert_allclose(loss, fewer[0], rtol=1e-14)
    np.testing.assert_allclose(gradient[:, :3], fewer[1], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(gradient[:, 3], 0.0)
    target = softhot.smooth_labels(
        labels, 0.1, num_classes=4, allowed=np.array([True, True, True, False])
    )
    np.testing.assert_array_equal(target[:, 3], 0.0)
    np.testing.assert_allclose(target.sum(axis=1), 1, rtol=1e-15)


@pytest.mark.parametrize("confidence", [20.0, 200.0, 600.0])
def test_tiny_losses_keep_their_digits(confidence):
    """A right and very confident prediction: naive forms give 0 or an error of 100 %."""
    logits = np.array([[confidence, 0.0, 0.0]])
    loss = softhot.cross_entropy(logits, np.array([0]), Uniform(0.0))
    assert loss[0] == pytest.approx(2 * np.exp(-confidence), rel=1e-8 if confidence < 30 else 1e-14)


def test_offsets_cost_no_precision_in_float32():
    """An lse kept in float32 would lose this; the maximum and the rest are kept apart."""
    logits = np.array([[10_000.0, 10_001.0, 9_998.0]], dtype=np.float32)
    loss, gradient = softhot.cross_entropy_and_gradient(logits, np.array([0]), Uniform(0.1))
    true = softhot.cross_entropy_and_gradient(logits.astype(float), np.array([0]), Uniform(0.1))
    np.testing.assert_allclose(loss, true[0], rtol=3e-7)
    np.testing.assert_allclose(gradient, true[1], atol=1e-7)
