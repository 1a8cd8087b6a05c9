"""Bad input: more than 300 ways to be wrong, each an InputError that names argument and value."""

import math
import pickle

import numpy as np
import pytest

import softhot
from backends import LIBRARIES, NUMPY, Backend
from bad_inputs import (
    ARRAYS,
    BINARY_LOSS,
    CALLS,
    ELSE,
    EYE,
    LOSS,
    NONE_IS_RIGHT,
    TARGETS,
    B,
    P,
    Y,
    Z,
)
from softhot import (
    RULES,
    Bernoulli,
    InputError,
    PerClass,
    Schedule,
    Similarity,
    SofthotWarning,
    Teacher,
    Uniform,
    binary_cross_entropy,
    convert_alpha,
    cross_entropy,
    smooth_binary_labels,
    smooth_labels,
)
from softhot.core.binary import BinaryRule
from softhot.core.check import shown
from softhot.core.conventions import CONVENTIONS, alpha_range
from softhot.core.rule import Rule


def refuses(call, argument, value):
    """It raises InputError, and nothing else, that names the argument and the value."""
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert caught.value.argument in text
    assert argument in text, text
    assert (value if isinstance(value, str) else shown(value)) in text, text
    assert len(text) < 600
    assert "\n" not in text
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == text
    return caught.value


EACH = (NUMPY, Backend("torch", "float32"), Backend("strict", "float64"), Backend("jax", "float32"))
EACH = tuple(backend for backend in EACH if backend.library in LIBRARIES)


@pytest.mark.parametrize("bad", LOSS, ids=lambda bad: bad.why)
def test_losses_refuse(bad):
    given = {"logits": Z, "labels": Y, "rule": Uniform(0.1)} | bad.given
    for library in EACH:
        if library.dtype == "float32" and bad.why == "far label" and library.library == "jax":
            continue  # without 64 bits JAX truncates the label before it gets here
        arrays = {
            name: library.array(value) if type(value) is np.ndarray else value
            for name, value in given.items()
        }
        if not isinstance(given["logits"], np.ndarray) and library is not NUMPY:
            continue
        error = refuses(lambda given=arrays: cross_entropy(**given), bad.argument, bad.value)
        assert bad.hint in str(error), str(error)


@pytest.mark.parametrize("bad", LOSS, ids=lambda bad: bad.why)
def test_the_gradient_refuses_the_same(bad):
    given = {"logits": Z, "labels": Y, "rule": Uniform(0.1)} | bad.given
    refuses(lambda: softhot.cross_entropy_and_gradient(**given), bad.argument, bad.value)


@pytest.mark.parametrize("bad", TARGETS, ids=lambda bad: bad.why)
def test_targets_refuse(bad):
    given = {"labels": Y, "rule": Uniform(0.1), "num_classes": 4} | bad.given
    error = refuses(lambda: smooth_labels(**given), bad.argument, bad.value)
    assert bad.hint in str(error)


def twice(given):
    """Every array with a row a sample, stacked: rows ``(3, ...)`` become a grid ``(2, 3, ...)``."""
    by_row = {"logits", "labels", "where", "allowed", "alpha"}
    by_row |= {"prior"} if isinstance(given["rule"], Teacher) else set()
    stacks = (n for n in by_row & set(given) if isinstance(given[n], np.ndarray))
    return {name: np.stack([given[name]] * 2) for name in stacks if given[name].shape[:1] == (3,)}


GRIDS = [
    pytest.param(function, right | bad.given, id=f"{function.__name__}: {bad.why}")
    for table, function, right in (
        (LOSS, cross_entropy, {"logits": Z, "labels": Y, "rule": Uniform(0.1)}),
        (TARGETS, smooth_labels, {"labels": Y, "rule": Uniform(0.1), "num_classes": 4}),
    )
    for bad in table
    if "axis" not in bad.given and "shape" not in bad.argument
]


@pytest.mark.parametrize(("function", "given"), GRIDS)
def test_a_grid_is_refused_for_what_its_rows_are(function, given):
    """At its place, if it has one: no check takes the second axis for the last."""
    rows, stacked = refuses(lambda: function(**given), "", ""), twice(given)
    name, place, rest = rows.argument.partition("[")
    grid = refuses(lambda: function(**given | stacked), name, "")
    if place and name in stacked:
        assert grid.argument == f"{name}[0, {rest}"
        assert (grid.allowed, shown(grid.value)) == (rows.allowed, shown(rows.value))


def test_a_grid_is_warned_of_as_its_rows_are():
    given = {"logits": Z, "labels": Y, "rule": Uniform(0.1), "weighting": "class"}
    given["weight"] = [1, 1, 1, 38]
    texts = []
    for stacked in ({}, twice(given)):
        with pytest.warns(SofthotWarning) as caught:
            cross_entropy(**given | stacked)
        texts.append(str(caught[0].message))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("bad", BINARY_LOSS, ids=lambda bad: bad.why)
def test_binary_losses_refuse(bad):
    given = {"logits": B * 1.5, "labels": B, "rule": Bernoulli(0.1)} | bad.given
    error = refuses(lambda: binary_cross_entropy(**given), bad.argument, bad.value)
    assert bad.hint in str(error)
    if set(bad.given) <= {"labels", "axis"} and bad.why != "shape":
        given.pop("logits")
        refuses(lambda: smooth_binary_labels(**given), bad.argument, bad.value)


KNOWN = {**RULES, **{n: r for n, r in Rule.known.items() if issubclass(r, BinaryRule)}}
RANGED = [(rule, name) for rule in KNOWN.values() for name in rule.RANGES]


@pytest.mark.parametrize(("rule", "name"), RANGED, ids=lambda v: getattr(v, "__name__", v))
def test_rules_refuse_what_their_ranges_refuse(rule, name):
    """The ranges say themselves what is bad; so a new rule is tested unasked."""
    allowed = rule.RANGES[name]
    assert len(allowed.bad_values()) >= 6
    for value in allowed.bad_values():
        error = refuses(lambda v=value: rule(**{name: v}), f"{rule.__name__}.{name}", value)
        assert str(allowed) in str(error)
        if name == "alpha":
            below = isinstance(value, float | int) and value < 0
            assert ("softhot.NegativeUniform" in str(error)) == below
    if name == "alpha":
        numbers = [v for v in allowed.bad_values() if type(v) is float and math.isfinite(v)]
        for value in numbers:
            refuses(lambda v=value: rule(PerClass([v])), f"{rule.__name__}.alpha", value)
            refuses(lambda v=value: rule(Schedule([(7, v)])), "alpha at step 7", value)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_arguments_refuse_what_their_ranges_refuse(call):
    name, function, argument, allowed = call
    for value in allowed.bad_values():
        if value is None and name in NONE_IS_RIGHT:
            continue
        error = refuses(lambda v=value: function(v), argument, "")
        if name not in ("rates", "positives", "negatives") or type(value) is float:
            assert shown(value) in str(error)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_refuse_what_their_ranges_refuse(name):
    k = 2 if CONVENTIONS[name].binary else 4
    for value in alpha_range(CONVENTIONS[name], k).bad_values():
        refuses(lambda v=value: convert_alpha(v, name, name, k), "alpha", value)


@pytest.mark.parametrize("bad", ELSE, ids=lambda bad: bad[0])
def test_everything_else_refuses(bad):
    refuses(*bad[1:])


@pytest.mark.parametrize(("function", "right", "names"), ARRAYS)
def test_what_is_no_array_of_numbers_names_the_argument(function, right, names):
    for name in names:
        for bad in (["a"], [[1.0], [1.0, 2.0]], np.ma.masked_array([1.0], [True])):
            with pytest.raises(InputError) as caught:
                function(**{**right, name: bad})
            assert caught.value.argument == name
            assert shown(bad) in str(caught.value)


def test_mass_on_a_class_that_is_not_allowed_is_told_at_its_place_in_a_grid():
    labels, allowed = np.tile([0.5, 0.5, 0.0, 0.0], (2, 3, 1)), np.ones((2, 3, 4), bool)
    allowed[1, 2, 1] = False
    refuses(
        lambda: smooth_labels(labels, 0.1, num_classes=4, allowed=allowed),
        "labels[1, 2]",
        "mass on another class",
    )


def test_there_are_many():
    ranges = sum(len(rule.RANGES[name].bad_values()) for rule, name in RANGED)
    assert len(LOSS) + len(TARGETS) + len(BINARY_LOSS) + len(ELSE) >= 250
    assert ranges >= 200


WARNED = [
    (lambda: Uniform(0.9), "did you mean 0.1"),
    (lambda: smooth_labels([0], 0.75, num_classes=4), "did you mean 0.25"),
    (
        lambda: cross_entropy(Z, Y, Uniform(0.1), weight=[1, 1, 1, 38], weighting="class"),
        "class 3 the best prediction for a sample of class 0: its weight is 38 times as large, and "
        "from 37 on",
    ),
    (
        lambda: cross_entropy(Z, P, Uniform(0.1), weight=[0, 1, 1, 1], weighting="class"),
        "its weight is inf times",
    ),
    (
        lambda: binary_cross_entropy(B * 1.0, B, Bernoulli(0.1), pos_weight=20, weighting="class"),
        "the best prediction for some negatives",
    ),
]


@pytest.mark.parametrize("warned", WARNED, ids=range(len(WARNED)))
def test_what_is_probably_not_meant_is_warned_of_where_it_was_written(warned):
    call, text = warned
    with pytest.warns(SofthotWarning, match=text) as caught:
        call()
    assert [w.filename for w in caught] == [__file__]


NOT_WARNED = [
    lambda: Uniform(0.5),
    lambda: Similarity(1.0, EYE),
    lambda: cross_entropy(Z, Y, Uniform(0.1), weight=[1, 1, 1, 36], weighting="class"),
    lambda: cross_entropy(Z, Y, Uniform(0.1), weight=[1, 1, 1, 1000], weighting="sample"),
    lambda: cross_entropy(
        Z, Y, Uniform(0.1), weight=[1, 1, 1, 38], weighting="class", validate=False
    ),
    lambda: binary_cross_entropy(B * 1.0, B, Bernoulli(0.1), pos_weight=18, weighting="class"),
    lambda: binary_cross_entropy(B * 1.0, B, Bernoulli(0.1), pos_weight=1000),
]


@pytest.mark.parametrize("call", NOT_WARNED, ids=range(len(NOT_WARNED)))
def test_what_is_fine_is_not_warned_of(call):
    call()  # warnings are errors
