import contextlib
import dataclasses
import doctest
import importlib
import itertools
import json
import subprocess
import sys
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softhot.core.check import InputError
from softhot.datasets import DATASETS
from softhot.studies import METHODS, Arm, StudySpec, TrialSpec, method
from softhot.studies.methods import SETTINGS
from softhot.studies.spec import ALPHA, RANGES

positive = st.integers(1, 10**9)
shares = st.floats(0, 0.5, exclude_min=True)  # above, a rule warns
specs = st.builds(
    StudySpec,
    dataset=st.sampled_from(sorted(name for name, info in DATASETS.items() if info.train)),
    label_noise=st.floats(0, 1, exclude_max=True),
    imbalance=st.floats(1, 1e6),
    subset=st.integers(0, 10**9),
    alphas=st.lists(shares, unique=True, min_size=1),
    methods=st.just(("uniform", "l2", "dropout+uniform", "human")),
    settings=st.fixed_dictionaries(
        {"dropout+uniform": st.lists(st.tuples(shares, shares), unique=True, min_size=1)}
    ),
    seeds=st.integers(3, 5),
    folds=st.integers(1, 3),
    train=st.integers(3, 10**9),
    validation=positive,
    test=positive,
    split_seed=st.integers(0, 2**32 - 1),
    hidden=st.none() | st.lists(st.integers(1, 65_536), max_size=4),
    epochs=st.integers(1, 10**6),
    early_stopping=st.integers(0, 10**6),
    batch_size=positive,
    learning_rate=st.floats(0, 1, exclude_min=True),
)


@given(specs)
def test_toml_round_trip(spec):
    assert StudySpec.from_toml(spec.to_toml()) == spec
    assert tomllib.loads(spec.to_toml())["digest"] == spec.digest


@given(specs)
@settings(max_examples=40)
def test_trials_are_the_grid_and_their_keys_differ(spec):
    trials = spec.trials()
    pairs = [(trial.seed, trial.arm) for trial in trials]
    assert pairs == [(seed, arm) for seed in range(spec.seeds) for arm in spec.arms]
    assert len({trial.key for trial in trials}) == len(trials)
    assert len({arm.name for arm in spec.arms}) == len(spec.arms)
    assert spec.arms[0].name == "none"
    assert spec.budgets == {name: len(arms) for name, arms in spec.grids.items()}
    rows = spec.train + spec.validation
    assert {trial.train + trial.validation for trial in trials} == {rows}
    if spec.folds > 1:
        held = {trial.fold: trial.validation for trial in trials}
        assert (len(held), sum(held.values())) == (spec.folds, rows)


def test_the_default_is_the_embedded_study():
    spec = StudySpec()
    assert [arm.alpha for arm in spec.arms] == [0, 0.02, 0.05, 0.1, 0.2, 0.4]
    assert (spec.train, spec.validation, spec.test) == (600, 300, 897)
    assert (spec.epochs, spec.learning_rate) == (150, 1e-3)
    assert len(spec.trials()) == 60
    trial = spec.trials()[3]
    assert trial.hidden == (128, 64)
    assert trial.to_dict()["arm"]["rule"] == {"rule": "Uniform", "alpha": 0.1}
    assert StudySpec(alphas=(0.02, 0.05, 0.1, 0.2, 0.4)) == spec


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_five_settings_that_can_be_trained(name):
    found = method(name)
    if found.parameters:
        assert len(set(found.grid)) == SETTINGS
    for arm in found.arms():
        json.dumps(arm.to_dict(), allow_nan=False)
        assert arm.name.split()[0] == name
        for parameter, value in zip(found.parameters, arm.values, strict=True):
            assert parameter.low <= value <= parameter.high


def test_combinations_have_as_many_settings_and_refuse_what_is_given_twice():
    for names in itertools.combinations([n for n in METHODS if METHODS[n].parameters], 2):
        with contextlib.suppress(InputError):
            assert len(set(method("+".join(names)).grid)) == SETTINGS, names
    for twice in ("uniform+others", "l2+l2", "uniform+none", "prior+similarity", "uniform+zzz"):
        with pytest.raises(InputError, match="methods"):
            method(twice)
    assert Arm("dropout+uniform", (0.2, 0.1)).recipe == Arm("uniform+dropout", (0.1, 0.2)).recipe


@pytest.mark.parametrize("name", ["uniform", "l2", "uniform+dropout", "human"])
def test_a_smaller_budget_spreads_a_grid_evenly(name):
    whole = method(name).arms()
    for most in range(1, SETTINGS + 1):
        spec = StudySpec(methods=[name], budget=most)
        arms = spec.grids[name]
        assert len(arms) == spec.budgets[name] == min(most, len(whole))
        at = [whole.index(arm) for arm in arms]
        assert at == sorted(at)
        assert at == [len(whole) - 1 - i for i in reversed(at)]  # as far from one end as the other
    given = StudySpec(methods=["uniform"], settings={"uniform": [0.1, 0.3, 0.4]}, budget=1)
    assert given.budgets == {"uniform": 3}
    every = StudySpec(alphas=(0.02, 0.05, 0.1, 0.2, 0.4), budget=2)
    assert every.budgets == {"uniform": 5}
    with pytest.raises(InputError, match=r"budget must be at most 5, for a grid; got 6"):
        StudySpec(methods=[name], budget=6)


def test_sizes_come_from_the_data_set_unless_given():
    spec = StudySpec.from_toml('dataset = "wine"\ntest = 50')
    assert (spec.train, spec.validation, spec.test) == (60, 40, 50)


def test_minus_zero_is_zero():
    spec = StudySpec(alphas=(-0.0, 0.1))
    assert spec == StudySpec(alphas=(0.1,))
    assert spec.digest == StudySpec(alphas=(0.1,)).digest


def test_every_field_but_the_grid_changes_the_key():
    trial = StudySpec().trials()[1]
    other = {"dataset": "wine", "hidden": (3,), "arm": Arm("l2", (1.0,)), "version": 3}
    other |= {"learning_rate": 0.5, "label_noise": 0.5, "model": "linear"}
    assert dataclasses.replace(trial, image_size=None).key == trial.key
    for field in dataclasses.fields(TrialSpec):
        changed = other.get(field.name, 77)
        assert dataclasses.replace(trial, **{field.name: changed}).key != trial.key, field.name


def test_a_key_stays_what_it_is():
    """A key that moved would orphan every trial ever stored."""
    assert StudySpec().trials()[0].key == "69adf2cc00266745"


SIZES = ("train", "validation", "test")  # 0 means the data set's own
BAD_METHODS = [["l3"], [], ["none"], "uniform", ["uniform", 3], ["l2+uniform", "uniform+l2"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, bad)
        for name, allowed in RANGES.items()
        for bad in allowed.bad_values()
        if bad is True or bad != 0 or name not in SIZES
    ]
    + [("alphas", [bad]) for bad in ALPHA.bad_values()]
    + [("alphas", bad) for bad in (0.1, "0.1", [], [0.0], [0.1, 0.1], [0.0, -0.0, 0.1])]
    + [("hidden", bad) for bad in (128, "128", [0], [2.5], [True])]
    + [("methods", bad) for bad in BAD_METHODS]
    + [("settings", bad) for bad in ([1], {"l2": [1]}, {"zzz": [1]})]
    + [("settings of uniform", {"uniform": bad}) for bad in ([], [0.1, 0.1], 0.1)]
    + [("setting of uniform", {"uniform": [[0.1, 0.2]]})]
    + [("alpha of uniform", {"uniform": [bad]}) for bad in (0, 1, "0.1", None)]
    + [("search", bad) for bad in ("bayes", None)]
    + [("model", bad) for bad in ("mpl", "", None, 3)]
    + [("dataset", bad) for bad in ("digitz", "", None, 3)],
)
def test_bad_values_name_their_argument(name, value):
    field = "settings" if " of " in name else name
    with pytest.raises(InputError) as caught:
        StudySpec(**{field: value})
    assert caught.value.argument == name


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"model": "linear", "hidden": [3]}, "hidden"),
        ({"folds": 5, "seeds": 4}, "seeds"),
        ({"alphas": [0.1], "methods": ["l2"]}, "alphas"),
        ({"alphas": [0.1], "settings": {"uniform": [0.2]}}, "alphas"),
    ],
)
def test_what_would_have_no_effect_is_refused(given, argument):
    with pytest.raises(InputError) as caught:
        StudySpec(**given)
    assert caught.value.argument == argument


def test_unknown_names_get_a_suggestion():
    with pytest.raises(InputError, match=r"got 'alfas'. Did you mean 'alphas'\?"):
        StudySpec.from_toml("alfas = [0.1]")
    with pytest.raises(InputError, match=r"one of dataset, image_size, .*got 'zzz'\.$"):
        StudySpec.from_toml("[zzz]\nx = 1")


@pytest.mark.parametrize("text", ["alphas = [0.1", "= 3", "seeds = 1\nseeds = 2", "\x00"])
def test_what_is_not_toml_is_named(text):
    with pytest.raises(InputError, match="study file must be valid TOML"):
        StudySpec.from_toml(text)


def test_an_edit_beside_the_digest_is_noticed():
    text = StudySpec().to_toml().replace("epochs = 150", "epochs = 15")
    with pytest.raises(InputError, match="delete the digest line"):
        StudySpec.from_toml(text)
    without = "\n".join(line for line in text.splitlines() if not line.startswith("digest"))
    assert StudySpec.from_toml(without).epochs == 15


def test_read_says_what_is_wrong_with_the_file(tmp_path):
    path = tmp_path / "study.toml"
    with pytest.raises(InputError, match="No such file"):
        StudySpec.read(path)
    with pytest.raises(InputError, match=r"Is a directory|denied"):
        StudySpec.read(tmp_path)
    path.write_bytes(b"dataset = '\xff'")
    with pytest.raises(InputError, match="not UTF-8"):
        StudySpec.read(path)
    path.write_text("seeds = 2")
    assert StudySpec.read(path) == StudySpec(seeds=2)


def test_importing_studies_loads_nothing_heavy():
    code = "import softhot.studies, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "scipy", "joblib", "sklearn"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "name", ["", ".spec", ".methods", ".models", ".compare", ".verdict", ".store", ".run", ".train"]
)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module("softhot.studies" + name)).failed == 0
