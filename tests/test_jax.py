"""The JAX losses: the case table, every transformation, and what tracing cannot check."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import softhot
from backends import Backend
from batches import K, run
from cases import BINARY, CASES, OPTIONS, batch_with, can_combine
from softhot import Bernoulli, Focal, InputError, MaxSup, PerSample, Prior, Uniform
from softhot.jax import binary_cross_entropy, cross_entropy

case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
DOUBLE = Backend("jax", "float64")
SINGLES = [[], *([name] for name in OPTIONS)]
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(name="x64")
def _x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    return jnp.asarray(random.normal(size=(8, K)) * 3), jnp.asarray(random.integers(K, size=8))


def with_gradient(logits, labels, rule, **options):
    """The adapter in the shape of the core's own function, through JAX's differentiation."""
    loss, pull = jax.vjp(lambda z: cross_entropy(z, labels, rule, **options), logits)
    return loss, pull(jnp.ones_like(loss))[0]


def agree(case, names, backend, tolerance, jit=False):
    batch = batch_with(case, names).rounded(backend)
    loss, gradient = run(case.rule, batch, backend, with_gradient, jit=jit)
    expected, slope = run(case.rule, batch)
    scale = max(1, np.abs(expected).max()), max(1, np.abs(slope).max())
    assert np.abs(loss - expected).max() <= tolerance * scale[0], names
    # The gradient comes back in the logits' own dtype.
    assert np.abs(gradient - slope).max() <= (tolerance + backend.eps) * scale[1], names


@case
def test_every_rule_is_the_reference(case, x64):
    for names in SINGLES[CASES.index(case) % 3 :: 3]:  # test_core_laws has every option
        if can_combine(case, names):
            agree(case, names, DOUBLE, 1e-13)


def turns():
    """Compiling is slow: each rule meets one option here, or two; test_jax_native has the rest."""
    for i, c in enumerate(CASES):
        # Rounded to bfloat16, the rows of a prior no longer sum to 1.
        half = "float32" if "prior" in (c.batch or {}) else "bfloat16"
        for j, dtype in enumerate((half, "float64")):
            names = SINGLES[(i + 4 * j) % len(SINGLES)]
            names = names if can_combine(c, names) else []
            yield pytest.param(c, names, dtype, id=f"{c.name}-{'-'.join(names)}-{dtype}")


@pytest.mark.parametrize(("case", "names", "dtype"), list(turns()))
def test_compiled_too_in_every_dtype(case, names, dtype):
    backend = Backend("jax", dtype)
    with backend.active():
        agree(case, names, backend, 1e-13 if dtype == "float64" else 2e-6, jit=True)


@pytest.mark.parametrize(("name", "rule", "targets"), BINARY, ids=[name for name, *_ in BINARY])
def test_binary_rules_are_the_reference(name, rule, targets, x64):
    labels = np.array([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    logits = np.random.default_rng(0).normal(size=(2, 5)) * 5
    for reduction in ("none", "mean"):
        expected, slope = softhot.binary_cross_entropy_and_gradient(
            logits, labels, rule, reduction=reduction
        )

        def loss(z, rule=rule, reduction=reduction):
            return binary_cross_entropy(z, labels, rule, reduction=reduction)

        for function in (loss, jax.jit(loss)):
            value, pull = jax.vjp(function, jnp.asarray(logits))
            np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-14)
            np.testing.assert_allclose(pull(jnp.ones_like(value))[0], slope, rtol=0, atol=1e-14)


# What optax computes, where it computes it.


def test_hard_loss_is_that_of_optax(batch):
    theirs = optax.softmax_cross_entropy_with_integer_labels(*batch)
    for function in (cross_entropy, jax.jit(cross_entropy, static_argnums=2)):
        np.testing.assert_allclose(function(*batch, Uniform(0.0)), theirs, rtol=1e-6, atol=1e-6)


def test_uniform_smoothing_is_that_of_optax(batch):
    logits, labels = batch
    targets = optax.smooth_labels(jax.nn.one_hot(labels, K), 0.1)
    theirs = optax.softmax_cross_entropy(logits, targets)
    np.testing.assert_allclose(cross_entropy(logits, labels, Uniform(0.1)), theirs, rtol=1e-5)
    soft = cross_entropy(logits, jax.nn.one_hot(labels, K), Uniform(0.1))
    np.testing.assert_allclose(soft, theirs, rtol=1e-5)


def test_binary_loss_is_that_of_optax(batch):
    logits, _ = batch
    labels = (logits > 1).astype(int)
    theirs = optax.sigmoid_binary_cross_entropy(logits, 0.9 * labels + 0.05)
    ours = binary_cross_entropy(logits, labels, Bernoulli(0.1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_where_means_classes_too_as_in_optax(batch):
    logits, labels = batch
    mask = (jnp.arange(K) != 2) | (labels == 2)[:, None]
    theirs = optax.softmax_cross_entropy_with_integer_labels(logits, labels, where=mask)
    ours = cross_entropy(logits, labels, Uniform(0.0), where=mask)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    rows = jnp.arange(8) % 3 > 0
    theirs = optax.softmax_cross_entropy_with_integer_labels(logits, labels, where=rows)
    np.testing.assert_allclose(
        cross_entropy(logits, labels, Uniform(0.0), where=rows), theirs, rtol=1e-5, atol=1e-6
    )
    both = mask & rows[:, None]
    ours = cross_entropy(logits, labels, Uniform(0.1), where=both)
    expected = cross_entropy(
        logits, labels, Uniform(0.1), where=rows, allowed=mask | ~rows[:, None]
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert (ours[~rows] == 0).all()


# Transformations.

TRANSFORMED = (Uniform(0.1), Uniform(0.0), Prior(0.1, (1, 2, 3, 4, 5)), Focal(), MaxSup(0.1))


@pytest.mark.parametrize("rule", TRANSFORMED, ids=repr)
def test_vmap_jvp_and_checkpoint_change_nothing(rule, batch):
    logits, labels = batch
    rows, slope = softhot.cross_entropy_and_gradient(np.asarray(logits), np.asarray(labels), rule)

    def row(z, y):
        return cross_entropy(z, y, rule)

    one_by_one = jax.vmap(jax.value_and_grad(row))
    for function in (one_by_one, jax.jit(one_by_one)):
        value, gradient = function(logits, labels)
        np.testing.assert_allclose(value, rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, slope, atol=1e-6)
    replicas = jax.jit(jax.vmap(row, in_axes=(0, None)))(jnp.stack([logits, logits]), labels)
    np.testing.assert_allclose(replicas, np.stack([rows, rows]), rtol=1e-5, atol=1e-6)
    along = jnp.ones_like(logits).at[:, 0].set(2.0)
    _, forward = jax.jvp(lambda z: row(z, labels), (logits,), (along,))
    np.testing.assert_allclose(forward, (slope * np.asarray(along)).sum(1), atol=1e-5)
    again = jax.grad(jax.checkpoint(lambda z: row(z, labels).sum()))(logits)
    np.testing.assert_allclose(again, slope, atol=1e-6)


@pytest.mark.parametrize("rule", TRANSFORMED, ids=repr)
def test_second_derivatives(rule, x64):
    logits, labels = jnp.asarray([[0.3, -1.2, 2.0, 0.1]]), jnp.asarray([1])
    if isinstance(rule, Prior):
        rule = Prior(0.1, (1, 2, 3, 4))

    def slope(z):
        return softhot.cross_entropy_and_gradient(z, np.asarray(labels), rule)[1][0]

    def loss(z):
        return cross_entropy(z, labels, rule).sum()

    step = 1e-6 * np.eye(4)[:, None, :]
    z = np.asarray(logits)
    expected = np.stack([(slope(z + d) - slope(z - d)) / 2e-6 for d in step])
    for hessian in (jax.jit(jax.hessian(loss)), jax.jit(jax.jacrev(jax.jacrev(loss)))):
        np.testing.assert_allclose(hessian(logits)[0, :, 0, :], expected, atol=1e-8)


def test_everything_real_can_be_differentiated(x64):
    random = np.random.default_rng(3)
    logits, teacher = random.normal(size=(4, K)), random.dirichlet(np.ones(K), 4)
    soft = random.dirichlet(np.ones(K), 4)
    arrays = {"alpha": np.full(4, 0.3), "prior": teacher, "weight": random.uniform(1, 2, K)}
    rule = softhot.Teacher(PerSample())

    @jax.jit
    def slopes(arrays):
        def loss(arrays):
            both = [
                cross_entropy(logits, labels, rule, reduction="mean", **arrays)
                for labels in (np.array([0, 1, 4, 2]), soft)
            ]
            return both[0] + 3 * both[1]

        return jax.value_and_grad(loss)(arrays)

    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
    _, gradient = slopes(arrays)
    for name, array in arrays.items():
        # The prior is renormalised, so moving mass between classes is what can be compared.
        along = np.zeros(array.shape)
        along[..., 0], along[..., -1] = 1e-6, -1e-6
        above, below = (slopes(arrays | {name: array + s * along})[0] for s in (1, -1))
        slope = np.sum(gradient[name] * along) / 1e-6
        np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-6, err_msg=name)
    move = np.zeros((4, K))
    move[:, 0], move[:, 1] = 1e-7, -1e-7
    by_label = jax.grad(lambda y: cross_entropy(logits, y, Uniform(0.2)).sum())(jnp.asarray(soft))
    above, below = (cross_entropy(logits, soft + s * move, Uniform(0.2)).sum() for s in (1, -1))
    np.testing.assert_allclose((by_label * move).sum() / 1e-7, (above - below) / 2e-7, rtol=1e-5)


def test_rules_are_static_and_equal_rules_compile_once(batch):
    compiled = []

    def loss(logits, labels, rule):
        compiled.append(rule)
        return cross_entropy(logits, labels, rule).mean()

    jitted = jax.jit(loss, static_argnames="rule")
    for rule in (
        Uniform(0.1),
        Uniform(0.1),
        Uniform(0.2),
        Prior(0.1, np.arange(1.0, 6)),
        Uniform(0.1),
    ):
        jitted(*batch, rule=rule)
    assert len(compiled) == 3
    for c in CASES:
        assert hash(c.rule) == hash(softhot.rule_from_dict(c.rule.to_dict()))


def test_a_schedule_does_not_compile_anew(batch):
    logits, labels = batch
    compiled = []

    @jax.jit
    def loss(alpha):
        compiled.append(alpha)
        return cross_entropy(logits, labels, Uniform(PerSample()), alpha=alpha)

    schedule = optax.linear_schedule(0.3, 0.0, 10)
    for step in (0, 5, 10):
        expected = cross_entropy(logits, labels, Uniform(float(schedule(step))))
        np.testing.assert_allclose(loss(schedule(step)), expected, rtol=1e-5, atol=1e-6)
    assert len(compiled) == 1
    np.testing.assert_allclose(
        cross_entropy(logits, labels, Uniform(PerSample()), alpha=0.1),
        cross_entropy(logits, labels, Uniform(0.1)),
        rtol=1e-6,
    )


# What cannot be checked must not be wrong.


@pytest.mark.parametrize(
    "rule", [Uniform(0.1), Uniform(0.0), Prior(0.1, (1, 2, 3, 4, 5)), Focal()], ids=repr
)
def test_labels_out_of_range_raise_or_are_nan(rule, batch):
    logits, labels = batch
    bad = labels.at[1].set(-1).at[3].set(K)
    with pytest.raises(InputError, match=r"labels\[1\] must be a class id in 0 .. 4; got -1"):
        cross_entropy(logits, bad, rule)
    with pytest.raises(InputError):
        jax.grad(lambda z: cross_entropy(z, bad, rule).sum())(logits)

    def slopes(labels, **options):
        def loss(z, labels):
            return cross_entropy(z, labels, rule, **options)

        rows, pull = jax.vjp(lambda z: loss(z, labels), logits)
        return rows, pull(jnp.ones_like(rows))[0]

    rows, slope = jax.jit(slopes)(bad)
    assert jnp.isnan(rows).tolist() == [y in (-1, K) for y in bad]
    assert jnp.isnan(slope).all(1).tolist() == [y in (-1, K) for y in bad]
    assert jnp.isfinite(slope).all(1).tolist() == [y not in (-1, K) for y in bad]
    rows, slope = jax.jit(lambda y: slopes(y, where=(y >= 0) & (y < K)))(bad)
    assert jnp.isfinite(rows).all()
    assert jnp.isfinite(slope).all()
    assert not slope[1].any()
    rows, _ = jax.jit(lambda y: slopes(y, ignore_index=-1))(bad)
    assert jnp.isnan(rows).tolist() == [y == K for y in bad]


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_alphas_out_of_range_raise_or_are_nan(alpha, batch):
    def loss(alpha):
        return cross_entropy(*batch, Uniform(PerSample()), alpha=alpha)

    with pytest.raises(InputError, match="alpha must be"):
        loss(alpha)
    assert jnp.isnan(jax.jit(loss)(alpha)).all()
    assert jnp.isnan(jax.jit(jax.grad(lambda a: loss(a).sum()))(alpha))


def test_a_label_that_is_not_allowed_raises_or_is_nan(batch):
    logits, labels = batch
    for rule in (Uniform(0.1), Uniform(0.0), Prior(0.1, (1, 2, 3, 4, 5))):
        masked = logits.at[0, labels[0]].set(-jnp.inf)
        allowed = jnp.isfinite(masked)
        for options in ({"logits": masked}, {"logits": logits, "allowed": allowed}):

            def loss(options, rule=rule):
                return cross_entropy(labels=labels, rule=rule, **options)

            with pytest.raises(InputError, match=r"labels\[0\] must be an allowed class"):
                loss(options)
            assert jnp.isnan(jax.jit(loss)(options)).tolist() == [True] + 7 * [False]


def test_binary_labels_out_of_range_raise_or_are_nan():
    def loss(labels):
        return binary_cross_entropy(jnp.zeros(3), labels, Bernoulli(0.1))

    for labels in (jnp.array([1, 2, 0]), jnp.array([1.0, 1.5, 0.0]), jnp.array([1.0, np.nan, 0.0])):
        with pytest.raises(InputError, match=r"labels\[1\] must be"):
            loss(labels)
        assert jnp.isnan(jax.jit(loss)(labels)).tolist() == [False, True, False]


def test_constants_under_jit_are_not_looked_at(batch):
    logits, _ = batch
    bad = jnp.full(8, K)
    assert jnp.isnan(jax.jit(lambda z: cross_entropy(z, bad, Uniform(0.1)))(logits)).all()
    assert jnp.isnan(
        jax.jit(jax.grad(lambda z: cross_entropy(z, bad, Uniform(0.1)).sum()))(logits)
    ).all()


def test_wrong_arguments_raise_under_jit_too(batch):
    logits, labels = batch
    for bad, text in (
        ({"labels": labels[:-1]}, "labels must be of shape"),
        ({"labels": labels.astype(float)}, "labels must be class ids"),
        ({"logits": labels}, "labels must be of shape|logits must be"),
        ({"rule": 0.1}, "Write softhot.Uniform"),
        ({"axis": 2}, "axis must be"),
        ({"alpha": 0.1}, "given twice"),
        ({"alpha": 0.1, "axis": 5}, "axis must be"),
        ({"where": labels}, "where must be booleans"),
        ({"weight": jnp.ones(3)}, "weight must be of shape"),
        ({"reduction": "average"}, "reduction must be one of"),
        ({"labels": ["a"] * 8}, "labels must be an array of numbers"),
    ):
        given = {"logits": logits, "labels": labels, "rule": Uniform(0.1)} | bad
        for wrap in (lambda f: f, jax.jit):
            with pytest.raises(InputError, match=text):
                wrap(lambda z, given=given: cross_entropy(**given))(logits)


# Dtypes, sizes, devices.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_large_vocabulary_in_half_precision(dtype):
    k = 262_144
    logits = (jax.random.normal(jax.random.key(0), (2, k)) * 5).astype(dtype)
    loss, slope = jax.jit(lambda z: with_gradient(z, jnp.array([3, k - 1]), Uniform(0.1)))(logits)
    wide = np.asarray(logits.astype(jnp.float32), np.float64)
    expected, right = softhot.cross_entropy_and_gradient(wide, np.array([3, k - 1]), Uniform(0.1))
    assert (loss.dtype, slope.dtype) == (jnp.float32, jnp.dtype(dtype))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(slope[0, 3].astype(float), right[0, 3], rtol=1e-2)


def test_a_mean_in_half_precision_keeps_small_gradients():
    logits = jnp.zeros((4096, K), jnp.float16)
    loss = jax.jit(lambda z: 1024 * cross_entropy(z, jnp.zeros(4096, int), Uniform(0.1)).mean())
    assert (jnp.abs(jax.grad(loss)(logits)) > 0.02).all()


def test_a_common_offset_costs_no_accuracy(batch):
    logits, labels = batch
    for rule in (Uniform(0.0), Uniform(0.3)):
        here, there = (
            jax.jit(cross_entropy, static_argnums=2)(z, labels, rule)
            for z in (jnp.round(logits * 8) / 8, jnp.round(logits * 8) / 8 + 4096)
        )
        np.testing.assert_allclose(here, there, rtol=1e-6)


def test_hard_labels_cost_no_copy_of_the_logits():
    n, k = 64, 4096
    compiled = jax.jit(cross_entropy, static_argnums=2).lower(
        jnp.zeros((n, k)), jnp.zeros(n, int), Uniform(0.0)
    )
    assert compiled.compile().memory_analysis().temp_size_in_bytes < n * k


def test_no_scatter_and_no_one_hot_going_forward():
    logits, labels = jnp.zeros((8, K)), jnp.zeros(8, int)
    forward = jax.jit(cross_entropy, static_argnums=2).lower(logits, labels, Uniform(0.0)).as_text()
    backward = jax.jit(jax.grad(lambda z: cross_entropy(z, labels, Uniform(0.1)).sum()))
    assert "iota" not in forward.split("gather")[-1]
    assert "scatter" not in backward.lower(logits).as_text()


def test_arrays_spread_over_devices(batch):
    sharding = jax.sharding.NamedSharding(
        jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec("data", None)
    )
    logits, labels = batch
    for rule in TRANSFORMED:
        spread = cross_entropy(jax.device_put(logits, sharding), labels, rule)
        np.testing.assert_allclose(spread, cross_entropy(logits, labels, rule), rtol=1e-6)


# Training.


def train(loss, steps=60):
    """A linear layer, one hidden layer, full batches of real digits, Adam; the loss curve."""
    features, labels = load_digits(return_X_y=True)
    features, labels = jnp.asarray(features / 16), jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(0))
    params = [
        jax.random.normal(key, shape) * shape[0] ** -0.5
        for key, shape in zip(keys, ((64, 32), (32, 10)), strict=True)
    ]
    optimizer = optax.adam(1e-2)

    def objective(params):
        return loss(jax.nn.relu(features @ params[0]) @ params[1], labels).mean()

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(objective)(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[1]


def test_training_with_alpha_0_is_training_with_optax(x64):
    plain = train(optax.softmax_cross_entropy_with_integer_labels)
    ours = train(lambda z, y: cross_entropy(z, y, Uniform(0.0)))
    np.testing.assert_allclose(ours, plain, rtol=1e-9)
    assert plain[-1] < 0.1 * plain[0]
    smooth = train(lambda z, y: cross_entropy(z, y, Uniform(0.1)))
    dense = train(
        lambda z, y: optax.softmax_cross_entropy(
            z, optax.smooth_labels(jax.nn.one_hot(y, 10, dtype=z.dtype), 0.1)
        )
    )
    np.testing.assert_allclose(smooth, dense, rtol=1e-9)


def test_the_flax_example_runs():
    report = runpy.run_path(str(EXAMPLES / "jax_flax_digits.py"))["main"](epochs=8)
    assert set(report) == {"hard", "smoothed"}
    for scores in report.values():
        assert scores["accuracy"] > 0.9
    assert report["smoothed"]["confidence"] < report["hard"]["confidence"]
