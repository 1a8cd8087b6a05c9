"""The small parts of the core: ranges, messages, arrays, weights, rules, doctests."""

import dataclasses
import doctest
import importlib
import math
import pkgutil

import numpy as np
import pytest

import softhot
import softhot.core
from softhot import (
    ConfidencePenalty,
    Focal,
    InputError,
    Margin,
    MaxSup,
    PerClass,
    PerSample,
    Prior,
    Schedule,
    Similarity,
    Teacher,
    Uniform,
    rule_from_dict,
    smooth_labels,
)
from softhot.core.array import first_true, position, to_numpy
from softhot.core.check import Interval, OneOf, shown
from softhot.core.rule import HARD, Penalty, Rule

MODULES = [
    module.name
    for module in pkgutil.iter_modules(softhot.core.__path__, "softhot.core.")
    if not module.ispkg
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


# ---- check.py -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "text", "inside", "outside"),
    [
        (Interval(0, 1), "a real number in [0, 1]", (0, 1, 0.5), (-0.1, 1.1)),
        (Interval(0, 1, "()"), "a real number in (0, 1)", (0.5,), (0, 1)),
        (Interval(0, 1, "(]"), "a real number in (0, 1]", (1,), (0,)),
        (Interval(0, 1, "[)"), "a real number in [0, 1)", (0,), (1,)),
        (Interval(0, math.inf, "[)"), "a real number >= 0", (0, 1e300), (math.inf, -1)),
        (Interval(0, math.inf, "()"), "a real number > 0", (5e-324,), (0, math.inf)),
        (Interval(0, math.inf), "a real number >= 0", (math.inf,), (-math.inf,)),
        (Interval(-math.inf, 0, "()"), "a real number < 0", (-1,), (0, -math.inf)),
        (Interval(-math.inf, 0, "(]"), "a real number <= 0", (0,), (-math.inf,)),
        (Interval(-math.inf, 0), "a real number <= 0", (-math.inf,), (0.1,)),
        (Interval(-math.inf, math.inf, "()"), "a real number, finite", (0,), (math.inf, -math.inf)),
        (Interval(2, 9, integer=True), "an integer in [2, 9]", (2, 9, np.int8(3)), (1, 10, 3.0)),
        (Interval(2, math.inf, "[)", integer=True), "an integer >= 2", (2, 2**70), (1, 2.5)),
    ],
    ids=str,
)
def test_intervals(interval, text, inside, outside):
    assert str(interval) == text
    for value in inside:
        assert value in interval
        assert interval.check("x", value) == value
        assert type(interval.check("x", value)) is (int if interval.integer else float)
    for value in (*outside, *interval.bad_values()):
        assert value not in interval
        with pytest.raises(InputError, match="x must be a"):
            interval.check("x", value)
    numbers = np.array([v for v in (*inside, *outside) if abs(v) < 1e300] + [np.nan], dtype=float)
    if not interval.integer:
        assert interval.holds(numbers).tolist() == [v in interval for v in numbers]


def test_bad_values_stand_at_every_border():
    inf = math.inf
    always = [math.nan, True, None, "0.1", [0.1], 0.1j]
    assert str(Interval(0, 1, "[)").bad_values()) == str([*always, -1, -inf, 2, inf, 1])
    assert str(Interval(0, 1, "(]").bad_values()) == str([*always, -1, -inf, 0, 2, inf])
    assert str(Interval(0, inf, "[)").bad_values()) == str([*always, -1, -inf, inf])
    assert str(Interval(-inf, 0, "()").bad_values()) == str([*always, -inf, 1, inf, 0])
    assert str(Interval(0, 1, integer=True).bad_values()) == str([*always, -1, -inf, 2, inf, 0.5])
    assert OneOf("a", "b").bad_values() == ["", "no such name", None, 1, "A", ["a"]]


def test_numbers_of_numpy_are_numbers_and_python_s_booleans_are_not():
    interval = Interval(0, 1)
    for value in (np.float32(0.5), np.float16(0.5), np.int64(1), np.float64(0.5)):
        assert type(interval.check("x", value)) is float
    for value in (np.True_, True, np.array(0.5), "0.5", 10**400):
        assert value not in interval


def test_names():
    names = OneOf("alpha", "beta")
    assert names.check("x", "beta") == "beta"
    assert str(names) == "one of 'alpha', 'beta'"
    for value, hint in (("aplha", " Did you mean 'alpha'?"), ("zzz", ""), (["alpha"], "")):
        with pytest.raises(InputError) as caught:
            names.check("x", value)
        assert str(caught.value) == f"x must be one of 'alpha', 'beta'; got {value!r}.{hint}"
    with pytest.raises(InputError, match=r"got 'aplha'\. Read on\.$"):
        names.check("x", "aplha", "Read on.")


def test_what_an_error_shows_is_one_short_line():
    assert shown(0.1) == "0.1"
    assert shown(np.arange(3)) == "array([0, 1, 2])"
    assert shown("a\nb") == "'a\\nb'"
    assert shown(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    long = shown(list(range(100)))
    assert len(long) <= 80
    assert long.startswith("[0, 1, ")
    assert long.endswith("98, 99]")
    assert shown(shown("x")) == "'x'"
    assert shown("x" * 78) == repr("x" * 78)
    assert len(shown("x" * 79)) <= 80
    error = InputError("a", "b", 1, "c")
    assert (error.argument, error.allowed, error.value, error.hint) == ("a", "b", 1, "c")
    assert str(error) == "a must be b; got 1. c"
    assert str(InputError("a", "b", 1)) == "a must be b; got 1."
    assert isinstance(error, ValueError)


# ---- array.py -------------------------------------------------------------------------------


def test_places_of_errors(double):
    import array_api_compat

    mask = np.zeros((3, 4), bool)
    mask[1, 2] = mask[2, 0] = True
    array = double.array(mask)
    assert first_true(array_api_compat.array_namespace(array), array) == (1, 2)
    assert position((1, 2)) == "[1, 2]"
    assert position(()) == ""


def test_to_numpy():
    import torch

    half = torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True)
    assert to_numpy(half).dtype == np.float64
    assert to_numpy(torch.tensor([3], dtype=torch.int32)).dtype == np.int32
    assert to_numpy([1, 2]).tolist() == [1, 2]


# ---- weights and rules ----------------------------------------------------------------------


def test_schedules_by_hand():
    schedule = Schedule(((0, 0.1), (10, 0.3), (10, 0.2), (20, 0.0)))
    expected = {-5: 0.1, 0: 0.1, 5: 0.2, 9.5: 0.29, 10: 0.2, 15: 0.1, 20: 0.0, 99: 0.0}
    assert {step: round(schedule.at(step), 12) for step in expected} == expected
    assert schedule.to_dict() == {
        "weight": "Schedule",
        "points": [[0.0, 0.1], [10.0, 0.3], [10.0, 0.2], [20.0, 0.0]],
    }
    assert Schedule(np.array([[0, 0.1]])) == Schedule([(0.0, 0.1)])
    rule = Uniform(schedule) + MaxSup(Schedule(((0, 0.1), (10, 0.2)))) + Margin()
    assert rule.at(5) == Uniform(schedule.at(5)) + MaxSup(0.15000000000000002) + Margin()
    assert softhot.rule_from_dict(rule.to_dict()) == rule


def test_sums_of_rules():
    rule = MaxSup(0.1) + Uniform(0.2) + Margin(0.1)
    assert rule == Uniform(0.2) + (MaxSup(0.1) + Margin(0.1))
    assert (rule.base, rule.penalties) == (Uniform(0.2), (MaxSup(0.1), Margin(0.1)))
    assert repr(rule) == "Uniform(alpha=0.2) + MaxSup(alpha=0.1) + Margin(weight=0.1, margin=10.0)"
    bare = MaxSup(0.1) + Margin(0.1)
    assert bare.base is HARD
    assert (MaxSup(0.1).base, MaxSup(0.1).penalties) == (HARD, (MaxSup(0.1),))
    assert (Focal().base, Focal().penalties) == (Focal(), ())
    with pytest.raises(TypeError):
        Uniform(0.1) + 0.1
    assert softhot.rule_from_dict({"rule": "Composite", "parts": [Focal().to_dict()]}) == (
        softhot.core.rule.Composite(Focal())
    )


def test_a_rule_is_known_by_its_name_once_it_is_defined():
    class Mine(Penalty):
        pass

    assert Rule.known.pop("Mine") is Mine
    assert not {"Base", "Penalty", "Composite", "BinaryRule"} & set(Rule.known)


def test_without_a_schedule_a_rule_is_itself_at_every_step():
    rule = Uniform(0.1)
    assert rule.at(3) is rule


def test_penalties_alone_come_back_from_their_parts():
    parts = [MaxSup(0.1).to_dict(), Margin(0.1, 1.0).to_dict()]
    assert rule_from_dict({"rule": "Composite", "parts": parts}) == MaxSup(0.1) + Margin(0.1, 1.0)


def test_rules_are_frozen_and_hold_plain_numbers():
    rule = Prior(np.float32(0.5), np.array([1, 2]), 2)
    assert rule.to_dict() == {
        "rule": "Prior", "alpha": 0.5, "counts": [1.0, 2.0], "temperature": 2.0,
    }  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.alpha = 0.1
    assert Uniform(PerClass([0.1, 0.2])).to_dict() == {
        "rule": "Uniform",
        "alpha": {"weight": "PerClass", "values": [0.1, 0.2]},
    }
    assert Uniform(PerSample()).to_dict()["alpha"] == {"weight": "PerSample"}
    assert ConfidencePenalty(0.1, 2).to_dict()["threshold"] == 2.0
    assert (MaxSup(0.1) + Margin(0.1, 1)).to_dict() == {
        "rule": "Composite",
        "parts": [
            {"rule": "Uniform", "alpha": 0.0},
            {"rule": "MaxSup", "alpha": 0.1},
            {"rule": "Margin", "weight": 0.1, "margin": 1.0},
        ],
    }


def test_defaults_are_those_of_the_papers():
    defaults = {
        "Uniform": (0.1,), "Others": (0.1,), "Ordinal": (1.0, 1.0, "absolute", None),
        "Online": (0.5,), "Teacher": (0.5, 1.0), "NegativeUniform": (-0.1,), "Focal": (2.0,),
        "ConfidencePenalty": (0.1, None), "MaxSup": (0.1,), "Margin": (0.01, 10.0),
        "ZLoss": (1e-4,),
        "Bernoulli": (0.1,), "OneSided": (0.1, "positive"), "MassPreserving": (0.1,),
        "Prevalence": (0.1, (0.5,)), "Platt": ((0.0,), (0.0,)),
    }  # fmt: skip
    for name, values in defaults.items():
        assert dataclasses.astuple(Rule.known[name]()) == values


def test_a_new_penalty_must_say_its_terms():
    with pytest.raises(NotImplementedError):
        Penalty().terms(None)
    with pytest.raises(NotImplementedError):
        softhot.core.binary.BinaryRule.affine(Uniform(0.1), None, None)


def test_similarity_rows_that_nearly_sum_to_one_are_made_to():
    third = ((0.3333333, 0.3333333, 0.3333333),) * 3
    assert np.array(Similarity(0.1, third).matrix) == pytest.approx(np.full((3, 3), 1 / 3))
    assert np.array(Similarity(0.1, third).matrix).sum(1) == pytest.approx(1, abs=1e-15)
    exact = ((0.7, 0.2, 0.1), (0.1, 0.7, 0.2), (0.2, 0.1, 0.7))
    assert Similarity(0.1, exact).matrix == exact


def test_a_class_never_counted_gets_nothing():
    row = smooth_labels([0], Prior(0.1, (0, 3, 1)), num_classes=3)[0]
    assert row == pytest.approx([0.9, 0.075, 0.025])


def test_huge_counts_and_hot_priors_stay_finite():
    row = smooth_labels([0], Prior(0.1, (1e308, 1e308)), num_classes=2)
    assert row[0] == pytest.approx([0.95, 0.05])
    row = smooth_labels([0], Prior(0.1, (1e308, 1.0), 1e-3), num_classes=2)
    assert row[0].tolist() == [1.0, 0.0]
    sharp = np.array([[1 - 1e-12, 1e-12]])
    row = smooth_labels([1], Teacher(0.5, 1e-3), num_classes=2, prior=sharp)
    assert row[0].tolist() == [0.5, 0.5]
