"""Studies in MLflow's own file store, read back by MLflow."""

import importlib
import json

import pytest
from mlflow.tracking import MlflowClient

from softhot.core.check import InputError
from softhot.metrics import METRICS
from softhot.mlflow import KEY, PARENT, STUDY, TrialLogger
from softhot.studies import compare, run
from studies_cases import TINY

running = importlib.import_module("softhot.studies.run")


def logged(uri, tag):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("softhot").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    return client, [found for found in runs if tag in found.data.tags]


def test_every_trial_is_a_run_below_its_study(tmp_path, monkeypatch):
    uri, folder = f"file:{tmp_path}/mlruns", tmp_path / "run"
    bad, train = TINY.trials()[3], running.train

    def failing(trial, *data):
        if trial == bad:
            raise ZeroDivisionError("by hand")
        return train(trial, *data)

    with monkeypatch.context() as patch:
        patch.setattr(running, "train", failing)
        with TrialLogger(TINY, folder, uri=uri) as log:
            run(TINY, folder, jobs=1, progress=log)
    client, trials = logged(uri, KEY)
    _, (study,) = logged(uri, STUDY)
    assert study.info.status == "FAILED"
    assert {found.data.tags[KEY] for found in trials} == {t.key for t in TINY.trials()}
    (failed,) = [found for found in trials if found.info.status == "FAILED"]
    assert failed.data.tags["softhot.error"] == "ZeroDivisionError: by hand"
    assert failed.info.run_name == "none, seed 1"

    with TrialLogger(TINY, folder, uri=uri) as log:  # the same runs, the missing one put right
        store = run(TINY, folder, jobs=1, progress=log)
    client, trials = logged(uri, KEY)
    _, (study,) = logged(uri, STUDY)
    assert len(trials) == len(TINY.trials())
    assert {found.info.status for found in (*trials, study)} == {"FINISHED"}
    records = {record.trial.key: record for record in store.records()}
    for found in trials:
        record = records[found.data.tags[KEY]]
        assert found.data.tags[PARENT] == study.info.run_id
        assert found.data.params["seed"] == str(record.trial.seed)
        assert found.data.params["arm"] == record.trial.arm.name
        for metric in METRICS.values():
            assert found.data.metrics[f"validation.{metric.name}"] == metric.function(
                record.validation
            )
        assert not any(key.startswith("test") for key in found.data.metrics)
    path = client.download_artifacts(study.info.run_id, "comparison.json", str(tmp_path))
    with open(path) as file:
        assert json.load(file) == json.loads(json.dumps(compare(store.records(), TINY).to_dict()))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "gopher://nowhere"])
def test_an_address_where_nobody_answers_is_one_line(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="mlflow must be an address where MLflow answers") as error:
        TrialLogger(TINY, tmp_path / "run", uri=uri)
    assert "\n" not in str(error.value)
