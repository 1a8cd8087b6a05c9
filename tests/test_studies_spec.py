import dataclasses
import doctest
import importlib
import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softhot.core.check import InputError
from softhot.datasets import DATASETS
from softhot.studies import StudySpec, TrialSpec
from softhot.studies.spec import ALPHA, RANGES

positive = st.integers(1, 10**9)
specs = st.builds(
    StudySpec,
    dataset=st.sampled_from(sorted(DATASETS)),
    alphas=st.lists(st.floats(0, 1, exclude_max=True), unique=True, min_size=1).filter(any),
    seeds=st.integers(1, 5),
    train=positive,
    validation=positive,
    test=positive,
    split_seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 65_536), max_size=4),
    epochs=st.integers(1, 10**6),
    batch_size=positive,
    learning_rate=st.floats(0, 1, exclude_min=True),
)


@given(specs)
def test_toml_round_trip(spec):
    assert StudySpec.from_toml(spec.to_toml()) == spec
    assert tomllib.loads(spec.to_toml())["digest"] == spec.digest


@given(specs)
def test_trials_are_the_grid_and_their_keys_differ(spec):
    trials = spec.trials()
    pairs = [(trial.seed, trial.alpha) for trial in trials]
    assert pairs == [(seed, alpha) for seed in range(spec.seeds) for alpha in spec.alphas]
    assert len({trial.key for trial in trials}) == len(trials)
    assert {trial.arm for trial in trials} == set(spec.arms)
    assert len(set(spec.arms)) == len(spec.alphas)
    assert spec.alphas[0] == 0
    assert spec.arms[0] == "none"


def test_the_default_is_the_embedded_study():
    spec = StudySpec()
    assert spec.alphas == (0, 0.02, 0.05, 0.1, 0.2, 0.4)
    assert (spec.train, spec.validation, spec.test) == (600, 300, 897)
    assert (spec.hidden, spec.epochs, spec.learning_rate) == ((128, 64), 150, 1e-3)
    assert len(spec.trials()) == 60
    assert spec.trials()[3].to_dict()["rule"] == {"rule": "Uniform", "alpha": 0.1}


def test_sizes_come_from_the_data_set_unless_given():
    spec = StudySpec.from_toml('dataset = "wine"\ntest = 50')
    assert (spec.train, spec.validation, spec.test) == (60, 40, 50)


def test_minus_zero_is_zero():
    spec = StudySpec(alphas=(-0.0, 0.1))
    assert spec == StudySpec(alphas=(0.1,))
    assert spec.digest == StudySpec(alphas=(0.1,)).digest


def test_every_field_but_the_grid_changes_the_key():
    trial = StudySpec().trials()[1]
    other = {"dataset": "wine", "hidden": (3,), "alpha": 0.3, "learning_rate": 0.5, "version": 2}
    for field in dataclasses.fields(TrialSpec):
        changed = other.get(field.name, 77)
        assert dataclasses.replace(trial, **{field.name: changed}).key != trial.key, field.name


def test_a_key_stays_what_it_is():
    """A key that moved would orphan every trial ever stored."""
    assert StudySpec().trials()[0].key == "a8752a23363d07f9"


SIZES = ("train", "validation", "test")  # 0 means the data set's own


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, bad)
        for name, allowed in RANGES.items()
        for bad in allowed.bad_values()
        if bad is True or bad != 0 or name not in SIZES
    ]
    + [("alphas", [bad]) for bad in ALPHA.bad_values()]
    + [("alphas", bad) for bad in (0.1, "0.1", None, [], [0.0], [0.1, 0.1], [0.0, -0.0, 0.1])]
    + [("hidden", bad) for bad in (128, "128", [0], [2.5], [True], None)]
    + [("dataset", bad) for bad in ("digitz", "", None, 3)],
)
def test_bad_values_name_their_argument(name, value):
    with pytest.raises(InputError) as caught:
        StudySpec(**{name: value})
    assert caught.value.argument == name


def test_unknown_names_get_a_suggestion():
    with pytest.raises(InputError, match=r"got 'alfas'. Did you mean 'alphas'\?"):
        StudySpec.from_toml("alfas = [0.1]")
    with pytest.raises(InputError, match=r"one of dataset, alphas, .*got 'zzz'\.$"):
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


@pytest.mark.parametrize("name", ["", ".spec", ".compare", ".verdict", ".store", ".run", ".train"])
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module("softhot.studies" + name)).failed == 0
