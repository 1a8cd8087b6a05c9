"""Trials that train as one program give the numbers of training one by one."""

import dataclasses

import numpy as np
import pytest

from softhot.core.check import InputError
from softhot.studies import METHODS, StudySpec, run
from softhot.studies.groups import REPLICAS, reasons, together
from softhot.studies.run import data
from softhot.studies.train import Diverged, train, train_all
from studies_cases import TINY, contents

SETTINGS = {"seeds": 2, "epochs": 3, "learning_rate": 0.01}
# Rounding in float32 alone, after few steps: logits are of the order of 1.
NOISE = 2e-6


@pytest.fixture(autouse=True)
def many(monkeypatch):
    monkeypatch.setenv("SOFTHOT_REPLICAS", "32")


def groups(spec):
    return [group for group in together(spec.trials()) if len(group) > 1]


@pytest.mark.parametrize("hidden", [(), (8,), (6, 5)])
@pytest.mark.parametrize(
    "methods",
    [
        ("uniform", "maxsup", "margin", "l2", "focal", "others", "prior", "confidence_penalty"),
        ("dropout", "uniform+dropout"),
        ("mixup", "mixup+l2+maxsup", "dropout+mixup"),
        ("negative", "negative+maxsup"),
    ],
    ids=["rules", "dropout", "mixup", "negative"],
)
def test_together_is_as_one_by_one(methods, hidden):
    spec = StudySpec("wine", methods=methods, hidden=hidden, **SETTINGS)
    compared = 0
    for group in groups(spec):
        results = train_all(group, *data(spec))
        for trial, found in list(zip(group, results, strict=True))[:: 1 if len(group) < 20 else 5]:
            alone = train(trial, *data(spec))
            np.testing.assert_allclose(found.test_logits, alone.test_logits, atol=NOISE)
            np.testing.assert_allclose(found.validation_logits, alone.validation_logits, atol=NOISE)
            assert (found.split, found.data) == (alone.split, alone.data)
            compared += 1
    assert compared >= len(methods)


def test_early_stopping_is_each_replica_s_own():
    settings = SETTINGS | {"epochs": 40, "learning_rate": 0.1}
    spec = StudySpec("wine", methods=("uniform", "l2"), hidden=(8,), early_stopping=2, **settings)
    for group in groups(spec):
        for trial, found in list(zip(group, train_all(group, *data(spec)), strict=True))[::3]:
            alone = train(trial, *data(spec))
            np.testing.assert_allclose(found.test_logits, alone.test_logits, atol=2e-4)


def test_groups_are_products_that_hold_every_trial_once():
    names = [name for name in METHODS if name != "none"]
    spec = StudySpec("wine", methods=(*names, "dropout+mixup", "online+maxsup"), seeds=7, folds=2)
    found = together(spec.trials())
    flat = [trial for group in found for trial in group]
    assert sorted(t.key for t in flat) == sorted(t.key for t in spec.trials())
    for group in found:
        arms, seeds = ({getattr(t, n) for t in group} for n in ("arm", "seed"))
        assert len(group) == len(arms) * len(seeds)
        assert len(group) <= max(REPLICAS, len(arms))
        assert len({t.fold for t in group}) == 1
        for what in ("mixup", "dropout", "human", "warm_up"):
            assert len({bool(getattr(t.arm.recipe, what)) for t in group}) == 1
    alone = ["online", "self_distillation", "online+maxsup"]
    assert {t.arm.method for t in flat if (t,) in found} == set(alone)
    said = [f"{name}: its targets come from each model's own predictions" for name in alone]
    assert reasons(spec.trials()) == said


def test_a_study_that_lost_trials_gets_the_same_bytes_back(tmp_path):
    store = run(TINY, tmp_path / "run", jobs=1)
    before = {name: content[0] for name, content in contents(store.folder).items()}
    arrays = [name for name in before if name.endswith(".npz")]
    for name in (arrays[1], arrays[4]):
        (store.folder / name).with_suffix(".json").unlink()
    kept = contents(store.folder)
    assert len(run(TINY, store.folder, jobs=1).records()) == 6
    after = contents(store.folder)
    assert {name: after[name][0] for name in arrays} == {name: before[name] for name in arrays}
    touched = {name for name in arrays if after[name] != kept[name]}
    assert touched == {arrays[1], arrays[4]}


def test_one_that_diverges_fails_alone(monkeypatch, tmp_path):
    import softhot.studies.models.replicas as replicas

    real, (group, _) = replicas.train_together, groups(TINY)

    def spoiled(trials, *rest):
        found = real(trials, *rest)
        if trials[2] == group[2]:
            found[2][1][0, 0] = np.nan
        return found

    monkeypatch.setattr(replicas, "train_together", spoiled)
    results = train_all(group, *data(TINY))
    assert [isinstance(result, Diverged) for result in results] == [i == 2 for i in range(3)]
    store = run(TINY, tmp_path / "run", jobs=1)
    assert [(f.trial, "not finite" in f.reason) for f in store.failures] == [(group[2], True)]
    assert len(store.records()) == 5


def test_a_group_that_fails_as_a_whole_is_tried_one_by_one(monkeypatch, tmp_path):
    import softhot.studies.models.replicas as replicas

    def broken(*_):
        raise MemoryError("no room for all")

    monkeypatch.setattr(replicas, "train_together", broken)
    store = run(TINY, tmp_path / "run", jobs=1)
    assert (len(store.records()), store.failures) == (6, [])
    logs = "".join(path.read_text() for path in (store.folder / "logs").iterdir())
    assert "not together: MemoryError: no room for all" in logs


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_the_variable_is_checked(monkeypatch, value):
    monkeypatch.setenv("SOFTHOT_REPLICAS", value)
    with pytest.raises(InputError, match="SOFTHOT_REPLICAS"):
        together(TINY.trials())
    monkeypatch.setenv("SOFTHOT_REPLICAS", "1")
    assert {len(group) for group in together(dataclasses.replace(TINY, seeds=3).trials())} == {1}
