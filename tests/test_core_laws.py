"""Every law on every rule, with every option, in every library and dtype."""

import itertools
import json
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from functools import partial

import numpy as np
import pytest

import laws
import softhot
from backends import Backend
from batches import K, N, run, smooth
from cases import CASES, OPTIONS, TARGET_CASES, WEIGHT, batch_with, can_combine, make_batch
from oracle import oracle
from softhot.core.check import OneOf
from softhot.core.losses import Batch
from softhot.core.rule import Composite, Rule

case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
target_case = pytest.mark.parametrize("case", TARGET_CASES, ids=lambda case: case.name)
# All options, in as few calls as possible.
FEW = [
    set(),
    {"soft", "allowed", "where", "middle", "sum"},
    {"masked", "ignored", "weight", "mean"},
    {"class weight"},
]
SINGLES = [[], *([name] for name in OPTIONS)]
ROW_OPTIONS = [name for name in OPTIONS if name not in ("sum", "mean")]


def combinations(case, length):
    names = itertools.chain.from_iterable(
        itertools.combinations(ROW_OPTIONS, n) for n in range(length + 1)
    )
    return [n for n in names if can_combine(case, n)]


def test_every_rule_has_a_line():
    used = {type(part).__name__ for c in CASES for part in (c.rule.base, *c.rule.penalties)}
    assert used == set(softhot.RULES)


@target_case
def test_targets_are_those_worked_out_by_hand(case, backend):
    target = smooth(case.rule, make_batch(case), backend, dtype=backend.real)
    assert target[1] == pytest.approx(case.row, abs=backend.eps / 2 + 2e-16)
    laws.rows_sum_to_one(target, K * backend.eps)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float64_is_the_definition_to_1e_14_with_every_pair_of_options(case):
    for names in combinations(case, 2):
        for reduction in ("none", "mean"):
            batch = replace(batch_with(case, names), reduction=reduction)
            loss, _ = run(case.rule, batch)
            expected, size = oracle(case, batch)
            laws.within(loss - expected, 1e-14 * size, names)


@case
def test_gradient_is_slope_with_every_pair_of_options(case):
    for names in combinations(case, 2):
        laws.gradient_is_slope(partial(run, case.rule), batch_with(case, names))


@case
def test_every_library_and_dtype_gives_the_definition_with_every_option(case, backend):
    for names in FEW if backend.library == "jax" else [set(), *({name} for name in OPTIONS)]:
        names = names - {"soft"} if case.loss else names
        if can_combine(case, names):
            batch = batch_with(case, names).rounded(backend)
            is_the_definition(case, batch, backend, run(case.rule, batch, backend))


def is_the_definition(case, batch, backend, result):
    loss, gradient = result
    expected, size = oracle(case, batch)
    laws.within(loss - expected, 64 * backend.accumulator_eps * size, batch)
    _, reference = run(case.rule, batch.normalized())
    allowed = backend.eps * np.abs(reference) + 256 * backend.accumulator_eps
    laws.within(gradient - reference, allowed, batch)


@case
def test_under_jit_with_validation_on(case):
    jax = Backend("jax", "float32")
    names = {"allowed", "masked", "where", "weight", "middle", "mean"}
    batch = batch_with(case, names).rounded(jax)
    is_the_definition(case, batch, jax, run(case.rule, batch, jax, jit=True))


@case
def test_gradient_is_slope_in_every_library_in_float64(case, double):
    laws.gradient_is_slope(partial(run, case.rule, backend=double), make_batch(case))


@case
def test_laws_of_rows(case, eager):
    """Shift, reduction, repetition, deletion, parts, order and axis."""
    loss = partial(run, case.rule, backend=eager)
    tolerance = 32 * eager.eps
    plain = make_batch(case, scale=2.0).rounded(eager)
    laws.reduction_sums_the_rows(loss, plain, tolerance)
    laws.rows_do_not_meet(loss, plain, tolerance)
    laws.axis_changes_nothing(loss, plain, tolerance)
    laws.weight_is_repetition(loss, plain, tolerance)
    laws.micro_batches_are_the_batch(loss, plain, tolerance)
    if eager.eps < 1e-6 and case.rule.shift_invariant:
        laws.shift_changes_nothing(loss, plain, 64 * tolerance)


@case
@pytest.mark.parametrize("left_out", ["ignored", "where"])
def test_ignoring_is_deleting(case, left_out, eager):
    loss = partial(run, case.rule, backend=eager)
    for other in (None, "soft", "allowed", "masked", "weight", "class weight", "middle"):
        names = {left_out, other} - {None}
        if can_combine(case, names):
            batch = batch_with(case, names).rounded(eager)
            laws.ignoring_is_deleting(loss, batch, 32 * eager.eps)


@case
@pytest.mark.parametrize("name", ROW_OPTIONS)
def test_laws_hold_with_each_option(case, name):
    if not can_combine(case, {name}):
        return
    loss, batch = partial(run, case.rule), batch_with(case, {name})
    laws.reduction_sums_the_rows(loss, batch)
    laws.axis_changes_nothing(loss, batch)
    laws.micro_batches_are_the_batch(loss, batch)
    if name not in ("ignored", "where", "masked") and case.rule.shift_invariant:
        laws.shift_changes_nothing(loss, batch)
    if not batch.soft and name != "class weight":
        laws.weight_is_repetition(loss, batch)


@case
def test_coefficients_sum_to_zero(case):
    """Each statistic grows by its mass when a constant is added to the logits.

    They sum to 0 exactly where the rule says that such a constant changes nothing.
    """
    for name in ("", "soft", "allowed", "class weight"):
        if not can_combine(case, {name}):
            continue
        batch = batch_with(case, {name})
        arrays, plain = batch.arguments()
        plain |= {"weighting": batch.weighting}
        warns = name == "class weight" and _moves(case)
        with pytest.warns(softhot.SofthotWarning) if warns else nullcontext():
            core = Batch(arrays.pop("logits"), arrays.pop("labels"), case.rule, **arrays, **plain)
        worst = 0.0
        for _, partials in core.terms:
            masses = {key: core.row.slope(key).sum(axis=-1) for key in partials}
            total = sum(np.asarray(partials[key]) * masses[key] for key in partials)
            worst = max(worst, np.abs(total).max())
            for key in set(partials) & {"lse", "mean", "max", "expected"}:
                assert masses[key] == pytest.approx(np.ones_like(masses[key]))
        assert (worst <= 1e-14) == case.rule.shift_invariant, (name, worst)


def _moves(case):
    """Whether these class weights make a wrong class the best prediction."""
    if case.loss is not None:
        return False
    q = smooth(case.rule.base, make_batch(case))
    return bool(((q * WEIGHT).argmax(1) != q.argmax(1)).any())


def without_smoothing(rule):
    """The rule at alpha 0 (0 of the range it has); None where that is no longer the rule."""
    try:
        return replace(rule, **{fields(rule)[0].name: 0.0})  # alpha, or what there is instead
    except softhot.InputError:
        return None


@pytest.mark.parametrize("case", [c for c in CASES if not c.rule.penalties], ids=lambda c: c.name)
def test_alpha_zero_is_cross_entropy(case, eager):
    rule = without_smoothing(case.rule)
    if rule is None:
        assert isinstance(case.rule, softhot.NegativeUniform)
        return
    batch = replace(make_batch(case), alpha=None).rounded(eager)
    loss, gradient = run(rule, batch, eager)
    hard = replace(batch, prior=None, by_row=False)
    log_p = batch.logits - np.log(np.exp(batch.logits).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(N), batch.labels]
    laws.close(loss, expected, 16 * eager.accumulator_eps)
    laws.same((loss, gradient), run(softhot.Uniform(0.0), hard, eager), 16 * eager.eps)


def renamed(value, order):
    """A rule, or what it holds, with its classes in another order; found by shape alone."""
    if isinstance(value, Composite):
        return replace(value, target=renamed(value.target, order))
    if is_dataclass(value):
        return replace(
            value, **{f.name: renamed(getattr(value, f.name), order) for f in fields(value)}
        )
    if isinstance(value, tuple) and len(value) == K:
        return tuple(renamed(value[k], order) for k in order)
    return value


@case
def test_classes_have_no_names(case):
    order = np.array([3, 0, 4, 1, 2])
    for name in ("", "soft", "allowed", "weight", "class weight", "where"):
        if not case.ordered and can_combine(case, {name}):
            other = partial(run, renamed(case.rule, order))
            laws.classes_have_no_names(partial(run, case.rule), other, batch_with(case, {name}))


def test_ordinal_without_positions_counts_from_one():
    explicit = softhot.Ordinal(positions=tuple(range(1, K + 1)))
    batch = make_batch(CASES[0])
    laws.same(run(softhot.Ordinal(), batch), run(explicit, batch), 0)


@target_case
def test_labels_mix_linearly(case):
    # Not with weight=: a row then weighs <y, w>, so that the best prediction stays the target.
    for name in ("", "allowed", "where", "class weight"):
        batch = batch_with(case, {name})
        if name == "allowed":
            batch = replace(batch, allowed=np.ones((N, K), bool))
            batch.allowed[::3, 4] = False
            batch = batch.rows(np.flatnonzero((batch.labels % 5 != 4) & (batch.labels % 5 != 2)))
        if name == "where":
            batch = replace(batch, labels=np.where(batch.where, batch.labels, 0))
        laws.labels_mix_linearly(partial(run, case.rule), batch)


@target_case
def test_least_at_target(case):
    if case.name == "negative":
        return  # its target is no distribution, and it has no least value
    for name in ("", "soft", "weight"):
        batch = batch_with(case, {name})
        target = smooth(case.rule, batch)
        laws.least_at_target(partial(run, case.rule), batch, target)
    batch = batch_with(case, {"class weight"})
    moved = smooth(case.rule, batch) * batch.weight
    loss = partial(run, case.rule)
    laws.least_at_target(loss, batch, moved / moved.sum(axis=1, keepdims=True))


@case
def test_every_option_has_an_effect(case):
    for name in OPTIONS:
        if name == "middle" or not can_combine(case, {name}):
            continue
        batch = make_batch(case)
        laws.option_matters(partial(run, case.rule), batch, batch_with(case, {name}))
    batch = batch_with(case, {"weight"})
    if case.row != CASES[0].row and case.penalty is None:
        changed = replace(batch, weighting="class")
        laws.option_matters(partial(run, case.rule), batch, changed)


def another(rule, name):
    """Another value of a field, within its range."""
    value, allowed = getattr(rule, name), rule.RANGES.get(name)
    if isinstance(allowed, OneOf):
        return next(other for other in allowed.names if other != value)
    if isinstance(value, tuple):
        return value[1:] + value[:1]
    if value is None:
        return {"threshold": 0.3, "positions": (5, 1, 2, 4, 3)}[name]
    return next(
        other
        for other in (0.31, 1.0, -0.7)
        if other != value and (allowed is None or other in allowed)
    )


@case
def test_every_field_of_a_rule_has_an_effect(case):
    """A field nobody reads would pass every other law."""
    batch = make_batch(case)
    for part in (case.rule.base, *case.rule.penalties):
        for field in fields(part):
            changed = replace(part, **{field.name: another(part, field.name)})
            given = replace(batch, alpha=None) if field.name == "alpha" else batch
            one, two = run(part, batch), run(changed, given)
            assert not np.allclose(one[0], two[0], rtol=1e-6), field.name


@case
def test_round_trips(case):
    rule = case.rule
    text = json.dumps(rule.to_dict(), allow_nan=False)
    assert softhot.rule_from_dict(json.loads(text)) == rule
    assert eval(repr(rule), vars(softhot).copy()) == rule
    assert hash(rule) == hash(softhot.rule_from_dict(rule.to_dict()))
    assert isinstance(rule, Rule)


@case
def test_validation_off_gives_the_same(case):
    def unchecked(*args, **options):
        return softhot.cross_entropy_and_gradient(*args, **options, validate=False)

    for name in ("", "soft", "where", "masked", "class weight"):
        if can_combine(case, {name}):
            batch = batch_with(case, {name})
            laws.same(run(case.rule, batch), run(case.rule, batch, function=unchecked), 1e-15)


@case
def test_loss_alone_is_the_loss_with_its_gradient(case):
    for names in SINGLES:
        if can_combine(case, names):
            batch = batch_with(case, names)

            def alone(*args, batch=batch, **options):
                loss = softhot.cross_entropy(*args, **options)
                return loss, softhot.cross_entropy_and_gradient(*args, **options)[1]

            laws.same(run(case.rule, batch), run(case.rule, batch, function=alone), 0)


@case
def test_one_row_without_a_batch_axis(case, eager):
    """Logits ``(K,)`` with a scalar label are a batch of one."""
    batch = make_batch(case)
    for row in range(4):
        one = batch.rows(np.array([row]))
        arrays, _ = one.arguments(eager)
        given = {n: a[0, ...] if n != "prior" or one.by_row else a for n, a in arrays.items()}
        loss, gradient = softhot.cross_entropy_and_gradient(
            given.pop("logits"), given.pop("labels"), case.rule, **given
        )
        expected = [result[0] for result in run(case.rule, one, eager)]
        result = (eager.numpy(loss), eager.numpy(gradient))
        laws.same(result, expected, 16 * eager.eps)


@case
def test_no_rows(case, eager):
    """No rows, and rows none of which count: the mean is 0, not NaN."""
    for reduction in ("none", "sum", "mean"):
        nothing = replace(make_batch(case).rows(np.arange(0)), reduction=reduction)
        loss, gradient = run(case.rule, nothing, eager)
        assert loss.shape == ((0,) if reduction == "none" else ())
        assert gradient.shape == (0, K)
        assert not loss.any()
        batch = replace(make_batch(case), where=np.zeros(N, bool), reduction=reduction)
        loss, gradient = run(case.rule, batch, eager)
        assert not loss.any()
        assert not gradient.any()
