"""Binary rules: targets by hand, the loss by its definition, and the laws, in every library."""

import itertools
import json
import warnings
from dataclasses import dataclass, field, fields, replace

import mpmath
import numpy as np
import pytest

import laws
import softhot
from backends import NUMPY, Backend
from cases import BINARY
from softhot import Bernoulli, Platt, Prevalence, SofthotWarning, Uniform
from softhot.core.binary import BinaryRule
from softhot.core.rule import Rule

ROWS = np.array([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
LABELS = np.tile(ROWS, (12, 1))
N, L = LABELS.shape
LOGITS = np.random.default_rng(0).normal(size=(N, L)) * np.resize([0.1, 1, 5, 30], N)[:, None]
binary = pytest.mark.parametrize(("name", "rule", "rows"), BINARY, ids=[b[0] for b in BINARY])


@dataclass(frozen=True)
class Labelled:
    """Arguments of a binary loss; labels along the last axis."""

    logits: np.ndarray = field(default_factory=lambda: LOGITS)
    labels: np.ndarray = field(default_factory=lambda: LABELS)
    where: np.ndarray | None = None
    pos_weight: np.ndarray | None = None
    weighting: str = "sample"
    reduction: str = "none"
    first: bool = False  # lay the label axis first

    @property
    def counted(self):
        return np.ones((N, L), bool) if self.where is None else self.where


def spoiled(batch):
    where = np.random.default_rng(1).random((N, L)) < 0.7
    logits = np.where(where, batch.logits, np.nan)
    labels = np.where(where, batch.labels, np.nan if batch.labels.dtype.kind == "f" else 9)
    return replace(batch, where=where, logits=logits, labels=labels)


PER_LABEL = np.array([1.0, 3.0, 0.5, 0.0, 2.0])
OPTIONS = {
    "soft": lambda b: replace(b, labels=np.abs(b.labels - np.resize([0, 0.25, 0.5], (N, 1)))),
    "boolean": lambda b: replace(b, labels=b.labels > 0),
    "pos_weight": lambda b: replace(b, pos_weight=np.array(3.0)),
    "pos_weight per label": lambda b: replace(b, pos_weight=PER_LABEL),
    "class weighting": lambda b: replace(b, pos_weight=PER_LABEL, weighting="class"),
    "where": spoiled,
    "first": lambda b: replace(b, first=True),
    "sum": lambda b: replace(b, reduction="sum"),
    "mean": lambda b: replace(b, reduction="mean"),
}
EXCLUDE = [
    {"soft", "boolean"},
    {"sum", "mean"},
    *map(set, itertools.combinations(("pos_weight", "pos_weight per label", "class weighting"), 2)),
    {"boolean", "where"},
]


def combinations(length):
    for n in range(length + 1):
        for names in itertools.combinations(OPTIONS, n):
            if not any(pair <= set(names) for pair in EXCLUDE):
                batch = Labelled()
                for name in names:
                    batch = OPTIONS[name](batch)
                yield names, batch


def run(rule, batch, backend=NUMPY, jit=False):
    arrays = {name: getattr(batch, name) for name in ("logits", "labels", "where", "pos_weight")}
    arrays = {
        name: backend.array(array.T if batch.first else array)
        for name, array in arrays.items()
        if array is not None
    }
    before = {name: backend.numpy(array).copy() for name, array in arrays.items()}
    plain = {"reduction": batch.reduction, "weighting": batch.weighting}
    plain["axis"] = 0 if batch.first else -1

    def call(arrays):
        given = dict(arrays)
        return softhot.binary_cross_entropy_and_gradient(
            given.pop("logits"), given.pop("labels"), rule, **given, **plain
        )

    if jit:
        import jax

        call = jax.jit(call)
    with warnings.catch_warnings():
        if batch.weighting == "class":
            warnings.simplefilter("ignore", SofthotWarning)
        loss, gradient = call(arrays)
    for name, array in arrays.items():
        now = backend.numpy(array)
        assert np.array_equal(now, before[name], equal_nan=now.dtype.kind == "f")
    assert backend.dtype_of(gradient) == backend.dtype
    assert backend.dtype_of(loss) == ("float64" if backend.dtype == "float64" else "float32")
    loss, gradient = backend.numpy(loss), backend.numpy(gradient)
    return (loss.T, gradient.T) if batch.first else (loss, gradient)


def definition(rule, batch):
    """Loss and the size of its terms, to 40 digits, given the targets (checked by hand below)."""
    labels = np.where(batch.counted, batch.labels, 0)
    q = softhot.smooth_binary_labels(labels, rule)
    weight = np.broadcast_to(1.0 if batch.pos_weight is None else batch.pos_weight, (N, L))
    loss = np.zeros((N, L))
    for i in np.ndindex(N, L):
        if batch.counted[i]:
            z, t, w = (mpmath.mpf(float(a[i])) for a in (batch.logits, q, weight))
            y = mpmath.mpf(float(batch.labels[i]))
            on, off = mpmath.log1p(mpmath.exp(-z)), mpmath.log1p(mpmath.exp(z))
            if batch.weighting == "class":
                value = w * t * on + (1 - t) * off
            else:
                value = (w * y + 1 - y) * (t * on + (1 - t) * off)
            loss[i] = float(value)
    if batch.reduction == "none":
        return loss
    return loss.sum() / (batch.counted.sum() if batch.reduction == "mean" else 1)


def test_every_binary_rule_has_a_line():
    used = {type(rule).__name__ for _, rule, _ in BINARY}
    assert used == {name for name, rule in Rule.known.items() if issubclass(rule, BinaryRule)}


@binary
def test_targets_are_those_worked_out_by_hand(name, rule, rows, backend):
    for labels in (ROWS, ROWS > 0, ROWS * 1.0):
        given = backend.array(labels)
        target = softhot.smooth_binary_labels(given, rule, dtype=backend.real)
        assert backend.dtype_of(target) == backend.dtype
        laws.close(backend.numpy(target), np.array(rows), backend.eps)
        assert np.array_equal(backend.numpy(given), labels)
    first = softhot.smooth_binary_labels(ROWS.T, rule, axis=0)
    assert np.array_equal(first.T, softhot.smooth_binary_labels(ROWS, rule))


def test_the_dtype_of_targets_is_that_of_real_labels():
    for dtype in (np.float16, np.float32, np.float64):
        assert softhot.smooth_binary_labels(ROWS.astype(dtype), 0.1).dtype == dtype
    assert softhot.smooth_binary_labels(ROWS, 0.1).dtype == np.float64
    assert softhot.smooth_binary_labels(ROWS, 0.1, dtype=np.float32).dtype == np.float32
    torch = Backend("torch", "float32")
    assert torch.dtype_of(softhot.smooth_binary_labels(torch.array(ROWS), 0.1)) == "float32"


@binary
def test_float64_is_the_definition_with_every_pair_of_options(name, rule, rows):
    for names, batch in combinations(2):
        loss, _ = run(rule, batch)
        expected = definition(rule, batch)
        laws.within(loss - expected, 1e-14 * np.abs(expected) + 1e-300, (name, names))


@binary
def test_every_library_and_dtype_gives_the_definition(name, rule, rows, backend):
    for names, batch in combinations(1):
        rounded = {
            part: backend.rounded(getattr(batch, part))
            for part in ("logits", "pos_weight")
            if getattr(batch, part) is not None
        }
        batch = replace(batch, **rounded)
        loss, gradient = run(rule, batch, backend)
        expected = definition(rule, batch)
        laws.within(loss - expected, 32 * backend.accumulator_eps * np.abs(expected) + 1e-30, names)
        reference = run(rule, batch)[1]
        allowed = backend.eps * np.abs(reference) + 64 * backend.accumulator_eps
        laws.within(gradient - reference, allowed, names)


@binary
def test_gradient_is_slope_with_every_pair_of_options(name, rule, rows):
    for names, batch in combinations(2):
        batch = replace(batch, reduction="none")
        nudged = [run(rule, replace(batch, logits=batch.logits + s * 1e-5))[0] for s in (1, -1)]
        slope = (nudged[0] - nudged[1]) / 2e-5
        laws.within(run(rule, batch)[1] - slope, np.full((N, L), 1e-7), (name, names))


@binary
def test_reductions_and_entries_left_out(name, rule, rows, backend):
    if backend.library == "jax":
        return
    batch = replace(spoiled(Labelled(pos_weight=PER_LABEL)), reduction="none")
    loss, gradient = run(rule, batch, backend)
    assert not loss[~batch.where].any()
    assert not gradient[~batch.where].any()
    total, tolerance = batch.where.sum(), 64 * backend.eps
    laws.same(
        run(rule, replace(batch, reduction="sum"), backend), (loss.sum(), gradient), tolerance
    )
    mean = (loss.sum() / total, gradient / total)
    laws.same(run(rule, replace(batch, reduction="mean"), backend), mean, tolerance)
    # What an entry left out holds is nobody's business; only MassPreserving looks along the row.
    clean = replace(batch, logits=LOGITS, labels=np.where(batch.where, LABELS, 0))
    laws.same(run(rule, clean, backend), (loss, gradient), 0)


@binary
def test_least_at_target(name, rule, rows):
    q = softhot.smooth_binary_labels(LABELS, rule)
    best = replace(Labelled(), logits=np.log(q + 1e-40) - np.log(1 - q + 1e-40))
    loss, gradient = run(rule, best)
    assert np.abs(gradient).max() < 1e-12
    for size in (0.01, 1.0):
        elsewhere = best.logits + size * np.random.default_rng(2).normal(size=(N, L))
        assert (run(rule, replace(best, logits=elsewhere))[0] >= loss - 1e-12).all()
    weighted = replace(best, pos_weight=PER_LABEL, weighting="class")
    weighted = replace(weighted, logits=best.logits + np.log(np.maximum(PER_LABEL, 1e-40)))
    assert np.abs(run(rule, weighted)[1]).max() < 1e-12


@binary
def test_round_trips(name, rule, rows):
    assert softhot.rule_from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    assert eval(repr(rule), vars(softhot).copy()) == rule
    assert rule.at(3) == rule


@binary
def test_under_jit(name, rule, rows):
    jax = Backend("jax", "float32")
    batch = replace(Labelled(logits=jax.rounded(LOGITS)), where=LABELS > -1, reduction="mean")
    laws.same(run(rule, batch, jax, jit=True), run(rule, batch), 1e-6)


@binary
def test_every_field_has_an_effect(name, rule, rows):
    other = {"alpha": 0.31, "rates": (0.3,), "side": "negative", "positives": 9.0, "negatives": 1.0}
    for part in fields(rule):
        new = other[part.name]
        if new == getattr(rule, part.name):
            new = "positive"
        changed = replace(rule, **{part.name: new})
        assert not np.allclose(run(changed, Labelled())[0], run(rule, Labelled())[0])


def test_every_option_has_an_effect():
    base = run(Bernoulli(0.1), Labelled())
    for names, batch in combinations(1):
        same = names in [(), ("boolean",), ("first",)]
        result = run(Bernoulli(0.1), batch)
        equal = result[0].shape == base[0].shape and np.allclose(result[0], base[0])
        assert equal == same, names
    sample = run(Bernoulli(0.1), replace(Labelled(), pos_weight=PER_LABEL))
    by_class = run(Bernoulli(0.1), replace(Labelled(), pos_weight=PER_LABEL, weighting="class"))
    assert not np.allclose(sample[0], by_class[0])


def test_alpha_zero_is_binary_cross_entropy():
    log_p = -np.log1p(np.exp(-LOGITS)), -np.log1p(np.exp(LOGITS))
    expected = -np.where(LABELS == 1, *log_p)
    for _, rule, _ in BINARY:
        if any(part.name == "alpha" for part in fields(rule)):
            loss, gradient = run(replace(rule, alpha=0.0), Labelled())
            laws.close(loss, expected, 1e-14)
            laws.close(gradient, 1 / (1 + np.exp(-LOGITS)) - LABELS, 1e-14)


def test_bernoulli_is_uniform_for_two_classes():
    logits = np.stack([np.zeros(N * L), LOGITS.ravel()], axis=1)
    expected, gradient = softhot.cross_entropy_and_gradient(logits, LABELS.ravel(), Uniform(0.3))
    loss, slopes = run(Bernoulli(0.3), Labelled())
    laws.close(loss.ravel(), expected, 1e-14)
    laws.close(slopes.ravel(), gradient[:, 1], 1e-14)


def test_a_schedule_is_fixed_before_use():
    rule = Bernoulli(softhot.Schedule(((0, 0.1), (10, 0.3))))
    assert rule.at(5) == Bernoulli(0.2)
    assert softhot.rule_from_dict(rule.to_dict()) == rule


def test_platt_counts_the_labels(double):
    labels = np.array([[1, 0], [1, 0], [0, 0]])
    assert Platt.from_labels(double.array(labels)) == Platt((2.0, 0.0), (1.0, 3.0))
    assert Platt.from_labels(double.array(labels[:, 0])) == Platt(2, 1)
    assert Platt.from_labels([[True], [False]]) == Platt(1, 1)


def test_one_label_alone():
    loss, gradient = softhot.binary_cross_entropy_and_gradient(np.array(2.0), 1, Bernoulli(0.1))
    expected = run(Bernoulli(0.1), replace(Labelled(), logits=np.full((N, L), 2.0)))
    laws.close(loss, expected[0][0, 0], 1e-15)
    laws.close(gradient, expected[1][0, 0], 1e-15)
    assert softhot.smooth_binary_labels(1, 0.1) == pytest.approx(0.95)
    one = softhot.smooth_binary_labels(1, Prevalence(0.1, (0.2,)))
    assert one == pytest.approx(0.92)
    scaled = softhot.binary_cross_entropy(np.array(2.0), 1, Bernoulli(0.1), pos_weight=3.0)
    laws.close(scaled, 3 * loss, 1e-15)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_labels(reduction, backend):
    empty = backend.array(np.zeros((0, 3)))
    loss, gradient = softhot.binary_cross_entropy_and_gradient(
        empty, empty, Bernoulli(0.1), reduction=reduction
    )
    assert tuple(loss.shape) == ((0, 3) if reduction == "none" else ())
    assert tuple(gradient.shape) == (0, 3)
    assert not backend.numpy(loss).any()
    some = backend.array(np.zeros((2, 3)))
    nothing = backend.array(np.zeros((2, 3), bool))
    loss, gradient = softhot.binary_cross_entropy_and_gradient(
        some, some, Bernoulli(0.1), where=nothing, reduction=reduction
    )
    assert not backend.numpy(loss).any()
    assert not backend.numpy(gradient).any()


def test_far_logits_stay_exact(backend):
    for far in (1e2, 1e4):
        logits = backend.array(np.array([far, -far, far, -far]))
        labels = backend.array(np.array([1, 0, 0, 1]))
        loss, gradient = softhot.binary_cross_entropy_and_gradient(logits, labels, Bernoulli(0.25))
        far = backend.rounded(far)
        expected = far * np.array([0.125, 0.125, 0.875, 0.875])
        laws.close(backend.numpy(loss), expected, backend.accumulator_eps)
        assert backend.numpy(gradient) == pytest.approx([0.125, -0.125, 0.875, -0.875])


def test_validation_off_gives_the_same():
    for _, batch in combinations(1):
        if batch.where is None and batch.weighting == "sample":
            given = {"pos_weight": batch.pos_weight, "axis": 0 if batch.first else -1}
            logits, labels = (a.T if batch.first else a for a in (batch.logits, batch.labels))
            results = [
                softhot.binary_cross_entropy(logits, labels, Bernoulli(0.1), **given, validate=v)
                for v in (True, False)
            ]
            assert np.array_equal(*results)
