"""The native kernel against the reference, in every instruction set this processor has."""

import importlib.util
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import emulation
import softhot
from softhot import (
    ConfidencePenalty,
    InputError,
    MaxSup,
    NegativeUniform,
    Ordinal,
    Others,
    Prior,
    Uniform,
)
from softhot.core.losses import cross_entropy_and_gradient as reference
from softhot.kernels import arrays, buffers, native

SCRIPT = importlib.util.spec_from_file_location(
    "hatch_build", Path(__file__).parents[1] / "hatch_build.py"
)
hatch_build = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(hatch_build)
COMPILER = next(filter(shutil.which, hatch_build.COMPILERS), None)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
POOL = native.any_pool()
SHORT = (2, 3, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 100, 1000, 1001, 2047, 2048, 2049)
LONG = (4097, 32000, 65537)
ENTRIES = native.load(native.LIBRARY) if native.LIBRARY.exists() else {}
EVERY = ENTRIES | ({"neon": emulation.neon} if emulation.PRESENT else {})


def test_it_is_built_wherever_there_is_a_compiler():
    if COMPILER:
        assert ENTRIES, "run python hatch_build.py"
        assert native.library().entry, native.library().reason
        assert POOL, "no OpenMP library was found beside torch"
    else:
        assert not ENTRIES


@pytest.fixture(params=sorted(EVERY) or ["none"])
def entry(request, monkeypatch):
    """Every instruction set in turn, emulated or not."""
    library = native.Library(EVERY.get(request.param), request.param)
    monkeypatch.setattr(native, "library", lambda: library)
    monkeypatch.setattr(native, "LOGITS_A_THREAD", 1)  # threads for the smallest batch
    return request.param


def native_run(logits, labels, rule, *, threads=1, reduction="mean", in_place=False, **options):
    """Loss and gradient of tensors, or None where the kernel refuses."""
    n, k = logits.shape
    if in_place:
        logits = logits.clone()
    loss = torch.full((n if reduction == "none" else 1,), torch.nan)
    gradient = logits if in_place else torch.full((n, k), torch.nan, dtype=logits.dtype)
    table = native.prior(rule, k)
    given = {name: value.data_ptr() for name, value in options.items() if hasattr(value, "shape")}
    others = {name: value for name, value in options.items() if name not in given}
    arguments = {"alpha": native.share(rule, k), **others, **given}
    done = native.run(
        rule,
        dtype=str(logits.dtype).removeprefix("torch."),
        logits=logits.data_ptr(),
        labels=labels.data_ptr(),
        shape=(n, k),
        stride=logits.stride(0),
        loss=loss.data_ptr(),
        gradient=gradient.data_ptr(),
        prior=0 if table is None else table.ctypes.data,
        reduction=reduction,
        pool=POOL,
        threads=threads,
        **arguments,
    )
    return (loss if reduction == "none" else loss[0], gradient) if done else None


def exact(logits, labels, rule, **options):
    """The reference in float64."""
    loss, gradient = reference(logits.double(), labels, rule, **{"reduction": "mean", **options})
    return loss.float(), gradient


def check(logits, labels, rule, options=None, **arguments):
    """Agreement with the reference to a few units in the last place of the row's scale."""
    loss, gradient = native_run(logits, labels, rule, **arguments)
    right, slope = exact(logits, labels, rule, **(options or {}))
    # The error of z - max z, half a unit of up to 64, is one of e^(z - max z) relatively.
    torch.testing.assert_close(loss, right, rtol=4e-6, atol=1e-30)
    scale = slope.abs().amax().clamp(min=1e-3 / len(logits))
    width = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[logits.dtype]
    atol = 2e-6 * scale + (2**-25 if logits.dtype == torch.float16 else 0)
    wrong = (gradient.double() - slope).abs() - (width * slope.abs() + atol)
    assert (wrong <= 0).all(), (logits.shape, wrong.max())


def batch(n, k, dtype="float32", seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, k, generator=generator)
    return logits.to(DTYPES[dtype]), torch.randint(k, (n,), generator=generator)


# ------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", SHORT + LONG)
def test_it_is_the_reference_at_every_width(entry, k, dtype):
    for n in (1, 7, 8, 9, 40) if k in SHORT else (3,):
        check(*batch(n, k, dtype), Uniform(0.1))
        check(
            *batch(n, k, dtype), Uniform(0.0) + MaxSup(0.2), {"reduction": "sum"}, reduction="sum"
        )


PLAIN = Uniform(0.1)
RULES = (
    Uniform(0.0),
    Others(0.1),
    NegativeUniform(-0.3),
    Uniform(0.1) + ConfidencePenalty(0.3),
    Uniform(0.2) + MaxSup(0.2) + ConfidencePenalty(0.1),
)


@pytest.mark.parametrize("k", [5, 10, 33, 5000])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_rules(entry, rule, k):
    for dtype in DTYPES:
        check(*batch(19, k, dtype), rule)


@pytest.mark.parametrize("k", [5, 33, 5000])
def test_priors_weights_and_alphas(entry, k):
    logits, labels = batch(19, k)
    some = torch.rand(k, generator=torch.Generator().manual_seed(1)) + 0.1
    check(logits, labels, Prior(0.2, tuple(some.tolist())))
    if k < 100:
        check(logits, labels, Ordinal(0.5))
    check(logits, labels, Uniform(0.1), {"weight": some.double()}, weight=some)
    alphas = torch.rand(19, generator=torch.Generator().manual_seed(2)) * 0.9
    rule = Uniform(softhot.PerSample())
    check(logits, labels, rule, {"alpha": alphas.double()}, alpha=alphas)
    lopsided = some * torch.linspace(1, 1e5, k)
    by_class = {"weight": lopsided.double(), "weighting": "class"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", softhot.SofthotWarning)  # of an optimum that moves
        check(logits, labels, Uniform(0.3), by_class, weight=lopsided, weighting="class")


def test_a_share_next_to_one(entry):
    with pytest.warns(softhot.SofthotWarning, match="more than half"):
        rule = Uniform(float(np.nextafter(1, 0)))
    for k in (10, 33, 5000):
        check(*batch(19, k), rule)


def test_scales_of_rows(entry):
    logits, labels = batch(19, 40)
    scale = torch.rand(19)
    _, gradient = native_run(logits, labels, Uniform(0.1), reduction="none", scale=scale)
    _, slope = exact(logits, labels, Uniform(0.1), reduction="none")
    torch.testing.assert_close(gradient.double(), slope * scale[:, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [10, 33, 5000])
@pytest.mark.parametrize(
    "change",
    [
        lambda z: z * 3000,
        lambda z: z + 1e4,
        lambda z: z.round(),
        lambda z: z + 40 * (torch.arange(z.shape[1]) == 1),
        torch.zeros_like,
    ],
    ids=["large", "offset", "ties", "confident", "equal"],
)
def test_extremes(entry, k, change):
    logits, labels = batch(19, k)
    for rule in (Uniform(0.0), Uniform(0.1), Uniform(0.1) + MaxSup(0.2)):
        check(change(logits), labels, rule, {"reduction": "none"}, reduction="none")


def test_a_confident_row_keeps_its_digits(entry):
    for k in (10, 33, 5000):
        logits, labels = torch.zeros(3, k), torch.zeros(3, dtype=torch.int64)
        logits[:, 0] = 25.0
        loss, gradient = native_run(logits, labels, Uniform(0.0), reduction="none")
        rest = (k - 1) * np.exp(-25.0)
        np.testing.assert_allclose(loss.double(), np.log1p(rest), rtol=2e-6)
        np.testing.assert_allclose(gradient[:, 0].double(), -rest / (1 + rest), rtol=2e-6)


@pytest.mark.parametrize("k", [4, 10, 33, 5000, 40000])
def test_missing_classes(entry, k):
    logits, labels = batch(19, k)
    missing = torch.rand(19, k, generator=torch.Generator().manual_seed(3)) < 0.4
    missing[:, : k // 2] |= torch.arange(19)[:, None] % 3 == 0
    missing[5:8] = False
    missing[torch.arange(19), labels] = False
    logits[missing] = -torch.inf
    for rule in (
        Uniform(0.1),
        Uniform(0.1) + MaxSup(0.2) + ConfidencePenalty(0.3),
        Prior(0.1, tuple(range(1, k + 1))),
    ):
        check(logits, labels, rule)
        _, gradient = native_run(logits, labels, rule)
        assert (gradient[missing] == 0).all()


@pytest.mark.parametrize("k", [10, 33, 5000])
def test_rows_that_do_not_count_may_hold_anything(entry, k):
    logits, labels = batch(21, k)
    labels[::4] = -100
    counted = torch.arange(21) % 5 != 1
    out = (labels == -100) | ~counted
    whole = logits.clone()
    logits[out] = torch.tensor([torch.nan, torch.inf, -torch.inf])[torch.arange(out.sum()) % 3][
        :, None
    ]
    for rule in (Uniform(0.1), Uniform(0.1) + ConfidencePenalty(0.2), Prior(0.1, (1,) * k)):
        loss, gradient = native_run(logits, labels, rule, ignore_index=-100, counted=counted)
        right, slope = exact(whole[~out], labels[~out], rule)
        torch.testing.assert_close(loss, right, rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient[~out].double(), slope, rtol=1e-5, atol=1e-7)
        assert (gradient[out] == 0).all()
    loss, gradient = native_run(logits, labels.fill_(-100), Uniform(0.1), ignore_index=-100)
    assert loss == 0
    assert (gradient == 0).all()


def test_error_is_no_larger_than_that_of_the_textbook_formula(entry):
    for k in (10, 1000, 32000):
        logits, labels = batch(32, k)
        z = logits.clone().requires_grad_()
        torch.nn.functional.cross_entropy(z, labels, label_smoothing=0.1).backward()
        _, slope = exact(logits, labels, Uniform(0.1))
        _, gradient = native_run(logits, labels, Uniform(0.1))
        theirs = (z.grad.double() - slope).abs().max()
        assert (gradient.double() - slope).abs().max() <= theirs + 2**-24 / 32


# ------------------------------------------------------------------------------ layout, threads


@pytest.mark.parametrize("k", [10, 33, 1000, 5000])
def test_threads_place_and_stride_change_no_bit(entry, k):
    for dtype in DTYPES:
        logits, labels = batch(97, k, dtype)
        logits[3, 1:] = -torch.inf
        labels[3] = 0
        for rule in (Uniform(0.1), Uniform(0.1) + MaxSup(0.1) + ConfidencePenalty(0.1)):
            one = native_run(logits, labels, rule)
            wider = torch.full((97, k + 5), torch.nan, dtype=logits.dtype)
            wider[:, 2 : k + 2] = logits
            for other in (
                native_run(logits, labels, rule, threads=2),
                native_run(logits, labels, rule, threads=5),
                native_run(logits, labels, rule, in_place=True),
                native_run(wider[:, 2 : k + 2], labels, rule),
            ):
                assert torch.equal(one[0], other[0])
                assert torch.equal(one[1], other[1])


def test_a_gradient_larger_than_the_caches(entry):
    logits, labels = batch(560, 32001)  # over 64 MB, rows aligned to nothing
    _, gradient = native_run(logits, labels, Uniform(0.1), threads=2)
    some = [0, 1, 2, 279, 558, 559]
    _, slope = exact(logits[some], labels[some], Uniform(0.1), reduction="sum")
    torch.testing.assert_close(gradient[some].double() * 560, slope, rtol=1e-5, atol=1e-7)
    assert torch.equal(gradient, native_run(logits, labels, Uniform(0.1), in_place=True)[1])


@given(st.data())
def test_any_shape(data):
    n, k = data.draw(st.integers(1, 40)), data.draw(st.integers(2, 70))
    logits, labels = batch(n, k, data.draw(st.sampled_from(sorted(DTYPES))), seed=n * k)
    got = native_run(logits, labels, Uniform(0.1))
    if COMPILER:
        torch.testing.assert_close(got[0], exact(logits, labels, Uniform(0.1))[0])


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("k", [10, 33, 5000])
def test_what_it_refuses(entry, k):
    logits, labels = batch(19, k)

    def refuses(rule=PLAIN, at=None, value=None, label=None, **options):
        z, y = logits.clone(), labels.clone()
        if at is not None:
            z[at] = value
        if label is not None:
            y[11] = label
        return native_run(z, y, rule, **options) is None

    assert not refuses()
    for bad in (torch.nan, torch.inf):
        assert refuses(at=(11, 1), value=bad)
        assert refuses(Uniform(0.1) + ConfidencePenalty(0.1), at=(11, 1), value=bad)
    assert refuses(at=11, value=-torch.inf)
    assert refuses(at=(11, int(labels[11])), value=-torch.inf)
    for label in (k, -1, 2**32, -(2**32)):
        assert refuses(label=label)
    away = (11, 0 if labels[11] else 1)
    assert not refuses(at=away, value=-torch.inf)
    assert refuses(Others(0.1), at=away, value=-torch.inf)
    only = (1,) + (0,) * (k - 1)
    assert refuses(Prior(0.1, only), at=(11, 0), value=-torch.inf, label=1)


def test_what_rules_it_takes():
    taken = (Uniform(0.1), Others(0.1), Prior(0.1, (1, 2)), MaxSup(0.1), ConfidencePenalty(0.1))
    left = (softhot.Focal(), softhot.Margin(), softhot.Teacher(), ConfidencePenalty(0.1, 1.0))
    assert all(map(native.takes, taken))
    assert not any(map(native.takes, left))
    assert native.share(Uniform(softhot.PerSample()), 10) is None
    assert native.share(Others(0.5), 2) is None  # an error that the reference words
    assert native.share(Others(0.1), 2) == 0.2


# --------------------------------------------------------------------------------------- NumPy


def numpy_batch(n=40, k=33):
    random = np.random.default_rng(5)
    return random.standard_normal((n, k)).astype(np.float32), random.integers(k, size=n)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_numpy_arrays(reduction, monkeypatch):
    logits, labels = numpy_batch()
    labels[3] = -1
    options = {"reduction": reduction, "ignore_index": -1, "axis": 1}
    rule = Uniform(0.1) + MaxSup(0.1)
    right = reference(logits, labels, rule, **options)
    if COMPILER:
        native.library()  # whose check, once in a process, takes the reference
        monkeypatch.setattr(arrays.losses, "cross_entropy_and_gradient", None)
        monkeypatch.setattr(arrays.losses, "cross_entropy", None)
    loss, gradient = arrays.cross_entropy_and_gradient(logits, labels, rule, **options)
    assert type(loss) is type(right[0])
    assert gradient.dtype == right[1].dtype
    np.testing.assert_allclose(loss, right[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, right[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(arrays.cross_entropy(logits, labels, rule, **options), loss)


def test_what_numpy_leaves_to_the_reference():
    logits, labels = numpy_batch()
    rule = Uniform(0.1)
    twisted = np.asfortranarray(logits)
    for z, y, options in (
        (logits.astype(np.float64), labels, {}),
        (twisted, labels, {}),
        (logits[::-1], labels, {}),
        (logits, labels.astype(np.int32), {}),
        (logits, np.eye(33)[labels], {}),
        (logits, labels, {"weight": np.ones(33)}),
        (logits.T, labels, {"axis": 0}),
        (np.broadcast_to(logits[:1], logits.shape), labels, {}),
    ):
        for got, right in zip(
            arrays.cross_entropy_and_gradient(z, y, rule, **options),
            reference(z, y, rule, **options),
            strict=True,
        ):
            np.testing.assert_array_equal(got, right)
    logits[4, 2] = np.nan
    with pytest.raises(InputError, match=r"logits\[4, 2\]"):
        arrays.cross_entropy_and_gradient(logits, labels, rule)
    with pytest.raises(TypeError, match="ignore_indx"):
        arrays.cross_entropy_and_gradient(logits, labels, rule, ignore_indx=None)


# ----------------------------------------------------------------------------- loading, building


def test_everything_works_without_it():
    code = """if True:
        import numpy as np, softhot
        from softhot.kernels import arrays, native
        print(native.library().reason)
        z, y = np.zeros((2, 4), np.float32), np.array([0, 1])
        print(arrays.cross_entropy_and_gradient(z, y, softhot.Uniform(0.1))[0])
    """
    environment = {"SOFTHOT_NATIVE": "0", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "switched off by SOFTHOT_NATIVE=0",
        "[1.3862944 1.3862944]",
    ]


def reason(monkeypatch, wanted=""):
    monkeypatch.setenv("SOFTHOT_NATIVE", wanted)
    found = native.library.__wrapped__()
    assert found.entry is None
    return found.reason


def test_why_it_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_native.so")
    assert "not built" in reason(monkeypatch)
    (tmp_path / "_native.so").write_bytes(b"not a library")
    assert "cannot be loaded" in reason(monkeypatch)
    if COMPILER:
        monkeypatch.undo()
        assert "avx512, " in reason(monkeypatch, "sse") or "baseline" in reason(monkeypatch, "sse")
        monkeypatch.setattr(native, "source_version", lambda: 0)
        assert "other sources" in reason(monkeypatch)


def test_a_kernel_that_computes_wrong_is_not_used(monkeypatch):
    monkeypatch.setattr(native, "load", lambda path: {"avx": lambda call: 0})
    assert "wrong on this machine" in reason(monkeypatch)
    monkeypatch.setattr(native, "load", lambda path: {"avx": lambda call: 1})
    assert "refuses a batch" in reason(monkeypatch)


def test_without_a_compiler_nothing_is_built_and_nothing_breaks(monkeypatch, tmp_path):
    library = tmp_path / "_native.so"
    assert "could not be run" in hatch_build.build(library, compiler=str(tmp_path / "none"))
    assert "failed" in hatch_build.build(library, compiler="false")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in hatch_build.build(library)
    assert not library.exists()


# ------------------------------------------------------------------------------------- buffers


@pytest.fixture
def no_buffers():
    buffers.release()
    yield
    buffers.release()


def test_memory_is_used_again_only_when_nobody_holds_it(no_buffers):
    first = torch.frombuffer(buffers.lend(2**20), dtype=torch.bfloat16)
    at, kept = first.data_ptr(), first[5:7]
    del first
    second = buffers.lend(2**20)
    assert second.ctypes.data != at
    kept.fill_(2)
    del second, kept
    assert buffers.lend(2**20 - 5).ctypes.data == at
    assert at % 64 == 0


def test_no_more_is_kept_than_was_in_use(no_buffers):
    for size in (2**18, 2**19, 2**20):
        buffers.lend(size)
    assert len(buffers._blocks) == 1
    both = buffers.lend(2**20), buffers.lend(2**20)
    assert not np.shares_memory(*both)
    del both
    assert buffers.release() > 2**21
    assert buffers.release() == 0
    assert buffers.lend(100).size == 100
    assert not buffers._blocks
