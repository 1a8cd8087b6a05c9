"""The plane of templates, from what a run keeps, is that of the real activations and weights."""

import dataclasses
import json
from itertools import combinations

import numpy as np
import pytest
import torch

from report_pages import texts
from softhot import report
from softhot.metrics import LastLayer, template_plane, template_plane_of_logits
from softhot.studies import Damage, Store, StudySpec, compare, run
from softhot.studies.groups import together
from softhot.studies.models import model, network
from softhot.studies.models.replicas import Program
from softhot.studies.run import data
from softhot.studies.store import _sealed
from softhot.studies.train import train, train_all
from studies_cases import TINY, fabricate
from test_studies_train import IMAGES, TEXTS, THIRDS

DIGITS = StudySpec("digits", seeds=2, train=300, validation=100, epochs=5, learning_rate=0.01)
ACTIVATIONS, LOGITS = "angles and proportions are those of the activations", "are of the logits"


def check(result, trained, given, rows):
    """Coordinates from what is kept are those of the network's own activations and weights."""
    last, seen = network.linear_layers(trained)[-1], []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy()))
    logits = network.logits(trained, given, rows)
    np.testing.assert_allclose(result.test_logits, logits, atol=1e-4)
    features, weight = np.concatenate(seen), last.weight.detach().numpy()
    for classes in combinations(range(len(weight)), 3):
        real = template_plane(features, weight, classes)
        found = template_plane_of_logits(result.test_logits, result.layer, classes)
        reach = np.abs(real.points).max()
        assert reach > 0.01
        np.testing.assert_allclose(found.points, real.points, atol=1e-5 * reach)
        np.testing.assert_allclose(found.corners, real.corners, atol=1e-5 * reach)


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "lstm"])
@pytest.mark.parametrize("more", [{}, {"methods": ("dropout",)}, {"early_stopping": 1}], ids=str)
def test_of_a_network_trained_alone(name, more):
    trial = dataclasses.replace(DIGITS, model=name, hidden=None, **more).trials()[-1]
    rows, split = {"cnn": (IMAGES, THIRDS), "lstm": (TEXTS, THIRDS)}.get(name) or data(DIGITS)
    given = network.problem(rows, split, model(name).module)
    trained = network.initial_network(trial, given)
    network.fit(trial, given, trained)
    check(train(trial, rows, split), trained, given, split.test)


@pytest.mark.parametrize("hidden", [(), (8,), (16, 12)], ids=str)
@pytest.mark.parametrize("methods", [("uniform", "l2"), ("dropout",), ("mixup",)], ids=str)
@pytest.mark.parametrize("stop", [0, 1])
def test_of_networks_trained_together(hidden, methods, stop, monkeypatch):
    monkeypatch.setenv("SOFTHOT_REPLICAS", "32")
    spec = dataclasses.replace(DIGITS, hidden=hidden, methods=methods, early_stopping=stop)
    group = max(together(spec.trials()), key=len)
    rows, split = data(spec)
    given = network.problem(rows, split)
    program = Program(group, given)
    program.fit()
    results = train_all(group, rows, split)
    for trial, result in list(zip(group, results, strict=True))[:: len(group) // 3]:
        trained, place = network.initial_network(trial, given), program.place[trial.arm, trial.seed]
        with torch.no_grad():
            for i, layer in enumerate(network.linear_layers(trained)):
                weight, bias = (program.by_arm(2 * i + j).flatten(0, 1)[place] for j in (0, 1))
                layer.weight.copy_(weight.T)
                layer.bias.copy_(bias[0])
        check(result, trained, given, split.test)


def page(records):
    compared = compare(records, TINY)
    told = {"command": "c", "versions": {}, "split_digest": "d"}
    return texts(report.render(compared, records, **told)).lower()


def test_a_run_keeps_the_layer_and_the_page_draws_its_plane(tmp_path):
    store = run(TINY, tmp_path / "run", jobs=1)
    rows, split = data(TINY)
    records = store.records()
    for record in records:
        again = train(record.trial, rows, split).layer
        np.testing.assert_allclose(record.layer.gram, again.gram, atol=1e-5)
        np.testing.assert_allclose(record.layer.bias, again.bias, atol=1e-5)
    assert ACTIVATIONS in page(records)


LINE = LastLayer(np.outer([1, 2, 3], [1, 2, 3]).astype(np.float32), np.zeros(3, np.float32))


@pytest.mark.parametrize("layer", [None, LINE], ids=["none was kept", "templates on a line"])
def test_the_page_falls_back_to_logits_in_every_arm(layer, tmp_path):
    store = run(TINY, tmp_path / "run", jobs=1)
    first, *others = store.records()
    told = page([dataclasses.replace(first, layer=layer), *others])
    assert LOGITS in told
    assert ACTIVATIONS not in told


@pytest.mark.parametrize("kept", [True, False])
def test_a_record_of_the_format_before_is_read(tmp_path, kept):
    """Format 2 had no last layer; a run of it is continued as if it were of today."""
    trial = TINY.trials()[0]
    store = Store.create(tmp_path / "run", TINY)
    store.save(trial, dataclasses.replace(fabricate(trial), layer=None))
    path = store.folder / "trials" / f"{trial.key}.json"
    record = json.loads(path.read_bytes())
    del record["checksum"]
    assert record["format"] == 3
    path.write_bytes(_sealed(record | {"format": 2 if kept else 1}))
    found = store.look(trial)
    assert isinstance(found, Damage) == (not kept)
    assert not kept or found.layer is None


def test_what_cannot_be_kept_is_left_out():
    large, ones = torch.full((3, 2), 1e20), torch.ones(1_001, 1)
    assert network.last_layer(large, torch.zeros(3)) is None  # its squares overflow
    assert network.last_layer(ones, torch.zeros(1_001)) is None
    assert network.last_layer(ones[1:], torch.zeros(1_000)).gram.shape == (1_000, 1_000)
