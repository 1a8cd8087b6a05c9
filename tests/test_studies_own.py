"""Models of the user's own: the examples run, and what is wrong with a file is said in one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softhot import cli
from softhot.core.check import InputError
from softhot.studies import StudySpec, run
from softhot.studies.run import CHECKPOINTS

EXAMPLES = Path(__file__).parent.parent / "examples"
SETTINGS = {"alphas": (0.1,), "seeds": 1, "epochs": 2}


@pytest.mark.parametrize("framework", ["torch", "lightning", "huggingface"])
@pytest.mark.filterwarnings("ignore")  # what the frameworks say of themselves
def test_the_examples_run(framework, tmp_path):
    spec = StudySpec("wine", model=str(EXAMPLES / f"study_{framework}.py"), **SETTINGS)
    store = run(spec, tmp_path / "run", jobs=1)
    assert [failure.reason for failure in store.failures] == []
    none, smooth = (record.test for record in store.records())
    assert (none.probs != smooth.probs).any()
    assert spec.model.endswith(next(n for n in store.records()[0].versions if ".py" in n))
    assert not list((store.folder / CHECKPOINTS).glob("*"))


def test_the_example_of_keras_runs(tmp_path):
    """In a process of its own: Keras has one backend in each."""
    options = ["--alphas", "0.1", "--seeds", "1", "--epochs", "2", "--jobs", "1"]
    command = ["study", "wine", "--model", str(EXAMPLES / "study_keras.py"), *options]
    done = subprocess.run(
        [sys.executable, "-m", "softhot.cli", *command, "--out", str(tmp_path / "run")],
        env={**os.environ, "KERAS_BACKEND": "torch", "SOFTHOT_REPLICAS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "one by one: " in done.stderr
    assert len(list((tmp_path / "run" / "trials").glob("*.npz"))) == 2


def test_a_trial_carries_what_training_needs_and_no_test_labels(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "def train(trial):\n"
        "    assert trial.held_out.labels is None and trial.folder.is_dir()\n"
        "    assert len(trial.held_out) == 40 + 78 and len(trial.train) == 60\n"
        "    assert len(trial.train.labels) == 60 and len(trial.validation.labels) == 40\n"
        "    assert trial.rule.alpha == (trial.arm.alpha or 0)\n"
        "    for name in ('torch', 'keras', 'jax', 'huggingface')[: 1 + 3 * (trial.seed > 0)]:\n"
        "        assert callable(trial.loss(name))\n"
        "    print('seen', trial.arm.name)\n"
        "    return trial.predictions(trial.held_out.features[:, :3])\n"
    )
    spec = StudySpec("wine", model=str(path), **SETTINGS)
    store = run(spec, tmp_path / "run", jobs=1)
    assert store.failures == []
    logs = "".join(file.read_text() for file in (store.folder / "logs").iterdir())
    assert "seen uniform 0.1" in logs
    before = store.records()[0]
    assert np.isfinite(before.test.log_probs).all()
    path.write_text(path.read_text() + "# changed\n")
    with pytest.warns(UserWarning, match=r"trained with mine.py [0-9a-f]{12}, now there is"):
        run(spec, tmp_path / "run", jobs=1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    raise ZeroDivisionError('by hand')", "ZeroDivisionError: by hand"),
        ("    raise SystemExit('bye')", "RuntimeError: it called sys.exit('bye')"),
        ("    return 3", "must be softhot Predictions; got 3"),
        ("    return trial.predictions(trial.held_out.features[:, :2])", "(118, 3)"),
        ("    trial.loss('tensrflow')", "framework must be one of 'torch'"),
    ],
)
def test_a_task_that_fails_is_a_failed_row_with_one_line(tmp_path, body, words):
    path = tmp_path / "mine.py"
    path.write_text(
        f"def train(trial):\n    if trial.arm.name == 'none':\n        {body.strip()}\n"
        "    return trial.predictions(trial.held_out.features[:, :3])\n"
    )
    store = run(StudySpec("wine", model=str(path), **SETTINGS), tmp_path / "run", jobs=1)
    assert [failure.trial.arm.name for failure in store.failures] == ["none"]
    assert words in store.failures[0].reason
    assert "\n" not in store.failures[0].reason
    assert len(store.records()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "existing"),
        ("x = ", "SyntaxError"),
        ("1 / 0", "division"),
        ("raise SystemExit", "SystemExit"),
        ("", "train(trial)"),
    ],
)
def test_a_file_without_train_is_refused_before_anything_is_written(tmp_path, capsys, text, words):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match="model"):
        run(StudySpec("wine", model=str(path), **SETTINGS), tmp_path / "run", jobs=1)
    code = cli.main(["study", "wine", "--model", str(path), "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert (code, words in error) == (2, True), error
    assert not (tmp_path / "run").exists()
