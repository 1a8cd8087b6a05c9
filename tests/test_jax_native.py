"""The native kernel under JAX: taken where it should be, and the reference in everything."""

import os
import shutil
import subprocess
import sys
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import softhot
from backends import Backend
from batches import run
from cases import CASES, OPTIONS, batch_with
from softhot import (
    ConfidencePenalty,
    Focal,
    MaxSup,
    NegativeUniform,
    Others,
    PerSample,
    Prior,
    Uniform,
    kernels,
)
from softhot.jax import cross_entropy
from softhot.kernels import native, xla

BUILT = native.library().entry is not None
needs_kernel = pytest.mark.skipif(not BUILT, reason="the native kernel is not built here")
SINGLES = [[], *([name] for name in OPTIONS)]
TAKEN = [c for c in CASES if xla.takes(c.rule)]
ROWS = 40  # with a K that is no power of two


def with_gradient(logits, labels, rule, **options):
    loss, pull = jax.vjp(lambda z: cross_entropy(z, labels, rule, **options), logits)
    return loss, pull(jnp.ones_like(loss))[0]


def batch(dtype="float32", n=ROWS, k=33, seed=0):
    random = np.random.default_rng(seed)
    logits = jnp.asarray(3 * random.standard_normal((n, k)), dtype)
    return logits, jnp.asarray(random.integers(k, size=n))


def mean_and_gradient(**options):
    return jax.value_and_grad(lambda z, y: cross_entropy(z, y, Uniform(0.1), **options).mean())


def native_calls(function, *arguments, compiled=False):
    lowered = jax.jit(function).lower(*arguments)
    text = lowered.compile().as_text() if compiled else lowered.as_text()
    return text.count('custom_call_target="softhot_rows_' if compiled else "@softhot_rows_")


# ------------------------------------------------------------------------------ when it is taken


@needs_kernel
def test_it_is_registered_with_xla():
    name, reason = xla.target()
    assert name, reason


@needs_kernel
@pytest.mark.parametrize("dtype", native.DTYPES)
def test_value_and_gradient_are_native(dtype):
    logits, labels = batch(dtype)
    assert native_calls(lambda z: cross_entropy(z, labels, Uniform(0.1)), logits) == 1
    # One leaves loss and gradient, one sees whether the factors are those that were expected.
    assert native_calls(mean_and_gradient(), logits, labels, compiled=True) == 2


@needs_kernel
@pytest.mark.parametrize(
    "rule",
    [
        Uniform(0.0),
        Others(0.1),
        NegativeUniform(-0.25),
        Uniform(0.1) + MaxSup(0.1) + ConfidencePenalty(0.1),
        Uniform(PerSample()),
    ],
    ids=repr,
)
def test_rules_that_are_native(rule):
    logits, labels = batch()
    alpha = {"alpha": jnp.full(ROWS, 0.2)} if rule == Uniform(PerSample()) else {}
    for options in (
        {},
        {"ignore_index": -1},
        {"where": labels > 3, "reduction": "mean"},
        {"weight": jnp.ones(33), "reduction": "sum"},
        {"axis": 0, "logits": logits.T},
    ):
        given = {"logits": logits, "labels": labels, **alpha, **options}
        arrays = {name: a for name, a in given.items() if hasattr(a, "shape")}
        plain = {name: a for name, a in given.items() if name not in arrays}
        assert native_calls(lambda a, p=plain: cross_entropy(rule=rule, **a, **p), arrays), options


def test_what_is_left_to_xla():
    logits, labels = batch()
    soft = jax.nn.one_hot(labels, 33)
    for rule, given in (
        (Focal(), {}),
        (Prior(0.1, tuple(range(1, 34))), {}),
        (Uniform(0.1) + softhot.ZLoss(), {}),
        (Uniform(0.1), {"labels": soft}),
        (Uniform(0.1), {"allowed": soft > -1}),
        (Uniform(0.1), {"where": soft > -1}),
        (Uniform(0.1), {"weight": jnp.ones(33), "weighting": "class"}),
    ):
        given = {"labels": labels, **given}
        assert not native_calls(lambda z, r=rule, g=given: cross_entropy(z, rule=r, **g), logits)
    with jax.enable_x64(True):
        assert not native_calls(mean_and_gradient(), logits.astype("float64"), labels)


def factors(monkeypatch, function, *arguments):
    """Whether what was expected of the backward pass is what came, to the bit."""
    seen = []

    def pull(z, labels, alpha, gradient, expected, factor, *, rule):
        seen.append(np.array_equal(expected, factor, equal_nan=True))
        return xla._pull(z, labels, alpha, factor, rule=rule)

    with monkeypatch.context() as patch:
        patch.setattr(xla.PULL, "impl", pull)
        function(*arguments)
    return seen


@pytest.mark.parametrize("n", [1, 40, 65_537])
def test_the_gradient_that_is_expected_is_that_of_a_mean(n, monkeypatch):
    logits, labels = batch(n=n, k=3)
    rows = (jnp.arange(n) % 5 < 3) | (n < 3)
    for function in (
        mean_and_gradient(),
        mean_and_gradient(reduction="mean"),
        mean_and_gradient(reduction="mean", where=rows),
        mean_and_gradient(reduction="sum"),
        mean_and_gradient(reduction="mean", weight=jnp.array([1.0, 0.3, 2.0])),
        jax.value_and_grad(
            lambda z, y: cross_entropy(z, y, Uniform(0.1), where=rows).mean(where=rows)
        ),
    ):
        assert factors(monkeypatch, function, logits, labels) == [True]
    halved = jax.grad(lambda z: 0.3 * cross_entropy(z, labels, Uniform(0.1)).mean())
    assert factors(monkeypatch, halved, logits) == [False]


def test_what_was_not_expected_is_computed_anew():
    for dtype in native.DTYPES:
        logits, labels = batch(dtype)
        factor = jnp.linspace(-2, 3, ROWS)
        rows = partial(cross_entropy, labels=labels, rule=Uniform(0.1))
        loss, pull = jax.jit(partial(jax.vjp, rows))(logits)
        _, slope = exact(logits, labels, Uniform(0.1))
        for scale in (factor, jnp.full(ROWS, 1 / ROWS), 1e4 * factor):
            close(jax.jit(pull)(scale)[0], slope * np.asarray(scale, float)[:, None])
        assert np.isfinite(loss).all()


# ---------------------------------------------------------------------------------- what it says


def exact(logits, labels, rule, **options):
    wide = np.asarray(logits.astype(jnp.float32), np.float64)
    return softhot.cross_entropy_and_gradient(wide, np.asarray(labels), rule, **options)


def close(gradient, slope):
    """Rounded once, to the gradient's own dtype."""
    width = float(jnp.finfo(gradient.dtype).eps)
    tiny = float(jnp.finfo(gradient.dtype).tiny) if gradient.dtype == jnp.float16 else 0
    wrong = np.abs(np.asarray(gradient.astype(jnp.float32), float) - slope)
    assert (wrong <= width * np.abs(slope) + 2e-6 * np.abs(slope).max() + tiny).all()


# Every rule in float32, and in one of the others: compiling takes the time.
PAIRS = [
    (case, dtype)
    for i, case in enumerate(TAKEN)
    for dtype in ("float32", ("bfloat16", "float16", "float64")[i % 3])
]


@pytest.mark.parametrize(("case", "dtype"), PAIRS, ids=lambda part: getattr(part, "name", part))
def test_the_case_table_with_every_option(case, dtype):
    backend = Backend("jax", dtype)
    turn = (TAKEN.index(case) + (dtype == "float32")) % 2
    with backend.active(), warnings.catch_warnings():
        warnings.simplefilter("ignore", softhot.SofthotWarning)
        batches = {
            "-".join(names): batch_with(case, names).rounded(backend) for names in SINGLES[turn::2]
        }
        given = {name: batch.arguments(backend) for name, batch in batches.items()}

        def everything(arrays):
            results = {}
            for name, batch in batches.items():
                options = {"reduction": batch.reduction, "weighting": batch.weighting}
                options |= {"ignore_index": batch.ignore_index, "rule": case.rule}
                results[name] = with_gradient(**arrays[name], **given[name][1], **options)
            return results

        results = jax.jit(everything)({name: arrays for name, (arrays, _) in given.items()})
        jax.clear_caches()  # programs of many gigabytes, for all cases together
        for name, batch in batches.items():
            loss, gradient = (batch.back(backend.numpy(part)) for part in results[name])
            expected, slope = run(case.rule, batch)
            digits = 1e-13 if dtype == "float64" else 3e-6
            atol = digits * max(1, np.abs(slope).max())
            np.testing.assert_allclose(loss, expected, digits, digits, err_msg=name)
            np.testing.assert_allclose(gradient, slope, backend.eps, atol, err_msg=name)


@pytest.mark.parametrize("n", [0, 1, 17])
@pytest.mark.parametrize("k", [2, 10, 33, 5000])
def test_sizes(n, k):
    logits, labels = batch(n=n, k=k)
    for integer in ("int32", "int8", "uint16"):
        y = (labels % 100).astype(integer)
        loss, gradient = jax.jit(lambda z, y: with_gradient(z, y, Uniform(0.1)))(logits, y)
        right, slope = exact(logits, y, Uniform(0.1))
        np.testing.assert_allclose(loss, right, 1e-5)
        np.testing.assert_allclose(gradient, slope, atol=2e-6)


def test_wide_integers_and_logits_of_float32():
    logits, labels = batch()
    right, slope = exact(logits, labels, Uniform(0.1), reduction="mean")
    with jax.enable_x64(True):
        value, gradient = jax.jit(mean_and_gradient())(logits, labels.astype("int64"))
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.float32)
    np.testing.assert_allclose(value, right, 1e-6)
    close(gradient, slope)


@pytest.mark.parametrize("rule", [Uniform(0.1), Others(0.1), Uniform(0.1) + MaxSup(0.2)], ids=repr)
def test_missing_classes_and_rows_that_hold_anything(rule):
    logits, labels = batch()
    logits = logits.at[3, 1:].set(-jnp.inf).at[4, 5].set(-jnp.inf).at[7].set(jnp.nan)
    logits = logits.at[8].set(jnp.inf)
    labels = labels.at[3].set(0).at[4].set(6).at[7].set(-100).at[8].set(77)
    where = jnp.arange(ROWS) != 8

    def both(z):
        return with_gradient(z, labels, rule, ignore_index=-100, where=where)

    kept = jnp.arange(ROWS) % 40 != 3 if rule == Others(0.1) else where
    kept = kept & where & (labels != -100)
    loss, gradient = jax.jit(both)(logits)
    right, slope = exact(logits[kept], labels[kept], rule)
    np.testing.assert_allclose(loss[kept], right, 1e-5)
    np.testing.assert_allclose(gradient[kept], slope, atol=2e-6)
    for row in (7, 8):
        assert loss[row] == 0
        assert not gradient[row].any()


def test_rows_that_are_not_finite_are_nan():
    logits, labels = batch()
    logits = logits.at[3, 5].set(jnp.nan).at[4, 2].set(jnp.inf).at[5].set(-jnp.inf)
    loss, gradient = jax.jit(lambda z: with_gradient(z, labels, Uniform(0.1)))(logits)
    assert jnp.flatnonzero(jnp.isnan(loss)).tolist() == [3, 4, 5]
    assert jnp.flatnonzero(jnp.isnan(gradient).any(1)).tolist() == [3, 4, 5]


def test_a_label_out_of_range_that_is_trusted_ends_the_program_or_is_nan():
    logits, labels = batch()
    loss = jax.jit(lambda y: cross_entropy(logits, y, Uniform(0.1), validate=False))
    try:
        assert jnp.isnan(loss(labels.at[3].set(33))[3])
    except jax.errors.JaxRuntimeError as error:
        assert "label is out of range" in str(error)  # noqa: PT017 - either is right


# -------------------------------------------------------------------------------- transformations


def test_vmap_of_any_argument():
    logits, labels = batch(n=12)
    alphas = jnp.linspace(0, 0.5, 12)
    rule = Uniform(PerSample())

    def loss(z, y, a):
        return cross_entropy(z, y, rule, alpha=a)

    grids = (logits.reshape(3, 4, 33), labels.reshape(3, 4), alphas.reshape(3, 4))
    for axes in ((0, 0, 0), (0, None, None), (None, 0, None), (None, None, 0), (1, 1, 1)):
        picked = [
            g if axis == 0 else jnp.moveaxis(g, 0, 1) if axis else g[0]
            for g, axis in zip(grids, axes, strict=True)
        ]
        found = jax.jit(jax.vmap(loss, axes))(*picked)
        slope = jax.jit(jax.vmap(jax.grad(lambda *a: loss(*a).mean()), axes))(*picked)
        for i in range(3):
            rows = [g[i] if axis is not None else g[0] for g, axis in zip(grids, axes, strict=True)]
            np.testing.assert_allclose(found[i], loss(*rows), 1e-5)
            expected = jax.grad(lambda *a: loss(*a).mean())(*rows)
            np.testing.assert_allclose(slope[i], expected, atol=1e-6)
    one_alpha = jax.vmap(lambda z, a: loss(z, labels[:4], a), (None, 0))
    for row, a in zip(jax.jit(one_alpha)(logits[:4], alphas), alphas, strict=True):
        np.testing.assert_allclose(row, loss(logits[:4], labels[:4], a), 1e-5)
    twice = jax.vmap(jax.vmap(lambda z, y: cross_entropy(z, y, Uniform(0.1))))
    np.testing.assert_allclose(
        jax.jit(twice)(*grids[:2]).ravel(), cross_entropy(logits, labels, Uniform(0.1)), 1e-5
    )


def test_scan_checkpoint_jvp_and_second_derivatives():
    logits, labels = batch(n=12)

    def loss(z):
        return cross_entropy(z, labels, Uniform(0.1)).mean()

    right = exact(logits, labels, Uniform(0.1), reduction="mean")[1]
    close(jax.jit(jax.grad(jax.checkpoint(loss)))(logits), right)
    _, slopes = jax.jit(lambda z: jax.lax.scan(lambda c, _: (c, jax.grad(loss)(c)), z, length=3))(
        logits
    )
    close(slopes[2], right)
    along = jnp.ones_like(logits).at[:, 0].set(2.0)
    _, forward = jax.jit(lambda z: jax.jvp(loss, (z,), (along,)))(logits)
    np.testing.assert_allclose(forward, (right * np.asarray(along)).sum(), 1e-5)
    for twice in (jax.jvp, lambda f, z, d: (None, jax.vjp(f, *z)[1](*d)[0])):
        _, product = jax.jit(lambda z, t=twice: t(jax.grad(loss), (z,), (along,)))(logits)
        p = np.exp(logits - jax.nn.logsumexp(logits, -1, keepdims=True))
        expected = p * (along - (p * along).sum(1, keepdims=True)) / len(logits)
        np.testing.assert_allclose(product, expected, atol=2e-7)


# ------------------------------------------------------------------------- platforms and devices


def test_programs_for_other_platforms_and_for_export_hold_no_native_call():
    logits, labels = batch()
    step = jax.jit(mean_and_gradient())
    for platform in ("cuda", "tpu"):
        text = step.trace(logits, labels).lower(lowering_platforms=(platform,)).as_text()
        assert "softhot_rows" not in text
    value, gradient = step(logits, labels)
    for platforms in (("cpu",), ("cpu", "cuda", "tpu")):
        exported = jax.export.export(step, platforms=platforms)(logits, labels)
        assert "softhot_rows" not in exported.mlir_module()
        again = jax.export.deserialize(exported.serialize()).call(logits, labels)
        np.testing.assert_allclose(again[0], value, 1e-5)
        np.testing.assert_allclose(again[1], gradient, atol=1e-7)


DEVICES = """if True:
    import jax, jax.numpy as jnp, numpy as np
    from functools import partial
    from jax.sharding import NamedSharding, PartitionSpec as P
    from softhot import Uniform
    from softhot.jax import cross_entropy

    def mean(z, y):
        return cross_entropy(z, y, Uniform(0.1)).mean()

    z = jnp.asarray(np.random.default_rng(0).normal(size=(8, 34)), "float32")
    y = jnp.arange(8) % 5
    rows = cross_entropy(z, y, Uniform(0.1))
    slope = jax.grad(mean)(z, y)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, P("data")), NamedSharding(mesh, P(None, "data"))
    for sharding in split:
        spread = jax.jit(jax.value_and_grad(mean))(jax.device_put(z, sharding), y)
        np.testing.assert_allclose(spread[0], rows.mean(), 1e-6)
        np.testing.assert_allclose(spread[1], slope, atol=1e-7)
        print(spread[1].sharding.is_equivalent_to(sharding, 2))
    for check in (True, False):
        parts = partial(jax.shard_map, mesh=mesh, check_vma=check)
        def local(z, y):
            return jax.lax.pmean(mean(z, y), "data")
        whole = parts(local, in_specs=(P("data"), P("data")), out_specs=P())
        np.testing.assert_allclose(jax.jit(whole)(z, y), rows.mean(), 1e-6)
        if check:
            np.testing.assert_allclose(jax.jit(jax.grad(whole))(z, y), slope, atol=1e-7)
            shared = parts(local, in_specs=(P(), P("data")), out_specs=P())
            both = jax.jit(jax.grad(shared))(z[:4], y)
            halves = jax.grad(lambda z: (mean(z, y[:4]) + mean(z, y[4:])) / 2)(z[:4])
            np.testing.assert_allclose(both, halves, atol=1e-7)
    many = jax.pmap(lambda z, y: cross_entropy(z, y, Uniform(0.1)))
    np.testing.assert_allclose(many(z.reshape(2, 4, 34), y.reshape(2, 4)).ravel(), rows, 1e-6)
    explicit = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(explicit):
        put = jax.device_put(z, P("data")), jax.device_put(y, P("data"))
        spread = jax.jit(jax.value_and_grad(mean))(*put)
    np.testing.assert_allclose(spread[1], slope, atol=1e-7)
    print("done")
"""


def test_two_devices():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment |= {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "True", "done"], done.stderr


def test_without_the_kernel_xla_does_it(monkeypatch):
    monkeypatch.setattr(xla, "target", lambda: (None, "switched off"))
    logits, labels = batch()
    step = jax.jit(mean_and_gradient())
    assert "softhot_rows" not in step.lower(logits, labels).as_text()
    value, gradient = step(logits, labels)
    right, slope = exact(logits, labels, Uniform(0.1), reduction="mean")
    np.testing.assert_allclose(value, right, 1e-5)
    close(gradient, slope)
    theirs = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hard = jax.jit(lambda z: cross_entropy(z, labels, Uniform(0.0)))(logits)
    np.testing.assert_allclose(hard, theirs, 1e-5)


# ------------------------------------------------------------------------------ the foreign side


@needs_kernel
@pytest.mark.skipif(not shutil.which("nm"), reason="nm is not installed")
def test_no_function_is_shared_between_instruction_sets():
    """A linker keeps one of several weak ones, and AVX-512 would run what is for any processor."""
    listed = subprocess.run(["nm", str(native.LIBRARY)], capture_output=True, text=True, check=True)
    weak = [line for line in listed.stdout.splitlines() if " W " in line or " u " in line]
    assert not [line for line in weak if "xla" in line or "softhot" in line]


@needs_kernel
def test_threads_change_no_bit(monkeypatch):
    logits, labels = batch(n=3000, k=100)
    monkeypatch.setattr(native, "LOGITS_A_THREAD", 1 << 40)
    alone = jax.jit(mean_and_gradient())(logits, labels)
    monkeypatch.setattr(native, "LOGITS_A_THREAD", 1)
    several = jax.jit(lambda z, y: mean_and_gradient()(z, y))
    for _ in range(50):
        for one, other in zip(alone, several(logits, labels), strict=True):
            assert jnp.array_equal(one, other)


@needs_kernel
def test_many_calls_at_once_wait_for_nobody():
    """More of them than XLA has threads, each asking for more than there are."""
    logits, labels = batch(n=2000, k=100)
    many = jnp.stack([logits + i for i in range(16)])

    @jax.jit
    def every(many):
        return [mean_and_gradient()(z, labels)[1].sum() for z in many]

    assert np.isfinite(every(many)).all()


@needs_kernel
def test_a_call_of_another_version_is_refused():
    logits, labels = batch()
    name, _ = xla.target()
    call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct((ROWS,), jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="not a call of this version"):
        jax.block_until_ready(call(logits, labels, jnp.float32(0.1), call=np.zeros(3, np.uint8)))


def test_a_kernel_that_xla_refuses_is_not_used(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("version 9")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    name, reason = xla.target.__wrapped__()
    assert name is None
    assert "version 9" in reason or not BUILT


def test_explain_says_that_xla_refuses_it(monkeypatch):
    assert "JAX here: not used" not in kernels.explain()
    monkeypatch.setattr(xla, "target", lambda: (None, "version 9"))
    assert ("JAX here: not used, version 9" in kernels.explain()) == BUILT
