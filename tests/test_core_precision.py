"""How exact the numbers are, at every size: K to 262144, logits to 1e4, half precision, masks."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest

import laws
from backends import NUMPY, Backend
from batches import K, N, run, smooth
from cases import CASES, TARGET_CASES, batch_with, make_batch
from softhot import Others, Uniform, cross_entropy_and_gradient, smooth_labels

VOCABULARY = 262144
mpmath.mp.dps = 40
HALF = [Backend("numpy", "float16"), Backend("torch", "float16"), Backend("torch", "bfloat16")]
case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
target_case = pytest.mark.parametrize("case", TARGET_CASES, ids=lambda case: case.name)


def grouped(values, counts, true, alpha):
    """The loss of Uniform(alpha), to 40 digits, over classes of which many have the same logit."""
    z, n = [mpmath.mpf(float(v)) for v in values], [int(c) for c in counts]
    top = max(z)
    # The maximum's own exponential is 1, and left to log1p: a loss of e^-700 keeps its digits.
    n[z.index(top)] -= 1
    lse = mpmath.log1p(mpmath.fsum(c * mpmath.exp(v - top) for v, c in zip(z, n, strict=True)))
    n[z.index(top)] += 1
    mean = mpmath.fsum(c * (v - top) for v, c in zip(z, n, strict=True)) / sum(n)
    a = mpmath.mpf(alpha)
    return lse - (1 - a) * (z[true] - top) - a * mean


@pytest.mark.parametrize("k", [2, 3, 1000, 50257, VOCABULARY])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.1, 0.5])
def test_float64_is_right_to_1e_14(k, scale, alpha):
    random = np.random.default_rng(k)
    levels = np.round(random.uniform(-1, 1, size=8) * scale * 1024) / 1024
    group = random.integers(8, size=k)
    group[:8] = np.arange(8)[:k]
    levels, counts = levels[: min(8, k)], np.bincount(group, minlength=min(8, k))
    for true in range(min(8, k)):
        expected = float(grouped(levels, counts, true, alpha))
        loss, gradient = cross_entropy_and_gradient(levels[group], np.array(true), Uniform(alpha))
        assert abs(loss - expected) <= 1e-14 * expected + 5e-324, (true, levels)
        p = np.exp(levels - levels.max())
        p /= (counts * p).sum()
        q = alpha / k + (1 - alpha) * (np.arange(k) == true)
        assert np.abs(gradient - (p[group] - q)).max() <= 4e-16


@pytest.mark.parametrize("gap", [0.5, 40.0, 300.0, 700.0])
def test_certain_and_right_keeps_all_its_digits(gap):
    """The loss of hard labels is e^-gap; one minus a probability near 1 would say 0."""
    loss, gradient = cross_entropy_and_gradient([gap, 0.0], np.array(0), Uniform(0.0))
    expected = mpmath.log1p(mpmath.exp(-mpmath.mpf(gap)))
    assert abs(loss - expected) <= 1e-14 * expected
    wrong = mpmath.exp(-mpmath.mpf(gap)) / (1 + mpmath.exp(-mpmath.mpf(gap)))
    assert abs(gradient[1] - wrong) <= 1e-14 * wrong
    loss, _ = cross_entropy_and_gradient([-gap, 0.0], np.array(0), Uniform(0.0))
    assert abs(loss - (expected + gap)) <= 1e-14 * gap


def naive(z, y, alpha):
    """What most people write, in the dtype of the logits from beginning to end (torch)."""
    import torch

    log_p = z - torch.logsumexp(z, dim=-1, keepdim=True)
    nll = -log_p.gather(-1, y[:, None]).squeeze(-1)
    return (1 - alpha) * nll + alpha * -log_p.mean(-1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("k", [10, 1000, 60000])
@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
def test_no_less_exact_than_the_naive_formula(dtype, k, scale):
    backend = Backend("torch", dtype)
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(16, k)) * scale, random.integers(k, size=16)
    rounded = backend.rounded(logits)
    exact, slopes = cross_entropy_and_gradient(rounded, labels, Uniform(0.1))
    z, y = backend.array(logits), backend.array(labels)
    z.requires_grad_()
    theirs = naive(z, y, 0.1)
    theirs.sum().backward()
    loss, gradient = cross_entropy_and_gradient(z.detach(), y, Uniform(0.1))
    off = np.abs(backend.numpy(loss) - exact).max()
    other = np.abs(backend.numpy(theirs) - exact)
    # Plus a constant: two units in the last place of float32, the dtype the loss comes in.
    assert off <= np.where(np.isfinite(other), other, np.inf).max() + 2.0**-22 * exact.max()
    off = np.abs(backend.numpy(gradient) - slopes).max()
    other = np.abs(backend.numpy(z.grad) - slopes).max()
    assert off <= other + backend.eps / 2


@pytest.mark.parametrize("backend", HALF, ids=str)
@pytest.mark.parametrize("rule", [Uniform(0.0), Uniform(0.1), Others(0.1)], ids=repr)
def test_a_large_vocabulary_in_half_precision(backend, rule):
    """Sums over 262144 classes leave float16's range; nothing here may."""
    labels = np.array([0, VOCABULARY - 1])
    flat = backend.array(np.zeros((2, VOCABULARY)))
    loss, gradient = cross_entropy_and_gradient(flat, backend.array(labels), rule)
    assert backend.numpy(loss) == pytest.approx(np.log(VOCABULARY), rel=1e-6)
    assert np.isfinite(backend.numpy(gradient)).all()
    one_hot = np.zeros((2, VOCABULARY))
    one_hot[[0, 1], labels] = 1
    half = np.arange(VOCABULARY) % 2 == 0
    one_hot[1] = one_hot[0]
    loss, gradient = cross_entropy_and_gradient(
        flat, backend.array(one_hot), rule, allowed=backend.array(half)
    )
    assert backend.numpy(loss) == pytest.approx(np.log(VOCABULARY / 2), rel=1e-6)
    assert not backend.numpy(gradient)[:, 1::2].any()
    target = smooth_labels(backend.array(one_hot), rule, num_classes=VOCABULARY)
    assert backend.numpy(target).sum(1) == pytest.approx(1, abs=0.04)


@case
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_far_logits_stay_finite(case, scale, eager):
    batch = make_batch(case, scale=scale)
    batch = replace(batch, logits=np.clip(batch.logits, -6e4, 6e4)).rounded(eager)
    loss, gradient = run(case.rule, batch, eager)
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()
    if case.rule.shift_invariant:
        assert np.abs(gradient.sum(1)).max() <= 8 * eager.eps


@case
def test_a_masked_class_gets_nothing(case, backend):
    """-inf and not allowed: no target, no gradient, a finite loss, whatever the others hold."""
    for names in ({"masked"}, {"allowed"}, {"allowed", "masked"}):
        batch = batch_with(case, names).rounded(backend)
        loss, gradient = run(case.rule, batch, backend)
        assert np.isfinite(loss).all()
        assert not gradient[~batch.support].any()
        assert not np.signbit(gradient[~batch.support]).any()
        if case in TARGET_CASES and "allowed" in names:
            target = smooth(case.rule, batch, backend)
            assert not target[~batch.allowed].any()
            laws.rows_sum_to_one(target, K * max(backend.eps, 2.0**-23))


@target_case
def test_the_only_allowed_class_takes_it_all(case, eager):
    """One class is left: the target is there whatever the rule, and nothing is to be learnt."""
    batch = make_batch(case)
    only = np.eye(K, dtype=bool)[batch.labels]
    if case.name.startswith("similarity") or np.isin(0.0, [case.row[1]]):
        return  # no mass on the class itself: refused, see test_core_errors
    loss, gradient = run(case.rule, replace(batch, allowed=only).rounded(eager), eager)
    assert np.abs(loss).max() <= eager.accumulator_eps
    assert np.abs(gradient).max() <= eager.accumulator_eps


def test_extreme_alphas_are_exact():
    for alpha in (5e-324, 1e-300, 1e-17):
        loss, _ = cross_entropy_and_gradient(np.array([1e4, 0.0]), np.array(0), Uniform(alpha))
        assert loss == alpha * 5e3


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("library", ["numpy", "torch", "strict", "jax"])
def test_every_integer_dtype_is_a_class_id(dtype, library):
    backend = Backend(library, "float32")
    if library == "torch" and dtype in ("uint16", "uint64"):
        return  # torch has no comparisons of these
    if library == "jax" and dtype.endswith("64"):
        return  # nor JAX these, without 64 bits
    k = 300  # more classes than a byte counts
    logits = np.random.default_rng(0).normal(size=(4, k))
    labels = np.array([0, 5, 120, 127])
    expected = cross_entropy_and_gradient(
        backend.rounded(logits), labels, Uniform(0.1), ignore_index=120
    )
    given = backend.array(labels.astype(dtype))
    result = cross_entropy_and_gradient(
        backend.array(logits), given, Uniform(0.1), ignore_index=120
    )
    laws.same([backend.numpy(part) for part in result], expected, 1e-6)
    # An id that the dtype cannot hold ignores nothing, and wraps round to nothing.
    everything = cross_entropy_and_gradient(backend.array(logits), given, Uniform(0.1))
    result = cross_entropy_and_gradient(
        backend.array(logits), given, Uniform(0.1), ignore_index=-129
    )
    laws.same(*([backend.numpy(part) for part in parts] for parts in (result, everything)), 0)
    target = smooth_labels(given, 0.1, num_classes=k)
    assert backend.numpy(target).argmax(1).tolist() == labels.tolist()


def test_inputs_of_another_library_are_taken_along():
    """Lists, NumPy weights and masks beside torch logits, and the other way round."""
    import torch

    batch = replace(batch_with(CASES[1], {"weight", "where", "allowed"}), reduction="mean")
    expected = run(Uniform(0.1), batch)
    logits = torch.tensor(batch.logits)
    given = {"where": batch.where, "allowed": batch.allowed, "reduction": "mean"}
    for library in (torch.tensor, np.array, np.ndarray.tolist):
        mixed = {name: library(value) for name, value in given.items() if name != "reduction"}
        result = cross_entropy_and_gradient(
            logits,
            library(batch.labels),
            Uniform(0.1),
            weight=library(batch.weight),
            **mixed,
            reduction="mean",
        )
        assert all(isinstance(part, torch.Tensor) for part in result)
        laws.same([part.numpy() for part in result], expected, 1e-13)
    weight = torch.tensor(batch.weight, requires_grad=True)
    result = cross_entropy_and_gradient(
        batch.logits, torch.tensor(batch.labels), Uniform(0.1), weight=weight, **given
    )
    assert all(isinstance(part, np.ndarray | np.floating) for part in result)
    laws.same(result, expected, 1e-13)
    assert len(batch.logits) == N
    assert NUMPY.eps == 2.0**-52


def test_read_only_and_strided_inputs():
    batch = make_batch(CASES[1])
    wide = np.repeat(batch.logits, 2, axis=1)[:, ::2]
    wide.flags.writeable = False
    assert not wide.flags.c_contiguous
    laws.same(run(Uniform(0.1), replace(batch, logits=wide)), run(Uniform(0.1), batch), 0)
    backwards = batch.logits[::-1, ::-1]
    result = cross_entropy_and_gradient(backwards, K - 1 - batch.labels[::-1], Uniform(0.1))
    loss, gradient = run(Uniform(0.1), batch)
    laws.same((result[0][::-1], result[1][::-1, ::-1]), (loss, gradient), 1e-13)
