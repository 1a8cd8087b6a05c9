"""The Keras losses: :mod:`keras_checks` on every backend, each in a process of its own."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import softhot
from shown import check_shown

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
ROOT = Path(softhot.__file__).parent


def python(folder, backend, *arguments):
    """What a script prints with Keras on a backend and its settings in a folder of their own."""
    environment = dict(os.environ, KERAS_BACKEND=backend, KERAS_HOME=str(folder))
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compiles faster
    paths = [str(ROOT.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_check_holds_on(backend, tmp_path, subtests):
    report = json.loads(python(tmp_path, backend, HERE / "keras_checks.py").splitlines()[-1])
    assert report["backend"] == backend
    assert len(report["checks"]) > 15
    for name, failure in report["checks"].items():
        with subtests.test(name):
            assert failure is None, failure


def test_keras_without_its_backend_is_told_apart(monkeypatch):
    class Nothing:
        def find_spec(self, name, path=None, target=None):
            if name == "keras":
                raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Nothing(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match=r"install tensorflow, or set .* KERAS_BACKEND"):
        runpy.run_path(str(ROOT / "keras.py"))


def test_the_example_runs(tmp_path):
    shown = python(tmp_path, "torch", EXAMPLES / "keras_digits.py", "--epochs", 5)
    check_shown("keras_digits", shown)
