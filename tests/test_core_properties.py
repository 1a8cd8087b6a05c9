"""Laws on batches that nobody chose: any K, any alpha, any labels, any mask."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import laws
import softhot
from backends import NUMPY
from batches import Batch, run
from softhot import (
    ConfidencePenalty,
    Focal,
    Margin,
    MaxSup,
    Others,
    PerClass,
    PerSample,
    Prior,
    Schedule,
    Similarity,
    Uniform,
    convert_alpha,
    desmooth,
    explain,
    rule_from_dict,
    smooth_labels,
)
from softhot.core.conventions import CONVENTIONS, alpha_range
from softhot.core.similarity import from_hierarchy

SHARE = st.floats(0, 0.5) | st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 0.5])
CLASSES = st.integers(2, 40)
SEED = st.integers(0, 2**32 - 1)


def weight_of(draw, k):
    """A number, or one for each class."""
    if draw(st.booleans()):
        return draw(SHARE)
    return PerClass(draw(st.lists(st.floats(0, 0.999), min_size=k, max_size=k)))


@st.composite
def target_rules(draw, k):
    alpha = weight_of(draw, k)
    counts = st.lists(st.floats(1e-3, 1e6), min_size=k, max_size=k)
    top = 0.499  # Others must stay below (K - 1)/K, and masks may leave two classes
    kind = draw(st.sampled_from(["uniform", "others", "prior", "similarity"]))
    if kind == "uniform":
        return Uniform(alpha)
    if kind == "others":
        values = alpha.values if isinstance(alpha, PerClass) else (alpha,) * k
        return Others(PerClass([min(v, top) for v in values]))
    if kind == "prior":
        return Prior(alpha, draw(counts), draw(st.floats(0.2, 50)))
    rows = np.random.default_rng(draw(SEED)).dirichlet(np.full(k, 0.5), size=k)
    return Similarity(alpha, rows)


@st.composite
def rules(draw, k):
    """A target rule, or Focal, and any penalties."""
    rule = draw(target_rules(k)) if draw(st.booleans()) else Focal(draw(st.floats(0, 5)))
    penalties = [
        MaxSup(draw(st.floats(0.01, 0.5))),
        Margin(draw(st.floats(1e-3, 0.5)), draw(st.floats(0, 9))),
        ConfidencePenalty(draw(st.floats(1e-3, 3))),
    ]
    for penalty in penalties:
        if draw(st.booleans()):
            rule = rule + penalty
    return rule


@st.composite
def batches(draw, k=None):
    """Rows of any kind; some ignored, some classes not allowed, some weights zero."""
    k = draw(CLASSES) if k is None else k
    n = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(SEED))
    logits = random.normal(size=(n, k)) * 10 ** random.uniform(-2, 2.5, size=(n, 1))
    labels = random.integers(k, size=n)
    batch = Batch(logits, labels, reduction=draw(st.sampled_from(["none", "sum", "mean"])))
    if draw(st.booleans()):
        batch = replace(batch, weight=random.integers(0, 3, size=k).astype(float))
    if draw(st.booleans()):
        allowed = random.random((n, k)) < 0.7
        allowed[np.arange(n), labels] = True
        allowed[np.arange(n), (labels + 1) % k] = True
        batch = replace(batch, allowed=allowed)
    return batch


@st.composite
def problems(draw):
    k = draw(CLASSES)
    return draw(rules(k)), draw(batches(k))


def plain_definition(rule, batch):
    """Loss of each row the plain way, with a dense target, in long double."""
    z = np.where(batch.support, batch.logits, -np.inf).astype(np.longdouble)
    z = z - z.max(1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    log_p = np.where(batch.support, z - np.log(np.exp(z).sum(1, keepdims=True)), 0)
    z = np.where(batch.support, z, 0)
    base = rule.base
    n, k = z.shape
    true = np.arange(n), batch.labels
    if isinstance(base, Focal):
        loss = -((1 - p[true]) ** base.gamma) * log_p[true]
    else:
        ids = {"labels": batch.labels, "rule": base, "num_classes": k}
        q = smooth_labels(**ids, allowed=batch.allowed)
        loss = -(q * log_p).sum(1)
    classes = batch.support.sum(1)
    for penalty in rule.penalties:
        if isinstance(penalty, MaxSup):
            loss = loss - penalty.alpha * z.sum(1) / classes
        elif isinstance(penalty, Margin):
            wide = np.maximum(-z - penalty.margin, 0) * batch.support
            loss = loss + penalty.weight * wide.sum(1)
        else:
            loss = loss + penalty.beta * (p * log_p).sum(1)
    weight = np.ones(k) if batch.weight is None else batch.weight
    return loss * weight[batch.labels]


@given(problems())
def test_loss_is_the_plain_definition(problem):
    rule, batch = problem
    rows = plain_definition(rule, batch)
    loss, _ = run(rule, batch)
    if batch.reduction != "none":
        total = batch.row_weights.sum() or 1.0
        rows = rows.sum() / (total if batch.reduction == "mean" else 1)
    spread = np.ptp(np.where(batch.support, batch.logits, batch.logits.mean()), axis=1).max()
    laws.within(loss - rows.astype(float), np.full(rows.shape, 1e-12 * (1 + spread) * 40))


@given(problems(), st.data())
def test_gradient_follows_the_loss(problem, data):
    """Along any direction, for the reduced loss: a secant of a smooth function, with its bend."""
    rule, batch = problem
    if batch.reduction == "none":
        batch = replace(batch, reduction="sum")
    if any(isinstance(penalty, Margin | MaxSup) for penalty in rule.penalties):
        rule = rule.base  # these have corners, which a random step may cross
    _, gradient = run(rule, batch)
    random = np.random.default_rng(data.draw(SEED))
    step = 1e-5 * random.normal(size=batch.logits.shape)
    above, below = (run(rule, replace(batch, logits=batch.logits + s * step))[0] for s in (1, -1))
    size = np.abs(batch.logits).max() + 1
    bound = 1e-15 * size * 40 * batch.logits.size + 1e-12 * batch.logits.size
    assert abs((above - below) / 2 - (gradient * step).sum()) <= bound


@given(problems())
def test_gradient_sums_to_nothing_and_masked_classes_get_none(problem):
    rule, batch = problem
    _, gradient = run(rule, batch)
    assert np.abs(gradient.sum(1)).max() <= 1e-12 * (1 + np.abs(gradient).max()) * 40
    assert not gradient[~batch.support].any()


@given(problems(), st.data())
def test_ignoring_is_deleting(problem, data):
    rule, batch = problem
    n = len(batch.logits)
    where = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    where[data.draw(st.integers(0, n - 1))] = True
    spoiled = np.where(where[:, None], batch.logits, np.nan)
    left = replace(batch, where=where, logits=spoiled, labels=np.where(where, batch.labels, -9))
    by_id = replace(left, where=None, ignore_index=-9)
    loss, gradient = run(rule, batch.rows(np.flatnonzero(where)))
    for one in (left, by_id):
        result = run(rule, one)
        kept = result[0][where] if batch.reduction == "none" else result[0]
        laws.same((kept, result[1][where]), (loss, gradient), 1e-12)
        assert not result[1][~where].any()


@given(problems(), SEED)
def test_rows_and_micro_batches(problem, seed):
    rule, batch = problem
    order = np.random.default_rng(seed).permutation(len(batch.logits))
    rows = replace(batch, reduction="none")
    loss, gradient = run(rule, rows)
    laws.same(run(rule, rows.rows(order)), (loss[order], gradient[order]), 1e-12)
    total = batch.row_weights.sum() or 1.0
    laws.close(run(rule, replace(batch, reduction="mean"))[0], loss.sum() / total, 1e-12)


@given(problems(), SEED)
def test_classes_have_no_names(problem, seed):
    rule, batch = problem
    k = batch.logits.shape[1]
    order = np.random.default_rng(seed).permutation(k)

    def renamed(value):
        if isinstance(value, tuple):
            return tuple(renamed(value[j]) for j in order)
        return PerClass(renamed(value.values)) if isinstance(value, PerClass) else value

    base = replace(
        rule.base,
        **{
            name: renamed(getattr(rule.base, name))
            for name in ("alpha", "counts", "matrix")
            if name in rule.base.__dict__
        },
    )
    other = sum(rule.penalties, base)
    loss, gradient = run(rule, batch)
    laws.same(run(other, batch.classes(order)), (loss, gradient[:, order]), 1e-11)


@given(st.data())
def test_targets(data):
    """Rows sum to 1, nothing is negative, alpha 0 is bit for bit hard, mixing commutes."""
    k = data.draw(CLASSES)
    rule = data.draw(target_rules(k))
    n = data.draw(st.integers(1, 9))
    random = np.random.default_rng(data.draw(SEED))
    labels = random.integers(k, size=n)
    rows = smooth_labels(labels, rule, num_classes=k)
    laws.rows_sum_to_one(rows, k * NUMPY.eps)
    assert (rows >= 0).all()
    if isinstance(rule, Uniform | Others):
        assert (rows[np.arange(n), labels] >= rows.max(1)).all()
    hard = smooth_labels(labels, replace(rule, alpha=0.0), num_classes=k)
    assert (hard == np.eye(k)[labels]).all()
    mixed = random.dirichlet(np.full(k, 0.3), size=n)
    table = smooth_labels(np.arange(k), rule, num_classes=k)
    given_rows = smooth_labels(mixed, rule, num_classes=k, smooth_again=True)
    laws.close(given_rows, mixed @ table, 1e-12)


@given(st.data())
def test_desmoothing_undoes_smoothing(data):
    k = data.draw(CLASSES)
    rule = data.draw(target_rules(k))
    random = np.random.default_rng(data.draw(SEED))
    posterior = random.dirichlet(np.full(k, 0.3), size=5)
    smoothed = smooth_labels(posterior, rule, num_classes=k, smooth_again=True)
    table = smooth_labels(np.arange(k), rule, num_classes=k)
    condition = np.linalg.cond(table)
    if condition < 1e10:
        back = desmooth(smoothed, rule, clip=False)
        laws.close(back, posterior, 1e-15 * k * condition + 1e-14)
        clipped = desmooth(random.dirichlet(np.full(k, 0.3), size=5), rule)
        assert (clipped >= 0).all()
        laws.rows_sum_to_one(clipped, 1e-12)


@given(st.data())
def test_uniform_desmoothing_keeps_the_order_of_classes(data):
    k = data.draw(CLASSES)
    alpha = data.draw(st.floats(0, 0.5))
    p = np.random.default_rng(data.draw(SEED)).dirichlet(np.ones(k))
    order = np.argsort(p, kind="stable")
    assert (np.diff(desmooth(p, alpha)[order]) >= -1e-16).all()


@given(st.data())
def test_conventions_convert_there_and_back(data):
    names = [name for name, convention in CONVENTIONS.items() if not convention.why_not]
    frm, to = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    binary = CONVENTIONS[frm].binary or CONVENTIONS[to].binary
    k = 2 if binary else data.draw(st.integers(2, 300_000))
    top = min(alpha_range(CONVENTIONS[frm], k).high, 50.0)
    alpha = data.draw(st.floats(1e-12, top * 0.999))
    there = convert_alpha(alpha, frm, to, k)
    on, other = CONVENTIONS[frm].on(alpha, k), CONVENTIONS[to].on(there, k)
    assert on == pytest.approx(other, abs=1e-13)
    assert convert_alpha(there, to, frm, k) == pytest.approx(alpha, rel=1e-6, abs=1e-12)


@given(problems())
def test_round_trips(problem):
    rule, _ = problem
    assert rule_from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    assert eval(repr(rule), vars(softhot).copy()) == rule
    assert rule.at(0) == rule


@given(st.lists(st.tuples(st.integers(-50, 50), st.floats(0, 0.999)), min_size=1, max_size=6))
def test_schedules_are_straight_between_points(points):
    points = sorted(points, key=lambda point: point[0])
    schedule = Schedule(points)
    steps, values = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    for step in np.linspace(-60, 60, 97):
        if (steps == step).any():
            assert schedule.at(step) == values[steps == step][-1]
        else:
            assert schedule.at(step) == pytest.approx(np.interp(step, steps, values), abs=1e-12)
    assert schedule.at(-1e300) == values[0]
    assert schedule.at(1e300) == values[-1]
    assert rule_from_dict(Uniform(schedule).to_dict()) == Uniform(schedule)


@given(target_rules(7), st.integers(2, 2000))
def test_explain_is_the_targets(rule, k):
    explained = explain(rule, 7)
    table = smooth_labels(np.arange(7), rule, num_classes=7)
    on = np.diag(table)
    off = np.where(np.eye(7) > 0, -np.inf, table).max(1)
    assert np.atleast_1d(explained.on) == pytest.approx(on if np.ptp(on) > 1e-12 else on[0])
    entropy = -(table * np.log(np.where(table > 0, table, 1))).sum(1)
    floor = np.broadcast_to(explained.loss_floor, 7)
    assert floor == pytest.approx(entropy, abs=1e-9)
    assert np.broadcast_to(explained.off, 7) == pytest.approx(off, abs=1e-9)
    uniform = explain(0.1, k)
    assert uniform.on == pytest.approx(0.9 + 0.1 / k)
    assert uniform.logit_gap == pytest.approx(math.log(1 + 9 * k))
    assert uniform.flip_ratio == pytest.approx(1 + 9 * k)


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple)


@given(st.lists(NAMES, min_size=2, max_size=8, unique=True), st.floats(0.1, 20))
def test_hierarchies_share_by_the_height_of_the_common_ancestor(paths, beta):
    matrix = np.array(from_hierarchy(paths, beta=beta).matrix)
    laws.rows_sum_to_one(matrix)

    def height(a, b):
        shared = 0
        while shared < min(len(a), len(b)) and a[shared] == b[shared]:
            shared += 1
        return max(len(a), len(b)) - shared if a != b else 0

    heights = np.array([[height(a, b) for b in paths] for a in paths])
    mass = np.exp(-beta * heights / heights.max())
    laws.close(matrix, mass / mass.sum(1, keepdims=True), 1e-12)
    assert (matrix.argmax(1) == np.arange(len(paths))).all()


@given(batches(), st.data())
def test_a_weight_a_sample(batch, data):
    n = len(batch.logits)
    alpha = np.array(data.draw(st.lists(SHARE, min_size=n, max_size=n)))
    loss = partial(run, Uniform(PerSample()))
    rows = replace(batch, alpha=alpha, reduction="none")
    value, gradient = loss(rows)
    for i in range(n):
        one = rows.rows(np.array([i]))
        expected = run(Uniform(float(alpha[i])), replace(one, alpha=None))
        laws.same((value[[i]], gradient[[i]]), expected, 1e-12)
