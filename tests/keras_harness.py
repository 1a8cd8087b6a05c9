"""How the checks of the Keras losses are collected and run, and how they read tensors."""

import json
import sys
import time
import traceback
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from batches import K
from softhot import InputError, SofthotWarning

BACKEND = keras.backend.backend()
CHECKS = []
RANDOM = np.random.default_rng(0)
LOGITS, LABELS = RANDOM.normal(size=(12, K)), RANDOM.integers(K, size=12)


def check(function):
    CHECKS.append(function)
    return function


def number(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


def close(a, b, tolerance=1e-12, what=""):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=str(what))


def refuses(text, function, *args, **options):
    with pytest.raises(InputError) as caught:
        function(*args, **options)
    assert text in str(caught.value), f"{caught.value} does not say {text!r}"


def gradient(function, y_pred):
    """The derivative of the sum of what a loss returns, by the backend's own means."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        y_pred = tf.convert_to_tensor(y_pred)
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            total = tf.reduce_sum(function(y_pred))
        return number(tape.gradient(total, y_pred))
    if BACKEND == "jax":
        import jax

        return number(jax.grad(lambda z: function(z).sum())(jax.numpy.asarray(y_pred)))
    import torch

    y_pred = torch.tensor(y_pred, requires_grad=True)
    function(y_pred).sum().backward()
    return number(y_pred.grad)


def compiled(function):
    """The function as ``fit`` runs it; PyTorch runs it as it is."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


def main():
    """Run the checks that the command line names, or all; print JSON."""
    warnings.simplefilter("error", SofthotWarning)
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    report = {}
    for function in CHECKS:
        if sys.argv[1:] and function.__name__ not in sys.argv[1:]:
            continue
        start = time.perf_counter()
        try:
            function()
            report[function.__name__] = None
        except Exception:
            report[function.__name__] = traceback.format_exc()[-3000:]
        print(f"{time.perf_counter() - start:6.1f} s  {function.__name__}", flush=True)
    print(json.dumps({"backend": BACKEND, "checks": report}))
