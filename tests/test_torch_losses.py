"""The PyTorch losses against the NumPy reference: every rule, option and dtype."""

import numpy as np
import pytest
import torch

import softhot
from backends import Backend
from batches import run
from cases import BINARY, CASES, OPTIONS, batch_with, can_combine, make_batch
from softhot.kernels import chunked
from softhot.torch import binary_cross_entropy_with_logits, cross_entropy

case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SINGLES = [[], *([name] for name in OPTIONS)]
DOUBLE = Backend("torch", "float64")


def closed_form(logits, labels, rule, *, axis, **options):
    """Loss and gradient by the backward pass."""
    logits = logits.clone().requires_grad_()
    loss = cross_entropy(logits, labels, rule, **options)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss, gradient


def differentiated(logits, labels, rule, *, axis, **options):
    """The same through torch.func, which differentiates the operations of the loss."""

    def loss(z):
        value = cross_entropy(z, labels, rule, **options)
        return value.sum(), value

    gradient, value = torch.func.grad(loss, has_aux=True)(logits)
    return value, gradient


def agree(case, names, backend, tolerance, function=closed_form):
    batch = batch_with(case, names).rounded(backend)
    loss, gradient = run(case.rule, batch, backend, function)
    expected, slope = run(case.rule, batch)
    assert np.abs(loss - expected).max() <= tolerance * max(1, np.abs(expected).max()), names
    # The gradient comes back in the dtype of the logits.
    allowed = tolerance * max(1, np.abs(slope).max()) + backend.eps * np.abs(slope)
    assert (np.abs(gradient - slope) <= allowed).all(), names


@pytest.fixture(params=[chunked.CPU_BLOCK, 12], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(chunked, "CPU_BLOCK", request.param)


@case
def test_every_rule_with_every_option_is_the_reference(case, blocks):
    for names in SINGLES:
        if can_combine(case, names):
            agree(case, names, DOUBLE, 1e-13)


@case
def test_gradcheck(case):
    arrays, _ = make_batch(case, scale=2.0).rows(np.arange(4)).arguments(DOUBLE)
    logits, labels = arrays.pop("logits").requires_grad_(), arrays.pop("labels")
    for reduction in ("none", "mean"):
        assert torch.autograd.gradcheck(
            lambda z, r=reduction: cross_entropy(z, labels, case.rule, reduction=r, **arrays),
            logits,
        )


@case
def test_options_together(case, blocks):
    for names in (
        {"soft", "allowed", "where", "weight", "middle", "mean"},
        {"masked", "ignored", "weight", "middle", "mean"},
        {"class weight", "where", "middle", "sum"},
        {"masked", "where", "ignored", "mean"},
    ):
        names = names - {"soft"} if case.loss else names
        assert can_combine(case, names)
        agree(case, names, DOUBLE, 1e-13)


@case
def test_differentiated_by_torch_func_it_is_the_same(case):
    for names in SINGLES:
        if can_combine(case, names):
            agree(case, names, DOUBLE, 1e-13, differentiated)


@case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_narrow_dtypes_are_computed_in_float32(case, dtype, blocks):
    backend = Backend("torch", dtype)
    # Rounded to half precision, the rows of a prior no longer sum to 1.
    if dtype != "float32" and "prior" in (case.batch or {}):
        return
    for names in ([], ["soft"], ["masked"], ["ignored"], ["weight"], ["middle", "mean"]):
        if can_combine(case, names):
            agree(case, names, backend, 4e-6)


@case
def test_without_a_gradient_the_loss_is_the_same(case):
    for names in ([], ["masked", "mean"], ["ignored", "weight"]):
        arrays, plain = batch_with(case, names).arguments(DOUBLE)
        del plain["axis"]
        logits, labels = arrays.pop("logits"), arrays.pop("labels")
        plain["ignore_index"] = -100
        with_gradient = logits.clone().requires_grad_()
        loss = cross_entropy(with_gradient, labels, case.rule, **arrays, **plain)
        assert loss.grad_fn is not None
        with torch.no_grad():
            silent = cross_entropy(with_gradient, labels, case.rule, **arrays, **plain)
        assert silent.grad_fn is None
        assert torch.equal(silent, loss)
        assert torch.equal(cross_entropy(logits, labels, case.rule, **arrays, **plain), loss)


@pytest.mark.parametrize(("name", "rule", "targets"), BINARY, ids=[name for name, *_ in BINARY])
def test_binary_rules_are_the_reference(name, rule, targets, blocks):
    random = np.random.default_rng(0)
    labels = random.integers(2, size=(7, 5))
    logits = random.normal(size=(7, 5)) * 5
    pos_weight, where = random.random(5) + 0.5, random.random((7, 5)) < 0.8
    for reduction in ("none", "sum", "mean"):
        for options in ({}, {"pos_weight": pos_weight}, {"where": where}):
            expected, slope = softhot.binary_cross_entropy_and_gradient(
                logits, labels, rule, reduction=reduction, **options
            )
            options = {name: torch.tensor(value) for name, value in options.items()}

            def loss(z, rule=rule, reduction=reduction, options=options):
                value = binary_cross_entropy_with_logits(
                    z, torch.tensor(labels), rule, reduction=reduction, **options
                )
                return value.sum(), value

            z = torch.tensor(logits, requires_grad=True)
            total, value = loss(z)
            (gradient,) = torch.autograd.grad(total, z)
            traced, again = torch.func.grad(loss, has_aux=True)(z.detach())
            for got, want in (
                (value, expected),
                (gradient, slope),
                (traced, slope),
                (again, expected),
            ):
                np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-13, atol=1e-14)


def test_at_zero_logits_binary_gradients_are_right():
    z = torch.zeros(3, requires_grad=True)
    binary_cross_entropy_with_logits(z, torch.tensor([0, 1, 1]), reduction="sum").backward()
    assert z.grad.tolist() == [0.5, -0.5, -0.5]
    traced = torch.func.grad(
        lambda z: binary_cross_entropy_with_logits(z, torch.tensor([0, 1, 1]), reduction="sum")
    )(torch.zeros(3))
    assert traced.tolist() == [0.5, -0.5, -0.5]


def test_ignored_everywhere_is_zero_with_zero_gradients():
    for kind in ("ids", "soft"):
        for dtype in (torch.float64, torch.float16):
            z = torch.randn(3, 5, dtype=dtype, requires_grad=True)
            y = torch.full((3,), -100) if kind == "ids" else torch.full((3, 5), torch.nan)
            for rule in (softhot.Uniform(0.1), softhot.MaxSup(0.1)):
                loss = cross_entropy(z, y, rule, where=torch.zeros(3, dtype=torch.bool))
                (gradient,) = torch.autograd.grad(loss, z)
                assert loss.item() == 0
                assert not gradient.any()


def test_an_empty_batch_is_zero():
    z = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy(z, torch.zeros(0, dtype=torch.int64), label_smoothing=0.1)
    loss.backward()
    assert loss.item() == 0
    assert z.grad.shape == (0, 5)


def test_shapes_and_strides():
    """Every layout gives what the same numbers give as plain contiguous rows."""
    base = torch.randn(4, 6, 5, 7, dtype=torch.float64)
    layouts = {
        "contiguous": base,
        "channels last": base.to(memory_format=torch.channels_last),
        "transposed": base.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": torch.randn(4, 12, 5, 7, dtype=torch.float64)[:, ::2].copy_(base),
        "shifted": torch.randn(5, 6, 6, 8, dtype=torch.float64)[1:, :, 1:, 1:].copy_(base),
        "expanded": base[:1].expand(4, 6, 5, 7),
    }
    labels = torch.randint(6, (4, 5, 7))
    for name, logits in layouts.items():
        for rule in (softhot.Uniform(0.1), softhot.ConfidencePenalty(0.1)):
            z = logits.detach().requires_grad_()
            loss = cross_entropy(z, labels, rule)
            (gradient,) = torch.autograd.grad(loss, z)
            rows = logits.movedim(1, -1).reshape(-1, 6).requires_grad_()
            expected = cross_entropy(rows, labels.flatten(), rule)
            (slopes,) = torch.autograd.grad(expected, rows)
            assert torch.allclose(loss, expected, rtol=1e-14), name
            slopes = slopes.reshape(4, 5, 7, 6).movedim(-1, 1)
            assert torch.allclose(gradient, slopes, rtol=0, atol=1e-16), name
    one = torch.randn(6, requires_grad=True)
    cross_entropy(one, torch.tensor(2), label_smoothing=0.1).backward()
    assert one.grad.sum().abs() < 1e-6


def test_class_ids_of_every_integer_dtype():
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([0, 1, 2, 4])
    narrow = cross_entropy(z, ids.to(torch.int32), label_smoothing=0.1)
    for dtype in (torch.int8, torch.int16, torch.uint8):
        assert cross_entropy(z, ids.to(dtype), label_smoothing=0.1) == narrow
    # Only int64 takes the native kernel, which may round the last digit in another way.
    wide = cross_entropy(z, ids, label_smoothing=0.1)
    torch.testing.assert_close(wide, narrow, rtol=3e-7, atol=0)
