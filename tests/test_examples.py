"""The examples run, and show what their pages say; what is printed there is what they print.

Each is run smaller than its default where that takes long; then the words are compared and not the
numbers. Examples of the adapters are run by the tests of their adapters, by the same comparison.
"""

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shown import check_shown
from softhot.metrics import accuracy, confidence, ece, gap, nll

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GUIDE = ROOT / "docs" / "guide"


def label_arrays(report):
    np.testing.assert_allclose(report["targets"], report["again"])
    assert report["targets"].shape == (5, 10)
    assert report["wrong"].shape == (5, 5)  # and the mistake is one
    np.testing.assert_allclose(report["targets"].sum(axis=1), 1)


def single_label(report):
    assert report["hard"].max() == 1
    assert report["to all"].max() == pytest.approx(0.91)
    assert report["to the others"].max() == pytest.approx(0.9)
    assert all(target.sum() == pytest.approx(1) for target in report.values())


def overconfidence(report):
    hard, smooth = report.values()
    assert gap(hard) > -0.01
    assert gap(smooth) < -0.05
    assert confidence(smooth) < confidence(hard) - 0.05


def formula(report):
    assert max(value for name, value in report.items() if "-" in name) < 1e-12
    assert report["least"] > report["floor"]


def torch_conventions(report):
    by_torch, by_softhot, by_hand, others, converted = report.values()
    assert by_torch == pytest.approx(by_softhot, abs=1e-12)
    assert by_hand == pytest.approx(others, abs=1e-12)
    assert by_hand == pytest.approx(converted, abs=1e-12)
    assert abs(by_hand - by_torch) > 1e-6


def softmax_outputs(report):
    hard, smooth, mixed = report.values()
    assert (hard.probs.argmax(1) == mixed.probs.argmax(1)).all()
    assert (hard.probs.argmax(1) != smooth.probs.argmax(1)).any()
    assert confidence(smooth) < confidence(hard)


def calibration_curves(report):
    hard, _, smooth, scaled = report.values()
    assert ece(smooth) > ece(hard)
    assert ece(scaled) < 0.5 * ece(smooth)
    assert float(list(report)[-1].split("=")[1]) < 1  # it sharpens


def recover_confidence(report):
    raw, above, inverse, scaled, _ = report.values()
    assert nll(above) == nll(raw)  # the mistake: nothing above 1 helps
    assert nll(scaled) < nll(inverse) < nll(raw)
    assert accuracy(raw) == accuracy(inverse) == accuracy(scaled)


def one_hot(report):
    np.testing.assert_allclose(report["sums"], 1.8)
    np.testing.assert_allclose(report["right sums"], 1)
    assert report["hit"] == 0
    assert "rows do not sum to 1" in {mistake.name for mistake in report["found"].mistakes}


def binary_targets(report):
    assert not report["recipe"].any()
    np.testing.assert_allclose(report["targets"], np.where(report["labels"] == 1, 0.9, 0.1))
    assert report["alpha"] == 0.2


def binary_mislabelled(report):
    assert report[0.0]["largest"] > 2 * report[0.1]["largest"]
    assert report[0.0]["gradient"] < report[0.1]["gradient"]  # it gave in to the wrong label


def fashion_mnist(report):
    change, (hard, smooth) = report["change"], report["arms"]
    assert change.low < change.mean < change.high
    assert change.mean == pytest.approx(np.mean(change.values))
    confidences = [arm.test_raw["confidence"].values for arm in (hard, smooth)]
    assert max(confidences[1]) < min(confidences[0])


def one_image(report):
    hard, smooth, smoother = (said.probs[report["image"]].max() for said in report["said"].values())
    assert hard > smooth > smoother
    assert all(said.correct[report["image"]] for said in report["said"].values())


def image_folder(report):
    untrained, scale, hard, smooth = report.values()
    assert confidence(smooth) < confidence(hard)
    assert accuracy(hard) > 0.35  # of five classes; the features are worth something
    assert accuracy(untrained) < 0.4
    assert accuracy(scale) < accuracy(hard)


def alpha_curve(comparison):
    none, *_, most = comparison.arms
    assert (none.alpha, most.alpha) == (0, 0.4)
    assert most.temperature.mean < none.temperature.mean
    assert most.test_raw["confidence"].mean < none.test_raw["confidence"].mean - 0.1


def regularizers(comparison):
    assert {method.budget for method in comparison.methods} == {1}
    assert [method.name for method in comparison.methods] == ["uniform", "l2", "dropout"]


def label_noise(report):
    clean, noisy = (report[rate][0].test_raw["accuracy"].mean for rate in (0.0, 0.4))
    assert noisy < clean - 0.01
    assert {arm.alpha for arm in report[0.4]} == {0, 0.1, 0.3}


def papers_table(report):
    assert all(change.low <= change.mean <= change.high for change in report.values())


def three_papers(report):
    arms = report["arms"]
    smooth = arms["uniform 0.1"].difference_raw
    assert smooth["confidence"].high < 0
    assert arms[report["best"]].method == "confidence_penalty"


ONE = {"uniform": (0.1,), "l2": (0.3,), "dropout": (0.2,)}
EXAMPLES_HERE = {
    alpha_curve: {"seeds": 3, "epochs": 15, "alphas": (0.02, 0.05, 0.1, 0.2, 0.4)},
    regularizers: {"seeds": 3, "epochs": 5, "settings": ONE},
    label_noise: {"rates": (0.0, 0.2, 0.4), "seeds": 3, "epochs": 10},
    papers_table: {"seeds": 3, "epochs": 9, "clothes": 300},
    three_papers: {"seeds": 3, "epochs": 10},
    label_arrays: {},
    single_label: {},
    overconfidence: {"epochs": 50},
    formula: {},
    torch_conventions: {},
    softmax_outputs: {"epochs": 50},
    calibration_curves: {"epochs": 50},
    recover_confidence: {"epochs": 50},
    one_hot: {},
    binary_targets: {},
    binary_mislabelled: {"steps": 1500},
    fashion_mnist: {"seeds": 3, "rows": 1000, "epochs": 5},
    one_image: {"train": 1000, "epochs": 10},
    image_folder: {"each": 20, "epochs": 30},
}


@pytest.fixture(autouse=True)
def among_the_examples(monkeypatch):
    """As when they are run: their folder first on the path, one thread, PyTorch's own seed."""
    monkeypatch.syspath_prepend(EXAMPLES)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("check", EXAMPLES_HERE, ids=lambda check: check.__name__)
def test_example(check):
    name = check.__name__
    script = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        report = script["main"](**EXAMPLES_HERE[check])
    check(report)
    check_shown(name, printed.getvalue(), whole=not EXAMPLES_HERE[check])
    if "draw" in script:
        import matplotlib.pyplot

        matplotlib.use("agg")
        figure = script["draw"](report)
        assert figure.axes
        matplotlib.pyplot.close(figure)
        assert (GUIDE / "_results" / f"{name}.svg").exists()


def test_examples_of_keras(tmp_path):
    code = (
        "import json, runpy, torch\n"
        "report = runpy.run_path('examples/sentiment.py')['main'](rows=400, epochs=3)\n"
        "folder = runpy.run_path('examples/image_folder.py')\n"
        "shape = folder['mobilenet_v2'](255 * torch.rand(2, 3, 128, 128), weights=None).shape\n"
        "print(json.dumps([report, list(shape)]))"
    )
    paths = [str(ROOT / "src"), str(EXAMPLES)]
    environment = dict(os.environ, KERAS_BACKEND="torch", KERAS_HOME=str(tmp_path))
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *printed, last = done.stdout.splitlines()
    report, shape = json.loads(last)
    assert shape == [2, 1280]
    two = report["two classes"]  # the mistake
    assert two["accuracy"] < two["without neutral"]
    assert report["smoothed, 0.1"]["confidence"] < report["hard labels"]["confidence"]
    assert report["votes"]["NLL of votes"] < report["hard labels"]["NLL of votes"]
    check_shown("sentiment", "\n".join(printed))


def test_every_example_has_a_page_and_every_page_an_example():
    pages = {path.stem: path.read_text() for path in GUIDE.glob("*.md") if path.stem != "index"}
    everywhere = "\n".join(
        [*pages.values(), *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    )
    for script in EXAMPLES.glob("*.py"):
        assert script.stem == "small" or f"examples/{script.stem}.py" in everywhere, script.stem
    for name, text in pages.items():
        assert "examples/" in text, name
        assert "mistake" in text, name


def test_every_output_on_a_page_is_compared():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    compared = set(re.findall(r'check_shown\("(\w+)"', tests))
    compared |= {check.__name__ for check in EXAMPLES_HERE}
    compared.add("torch_multilabel_digits")  # by test_torch_modules, with its neighbours
    shown = "".join(path.read_text() for path in GUIDE.glob("*.md"))
    assert set(re.findall(r"_results/(\w+)\.txt", shown)) <= compared
    assert {path.stem for path in (GUIDE / "_results").glob("*.txt")} <= compared
