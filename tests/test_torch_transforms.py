"""torch.compile, torch.func, higher derivatives, mixed precision and the rest of the machinery."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import softhot
from backends import Backend
from batches import run
from cases import CASES, batch_with, can_combine
from softhot import InputError, PerSample
from softhot.torch import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    binary_cross_entropy_with_logits,
    cross_entropy,
)

# torch's own, of parts of itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
RULES = (
    softhot.Uniform(0.0),
    softhot.Others(0.1),
    softhot.Ordinal(0.5),
    softhot.Focal(2.0),
    softhot.MaxSup(0.1) + softhot.Uniform(0.1),
    softhot.ConfidencePenalty(0.2),
)
rule = pytest.mark.parametrize("rule", RULES, ids=str)


@pytest.fixture(name="batch")
def _batch():
    random = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(6, 5, generator=random, dtype=torch.float64)
    return z, torch.randint(5, (6,), generator=random)


# ------------------------------------------------------------------------------ torch.compile


def whole(function):
    """One graph or an error, through the layer that traces, without the C++ compiler."""
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def agree(compiled, eager, z, *arguments, tolerance=1e-13):
    results = []
    for function in (compiled, eager):
        logits = z.clone().requires_grad_()
        loss = function(logits, *arguments)
        results.append((loss, *torch.autograd.grad(loss.sum(), logits)))
    for got, expected in zip(*results, strict=True):
        assert got.dtype == expected.dtype
        assert torch.allclose(got, expected, rtol=tolerance, atol=tolerance)


def test_compiled_by_inductor_it_is_the_same(batch):
    z, y = batch
    y[2] = -100
    criterion = CrossEntropyLoss(torch.rand(5), label_smoothing=0.1)
    torch._dynamo.reset()
    compiled = torch.compile(criterion, fullgraph=True)
    agree(compiled, criterion, z.float(), y, tolerance=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_rule_is_one_graph(case):
    """With an option each, in turn; the NumPy reference says what comes out."""
    ways = ("soft", "allowed", "masked", "weight", "ignored", "where", "middle", "mean")
    way = [ways[CASES.index(case) % len(ways)]]
    inputs = batch_with(case, way if can_combine(case, way) else [])

    def compiled(logits, labels, rule, *, axis, **options):
        z = logits.clone().requires_grad_()
        loss = whole(lambda z: cross_entropy(z, labels, rule, **options))(z)
        return loss, torch.autograd.grad(loss.sum(), z)[0]

    found = run(case.rule, inputs, Backend("torch", "float64"), compiled)
    for got, expected in zip(found, run(case.rule, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_every_kind_of_call_is_one_graph(batch):
    z, y = batch
    rows = nn.functional.one_hot(y, 5).double()
    per_sample = {"rule": softhot.Others(PerSample()), "alpha": torch.rand(6) / 2}
    per_class = {"rule": softhot.Uniform(softhot.PerClass([0.0, 0.1, 0.2, 0.3, 0.4]))}
    calls = [
        (y, {"label_smoothing": 0.1, "reduction": "none"}),
        (y, {"label_smoothing": 0.1, "where": y != 2, "weight": torch.rand(5), "ignore_index": 1}),
        (y, per_sample),
        (y, per_class),
        (rows, {"label_smoothing": 0.1}),
        (y, {"label_smoothing": 0.1, "weight": torch.ones(5), "weighting": "class"}),
        (y, {"label_smoothing": 0.1, "allowed": torch.tensor([True] * 5)}),
    ]
    for target, options in calls:

        def loss(z, target, options=options):
            return cross_entropy(z, target, **options)

        agree(whole(loss), loss, z, target)
    for rule in (softhot.Bernoulli(0.1), softhot.MassPreserving(0.1)):

        def binary(z, target, rule=rule):
            return binary_cross_entropy_with_logits(z, target, rule, pos_weight=torch.ones(5))

        agree(whole(binary), binary, z, rows)
    criterion = BCEWithLogitsLoss(label_smoothing=0.1)
    agree(whole(criterion), criterion, z, rows)


def test_a_compiled_loss_follows_its_rule(batch):
    """A schedule, and one strength after the other: no stale number is left in a graph."""
    z, y = batch
    rows = nn.functional.one_hot(y, 5).double()
    criterion = CrossEntropyLoss()
    compiled = whole(criterion)
    for alpha in (0.0, 0.1, 0.2, 0.3):
        criterion.label_smoothing = alpha
        agree(compiled, criterion, z, y)
    for alpha in (0.1, 0.2, 0.3):
        criterion.rule = softhot.Prior(alpha, (1, 2, 3, 4, 5))
        agree(compiled, criterion, z, y)
        agree(compiled, criterion.eval(), z, y)
        criterion.train()

    def given(z, y, alpha):
        return cross_entropy(z, y, label_smoothing=alpha)

    compiled = whole(given)
    for target in (y, rows):
        for alpha in (0.1, 0.2, 0.3):
            agree(compiled, given, z, target, alpha)


def test_compiled_masks_and_bad_labels(batch):
    z, _ = batch
    y = torch.zeros(6, dtype=torch.int64)
    z[:, 3:] = -torch.inf

    def loss(z, y):
        return cross_entropy(z, y, label_smoothing=0.1, reduction="none")

    compiled = whole(loss)
    agree(compiled, loss, z, y)
    y[1], y[2] = 7, 4  # no error can be raised from a graph: NaN; and inf as ever
    rows = compiled(z, y)
    assert rows.isnan().tolist() == [False, True, False, False, False, False]
    assert rows[2] == torch.inf


# -------------------------------------------------------------------------------- torch.func


@rule
def test_vmap_of_grad_is_the_gradient_of_each_row(rule, batch):
    z, y = batch
    got = torch.func.vmap(torch.func.grad(lambda z, y: cross_entropy(z, y, rule)))(z, y)
    z.requires_grad_()
    loss = cross_entropy(z, y, rule, reduction="sum")
    assert torch.allclose(got, torch.autograd.grad(loss, z)[0], rtol=0, atol=1e-15)


@rule
def test_second_derivatives_by_every_route(rule, batch):
    z, y = batch[0][0], batch[1][0]

    def loss(z):
        return cross_entropy(z, y, rule)

    hessian = torch.func.hessian(loss)(z)
    assert torch.allclose(torch.func.jacrev(torch.func.jacrev(loss))(z), hessian, atol=1e-15)
    assert torch.allclose(torch.autograd.functional.hessian(loss, z), hessian, atol=1e-15)
    if not rule.penalties and rule.base.terms.__func__ is softhot.core.rule.Base.terms:
        p = z.softmax(-1)
        assert torch.allclose(hessian, p.diag() - p.outer(p), atol=1e-15)


def test_at_ties_the_hessian_is_right():
    """Zero logits, as at the start of many trainings: every class is the largest."""
    hessian = torch.func.hessian(lambda z: cross_entropy(z, torch.tensor(1), label_smoothing=0.1))
    assert torch.allclose(hessian(torch.zeros(4)), torch.eye(4) / 4 - 1 / 16)


@rule
def test_double_backward(rule, batch):
    z, y = batch
    options = {"where": torch.arange(6) != 3, "weight": torch.rand(5, dtype=torch.float64)}
    for reduction in ("none", "mean"):
        assert torch.autograd.gradgradcheck(
            lambda z, r=reduction: cross_entropy(z, y, rule, reduction=r, **options),
            z.clone().requires_grad_(),
        )


def test_double_backward_of_the_binary_loss(batch):
    z, y = batch
    rows = nn.functional.one_hot(y, 5)
    z.requires_grad_()

    def loss(z):
        return binary_cross_entropy_with_logits(
            z, rows, label_smoothing=0.1, pos_weight=torch.rand(5)
        )

    torch.manual_seed(0)
    assert torch.autograd.gradcheck(lambda z: torch.manual_seed(0) and loss(z), z)
    assert torch.autograd.gradgradcheck(lambda z: torch.manual_seed(0) and loss(z), z)


def test_forward_mode(batch):
    z, y = batch
    tangent = torch.randn_like(z)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, tangent)
        got = torch.autograd.forward_ad.unpack_dual(cross_entropy(dual, y, label_smoothing=0.1))
    z.requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(z, y, label_smoothing=0.1), z)
    assert torch.allclose(got.tangent, (slope * tangent).sum())


def test_targets_weights_and_alphas_may_want_gradients(batch):
    z, y = batch
    free = torch.rand(6, 5, dtype=torch.float64, requires_grad=True)
    q = free.softmax(-1)
    loss = cross_entropy(z, q, label_smoothing=0.1)
    expected = nn.functional.cross_entropy(z, q, label_smoothing=0.1)
    grads = [torch.autograd.grad(value, free, retain_graph=True)[0] for value in (loss, expected)]
    assert torch.allclose(*grads)
    alpha = torch.full((6,), 0.1, dtype=torch.float64, requires_grad=True)
    rule = softhot.Uniform(PerSample())
    (slope,) = torch.autograd.grad(cross_entropy(z, y, rule, alpha=alpha, reduction="sum"), alpha)
    true = z.gather(1, y[:, None]).squeeze(1)
    assert torch.allclose(slope, true - z.mean(1))
    with pytest.raises(InputError, match=r"target\[0\]"):
        cross_entropy(z, y + 9, rule, alpha=alpha)


# ------------------------------------------------------------------- autocast and loss scaling


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_float32(dtype, batch):
    x, y = batch[0].float(), batch[1]
    layer = nn.Linear(5, 5)
    rows = nn.functional.one_hot(y, 5).float()
    rows = (0.75 * rows + 0.25 * rows.roll(1, 1)).requires_grad_()
    calls = (
        (y, softhot.Uniform(0.1)),
        (rows.detach(), softhot.Ordinal(0.5)),
        (rows, softhot.Ordinal(0.5)),
    )
    for target, rule in calls:
        with torch.autocast("cpu", dtype):
            z = layer(x)
            loss = cross_entropy(z, target, rule)
        assert z.dtype == dtype
        assert loss.dtype == torch.float32
        exact = cross_entropy(z.double(), target, rule)
        assert abs(loss.item() - exact.item()) < 1e-6
        (gradient,) = torch.autograd.grad(loss, z)
        assert gradient.dtype == dtype


def test_a_grad_scaler_gets_what_float32_would_give():
    """A mean over many rows in float16: without the scale its gradients would be 0."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(4096, 64, generator=random).half()
    y = torch.randint(64, (4096,), generator=random)
    for rule in (softhot.Uniform(0.1), softhot.ConfidencePenalty(0.1)):
        scaled = z.clone().requires_grad_()
        (cross_entropy(scaled, y, rule) * 65536).backward()
        exact = z.double().requires_grad_()
        (cross_entropy(exact, y, rule) * 65536).backward()
        error = (scaled.grad.double() - exact.grad).abs()
        assert (error <= 2**-11 * exact.grad.abs() + 2**-24).all()


def test_a_grad_scaler_skips_a_step_whose_logits_overflow():
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x = torch.full((2, 4), torch.inf)
    scaler.scale(cross_entropy(layer(x), torch.tensor([0, 1]), label_smoothing=0.1)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(layer.weight, before)
    assert scaler.get_scale() == 512.0


# ------------------------------------------------------------------------------- the machinery


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_any_upstream_and_any_number_of_backward_passes(dtype, reduction, batch):
    z, y = batch
    for rule in (softhot.Uniform(0.1), softhot.MaxSup(0.1)):
        logits = z.to(dtype).requires_grad_()
        exact = logits.detach().double().requires_grad_()
        loss, wide = (cross_entropy(v, y, rule, reduction=reduction) for v in (logits, exact))
        for upstream in (1.0, 0.3, -2.0):
            up = torch.full_like(loss, upstream)
            (got,) = torch.autograd.grad(loss, logits, up, retain_graph=True)
            (expected,) = torch.autograd.grad(wide, exact, up.double(), retain_graph=True)
            eps = torch.finfo(dtype).eps
            assert torch.allclose(
                got.double(), expected, rtol=2 * eps, atol=2e-7 if eps > 1e-9 else 1e-15
            )
        last, _ = torch.autograd.grad(loss.sum() * 3, (logits, logits)), None
        assert torch.allclose(
            last[0].double(), 3 * torch.autograd.grad(wide.sum(), exact)[0], rtol=2 * eps, atol=1e-6
        )


def test_in_a_checkpoint_and_with_accumulation(batch):
    z, y = batch
    layer = nn.Linear(5, 5).double()
    plain = cross_entropy(layer(z), y, label_smoothing=0.1)
    plain.backward()
    whole = layer.weight.grad.clone()
    layer.zero_grad()
    head = checkpoint(
        lambda z: cross_entropy(layer(z), y, label_smoothing=0.1), z, use_reentrant=False
    )
    head.backward()
    assert torch.allclose(layer.weight.grad, whole, rtol=0, atol=1e-15)
    layer.zero_grad()
    for part in (slice(0, 2), slice(2, 6)):
        (
            cross_entropy(layer(z[part]), y[part], label_smoothing=0.1, reduction="sum") / 6
        ).backward()
    assert torch.allclose(layer.weight.grad, whole, rtol=0, atol=1e-15)


def test_logits_changed_in_place_are_noticed(batch):
    z = batch[0].requires_grad_() * 1
    loss = cross_entropy(z, batch[1], label_smoothing=0.1)
    z.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Marked(torch.Tensor):
    """A subclass without arithmetic of its own, such as fastai and torchvision pass around."""


def test_plain_subclasses_take_the_fast_way(batch):
    z, y = batch
    expected = cross_entropy(z, y, label_smoothing=0.1)
    logits = z.as_subclass(Marked).requires_grad_()
    loss = cross_entropy(logits, y.as_subclass(Marked), label_smoothing=0.1)
    assert torch.equal(torch.Tensor(loss), expected)
    loss.backward()
    assert logits.grad.shape == z.shape


def test_meta_and_fake_tensors_give_shapes(batch):
    z, y = (tensor.to("meta") for tensor in batch)
    assert cross_entropy(z, y, label_smoothing=0.1, reduction="none").shape == (6,)
    assert cross_entropy(z, y, softhot.MaxSup(0.1)).shape == ()
    with torch._subclasses.FakeTensorMode():
        fake = torch.empty(6, 5, requires_grad=True)
        loss = cross_entropy(fake, torch.empty(6, dtype=torch.int64), label_smoothing=0.1)
        loss.backward()
        assert fake.grad.shape == (6, 5)
