"""Write docs/parity.md: what every framework gives for the same arguments, and softhot beside it.

    python -m docs.parity

A row is a line of code, run as it stands here; its loss and its gradient by the logits are held to
the NumPy reference under the convention that the row names. So the page cannot name a wrong one:
the command fails instead. Keras runs in a process of its own for each backend.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from docs import parity_boosting
from docs.parity_pairs import (
    BACKENDS,
    HUGGING_FACE,
    OPTAX,
    SKLEARN,
    TIMM,
    TORCH,
    Pair,
    Table,
    keras_table,
)

import softhot

PAGE = Path(__file__).with_suffix(".md")
INTRO = """\
# Parity

The same logits, labels and arguments, given to each framework's own loss and to softhot's adapter
for it. The last column names what the number is, in the words of the core; loss and gradient were
held to the NumPy reference of exactly that before this page was written, within the bound that
stands over each table. Two calls on one line give the same; where they don't, each has a line of
its own, and [deviations](deviations.md) says why.

Four rows `z` of three classes, their class ids `y`, distributions `q`, class weights `w`, and
independent binary labels `b` with weights of positives `pw`; `gone` are ids that are all to be
ignored. Losses are means, gradients those of the first row. `HARD` is `Uniform(0.0)`; `by` are
factors of the rows, in place of the mean, and `of` is what their sum is divided by.

Write this page anew with `python -m docs.parity`.
"""
GIVEN = {
    "z": np.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [-1.0, 0.3, 0.7], [0.0, -0.5, 1.5]]),
    "y": np.array([0, 2, 1, 1]),
    "gone": np.full(4, -100),
    "q": np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5], [0.0, 1.0, 0.0]]),
    "w": np.array([1.0, 2.0, 4.0]),
    "b": np.array([[1, 0, 1], [0, 0, 1], [0, 1, 0], [1, 1, 0]]),
    "pw": np.array([1.0, 2.0, 4.0]),
}
# What a line of a pair gave: a loss, and the gradient of the first row; None if it has none.
Result = tuple[float, list[float] | None]

# ------------------------------------------------------- loss and gradient in every framework


def with_numpy(code: str, names: dict[str, Any]) -> Result:
    return float(eval(code, {**GIVEN, **names})), None


def with_torch(code: str, names: dict[str, Any]) -> Result:
    import torch

    given = {name: torch.tensor(value) for name, value in GIVEN.items()}
    given["b"] = given["b"].double()
    z = given["z"].requires_grad_()
    loss = eval(code, {**given, **names})
    (gradient,) = torch.autograd.grad(loss, z)
    return loss.item(), gradient[0].tolist()


def with_jax(code: str, names: dict[str, Any]) -> Result:
    import jax

    def loss(z: Any) -> Any:
        return eval(code, {**GIVEN, **names, "z": z})

    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(loss)(jax.numpy.asarray(GIVEN["z"]))
    return float(value), gradient[0].tolist()


def with_tensorflow(code: str, names: dict[str, Any]) -> Result:
    import tensorflow as tf

    z = tf.constant(GIVEN["z"])
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = eval(code, {**GIVEN, **names, "z": z})
    return float(loss), tape.gradient(loss, z)[0].numpy().tolist()


def reference(named: str) -> Result:
    """What softhot's NumPy reference gives for labels, rule and options."""

    def call(labels: Any, rule: Any, of: int | None = None, by: Any = None, **options: Any) -> Any:
        if by is not None:
            loss, gradient = softhot.cross_entropy_and_gradient(GIVEN["z"], labels, rule, **options)
            return loss @ by, gradient * by[:, None]
        binary = isinstance(rule, softhot.Bernoulli)
        function = (
            softhot.binary_cross_entropy_and_gradient
            if binary
            else softhot.cross_entropy_and_gradient
        )
        reduction = "mean" if of is None else "sum"
        loss, gradient = function(GIVEN["z"], labels, rule, reduction=reduction, **options)
        return loss / (of or 1), gradient / (of or 1)

    names = {"call": call, "HARD": softhot.Uniform(0.0), **GIVEN, **vars(softhot)}
    loss, gradient = eval(f"call({named})", names)
    return float(loss), gradient[0].tolist()


def checked(code: str, named: str, run: Callable[[str], Result], bound: float) -> Result | None:
    """What a line gives, if that is what it is said to be."""
    if code.startswith("("):
        return None
    loss, gradient = run(code)
    if not named.startswith("("):
        expected, slope = reference(named)
        off = abs(loss - expected)
        if gradient is not None and slope is not None:
            off = max(off, *np.abs(np.subtract(gradient, slope)).tolist())
        if not off <= bound:
            raise AssertionError(f"{code} is not {named}: {loss}, {expected}; {gradient}, {slope}")
    return loss, gradient


Results = list[tuple[Result | None, Result | None]]


def results_of(table: Table, run: Callable[[str], Result]) -> Results:
    return [
        (
            checked(pair.theirs, pair.named, run, table.bound),
            checked(pair.ours, pair.differs or pair.named, run, table.bound),
        )
        for pair in table.pairs
    ]


# --------------------------------------------------------------------- what the lines of code say


def timm(z: Any, y: Any, smoothing: float) -> Any:
    log_p = z.log_softmax(-1)
    nll = -log_p.gather(-1, y[:, None])[:, 0]
    return ((1 - smoothing) * nll - smoothing * log_p.mean(-1)).mean()


def fastai(z: Any, y: Any, eps: float, weight: Any = None) -> Any:
    import torch.nn.functional as F

    log_p = z.log_softmax(1)
    return eps * -log_p.sum(1).mean() / z.shape[1] + (1 - eps) * F.nll_loss(log_p, y, weight)


def trainer(**options: Any) -> Callable:
    """``Trainer.compute_loss`` of a model that returns the logits it is given."""
    import torch
    from transformers import PretrainedConfig, Trainer, TrainingArguments

    class Given(torch.nn.Module):
        config = PretrainedConfig()

        def forward(self, z: Any, labels: Any = None) -> dict[str, Any]:
            return {"logits": z}

    wiring = {k: options.pop(k) for k in ["compute_loss_func"] if k in options}

    def loss(z: Any, y: Any, num_items_in_batch: Any = None) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(folder, report_to=[], use_cpu=True, **options)
            run = Trainer(Given(), arguments, **wiring)
        batch = {"z": z, "labels": y}
        return run.compute_loss(run.model, batch, num_items_in_batch=num_items_in_batch)

    return loss


def expanded(z: np.ndarray, labels: np.ndarray, alpha: float) -> float:
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    from softhot.sklearn import expand_soft_targets

    kind = "ids" if labels.ndim == 1 else "soft"
    targets = softhot.smooth_labels(labels, alpha, num_classes=3, kind=kind)
    p, ids, weight = expand_soft_targets(softmax(z, axis=1), targets)
    return log_loss(ids, p, sample_weight=weight, labels=range(3))


def main_process() -> Iterable[tuple[Table, Results]]:
    """The frameworks that get along in one process."""
    import optax
    import torch.nn.functional as F
    from scipy.special import softmax
    from sklearn.metrics import log_loss
    from transformers.trainer_pt_utils import LabelSmoother

    import softhot.jax as sj
    import softhot.torch as st
    from softhot.huggingface import SmoothLoss

    names = {"F": F, "st": st, "timm": timm, "fastai": fastai, "trainer": trainer}
    names |= {"LabelSmoother": LabelSmoother, "SmoothLoss": SmoothLoss}
    for table in (TORCH, TIMM, HUGGING_FACE):
        yield table, results_of(table, partial(with_torch, names=names))
    names = {"optax": optax, "sj": sj, "one_hot": np.eye(3)[GIVEN["y"]]}
    names |= {"both": np.eye(2)[GIVEN["b"]], **vars(softhot)}
    yield OPTAX, results_of(OPTAX, partial(with_jax, names=names))
    names = {"expanded": expanded, "log_loss": log_loss, "softmax": partial(softmax, axis=1)}
    yield SKLEARN, results_of(SKLEARN, partial(with_numpy, names=names))


def keras_process(backend: str) -> None:
    """Print the table of one backend as JSON, in a process of its own."""
    import inspect

    import keras

    import softhot.keras as sk

    if backend == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    sparse = inspect.signature(keras.losses.SparseCategoricalCrossentropy).parameters
    table = keras_table(backend, "label_smoothing" in sparse)
    keras.config.set_floatx("float64")
    names = {"kl": keras.losses, "sk": sk, "ops": keras.ops, "one_hot": np.eye(3)[GIVEN["y"]]}
    names["weights"] = GIVEN["w"][GIVEN["y"]]
    run = {"tensorflow": with_tensorflow, "jax": with_jax, "torch": with_torch}[backend]
    print(json.dumps([asdict(table), results_of(table, partial(run, names=names))]))


def keras_tables() -> Iterable[tuple[Table, Results]]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "KERAS_HOME": folder, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment |= {"CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, "-W", "ignore", "-m", "docs.parity"]
        for backend in BACKENDS:
            done = subprocess.run(
                [*command, backend],
                env={**environment, "KERAS_BACKEND": backend},
                cwd=PAGE.parent.parent,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"Keras on {backend}:\n{done.stderr[-3000:]}")
            table, results = json.loads(done.stdout.splitlines()[-1])
            pairs = tuple(Pair(**pair) for pair in table.pop("pairs"))
            yield Table(**{**table, "pairs": pairs}), results


# ------------------------------------------------------------------------------------ the page


def number(value: float) -> str:
    return f"{value:.4f}".replace("-0.0000", "0.0000")


def cells(result: Any, named: str) -> str:
    """Loss, gradient and name."""
    if result is None:
        return " | | |"
    loss, gradient = result
    shown = "" if gradient is None else ", ".join(map(number, gradient))
    words = named.strip("()") if named.startswith("(") else named
    return f" {number(loss)} | {shown} | {words} |"


def lines_of(pair: Pair, theirs: Any, ours: Any) -> Iterable[str]:
    """One line if both are the same, and two if not."""
    mine = pair.differs or pair.named
    if pair.theirs.startswith("("):
        yield f"| {pair.theirs.strip('()')} | `{pair.ours}` |" + cells(ours, mine)
    elif not pair.differs:
        yield f"| `{pair.theirs}` | `{pair.ours}` |" + cells(ours, mine)
    else:
        yield f"| `{pair.theirs}` | |" + cells(theirs, pair.named)
        yield f"| | `{pair.ours}` |" + cells(ours, mine)


def section(table: Table, results: Results) -> str:
    lines = [
        f"{table.note} Bound: {table.bound:g}.\n".lstrip(),
        "| | softhot | loss | gradient | is |",
        "|---|---|---|---|---|",
    ]
    for pair, result in zip(table.pairs, results, strict=True):
        lines += lines_of(pair, *result)
    return "\n".join(lines) + "\n"


def versions(packages: Iterable[str]) -> str:
    """Versions as installed; the only lines of the page that may go out of date unnoticed."""
    names = {"tensorflow": "tensorflow-cpu", "xgboost": "xgboost-cpu"}
    shown = [f"{name} {version(names.get(name, name)).split('+')[0]}" for name in packages]
    return f"Versions: {', '.join(shown)}.\n"


def page() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = [*main_process(), *keras_tables()]
        boosting = parity_boosting.section()
    packages = dict.fromkeys(name for table, _ in tables for name in table.packages)
    titles: dict[str, list[str]] = {}  # backends that give the same share a table
    for table, results in tables:
        titles.setdefault(section(table, results), []).append(table.title)
    sections = []
    for text, names in titles.items():
        shared = [name.removeprefix("Keras on ") for name in names[1:]]
        sections.append(f"## {', '.join([*names[:1], *shared])}\n\n{text}")
    head = [INTRO, versions([*packages, *parity_boosting.LIBRARIES])]
    return "\n".join([*head, *sections, boosting])


def main() -> None:
    """Write docs/parity.md."""
    words = argparse.ArgumentParser("python -m docs.parity", description=main.__doc__)
    help = "only print the table of Keras on this backend, as JSON"
    words.add_argument("backend", nargs="?", choices=BACKENDS, help=help)
    backend = words.parse_args().backend
    if backend is not None:
        keras_process(backend)
    else:
        PAGE.write_text(page())
        print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
