"""The laws on TensorFlow, through Keras: in a process of its own, which has one Keras backend."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_laws_hold_on_tensorflow():
    environment = dict(os.environ, SOFTHOT_LIBRARIES="tensorflow", KERAS_BACKEND="tensorflow")
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    chosen = "tensorflow and (every_library_and_dtype or no_rows)"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-W", "default", "-k", chosen, str(HERE / "test_core_laws.py")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=HERE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 100
