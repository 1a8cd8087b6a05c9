"""`softhot.torch.cross_entropy` on the processor: compiled code, and plain PyTorch without it.

Every test runs in each instruction set of this machine and on the portable way, which is taken
where there is no compiled kernel.
"""

import re
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import softhot
import softhot.kernels
from softhot import (
    ConfidencePenalty,
    InputError,
    MaxSup,
    NegativeUniform,
    Others,
    PerClass,
    PerSample,
    Prior,
    Uniform,
)
from softhot.kernels import buffers, native
from softhot.torch import CrossEntropyLoss, cross_entropy

# torch's own, of parts of itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
ENTRIES = native.load(native.LIBRARY) if native.LIBRARY.exists() else {}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WIDTHS = (10, 33, 5000)


class Way:
    """Which code runs, and how often the compiled one has been called."""

    def __init__(self, name):
        self.name, self.done, self.refused = name, 0, 0

    def __call__(self, call):
        status = ENTRIES[self.name](call)
        self.done += status == 0
        self.refused += status != 0
        return status


@pytest.fixture(params=[*sorted(ENTRIES), "portable"])
def way(request, monkeypatch):
    found = Way(request.param)
    library = native.Library(found if request.param in ENTRIES else None, request.param)
    monkeypatch.setattr(native, "library", lambda: library)
    monkeypatch.setattr(softhot.kernels, "library", lambda: library)
    monkeypatch.setattr(native, "LOGITS_A_THREAD", 1)  # threads for the smallest batch
    return found


def batch(n=19, k=10, dtype=torch.float32, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, k, generator=generator)
    return logits.to(dtype), torch.randint(k, (n,), generator=generator)


def both(logits, labels, *rule, **options):
    """Loss and gradient of its sum."""
    logits = logits.detach().requires_grad_()
    loss = cross_entropy(logits, labels, *rule, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


def exact(logits, labels, *rule, **options):
    """The same in float64, which the compiled kernel doesn't take."""
    options = {k: v.double() if _is_float(v) else v for k, v in options.items()}
    return both(logits.double(), labels, *rule, **options)


def _is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def assert_right(got, right):
    loss, gradient = got
    wide, slope = right
    torch.testing.assert_close(loss, wide.float(), rtol=4e-6, atol=1e-6)
    # The core's way rounds to half precision twice: with the loss, and times the upstream factor.
    eps = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[gradient.dtype]
    atol = 2e-6 * slope.abs().max() + (2**-24 if gradient.dtype == torch.float16 else 0)
    torch.testing.assert_close(gradient.double(), slope, rtol=eps, atol=float(atol), equal_nan=True)


# ----------------------------------------------------------------------------------- numbers

SOME = torch.Generator().manual_seed(1)
OPTIONS = {
    "plain": lambda n, k: ((), {}),
    "uniform": lambda n, k: ((Uniform(0.1),), {}),
    "others": lambda n, k: ((Others(0.1),), {}),
    "negative": lambda n, k: ((NegativeUniform(-0.3),), {}),
    "MaxSup": lambda n, k: ((Uniform(0.1) + MaxSup(0.2),), {}),
    "confidence": lambda n, k: ((Uniform(0.1) + ConfidencePenalty(0.3),), {}),
    "prior": lambda n, k: ((Prior(0.2, tuple(range(1, k + 1))),), {}),
    "by row": lambda n, k: ((Others(PerSample()),), {"alpha": torch.rand(n, generator=SOME) / 2}),
    "by class": lambda n, k: ((Uniform(PerClass([i / k / 2 for i in range(k)])),), {}),
    "weights": lambda n, k: ((Uniform(0.1),), {"weight": torch.rand(k, generator=SOME)}),
    "weights in the target": lambda n, k: (
        (Uniform(0.1),),
        {"weight": torch.rand(k, generator=SOME) + 0.5, "weighting": "class"},
    ),
    "ignored": lambda n, k: ((Uniform(0.1),), {"ignore_index": 1}),
    "where": lambda n, k: ((Uniform(0.1),), {"where": torch.arange(n) % 3 > 0}),
    "all of it": lambda n, k: (
        (Others(PerSample()) + MaxSup(0.1) + ConfidencePenalty(0.1),),
        {
            "alpha": torch.rand(n, generator=SOME) / 2,
            "weight": torch.rand(k, generator=SOME),
            "ignore_index": 2,
            "where": torch.arange(n) % 3 > 0,
        },
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(way, name):
    for k in WIDTHS:
        for dtype in DTYPES if k == 33 else DTYPES[:1]:
            logits, labels = batch(k=k, dtype=dtype)
            rule, options = OPTIONS[name](len(labels), k)
            for reduction in ("mean", "none"):
                given = {**options, "reduction": reduction}
                assert_right(
                    both(logits, labels, *rule, **given), exact(logits, labels, *rule, **given)
                )
    if way.name != "portable":
        assert way.done, "the compiled kernel was not asked"
        assert not way.refused


def test_weights_that_move_the_optimum_warn_all_the_same(way):
    logits, labels = batch()
    weight = torch.linspace(0.01, 10, 10)
    options = {"weight": weight, "weighting": "class", "label_smoothing": 0.1}
    with pytest.warns(softhot.SofthotWarning):
        got = both(logits, labels, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", softhot.SofthotWarning)
        assert_right(got, exact(logits, labels, **options))


CHANGES = {
    "1e4 apart": lambda z: 1e4 * z.sign(),
    "offset": lambda z: z + 1e4,
    "missing classes": lambda z: z.masked_fill(z < -2, -torch.inf),
    "equal": torch.zeros_like,
}


@pytest.mark.parametrize("change", CHANGES)
def test_extremes(way, change):
    for k in WIDTHS:
        logits, labels = batch(k=k)
        logits = CHANGES[change](logits)
        true = labels.unsqueeze(1)
        logits.scatter_(1, true, logits.gather(1, true).clamp(min=-1e4))
        for rule in (Uniform(0.1), Others(0.1), Uniform(0.1) + MaxSup(0.2)):
            assert_right(both(logits, labels, rule), exact(logits, labels, rule))


@pytest.mark.parametrize("dtype", DTYPES)
def test_error_is_no_larger_than_torch_s(way, dtype):
    for k in (10, 1000, 32000):
        logits, labels = batch(32, k, dtype)
        _, slope = exact(logits, labels, label_smoothing=0.1)
        z = logits.clone().requires_grad_()
        F.cross_entropy(z, labels, label_smoothing=0.1).backward()
        theirs = (z.grad.double() - slope).abs()
        ours = (both(logits, labels, label_smoothing=0.1)[1].double() - slope).abs()
        unit = torch.finfo(dtype).eps / 2 * slope.abs()  # what storing the result costs
        assert ours.max() <= max(theirs.max(), unit.max()) + 2**-26
        assert ours.mean() <= max(theirs.mean(), unit.mean()) + 2**-28


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "rule", [Uniform(0.1), MaxSup(0.1), ConfidencePenalty(0.2), Others(0.1)], ids=str
)
def test_rows_that_are_not_numbers_spoil_only_themselves(way, rule, inplace):
    for k in WIDTHS:
        logits, labels = batch(k=k)
        whole = logits.clone()
        logits[1, 3], logits[5, k - 1], logits[7, 0] = torch.nan, torch.inf, -torch.inf
        logits[9] = -torch.inf
        logits[11, labels[11]] = -torch.inf
        labels[7] = 1
        labels[12], logits[12] = -100, torch.nan
        z = logits.clone().requires_grad_()
        loss = cross_entropy(z * 1, labels, rule, reduction="sum", inplace=inplace)
        assert loss.isnan()
        rows = cross_entropy(z * 1, labels, rule, reduction="none", inplace=inplace)
        (slopes,) = torch.autograd.grad(rows.sum(), z)
        bad = torch.tensor([1, 5, 9])
        assert not rows[bad].isfinite().any()
        assert slopes[bad[:2]].isnan().any(1).all()
        assert rows[11] == torch.inf
        assert slopes[11].isfinite().all()
        assert rows[12] == 0
        assert (slopes[12] == 0).all()
        good = [i for i in range(19) if i not in (1, 5, 7, 9, 11, 12)]
        right, slope = exact(whole[good], labels[good], rule, reduction="none")
        assert_right((rows[good].detach(), slopes[good]), (right, slope))


# ---------------------------------------------------------------------------------- in place


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_in_place_the_gradient_is_where_the_logits_were(way, dtype, reduction):
    for k in WIDTHS:
        logits, labels = batch(k=k, dtype=dtype)
        labels[3] = -100
        options = {"label_smoothing": 0.1, "reduction": reduction}
        z = logits.clone().requires_grad_()
        outputs = z * 1
        at = outputs.data_ptr()
        loss = cross_entropy(outputs, labels, **options, inplace=True)
        found = []
        outputs.register_hook(lambda slope, found=found: found.append(slope.data_ptr()))
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        assert found == [at]
        right = both(logits, labels, **options)
        assert torch.equal(loss.detach(), right[0])
        assert torch.equal(gradient, right[1])


def test_in_place_nothing_else_gets_wrong_numbers(way):
    logits, labels = batch()
    loss = CrossEntropyLoss(label_smoothing=0.1, inplace=True)
    with pytest.raises(InputError, match="inplace must be False for logits that no operation"):
        loss(logits.clone().requires_grad_(), labels)
    z = logits.clone().requires_grad_()
    with torch.no_grad():
        loss(z, labels)
    assert torch.equal(z, logits)
    exponentials = z.exp()  # which its gradient needs
    value = loss(exponentials, labels)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()
    with pytest.raises(InputError, match="inplace must be False where the gradient is diff"):
        torch.autograd.grad(loss(z * 1, labels), z, create_graph=True)
    outputs = z * 1
    with pytest.raises(InputError, match=r"target\[2\]"):
        loss(outputs, labels.index_fill(0, torch.tensor([2]), 10))
    assert torch.equal(outputs, z)


def test_in_place_two_passes_give_the_same(way):
    for dtype in DTYPES:
        logits, labels = batch(dtype=dtype)
        for reduction in ("mean", "none"):
            z = logits.clone().requires_grad_()
            options = {"label_smoothing": 0.1, "reduction": reduction}
            loss = cross_entropy(z * 1, labels, **options, inplace=True).sum()
            (first,) = torch.autograd.grad(loss, z, retain_graph=True)
            kept = first.clone()
            first.zero_()
            (second,) = torch.autograd.grad(loss, z)
            assert torch.equal(kept, second)
            assert torch.equal(kept, both(logits, labels, **options)[1])


def test_where_nothing_can_be_overwritten_nothing_is(way):
    logits, labels = batch()
    for change, target, rule in (
        (lambda z: z * 1, labels, Prior(0.1, tuple(range(1, 11)))),
        (lambda z: z * 1, F.one_hot(labels, 10).float(), Uniform(0.1)),
        (lambda z: z.T.contiguous().T, labels, Uniform(0.1)),
        (lambda z: z[:1].expand(19, 10), labels, Uniform(0.1)),
    ):
        z = logits.clone().requires_grad_()
        outputs = change(z)
        before = outputs.detach().clone()
        loss = cross_entropy(outputs, target, rule, inplace=True)
        assert torch.equal(outputs, before)
        (slope,) = torch.autograd.grad(loss, outputs)
        torch.testing.assert_close(slope, both(before, target, rule)[1])
    z = logits.clone().requires_grad_()
    images = z.reshape(1, 19, 10).movedim(2, 1).contiguous()
    loss = cross_entropy(images, labels[None], label_smoothing=0.1, inplace=True)
    (slope,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(slope, both(logits, labels, label_smoothing=0.1)[1])


# ----------------------------------------------------------------------------------- memory


def test_a_gradient_is_used_again_only_when_nobody_holds_it(way):
    logits, labels = batch(32, 1000)
    buffers.release()

    def gradient(scale):
        z = (scale * logits).requires_grad_()
        cross_entropy(z, labels, label_smoothing=0.1).backward()
        return z.grad

    first = gradient(1.0)
    at, before = first.data_ptr(), first.clone()
    second = gradient(2.0)
    assert second.data_ptr() != at
    assert torch.equal(first, before)
    part = first[3, 5:7]
    del first, second
    third = gradient(3.0)
    assert third.data_ptr() != at
    assert torch.equal(part, before[3, 5:7])
    if way.name != "portable":
        del part, third
        assert gradient(1.0).data_ptr() in {
            block.ctypes.data + -block.ctypes.data % buffers.ALIGNMENT for block in buffers._blocks
        }
    buffers.release()


def test_gradients_returned_twice_are_two(way):
    logits, labels = batch()
    z = logits.clone().requires_grad_()
    loss = cross_entropy(z, labels, label_smoothing=0.1)
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    kept = first.clone()
    first.mul_(2)
    assert torch.equal(torch.autograd.grad(loss, z)[0], kept)


# ---------------------------------------------------------------------------------- machinery


def test_what_sees_the_operations_falls_back(way):
    logits, labels = batch(6, 5)

    def loss(z, y=labels):
        return cross_entropy(z, y, label_smoothing=0.1)

    p = logits.softmax(-1)
    single = logits[0], labels[0]
    hessian = torch.func.hessian(lambda z: loss(z[None], single[1][None]))(single[0])
    torch.testing.assert_close(hessian, p[0].diag() - p[0].outer(p[0]), atol=1e-6, rtol=1e-5)
    grads = torch.func.vmap(torch.func.grad(lambda z, y: loss(z[None], y[None])))(logits, labels)
    z = logits.clone().requires_grad_()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, torch.ones_like(logits))
        assert torch.autograd.forward_ad.unpack_dual(loss(dual)).tangent.abs() < 1e-6
    assert way.done == 0
    (first,) = torch.autograd.grad(loss(z), z, create_graph=True)
    torch.testing.assert_close(grads / 6, first.detach(), atol=1e-6, rtol=1e-5)
    (second,) = torch.autograd.grad(first[0, 1], z)
    torch.testing.assert_close(second[0], hessian[1] / 6, atol=1e-6, rtol=1e-5)
    assert way.done == (way.name != "portable")


def test_a_compiled_caller_gets_a_graph(way):
    if way.name not in ("baseline", "portable"):
        return  # the graph knows no instruction sets
    logits, labels = batch()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda z, y: cross_entropy(z * 1, y, label_smoothing=0.1, inplace=True),
        fullgraph=True,
        backend="aot_eager",
    )
    z = logits.clone().requires_grad_()
    loss = compiled(z, labels)
    got = loss.detach(), torch.autograd.grad(loss, z)[0]
    assert way.done == 0
    assert_right(got, exact(logits, labels, label_smoothing=0.1))


class Marked(torch.Tensor):
    pass


def test_tensors_that_are_no_plain_rows_go_another_way(way):
    logits, labels = batch()
    right = exact(logits, labels, label_smoothing=0.1)
    minus = torch.complex(torch.zeros_like(logits), -logits).conj().imag  # its sign is a flag
    assert minus.is_neg()
    for z, y in (
        (logits.as_subclass(Marked), labels),
        (minus, labels),
        (logits, labels.int()),
        (logits.T.contiguous().T, labels),
        (torch.stack([logits, logits], 2)[..., 0], labels),
    ):
        before = way.done
        assert_right(tuple(map(torch.Tensor, both(z, y, label_smoothing=0.1))), right)
        assert way.done == before or type(z) is Marked
    done = way.done
    wide = torch.full((19, 12), torch.nan)
    wide[:, 1:11] = logits
    assert_right(both(wide[:, 1:11], torch.stack([labels, labels], 1)[:, 0], Uniform(0.1)), right)
    assert way.done == done + (way.name != "portable")


def test_bad_labels_are_named(way):
    logits, labels = batch()
    for bad in (10, -1, 2**33):
        with pytest.raises(InputError, match=r"target\[4\]"):
            both(logits, labels.index_fill(0, torch.tensor([4]), bad), label_smoothing=0.1)
    alpha = torch.full((19,), 0.1).index_fill(0, torch.tensor([3]), 1.5)
    with pytest.raises(InputError, match=r"alpha must be"):
        both(logits, labels, Uniform(PerSample()), alpha=alpha)


def test_under_autocast(way):
    x, labels = batch(k=5)
    layer = nn.Linear(5, 5)
    for dtype in (torch.bfloat16, None):
        with torch.autocast("cpu", dtype) if dtype else nullcontext():
            z = layer(x)
            loss = cross_entropy(z, labels, label_smoothing=0.1, inplace=True)
        right = both(layer(x).to(z.dtype).detach(), labels, label_smoothing=0.1)[0]
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.detach(), right, atol=2e-2, rtol=0)
        loss.backward()


def test_many_callers_at_once(way):
    """The interpreter is free while the kernel runs, and each call's numbers are its own."""
    batches = [batch(64, 1000, seed=seed) for seed in range(4)]
    right = [both(*b, label_smoothing=0.1) for b in batches]
    wrong = []

    def work(i):
        for _ in range(8):
            got = both(*batches[i], label_smoothing=0.1)
            if not all(map(torch.equal, got, right[i])):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_are_torch_s_own():
    """One OpenMP library is loaded, and it is the one that libtorch leans on."""
    maps = Path("/proc/self/maps")
    if not (ENTRIES and maps.exists()):
        return
    both(*batch(64, 2000), label_smoothing=0.1)
    assert native.any_pool() == native._torch_pool() != 0
    found = set(re.findall(r"\S*/lib(?:gomp|omp|iomp)\S*", maps.read_text()))
    here = [name for name in found if "torch" in name]
    assert len(here) <= 1
    start = min(
        int(line.split("-")[0], 16)
        for line in maps.read_text().splitlines()
        if re.search(r"lib(gomp|omp|iomp)", line) and (not here or here[0] in line)
    )
    assert 0 < native.any_pool() - start < 2**24
