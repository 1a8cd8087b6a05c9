"""linear_cross_entropy is cross_entropy of F.linear, in value and in all three gradients."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import softhot
from softhot import InputError, PerClass, PerSample
from softhot.kernels import filtered
from softhot.torch import (
    CrossEntropyLoss,
    LinearCrossEntropyLoss,
    cross_entropy,
    with_smoothing,
)
from softhot.torch import linear_cross_entropy as linear

N, H, C = 13, 6, 11
CHUNK = C * 8 * 4  # bytes of four float64 rows of logits
RULES = (
    softhot.Uniform(0.0),
    softhot.Uniform(0.1),
    softhot.Uniform(PerClass(np.linspace(0, 0.4, C))),
    softhot.Uniform(PerSample()),
    softhot.Others(0.1),
    softhot.NegativeUniform(-0.2),
    softhot.Prior(0.2, tuple(range(1, C + 1))),
    softhot.Ordinal(0.5),
    softhot.Teacher(0.5, 2.0),
    softhot.Online(0.3),
    softhot.Focal(2.0),
    softhot.MaxSup(0.1),
    softhot.Uniform(0.1) + softhot.MaxSup(0.1) + softhot.ConfidencePenalty(0.2),
    softhot.Margin(0.1, 1.0),
    softhot.Uniform(0.1) + softhot.ZLoss(0.01),
)
WEIGHT = torch.linspace(0.5, 2, C, dtype=torch.float64)
# What comes with a call: all of linear's options, and what they are called in the dense loss.
CALLS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "rows": {"reduction": "none"},
    "ignored": {"ignore_index": 3},
    "everything ignored": {"where": torch.zeros(N, dtype=torch.bool)},
    "where": {"where": torch.arange(N) % 3 != 1, "reduction": "none"},
    "weight": {"class_weight": WEIGHT},
    "weight by class": {"class_weight": WEIGHT, "weighting": "class", "reduction": "sum"},
    "weight and ignored": {"class_weight": WEIGHT, "ignore_index": 3},
}


def inputs(dtype=torch.float64, bias=True, shape=(N, H, C), seed=0):
    random = torch.Generator().manual_seed(seed)
    n, h, c = shape
    hidden = torch.randn(n, h, generator=random, dtype=torch.float64)
    weight = torch.randn(c, h, generator=random, dtype=torch.float64)
    made = [hidden, weight, torch.randn(c, generator=random, dtype=torch.float64)]
    labels = torch.randint(c, (n,), generator=random)
    return [t.to(dtype).requires_grad_() for t in made[: 3 if bias else 2]], labels


def from_batch(rule):
    random = torch.Generator().manual_seed(1)
    given = {}
    if isinstance(rule.base.__dict__.get("alpha"), PerSample):
        given["alpha"] = torch.rand(N, generator=random, dtype=torch.float64) / 2
    if rule.base.PRIOR == "by_row":
        given["prior"] = torch.rand(N, C, generator=random, dtype=torch.float64).softmax(-1)
    elif rule.base.FROM_BATCH:
        given["prior"] = torch.rand(C, C, generator=random, dtype=torch.float64).softmax(-1)
    return given


def dense(hidden, weight, labels, bias=None, rule=None, *, class_weight=None, memory=None, **given):
    return cross_entropy(F.linear(hidden, weight, bias), labels, rule, weight=class_weight, **given)


def slopes(loss, tensors, **options):
    upstream = torch.linspace(-1, 2, loss.numel()).reshape(loss.shape).to(loss.dtype)
    return torch.autograd.grad(loss, tensors, upstream if loss.ndim else None, **options)


def agree(tensors, labels, rule, tolerance, memory=CHUNK, **given):
    loss, expected = (
        function(*tensors[:2], labels, *(tensors[2:] or [None]), rule, memory=memory, **given)
        for function in (linear, dense)
    )
    assert loss.dtype == expected.dtype
    assert loss.shape == expected.shape
    assert torch.allclose(loss, expected, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(slopes(loss, tensors), slopes(expected, tensors), strict=True):
        assert ours.dtype == theirs.dtype
        scale = float(theirs.abs().max()) or 1.0
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance * scale), (rule, given)


@pytest.mark.filterwarnings("ignore::softhot.SofthotWarning")  # of class weights in the target
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_it_is_the_dense_loss(rule):
    for name, given in CALLS.items():
        if name == "weight by class" and isinstance(rule, softhot.Focal):
            continue
        tensors, labels = inputs(bias=name != "sum")
        agree(tensors, labels, rule, 1e-12, **given, **from_batch(rule))


@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 2), (64, 16, 256), (67, 17, 263)], ids=str)
def test_shapes_and_chunks(shape):
    tensors, labels = inputs(shape=shape)
    row = shape[2] * 8
    for memory in (1, 3 * row, 10**9):
        agree(tensors, labels, softhot.Uniform(0.1), 1e-12, memory)
    single, labels = inputs(torch.float32, shape=shape)
    agree(single, labels, softhot.Uniform(0.1), 3e-6, row)


def test_leading_axes_and_strides():
    (hidden, weight), labels = inputs(bias=False, shape=(24, H, C))
    stacked = hidden.detach().reshape(2, 3, 4, H).transpose(0, 2).requires_grad_()
    columns = weight.detach().T.contiguous().T.requires_grad_()
    labels = labels.reshape(2, 3, 4).transpose(0, 2)
    for reduction in ("mean", "none"):
        loss = linear(stacked, columns, labels, label_smoothing=0.1, reduction=reduction)
        logits = F.linear(stacked, columns).movedim(-1, 1)
        expected = cross_entropy(logits, labels, label_smoothing=0.1, reduction=reduction)
        assert torch.allclose(loss, expected, rtol=1e-12)
        both = (slopes(value, (stacked, columns)) for value in (loss, expected))
        for ours, theirs in zip(*both, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_rows_that_do_not_count_may_hold_anything():
    (hidden, weight, bias), labels = inputs()
    spoiled = hidden.detach().clone()
    spoiled[[2, 7]] = torch.nan
    labels = labels.index_fill(0, torch.tensor([2, 7]), -100)
    kept = labels != -100
    spoiled.requires_grad_()
    for reduction in ("mean", "sum"):
        given = {"label_smoothing": 0.1, "reduction": reduction, "memory": CHUNK}
        loss = linear(spoiled, weight, labels, bias, **given)
        expected = linear(hidden[kept], weight, labels[kept], bias, **given)
        assert torch.allclose(loss, expected, rtol=1e-14)
        ours = slopes(loss, (spoiled, weight, bias))
        theirs = slopes(expected, (hidden, weight, bias))
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-13)


def test_a_bias_of_minus_inf_masks_a_class():
    tensors, labels = inputs()
    labels = labels.clamp(min=4)
    for rule, dtype in itertools.product(RULES[1:7:3], (torch.float64, torch.float32)):
        given = [t.detach().to(dtype) for t in tensors]
        given[2][:4] = -torch.inf
        given = [t.requires_grad_() for t in given]
        agree(given, labels, rule, 1e-12 if dtype == torch.float64 else 3e-6)
        loss = linear(given[0], given[1], labels, given[2], rule, memory=CHUNK)
        assert (slopes(loss, given)[1][:4] == 0).all()


def test_what_the_kernel_turns_down_is_computed_all_the_same():
    tensors, labels = inputs(torch.float32)
    with torch.no_grad():
        tensors[0][5] = torch.inf
    loss = linear(*tensors[:2], labels, tensors[2], label_smoothing=0.1, memory=CHUNK)
    assert loss.isnan()  # as a GradScaler expects
    assert slopes(loss, tensors)[0][5].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_errs_no_more_than_all_logits_at_once(dtype):
    shape = (64, 32, 523)
    for seed, chunks in ((0, 1), (1, 4), (2, 16)):
        tensors, labels = inputs(dtype, shape=shape, seed=seed)
        exact = [t.detach().double().requires_grad_() for t in tensors]
        rule, memory = softhot.Uniform(0.1), 64 // chunks * 523 * 2
        truth = slopes(dense(*exact[:2], labels, exact[2], rule), exact)
        ours = slopes(linear(*tensors[:2], labels, tensors[2], rule, memory=memory), tensors)
        logits = F.linear(*tensors)
        naive = slopes(F.cross_entropy(logits, labels, label_smoothing=0.1), tensors)
        eps = torch.finfo(dtype).eps
        for a, b, t in zip(ours, naive, truth, strict=True):
            mine, other = ((x.double() - t).norm() / t.norm() for x in (a, b))
            # A sum over up to four chunks is rounded once for each.
            assert mine <= other + (eps if chunks > 1 else eps / 4), (seed, mine, other)


def test_small_gradients_survive_float16_with_a_scaled_loss():
    (hidden, weight), labels = inputs(torch.float16, bias=False, shape=(64, 16, 2000))
    scale = 2.0**14
    loss = linear(hidden, weight, labels, label_smoothing=0.1) * scale
    ours = slopes(loss, (hidden, weight))
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    truth = slopes(dense(*exact, labels, None, softhot.Uniform(0.1)) * scale, exact)
    for a, t in zip(ours, truth, strict=True):
        assert (a.double() - t).norm() / t.norm() < 2e-3


def test_autocast_is_that_of_the_layer():
    tensors, labels = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear(*tensors[:2], labels, tensors[2], label_smoothing=0.1, memory=CHUNK)
    narrow = [t.detach().bfloat16().requires_grad_() for t in tensors]
    expected = linear(*narrow[:2], labels, narrow[2], label_smoothing=0.1, memory=CHUNK)
    assert torch.equal(loss, expected)
    for ours, theirs in zip(slopes(loss, tensors), slopes(expected, narrow), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs.float())


def test_gradients_may_wait_for_the_backward_pass():
    tensors, labels = inputs()
    given = {"label_smoothing": 0.1, "memory": CHUNK, "ignore_index": 3}
    now, later = (
        linear(*tensors[:2], labels, tensors[2], recompute=recompute, **given)
        for recompute in (False, True)
    )
    assert torch.equal(now, later)
    assert [x for x in later.grad_fn.saved_tensors[3:] if x is not None] == []
    for a, b in zip(slopes(now * 3, tensors), slopes(later * 3, tensors), strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-15)


def test_the_gradient_may_be_used_twice():
    tensors, labels = inputs()
    loss = linear(*tensors[:2], labels, tensors[2], label_smoothing=0.1, memory=CHUNK)
    first = slopes(loss * 3, tensors, retain_graph=True)
    second = slopes(loss * 3, tensors)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()


def test_only_what_is_wanted_is_computed():
    for wanted in itertools.product((True, False), repeat=3):
        tensors, labels = inputs()
        for tensor, want in zip(tensors, wanted, strict=True):
            tensor.requires_grad_(want)
        loss = linear(*tensors[:2], labels, tensors[2], label_smoothing=0.1, memory=CHUNK)
        assert loss.requires_grad == any(wanted)
        if any(wanted):
            loss.backward()
        assert [t.grad is not None for t in tensors] == list(wanted)


def test_gradcheck():
    tensors, labels = inputs(shape=(4, 3, 5))

    def loss(hidden, weight, bias, reduction="mean", rule=RULES[1]):
        return linear(hidden, weight, labels, bias, rule, reduction=reduction, memory=80)

    assert torch.autograd.gradcheck(loss, tensors)
    assert torch.autograd.gradcheck(lambda *t: loss(*t, "none", softhot.MaxSup(0.1)), tensors)
    assert torch.autograd.gradgradcheck(loss, tensors)


def test_transforms_see_the_operations():
    tensors, labels = inputs()
    grads = torch.func.grad(
        lambda w: linear(tensors[0], w, labels, label_smoothing=0.1), argnums=0
    )(tensors[1].detach())
    loss = linear(*tensors[:2], labels, label_smoothing=0.1)
    assert torch.allclose(grads, slopes(loss, tensors[1:2])[0], rtol=1e-12)


def test_the_module_is_a_layer_and_a_loss():
    torch.manual_seed(0)
    weight = torch.rand(C)
    criterion = LinearCrossEntropyLoss(H, C, bias=True, label_smoothing=0.1, weight=weight)
    apart = CrossEntropyLoss(label_smoothing=0.1, weight=weight)
    hidden, labels = torch.randn(N, H), torch.randint(C, (N,))
    for mode in (True, False):
        criterion.train(mode)
        apart.train(mode)
        expected = apart(criterion.linear(hidden), labels)
        assert torch.allclose(criterion(hidden, labels), expected, rtol=1e-6)
    state = torch.nn.LinearCrossEntropyLoss(H, C, bias=True, weight=weight).state_dict()
    criterion.load_state_dict(state)
    criterion.label_smoothing = 0.2
    assert criterion.rule == softhot.Uniform(0.2)
    assert "rule=Uniform(alpha=0.2)" in repr(criterion)


# ------------------------------------------------------------------ smoothing for hard kernels


@pytest.mark.parametrize("rule", RULES[:5] + RULES[6:7], ids=str)
def test_any_hard_kernel_can_smooth(rule):
    for reduction, masked in itertools.product(("mean", "sum", "none"), (False, True)):
        tensors, labels = inputs(shape=(N, H, C))
        labels = labels.clamp(min=2).index_fill(0, torch.tensor([4]), -100)
        if masked:
            bias = tensors[2].detach()
            bias[:2] = -torch.inf
            tensors[2] = bias.requires_grad_()
        with torch.no_grad():
            tensors[0][4] = torch.nan

        def kernel(hidden, weight, labels, bias, reduction=reduction):
            # As a fused kernel does, it leaves an ignored row alone altogether.
            kept = hidden.where((labels != -100).unsqueeze(-1), 0)
            logits = F.linear(kept, weight, bias)
            return cross_entropy(logits, labels, reduction=reduction)

        smoothed = with_smoothing(kernel, reduction=reduction)
        given = from_batch(rule)
        loss = smoothed(*tensors[:2], labels, tensors[2], rule, **given)
        expected = linear(*tensors[:2], labels, tensors[2], rule, reduction=reduction, **given)
        assert torch.allclose(loss, expected, rtol=1e-12, atol=1e-12)
        again = slopes(loss, tensors, retain_graph=True)
        for a, b, c in zip(slopes(loss, tensors), slopes(expected, tensors), again, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-12), (rule, reduction, masked)
            assert torch.equal(a, c)


def test_what_a_hard_kernel_cannot_do_is_said():
    (hidden, weight), labels = inputs(bias=False)
    smoothed = with_smoothing(lambda h, w, y, b: F.cross_entropy(F.linear(h, w, b), y))
    for rule in (softhot.MaxSup(0.1), softhot.Focal(2.0), softhot.Ordinal(0.5)):
        with pytest.raises(InputError, match="Uniform, Others or Prior"):
            smoothed(hidden, weight, labels, None, rule)
    with pytest.raises(InputError, match="alpha"):
        smoothed(hidden, weight, labels, None, softhot.Uniform(PerSample()))
    with pytest.raises(InputError, match="alpha"):
        smoothed(hidden, weight, labels, label_smoothing=0.1, alpha=torch.rand(N))


# ------------------------------------------------------------------------ filtered gradients


def near_its_optimum(alpha=0.1, shape=(128, 64, 32768), seed=0):
    """p - q of a head whose predictions scatter around the smoothed targets."""
    n, h, c = shape
    random = torch.Generator().manual_seed(seed)
    made = {"generator": random, "dtype": torch.float64}
    weight = torch.randn(c, h, **made) / h**0.5 + 0.3 * torch.randn(h, **made)
    labels = torch.randint(c, (n,), generator=random)
    q = torch.full((n, c), alpha / c, dtype=torch.float64)
    q[torch.arange(n), labels] += 1 - alpha
    p = (q.log() + 0.5 * torch.randn(n, c, **made)).softmax(-1)
    return p, q, weight, torch.randn(n, h, **made), labels


def test_block_means_keep_what_filters_lose():
    alpha, limit = 0.1, torch.tensor(2.0**-12, dtype=torch.float64)
    p, q, weight, hidden, labels = near_its_optimum(alpha)
    truth = [(p - q) @ weight, (p - q).T @ hidden]

    def errors(dz, compensate, more=None):
        dh, dw = torch.empty_like(hidden), torch.zeros_like(weight)
        kept = filtered.products(dz, weight, hidden, limit, dh=dh, dw=dw, compensate=compensate)
        assert 0.1 < kept < 0.9  # the filter has something to do
        dh = dh if more is None else dh + more
        return [float((a - b).norm() / b.norm()) for a, b in zip((dh, dw), truth, strict=True)]

    hard = p.clone()
    hard[torch.arange(len(p)), labels] -= 1
    whole = errors(p - q, False)
    rank_one = errors(hard, False, alpha * (weight[labels] - weight.mean(0)))
    means = errors(p - q, True)
    assert whole[0] > 0.2  # the mass alpha is gone: both filters err by the gradient itself
    assert rank_one[0] > 0.2
    assert means[0] < 0.01
    assert means[1] < whole[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_filter_that_keeps_everything_changes_nothing(dtype):
    tensors, labels = inputs(dtype, shape=(150, 8, 300))
    given = {"label_smoothing": 0.1, "memory": 100 * 300 * tensors[0].element_size()}
    exact = linear(*tensors[:2], labels, tensors[2], **given)
    loss = linear(*tensors[:2], labels, tensors[2], filter=0.0, **given)
    assert torch.equal(loss, exact)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    for ours, theirs in zip(slopes(loss, tensors), slopes(exact, tensors), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance)
    rough = linear(*tensors[:2], labels, tensors[2], filter=0.9, reduction="none", **given)
    assert torch.isfinite(slopes(rough, tensors)[1]).all()


def test_mistakes_are_named():
    (hidden, weight, bias), labels = inputs()

    def message(*arguments, **options):
        with pytest.raises(InputError) as error:
            linear(*arguments, **options)
        return str(error.value)

    wrong = labels.clone()
    wrong[9] = C
    assert "labels[9]" in message(hidden, weight, wrong, memory=CHUNK)
    assert "(C, 6)" in message(hidden, weight.T, labels)
    assert "labels" in message(hidden, weight, torch.rand(N, C))
    assert "bias" in message(hidden, weight, labels, bias[:3])
    assert "torch.float64" in message(hidden, weight.float(), labels)
    assert "hidden" in message(hidden.long(), weight, labels)
    assert "weight" in message(hidden, weight.detach().numpy(), labels)
    assert "label_smoothing" in message(
        hidden, weight, labels, None, softhot.Others(0.1), label_smoothing=0.1
    )
    assert "filter" in message(hidden, weight, labels, filter=-1)
    assert "memory" in message(hidden, weight, labels, memory=0)
    assert "alpha" in message(hidden, weight, labels, None, softhot.Uniform(PerSample()))
    assert "alpha" in message(
        *(hidden, weight, labels, None, softhot.Uniform(PerSample())), alpha=torch.rand(3)
    )
    assert "weighting" in message(hidden, weight, labels, weighting="class")
    assert "where" in message(hidden, weight, labels, where=torch.zeros(N))
    assert "reduction" in message(hidden, weight, labels, reduction="avg")


MEMORY = """
import json, torch
from benchmarks.linear import peak
torch.set_num_threads(1)
print(json.dumps([peak(name, (512, 64, 2**15)) for name in ("torch", "softhot")]))
"""


def test_memory_beyond_the_gradients_is_a_tenth():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    theirs, ours = json.loads(done.stdout)
    assert ours <= max(theirs / 10, 2**25 / 1e6 + 4), (ours, theirs)
