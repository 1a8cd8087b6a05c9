"""An adaptive search that is cut off ends where an undisturbed one ends."""

import dataclasses

import pytest

from softhot.core.check import InputError
from softhot.studies import METHODS, StudySpec, compare, run
from softhot.studies.methods import NONE
from softhot.studies.search import plan, validation_scores
from studies_cases import contents

SPEC = StudySpec(
    "wine",
    methods=("uniform", "l2", "uniform+dropout"),
    search="optuna",
    budget=4,
    seeds=3,
    hidden=(6,),
    epochs=8,
    learning_rate=0.02,
)


@pytest.fixture(scope="module", autouse=True)
def many():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHOT_REPLICAS", "1")
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(SPEC, tmp_path_factory.mktemp("search") / "run", jobs=1)


def arrays(store):
    return {n: c[0] for n, c in contents(store.folder).items() if n.endswith(".npz")}


def test_every_method_tries_its_budget_and_starts_in_the_middle(undisturbed):
    grids = undisturbed.spec.grids
    assert {name: len(arms) for name, arms in grids.items()} == dict.fromkeys(grids, 4)
    assert any(arm.values == (0.1,) for arm in grids["uniform"])
    for name, arms in grids.items():
        parameters = [METHODS[part].parameters[0] for part in name.split("+")]
        for arm in arms:
            for parameter, value in zip(parameters, arm.values, strict=True):
                assert parameter.low <= value <= parameter.high
    comparison = compare(undisturbed.records(), undisturbed.spec)
    assert [m.budget for m in comparison.methods] == [4, 4, 4]
    assert any("equal tuning budget (4 settings each)" in s for s in comparison.verdict.sentences)


def test_cut_off_and_continued_it_is_the_same_search(undisturbed, tmp_path):
    events = []

    def stop(event):
        events.append(event)
        if len(events) in (5, 20, 33):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(SPEC, tmp_path / "run", jobs=1, progress=stop)
    store = run(SPEC, tmp_path / "run", jobs=1, progress=stop)
    assert store.spec == undisturbed.spec
    assert arrays(store) == arrays(undisturbed)
    assert len(events) == len(store.spec.trials())  # nothing was trained twice


def test_the_next_setting_depends_on_validation_scores_alone(undisturbed):
    scores = validation_scores(undisturbed)
    arms, over = plan(SPEC, scores)
    assert (set(arms), over) == ({*undisturbed.spec.arms} - {NONE}, True)
    first, over = plan(SPEC, {})
    assert (len(first), over) == (3, False)
    worse = {arm: 10.0 - score for arm, score in scores.items()}
    assert plan(SPEC, worse)[0] != plan(SPEC, scores)[0]
    none = dict.fromkeys([*scores], float("inf"))
    assert len(plan(SPEC, none)[0]) >= 3  # failed settings are passed over


def test_another_study_or_no_optuna_is_said(undisturbed, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="epochs = 8 there, 9 here"):
        run(dataclasses.replace(SPEC, epochs=9), undisturbed.folder, jobs=1)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'softhot\[optuna\]'"):
        run(SPEC, tmp_path / "run", jobs=1)
    assert not (tmp_path / "run").exists()
    assert StudySpec(search="optuna").arms == (NONE,)
