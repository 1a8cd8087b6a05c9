"""Against torch's own losses: equal wherever torch is right; where it is not, the right answer."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import softhot
from softhot import InputError
from softhot.torch import binary_cross_entropy_with_logits, cross_entropy

SHAPES = ((5,), (7, 5), (3, 5, 4), (2, 5, 3, 4))
BOUNDS = {torch.float64: 1e-13, torch.float32: 2e-6}


def batch(shape, kind, dtype, seed=0):
    random = torch.Generator().manual_seed(seed)
    z = (3 * torch.randn(shape, generator=random, dtype=torch.float64)).to(dtype)
    axis = 1 if len(shape) > 1 else 0
    if kind == "ids":
        return z, torch.randint(5, [n for i, n in enumerate(shape) if i != axis], generator=random)
    y = torch.rand(shape, generator=random, dtype=torch.float64) * 4
    return z, y.softmax(axis).to(dtype)


def both(ours, theirs, z, bound):
    z = z.requires_grad_()
    loss, expected = ours(z), theirs(z)
    assert loss.dtype == expected.dtype
    assert torch.allclose(loss, expected, rtol=bound, atol=bound)
    (gradient,), (slope,) = (torch.autograd.grad(value.sum(), z) for value in (loss, expected))
    assert torch.allclose(gradient, slope, rtol=bound, atol=bound)


@pytest.mark.filterwarnings("ignore::softhot.SofthotWarning")  # of weights on random mixtures
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_cross_entropy_is_torch_s(shape, dtype):
    weight = torch.tensor([1.0, 0.5, 2.0, 1.25, 3.0], dtype=dtype)
    options = itertools.product(
        ("ids", "probabilities"), (None, weight), ("mean", "sum", "none"), (0.0, 0.1)
    )
    for kind, weight, reduction, alpha in options:
        if kind == "probabilities" and weight is not None and reduction == "mean":
            continue  # torch divides by N, see below
        z, y = batch(shape, kind, dtype)
        given = {"weight": weight, "reduction": reduction, "label_smoothing": alpha}
        weighting = "sample" if weight is None else "class"
        both(
            lambda z, y=y, g=given, w=weighting: cross_entropy(z, y, weighting=w, **g),
            lambda z, y=y, g=given: F.cross_entropy(z, y, **g),
            z,
            BOUNDS[dtype],
        )
        if kind == "ids" and y.numel() > 2:
            y = torch.where(torch.rand(y.shape) < 0.3, -7, y)
            y.view(-1)[0] = 1
            both(
                lambda z, y=y, g=given, w=weighting: cross_entropy(
                    z, y, weighting=w, ignore_index=-7, **g
                ),
                lambda z, y=y, g=given: F.cross_entropy(z, y, ignore_index=-7, **g),
                z,
                BOUNDS[dtype],
            )


def test_hard_labels_with_weights_are_torch_s_without_saying_so():
    """At alpha 0 the two ways to weight are one."""
    z, y = batch((7, 5), "ids", torch.float64)
    weight = torch.rand(5, dtype=torch.float64) + 0.5
    both(
        lambda z: cross_entropy(z, y, weight=weight),
        lambda z: F.cross_entropy(z, y, weight),
        z,
        1e-13,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_cross_entropy_is_torch_s(reduction):
    random = torch.Generator().manual_seed(0)
    z = 5 * torch.randn(6, 4, 3, generator=random, dtype=torch.float64)
    y = torch.rand(6, 4, 3, generator=random, dtype=torch.float64)
    weights = (None, torch.rand(4, 3, generator=random), torch.rand(6, 1, 1, generator=random))
    pos_weights = (
        None,
        torch.tensor(3.0),
        torch.tensor([3.0]),
        torch.rand(3),
        torch.rand(4, 1) + 0.5,
    )
    for weight, pos_weight, alpha in itertools.product(weights, pos_weights, (0.0, 0.1)):
        given = {"weight": weight, "pos_weight": pos_weight, "reduction": reduction}
        how = "sample" if pos_weight is None else "class"
        smoothed = (1 - alpha) * y + alpha / 2
        both(
            lambda z, g=given, a=alpha, w=how: binary_cross_entropy_with_logits(
                z, y, label_smoothing=a, weighting=w, **g
            ),
            lambda z, g=given, q=smoothed: F.binary_cross_entropy_with_logits(z, q, **g),
            z,
            1e-12,
        )


# Where torch's numbers are not the right ones.


def test_one_weight_of_positives_for_one_logit_a_row():
    """As in binary classification, where torch takes a tensor of one number."""
    z, y = torch.randn(7, dtype=torch.float64), torch.arange(7) % 2
    pos_weight = torch.tensor([3.0], dtype=torch.float64)
    both(
        lambda z: binary_cross_entropy_with_logits(z, y, pos_weight=pos_weight),
        lambda z: F.binary_cross_entropy_with_logits(z, y.double(), pos_weight=pos_weight),
        z,
        1e-13,
    )


def test_ids_and_their_one_hot_rows_have_one_weighted_mean():
    """torch divides the one by the summed weights and the other by N."""
    z, y = batch((7, 5), "ids", torch.float64)
    weight = torch.tensor([1.0, 0.5, 2.0, 1.25, 3.0]).double()
    rows = F.one_hot(y, 5).double()
    for weighting in ("sample", "class"):
        given = {"weight": weight, "weighting": weighting, "label_smoothing": 0.1}
        assert torch.allclose(
            cross_entropy(z, y, **given), cross_entropy(z, rows, **given), rtol=1e-14
        )
    assert not torch.allclose(F.cross_entropy(z, y, weight), F.cross_entropy(z, rows, weight))


def test_masked_classes_have_no_mass_and_no_gradient():
    z, y = batch((7, 5), "ids", torch.float64)
    y[:] = 0
    masked = z.clone()
    masked[:, 3:] = -torch.inf
    masked.requires_grad_()
    for target in (y, F.one_hot(y, 5).double()):
        loss = cross_entropy(masked, target, label_smoothing=0.1)
        (gradient,) = torch.autograd.grad(loss, masked)
        assert torch.allclose(loss, F.cross_entropy(z[:, :3], y, label_smoothing=0.1), rtol=1e-14)
        assert not gradient[:, 3:].any()
        assert torch.isfinite(gradient).all()


def test_a_label_on_a_masked_class_is_inf_as_in_torch():
    z = torch.tensor([[0.0, -torch.inf, 1.0], [0.0, 1.0, 2.0]])
    y = torch.tensor([1, 1])
    for rule in (softhot.Uniform(0.0), softhot.Uniform(0.1), softhot.MaxSup(0.1)):
        for reduction, expected in (("none", [True, False]), ("mean", True), ("sum", True)):
            loss = cross_entropy(z, y, rule, reduction=reduction)
            assert loss.isinf().tolist() == expected, rule
            assert torch.equal(loss.isinf(), F.cross_entropy(z, y, reduction=reduction).isinf())
    with pytest.raises(InputError, match=r"target\[0\] must be an allowed class; got 1"):
        cross_entropy(z, y, label_smoothing=0.1, allowed=torch.tensor([True, False, True]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_at_a_large_vocabulary(dtype):
    """torch sums the smooth part in half precision, which overflows."""
    random = torch.Generator().manual_seed(0)
    z = (2 * torch.randn(3, 200_000, generator=random)).to(dtype).requires_grad_()
    y = torch.randint(200_000, (3,), generator=random)
    loss = cross_entropy(z, y, label_smoothing=0.1)
    expected = F.cross_entropy(z.double(), y, label_smoothing=0.1)
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected.item()) < 1e-5
    (gradient,) = torch.autograd.grad(loss, z)
    wide = z.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(wide, y, label_smoothing=0.1), wide)
    # Rounded once to the dtype; before that p and alpha / K, in float32, lose what they share.
    allowed = torch.finfo(dtype).eps * slope.abs() + 1e-6 * 0.1 / 200_000
    if dtype == torch.float16:
        allowed += torch.finfo(dtype).smallest_normal * 2**-10
    assert ((gradient.double() - slope).abs() <= allowed).all()


def test_infinite_and_missing_logits_go_through_as_in_torch():
    y = torch.tensor([0, 1])
    for bad in (torch.nan, torch.inf):
        for rule in (softhot.Uniform(0.1), softhot.ConfidencePenalty(0.1)):
            z = torch.tensor([[0.0, 1.0, bad], [0.0, 1.0, 2.0]], requires_grad=True)
            rows = cross_entropy(z, y, rule, reduction="none")
            assert rows.isnan().tolist() == [True, False]
            loss = cross_entropy(z, y, rule)
            assert loss.isnan()
            (gradient,) = torch.autograd.grad(loss, z)
            assert gradient[0].isnan().any()
            assert gradient[1].isfinite().all()
        z = torch.tensor([[0.0, bad]], requires_grad=True)
        loss = binary_cross_entropy_with_logits(z, torch.tensor([[0, 1]]), label_smoothing=0.1)
        assert not loss.isfinite()


def message(function, *arguments, **options):
    with pytest.raises(InputError) as error:
        function(*arguments, **options)
    return str(error.value)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 2.0, np.nan, True, "0.1", None])
def test_smoothing_out_of_range_is_refused(alpha):
    """torch takes every negative number and NaN for no smoothing at all."""
    z, y = batch((7, 5), "ids", torch.float32)
    assert "alpha" in message(cross_entropy, z, y, label_smoothing=alpha)
    assert "alpha" in message(binary_cross_entropy_with_logits, z, z > 0, label_smoothing=alpha)


@pytest.mark.parametrize("rule", [softhot.Uniform(0.1), softhot.MaxSup(0.1)], ids=str)
def test_labels_out_of_range_are_named(rule, monkeypatch):
    monkeypatch.setattr(softhot.kernels.chunked, "CPU_BLOCK", 10)
    z, y = batch((7, 5), "ids", torch.float32)
    for wrong in (5, -1, 123456):
        y[4] = wrong
        text = message(cross_entropy, z.requires_grad_(), y, rule)
        assert f"target[4] must be a class id in 0 .. 4; got {wrong}" in text
    y[4] = -100
    assert cross_entropy(z, y, rule).isfinite()
    assert "target[4]" in message(cross_entropy, z, y, rule, ignore_index=3)
    assert "got -100" in message(cross_entropy, z, y, rule, ignore_index=None)


def test_what_else_is_refused():
    z, y = batch((7, 5), "ids", torch.float32)
    rows = F.one_hot(y, 5).float()
    assert "rule" in message(cross_entropy, z, y, softhot.Others(0.1), label_smoothing=0.1)
    assert "target" in message(cross_entropy, z, y.numpy())
    assert "input" in message(cross_entropy, z.numpy(), y)
    for wrong in (z.cfloat(), z.long(), z.to_sparse()):
        assert "input must be real floating-point logits" in message(cross_entropy, wrong, y)
    assert "changed places" in message(cross_entropy, y, z)
    last = message(cross_entropy, torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.int64))
    assert "input.movedim(-1, 1)" in last
    assert "Cast them: target.long()" in message(cross_entropy, z, y.float())
    assert "target must be on the device" in message(cross_entropy, z, y.to("meta"))
    assert "target" in message(cross_entropy, z, y[:3])
    assert "target" in message(cross_entropy, z, y.float())
    assert "sums to 1" in message(cross_entropy, z, 2 * rows)
    assert "not smoothed already" in message(
        cross_entropy, z, rows * 0.9 + 0.02, label_smoothing=0.1
    )
    assert "reduction" in message(cross_entropy, z, y, reduction="average")
    assert "weighting" in message(cross_entropy, z, y, weighting="class")
    assert "weighting" in message(cross_entropy, z, y, weight=torch.ones(5), weighting="clas")
    assert "weight" in message(cross_entropy, z, y, weight=torch.ones(4))
    assert "weight[2]" in message(cross_entropy, z, y, weight=torch.tensor([1, 1, -1.0, 1, 1]))
    assert "ignore_index" in message(cross_entropy, z, y, ignore_index=1.5)
    assert "ignore_index" in message(cross_entropy, z, rows, ignore_index=1)
    assert "where" in message(cross_entropy, z, y, where=torch.ones(7))
    assert "alpha" in message(cross_entropy, z, y, alpha=torch.ones(7))
    per_sample = softhot.Uniform(softhot.PerSample())
    assert "alpha" in message(cross_entropy, z, y, per_sample)
    assert "alpha" in message(cross_entropy, z, y, per_sample, alpha=torch.full((7,), 1.0))
    assert "(K - 1)/K" in message(cross_entropy, z[:, :2], y % 2, softhot.Others(0.5))
    assert "prior" in message(cross_entropy, z, y, label_smoothing=0.1, prior=rows)
    assert "classes" in message(cross_entropy, z[:, :1], y)
    assert "binary" in message(binary_cross_entropy_with_logits, z, z, softhot.Uniform(0.1))
    assert "target[0, 0]" in message(binary_cross_entropy_with_logits, z, torch.full((7, 5), 2))
    assert "target" in message(binary_cross_entropy_with_logits, z, y)
    assert "pos_weight" in message(
        binary_cross_entropy_with_logits, z, rows, pos_weight=torch.ones(7, 5)
    )
    assert "where" in message(
        binary_cross_entropy_with_logits, z, rows, where=torch.ones(3, dtype=torch.bool)
    )
    assert "weight" in message(binary_cross_entropy_with_logits, z, rows, weight=torch.ones(3))
