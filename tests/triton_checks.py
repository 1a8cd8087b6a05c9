"""What tests/test_kernels_triton.py runs in a process of its own, in Triton's interpreter.

``python triton_checks.py`` goes through all checks and prints, as JSON, what each has to say: an
empty string, or the traceback.
"""

import itertools
import json
import sys
import time
import traceback
import warnings
from dataclasses import replace

import interpreter  # noqa: F401  # isort: skip  (it makes Triton run here; so it comes first)
import numpy as np
import torch

import softhot
from softhot import PerClass, PerSample
from softhot.kernels import filtered
from softhot.kernels.triton import launch
from softhot.kernels.triton.products import products
from softhot.torch import cross_entropy, linear_cross_entropy

N, K = 5, 37
RULES = (
    softhot.Uniform(0.0),
    softhot.Uniform(0.1),
    softhot.Uniform(PerClass(np.linspace(0, 0.4, K))),
    softhot.Uniform(PerSample()),
    softhot.Others(0.1),
    softhot.NegativeUniform(-0.2),
    softhot.Prior(0.2, tuple(range(K))),
    softhot.Ordinal(0.5),
    softhot.MaxSup(0.1),
    softhot.Uniform(0.1) + softhot.ZLoss(0.01),
    softhot.ConfidencePenalty(0.2),
    softhot.Prior(0.2, tuple(range(K))) + softhot.MaxSup(0.1) + softhot.ConfidencePenalty(0.2),
)
WEIGHT = torch.linspace(0.5, 2, K)
OPTIONS = {
    "plain": {},
    "masked": {"reduction": "none"},
    "ignored": {"ignore_index": 3},
    "where": {"where": torch.tensor([True, False, True, True, False]), "reduction": "sum"},
    "weight": {"weight": WEIGHT, "ignore_index": 3},
    "weight by class": {"weight": WEIGHT, "weighting": "class", "reduction": "none"},
}
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def batch(n=N, k=K, dtype=torch.float32, seed=0, scale=4.0, apart=0):
    """Logits, in rows that are ``apart`` from each other, and labels; label 3 is among them."""
    random = torch.Generator().manual_seed(seed)
    values = (scale * torch.randn(n, k + apart, generator=random)).to(dtype)
    labels = torch.randint(k, (n,), generator=random)
    labels[0] = min(3, k - 1)
    return values[:, :k], labels


def evaluated(z, y, rule, **options):
    """Loss and gradient, and what they should be: from the same logits in float64."""
    found = []
    if isinstance(rule.base.__dict__.get("alpha"), PerSample):
        options["alpha"] = torch.linspace(0, 0.5, len(y))
    for logits in (z.detach().requires_grad_(), z.detach().double().requires_grad_()):
        loss = cross_entropy(logits, y, rule, **options)
        taken = loss.grad_fn.name() == "_PlannedBackward"
        assert taken == (logits.dtype != torch.float64), "the kernels were not used"
        upstream = (
            torch.linspace(-1, 2, len(y)).to(loss) if loss.ndim else torch.tensor(1.5).to(loss)
        )
        (slopes,) = torch.autograd.grad(loss, logits, upstream)
        found += [loss.detach(), slopes]
    return found


def agree(z, y, rule, loss_bound=1e-6, **options):
    loss, slopes, expected, truth = evaluated(z, y, rule, **options)
    assert loss.dtype == torch.float32
    assert slopes.dtype == z.dtype
    largest = float(expected.abs().max())
    assert float((loss - expected).abs().max()) <= loss_bound * max(1.0, largest), (rule, options)
    eps = 0.0 if z.dtype == torch.float32 else torch.finfo(z.dtype).eps
    allowed = 1e-6 * float(truth.abs().max()) + eps * truth.abs()
    if z.dtype == torch.float16:
        allowed += 2**-24  # what float16 flushes to zero
    assert bool(((slopes - truth).abs() <= allowed).all()), (rule, options)


@check
def every_rule_with_every_option():
    for (i, rule), (name, options) in itertools.product(enumerate(RULES), OPTIONS.items()):
        # Rows start on any boundary, and in turn on 16 bytes.
        z, y = batch(apart=(0, 3, 27)[i % 3], seed=i)
        if name == "masked":
            random = torch.Generator().manual_seed(i)
            hidden = torch.rand(z.shape, generator=random) < 0.4
            hidden.scatter_(1, y[:, None], False)
            hidden[:, 1:3] = False
            z = z.masked_fill(hidden, -torch.inf)
        if name in ("ignored", "where"):
            z = z.clone()
            z[(y == 3) if name == "ignored" else ~options["where"]] = torch.nan
        agree(z, y, rule, **options)


@check
def every_size_in_every_dtype():
    for k, dtype in itertools.product((2, 3, 8, 129, 1000, 4099), launch_dtypes()):
        z, y = batch(2, k, dtype, seed=k)
        agree(z, y, softhot.Uniform(0.1))
    for k, dtype in ((32771, torch.bfloat16), (262144, torch.float16)):
        z, y = batch(1, k, dtype, seed=k)
        agree(z, y, softhot.Uniform(0.1))
        agree(z, y, softhot.MaxSup(0.1))


def launch_dtypes():
    from softhot.torch.gpu import DTYPES

    return DTYPES


@check
def no_error_beyond_that_of_the_naive_formula():
    for dtype, k in itertools.product((torch.bfloat16, torch.float16), (1024, 1021)):
        z, y = batch(4, k, dtype, seed=k)
        leaf = z.double().requires_grad_()
        expected = cross_entropy(leaf, y, RULES[1], reduction="sum")
        (truth,) = torch.autograd.grad(expected, leaf)
        naive = z.detach().requires_grad_()
        value = torch.nn.functional.cross_entropy(naive, y, label_smoothing=0.1, reduction="sum")
        (theirs,) = torch.autograd.grad(value, naive)
        known = rows(RULES[1], z, y)
        loss, plan = launch.forward(z, known)
        wide = torch.empty_strided(z.shape, z.stride())
        slopes = launch.gradient(z, known, plan, torch.tensor(1.0), out=wide)
        assert abs(loss.sum() - expected) <= abs(value - expected)
        # A GPU rounds to nearest; the interpreter cuts bfloat16 off, so torch rounds here.
        ours, other = ((g - truth).norm() / truth.norm() for g in (slopes.to(dtype), theirs))
        assert ours <= other + torch.finfo(dtype).eps / 8, (ours, other)


@check
def hard_rows():
    for offset in (0.0, 1e4, -1e4):
        z, y = batch(scale=3.0)
        agree(z + offset, y, RULES[1])
    z, y = batch(2, 20000, scale=1.0)
    z[:, :9000] = -torch.inf  # the first tile and more
    z[0, 12000] = 40.0
    y[:] = torch.tensor([12000, 19999])
    agree(z, y, RULES[1])  # of row 0 only digits beyond 1 - p are left
    agree(z, y, RULES[-2])
    confident = torch.full((1, K), -40.0)
    confident[0, 4] = 30.0
    loss, _, expected, _ = evaluated(confident, torch.tensor([4]), softhot.Uniform(0.0))
    assert abs(loss - expected) <= 1e-5 * expected  # float32 exponents as large as 70
    least = torch.finfo(torch.float32).min
    z, y = batch()
    z[:, 5:] = least  # a mask by the least number: as torch has it
    y[:] = 2
    agree(z, y, softhot.Uniform(0.0))


@check
def rows_without_an_allowed_class():
    z, y = batch()
    z = z.clone()
    z[1] = -torch.inf
    z[2, y[2]] = -torch.inf
    z[3, 7] = torch.nan
    for rule in (RULES[1], RULES[-1]):
        leaf = z.clone().requires_grad_()
        loss = cross_entropy(leaf, y, rule, reduction="none")
        (slopes,) = torch.autograd.grad(loss.nan_to_num(0, 0).sum(), leaf)
        assert loss[[1, 2]].isinf().all()
        assert loss[3].isnan()
        assert loss[[0, 4]].isfinite().all()
        assert (slopes[1] == 0).all()
        assert slopes[[0, 2, 4]].isfinite().all()


@check
def parts_of_rows_are_rows():
    for rule in (RULES[1], RULES[6], RULES[-1]):
        z, y = batch(3, K, seed=5, apart=1)
        z = z.clone()
        z[0, :20] = -torch.inf
        y[0] = 30
        whole = rows(rule, z, y)
        loss, plan = launch.forward(z, whole)
        for number in (2, 3, 5):
            merged = launch.finish(launch.statistics(z, whole, number), whole)
            assert torch.allclose(merged[0], loss, rtol=1e-6)
            assert torch.allclose(merged[1], plan, rtol=1e-5, atol=1e-7)


def rows(rule, z, y, reduction="mean", **options):
    from softhot.torch.categorical import Categorical
    from softhot.torch.gpu import rows_of

    names = ("ignore_index", "where", "weight", "alpha", "prior", "allowed")
    given = {**dict.fromkeys(names), "weighting": "sample", "axis": 1, **options}
    return rows_of(Categorical(y, rule, reduction, given), z)


@check
def shards_are_rows():
    """Vocabulary parallel: statistics of shards, merged; the gradient of each from the plan."""
    for rule in RULES:
        z, y = batch(3, K, seed=5, apart=3)
        given = {"weight": WEIGHT, "ignore_index": 3}
        if isinstance(rule.base.alpha, PerSample):
            given["alpha"] = torch.rand(3)
        whole = rows(rule, z, y, **given)
        loss, plan = launch.forward(z, whole)
        slopes = launch.gradient(z, whole, plan, torch.tensor(2.0))
        ends = [0, 5, 29, K]
        shards = [(z[:, a:b], replace(whole, first=a)) for a, b in itertools.pairwise(ends)]
        parts = torch.cat([launch.statistics(*shard) for shard in shards])
        merged, plan = launch.finish(parts, whole)
        assert torch.allclose(merged, loss, rtol=1e-6), rule
        own = [launch.gradient(*shard, plan, torch.tensor(2.0)) for shard in shards]
        assert torch.allclose(torch.cat(own, 1), slopes, rtol=1e-5, atol=1e-7), rule


@check
def chunks_of_a_layer_are_the_layer():
    random = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(6, 8, generator=random), torch.randn(K, 8, generator=random)
    y, bias = torch.randint(K, (6,), generator=random), torch.randn(K, generator=random)
    for i, (rule, dtype) in enumerate(
        itertools.product(RULES[1::4], (torch.float32, torch.float16))
    ):
        leaves = [t.to(dtype).requires_grad_() for t in (hidden, weight, bias)]
        exact = [t.detach().double().requires_grad_() for t in leaves]
        options = {"ignore_index": int(y[1]), "reduction": ("mean", "none")[i % 2]}
        loss = linear_cross_entropy(
            *leaves[:2], y, leaves[2], rule, memory=2 * K * dtype.itemsize, **options
        )
        logits = torch.nn.functional.linear(*exact)
        expected = cross_entropy(logits, y, rule, **options)
        bound = 1e-6 if dtype == torch.float32 else 4e-3
        assert torch.allclose(loss.double(), expected, rtol=bound)
        ours = torch.autograd.grad(loss.sum(), leaves)
        for a, b in zip(ours, torch.autograd.grad(expected.sum(), exact), strict=True):
            assert float((a - b).norm() / b.norm()) < bound


@check
def filtered_products_are_the_plain_ones():
    random = torch.Generator().manual_seed(0)
    for (n, c, h), dtype in itertools.product(
        ((200, 300, 24), (128, 256, 32), (5, 130, 7)), (torch.float32, torch.float16)
    ):
        dz = torch.randn(n, c, generator=random) * 1e-4
        dz[:3, :5] = 0.5
        dz[-1, -1] = -0.3
        tensors = [dz, torch.randn(c, h, generator=random), torch.randn(n, h, generator=random)]
        dz, weight, hidden = (t.to(dtype) for t in tensors)
        limit = torch.full((n,), 1e-3)
        expected = [torch.empty(n, h), torch.zeros(c, h)]
        wide = [t.float() for t in (dz, weight, hidden)]
        share = filtered.products(*wide, limit, dh=expected[0], dw=expected[1])
        made = [torch.full((n, h), torch.nan).to(dtype), torch.full((c, h), torch.nan).to(dtype)]
        large = products(dz, weight, hidden, limit, dh=made[0], dw=made[1], first=True)
        assert abs(float(large.float().mean()) - share) < 1e-6
        twice = made[1].clone()
        products(dz, weight, hidden, limit, dh=None, dw=twice, first=False)
        bound = 1e-6 if dtype == torch.float32 else 2e-3
        for a, b in zip((*made, twice), (*expected, 2 * expected[1]), strict=True):
            assert float((a.float() - b).norm() / b.norm()) < bound, (n, c, h, dtype)


@check
def in_place_is_out_of_place():
    for (i, rule), dtype in itertools.product(
        enumerate(RULES[1::3]), (torch.float32, torch.float16)
    ):
        z, y = batch(dtype=dtype, seed=i, apart=i)
        known = rows(rule, z, y, ignore_index=3, **({"alpha": torch.rand(N)} if i == 0 else {}))
        if known is None:
            known = rows(rule, z, y, ignore_index=3)
        upstream, divisor = torch.linspace(1, 2, N), torch.tensor(3.0)
        loss, plan = launch.forward(z, known)
        slopes = launch.gradient(z, known, plan, upstream, divisor)
        place = z.clone() if i == 0 else torch.cat([z, z], 1)[:, :K]
        again, written = launch.in_place(place, known, upstream, divisor)
        assert written is place
        assert torch.allclose(again, loss, rtol=1e-6)
        assert torch.allclose(place, slopes, rtol=torch.finfo(dtype).eps, atol=1e-7)
        assert (slopes[0] == 0).all()  # label 3


@check
def in_place_on_request():
    for (i, rule), dtype in itertools.product(
        enumerate(RULES[1::4]), (torch.float32, torch.float16)
    ):
        z, y = batch(dtype=dtype, seed=i)
        for reduction, factor in (("mean", 1.0), ("sum", 3.0), ("none", 2.0)):
            expected = (
                cross_entropy(z.requires_grad_(), y, rule, reduction=reduction) * factor
            ).sum()
            (truth,) = torch.autograd.grad(expected, z)
            leaf = z.detach().clone().requires_grad_()
            made = leaf * 1
            loss = cross_entropy(made, y, rule, reduction=reduction, inplace=True)
            slopes = torch.autograd.grad((loss * factor).sum(), made)[0]
            assert slopes.data_ptr() == made.data_ptr()
            bound = torch.finfo(dtype).eps * 2
            assert torch.allclose(slopes, truth, rtol=bound, atol=1e-7), (rule, dtype, reduction)


@check
def scaling_in_place():
    values = torch.arange(10.0)
    before = values.clone()
    assert torch.equal(launch.scale(values, torch.tensor(1.0)), before)
    assert torch.equal(launch.scale(values, torch.tensor(3.0)), before * 3)


@check
def rows_far_apart():
    far = torch.empty(2**31 + 64, dtype=torch.bfloat16)  # pages that nobody touches cost nothing
    z = far.as_strided((2, 16), (2**31, 1))
    z.copy_(batch(2, 16, torch.bfloat16)[0])
    loss, _ = launch.forward(z, rows(RULES[1], z, torch.tensor([1, 2])))
    near = z.clone()
    expected, plan = launch.forward(near, rows(RULES[1], near, torch.tensor([1, 2])))
    assert torch.equal(loss, expected)
    launch.gradient(z, rows(RULES[1], z, torch.tensor([1, 2])), plan, torch.tensor(1.0), out=z)
    slopes = launch.gradient(
        near, rows(RULES[1], near, torch.tensor([1, 2])), plan, torch.tensor(1.0)
    )
    assert torch.equal(z, slopes)


@check
def nothing_looks_at_values():
    """What waits for a GPU, or breaks the capture of a graph, is an operation of its own."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    z, y = batch()
    for rule in (*RULES[:3], RULES[-1]):
        cross_entropy(z.requires_grad_(), y, rule, ignore_index=3, weight=WEIGHT).backward()
        z.grad = None
        with Watch():
            loss = cross_entropy(z, y, rule, ignore_index=3, weight=WEIGHT)
            loss.backward()
    waits = {"_local_scalar_dense", "nonzero", "is_nonzero", "lift_fresh", "masked_select", "item"}
    assert not {name for name in seen if name.split(".")[1] in waits}, set(seen)


@check
def double_backward_and_twice():
    z, y = batch()
    leaf = z.clone().requires_grad_()
    loss = cross_entropy(leaf, y, RULES[1])
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (second,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    assert torch.equal(first, second)
    (third,) = torch.autograd.grad(loss, leaf, create_graph=True)
    assert torch.allclose(first, third, atol=1e-7)
    (curved,) = torch.autograd.grad(third.square().sum(), leaf)
    assert curved.isfinite().all()
    with torch.no_grad():
        assert torch.allclose(cross_entropy(leaf, y, RULES[1]), loss.detach())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    said = {}
    for name in sys.argv[1:] or CHECKS:
        began = time.process_time()
        try:
            CHECKS[name]()
            said[name] = ""
        except Exception:
            said[name] = traceback.format_exc()
        print(f"{name}: {time.process_time() - began:.1f} s", file=sys.stderr)
    print(json.dumps(said))
