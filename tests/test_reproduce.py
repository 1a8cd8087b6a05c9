"""The claims measured again: training many at once, the words, the file, what is committed."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from docs import claims as page
from torch import nn

from softhot import InputError, cli
from softhot.datasets import Split
from softhot.reproduce import CLAIMS, SETTINGS, Reproduction, reproduce, summarize, word
from softhot.reproduce.claims import ALPHAS, Experiment
from softhot.reproduce.networks import distil, problem, train, trials
from softhot.reproduce.results import finding
from softhot.studies.train import batches

SMALL = dataclasses.replace(SETTINGS["digits"], train=100, epochs=4, hidden=(16, 8), student=(8,))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data():
    return problem(SMALL)


def alone(data, loss, hidden, seed, rows):
    """The plainest training loop there is, of one network."""
    torch.manual_seed(seed)
    widths = [data.x.shape[1], *hidden, data.classes]
    layers = []
    for width, following in itertools.pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=SMALL.learning_rate)
    x = data.x[data.split.train]
    trial = trials(SMALL, seed + 1, (0.1,), hidden)[-1]
    assert trial.seed == seed
    for steps in batches(trial, len(x)):
        for at in map(torch.from_numpy, steps):
            optimizer.zero_grad()
            loss(model(x[at]), at).backward()
            optimizer.step()
    with torch.no_grad():
        return model(data.x[rows]).numpy()


def test_networks_trained_together_are_those_trained_alone(data):
    together = train(data, SMALL, 2, (0.0, 0.2)).said(data.split.test)
    y = data.y[data.split.train]
    for arm, alpha in enumerate((0.0, 0.2)):
        criterion = nn.CrossEntropyLoss(label_smoothing=alpha)
        for seed in range(2):
            one = alone(
                data, lambda z, at, c=criterion: c(z, y[at]), (16, 8), seed, data.split.test
            )
            np.testing.assert_allclose(together[arm, seed], one, rtol=1e-3, atol=1e-4)


def test_students_trained_together_are_those_trained_alone(data):
    teachers = train(data, SMALL, 2, (0.0, 0.2)).said(data.split.train)
    together = distil(data, SMALL, teachers, (1.0, 4.0)).said(data.split.test)
    told = torch.from_numpy(teachers)[1, 1]  # the second teacher, of seed 1

    def loss(z, at, T=4.0):
        divergence = nn.KLDivLoss(reduction="batchmean")  # torch's; off by what has no gradient
        return T**2 * divergence((z / T).log_softmax(1), (told[at] / T).softmax(1))

    one = alone(data, loss, (8,), 1, data.split.test)
    np.testing.assert_allclose(together[3, 1], one, rtol=1e-3, atol=1e-4)


def test_arms_of_a_seed_start_alike_and_seeds_do_not(data):
    idle = dataclasses.replace(SMALL, learning_rate=1e-30, epochs=1)
    z = train(data, idle, 2, (0.0, 0.2)).said(data.split.test)
    assert (z[0] == z[1]).all()
    assert (z[:, 0] != z[:, 1]).any()


def test_every_claim_is_measured_kept_and_not_measured_twice(tmp_path):
    path = tmp_path / "claims.json"
    trained = []
    first = reproduce([], settings=[SMALL], seeds=3, claims=["accuracy"], out=path)
    assert {f.claim for f in first.findings} == {2}
    every = reproduce(
        [], settings=[SMALL], seeds=3, out=path, tick=lambda name, _: trained.append(name)
    )
    assert {f.claim for f in every.findings} == {claim.number for claim in CLAIMS}
    assert set(trained) == {f"digits: {n}" for n in ("smoothing", "distilling", "noisy labels")}
    for one in every.findings:
        assert len(one.values) == 3
        assert one.low <= one.estimate <= one.high
        assert np.isfinite([one.low, one.high, *one.values]).all()
    assert Reproduction.read(path) == every
    trained.clear()
    again = reproduce([], settings=[SMALL], seeds=3, out=path, tick=lambda *_: trained.append(1))
    assert (again, trained) == (every, [])
    kept = path.read_bytes()
    with pytest.raises(InputError, match="seeds"):
        reproduce([], settings=[SMALL], seeds=4, out=path)
    other = dataclasses.replace(SMALL, epochs=5)
    with pytest.raises(InputError, match="settings"):
        reproduce([], settings=[other], seeds=3, out=path)
    assert path.read_bytes() == kept
    dataclasses.replace(every, versions=(("torch", "1.0"),)).write(path)
    with pytest.raises(InputError, match=r"torch 1\.0"):
        reproduce([], settings=[SMALL], seeds=3, out=path)


def known(logits):
    """An experiment whose networks say what they are told to: (A, 1, N, K), labels 0."""
    run = Experiment(SMALL, 1)
    n = logits.shape[2]
    everything = np.arange(n)
    run.kept["problem"] = dataclasses.replace(
        problem(SMALL),
        y=torch.zeros(n, dtype=torch.long),
        split=Split(everything, everything, everything),
    )
    for part in ("train", "validation", "test"):
        run.kept[f"logits {part}"] = logits
    return run


def test_differences_have_the_sign_they_are_said_to_have():
    """Three rows of two classes, two of them right; smoothing halves the logits."""
    base = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    run = known(np.stack([base * (1 if a == 0 else 0.5) for a in ALPHAS])[:, None])
    measured = {c.name: c.measure(run) for c in CLAIMS if c.number in (1, 2, 3, 5, 7)}
    sigmoid = 1 / (1 + np.exp(-base.max(1)))
    half = 1 / (1 + np.exp(-base.max(1) / 2))
    fall = 100 * (half.mean() - sigmoid.mean())
    assert measured["confidence"]["alpha 0.1"] == pytest.approx(fall)
    assert fall < 0
    assert measured["accuracy"]["alpha 0.1"] == 0
    nll = np.log1p(np.exp([-4, -3, 2])).mean(), np.log1p(np.exp([-2, -1.5, 1])).mean()
    assert measured["nll"]["alpha 0.1"] == pytest.approx(nll[1] - nll[0])
    assert measured["calibratable"]["alpha 0.1"] == pytest.approx(0, abs=1e-6)
    assert measured["selective"]["alpha 0.1"] == pytest.approx(0)


def test_an_interval_is_students():
    values = np.array([1.0, 2.0, 3.0])
    one = finding(CLAIMS[1], "digits", "here", values)
    assert (one.estimate, one.high) == (2, pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5))
    assert one.word == "not detectable"
    assert word(0.1, 0.2, -1) == "reversed"
    two = dataclasses.replace(one, dataset="wine", word="reproduced")
    assert summarize(CLAIMS[1], [two]) == "reproduced"
    assert summarize(CLAIMS[1], [one, two]) == (
        "reproduced: wine (here) · not detectable: digits (here)"
    )


def test_the_committed_findings_are_what_the_page_says():
    found = Reproduction.read(page.DATA)
    assert found.seeds >= 10
    for claim in CLAIMS:
        for name in SETTINGS:
            assert found.has(claim, name), (claim.name, name)
        for one in found.of(claim):
            assert one.word == word(one.low, one.high, claim.direction)
            assert one.estimate == pytest.approx(np.mean(one.values), abs=2e-6)
    assert {s.name: s for s in found.settings} == SETTINGS
    assert page.PAGE.read_text() == page.page(found)
    assert page.PAPERS.read_text() == page.MARKS.sub(page.papers(found), page.PAPERS.read_text())
    assert page.FIGURE.exists()


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SETTINGS, "digits", SMALL)
    out = tmp_path / "claims.json"
    command = ["reproduce", "--datasets", "digits", "--claims", "confidence,nll", "--seeds", "3"]
    assert cli.main([*command, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert "Confidence falls" in shown.out
    assert "Training digits: smoothing" in shown.err
    assert cli.main([*command, "--out", str(out), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["command"] == "softhot reproduce --datasets digits --seeds 3"
    assert {f["claim"] for f in content["findings"]} == {1, 3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--datasets", "mnist"], ["datasets", "digits"]),
        (["--claims", "speed"], ["claims", "confidence"]),
        (["--seeds", "2"], ["seeds", "3"]),
        (["--out", "{folder}/no/claims.json", "--datasets", "digits"], ["out", "folder"]),
        (["--out", "{folder}/damaged.json"], ["JSON"]),
        (["--out", "{folder}/other.json"], ["reproduce wrote"]),
    ],
    ids=str,
)
def test_bad_arguments_say_what_to_do(arguments, words, tmp_path, monkeypatch, capsys):
    tiny = dataclasses.replace(SMALL, epochs=1)
    monkeypatch.setitem(SETTINGS, "digits", tiny)
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "other.json").write_text('{"format": 1}')
    filled = [a.format(folder=tmp_path) for a in arguments]
    if "--out" not in arguments:
        filled += ["--out", str(tmp_path / "claims.json")]
    if "--seeds" not in arguments:
        filled += ["--seeds", "3"]
    assert cli.main(["reproduce", *filled]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for one in words:
        assert one in said, said
