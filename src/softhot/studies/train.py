"""Training of one trial: the same start and the same batches in every arm of a seed.

Nothing but the method differs between the arms of one seed, so their difference is its effect and
not luck. Held-out rows never reach a gradient. Without early stopping the last weights count; with
it those that were best on validation, judged by hard labels.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from softhot.core.check import InputError
from softhot.core.rule import Rule
from softhot.core.rules import Focal
from softhot.metrics import LastLayer
from softhot.studies.claims import tick
from softhot.studies.methods import Recipe
from softhot.studies.models import FILE, model
from softhot.studies.spec import TrialSpec
from softhot.studies.store import TrialResult

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split


class Diverged(RuntimeError):
    """Training ended in numbers that are not finite."""


class Trained(NamedTuple):
    """What a model leaves of a trial: logits (rows, K), and its last layer if that is linear."""

    validation: np.ndarray
    test: np.ndarray
    layer: LastLayer | None = None


def train(
    trial: TrialSpec, dataset: Dataset, split: Split, folder: Path | None = None
) -> TrialResult:
    """Train one model and keep its logits on the validation and the test rows.

    Args:
        trial: What to train.
        dataset, split: The data, see :func:`softhot.studies.run.data`.
        folder: Where a model of the user's own may keep checkpoints; None is a temporary folder.

    Raises:
        Diverged: The logits are not finite; a smaller ``learning_rate`` helps.
        InputError: The model or the method does not take this data.
    """
    began = time.perf_counter()
    check_data(trial, dataset)
    module = importlib.import_module(f"softhot.studies.models.{model(trial.model).module}")
    if not hasattr(module, "train"):  # it builds networks that are trained as all are
        module = importlib.import_module("softhot.studies.models.network")
    place = {"folder": folder} if model(trial.model).module == "own" else {}
    trained = module.train(trial, dataset, split, **place)
    return result(trial, dataset, split, trained, time.perf_counter() - began)


def train_all(
    trials: Sequence[TrialSpec], dataset: Dataset, split: Split
) -> list[TrialResult | Exception]:
    """Train trials as one program; of one that failed, its error."""
    from softhot.studies.models.replicas import train_together

    began = time.perf_counter()
    results = train_together(trials, dataset, split)
    seconds = (time.perf_counter() - began) / len(trials)
    found: list[TrialResult | Exception] = []
    for trial, trained in zip(trials, results, strict=True):
        try:
            found.append(result(trial, dataset, split, trained, seconds))
        except Diverged as error:
            found.append(error)
    return found


def check_data(trial: TrialSpec, dataset: Dataset) -> None:
    """Refuse data that the model or the method does not take."""
    row = model(trial.model)
    if row.module == "own":
        from softhot.studies.models import own

        own.load(trial.model)
    if dataset.kind not in row.kinds:
        fit = f"one for {dataset.kind}, the kind of data in {dataset.name!r}"
        raise InputError("model", fit, trial.model, f"It takes {' and '.join(row.kinds)}.")
    if row.module == "head":
        from softhot.studies.models import head

        head.check(dataset)
    recipe = trial.arm.recipe
    if row.targets:
        rule = recipe.rule
        plain = recipe == Recipe(rule) and trial.arm.method != "margin"
        if (
            not plain
            or recipe.from_batch
            or (isinstance(rule, Rule) and (rule.penalties or isinstance(rule, Focal)))
        ):
            hint = f"{row.title[:1].upper()}{row.title[1:]} can have its targets smoothed, no more."
            raise InputError("methods", "rules for targets", trial.arm.name, hint)
        if trial.early_stopping:
            hint = "The model has no passes to stop between."
            raise InputError("early_stopping", "left out", trial.early_stopping, hint)
    if recipe.human and dataset.soft_labels is None:
        hint = "It wants a data set that several people labelled, with labels left as they are."
        raise InputError("methods", f"without 'human' on {dataset.name!r}", trial.arm.name, hint)
    if recipe.mixup and row.kinds == ("texts",):
        hint = "Words cannot be mixed; features of texts can: model = head."
        raise InputError("methods", f"without 'mixup' for {trial.model}", trial.arm.name, hint)


def result(
    trial: TrialSpec,
    dataset: Dataset,
    split: Split,
    trained: Trained,
    seconds: float,
) -> TrialResult:
    """What is stored of a trial."""
    if not (np.isfinite(trained.validation).all() and np.isfinite(trained.test).all()):
        raise Diverged("training diverged: logits are not finite. Try a smaller learning_rate")
    return TrialResult(
        validation_logits=trained.validation,
        validation_labels=dataset.labels[split.validation],
        test_logits=trained.test,
        test_labels=dataset.labels[split.test],
        seconds=seconds,
        versions=versions(trial.model),
        split=split.digest,
        data=dataset.digest,
        layer=trained.layer,
    )


def batches(trial: TrialSpec, rows: int) -> Iterator[list[np.ndarray]]:
    """Row numbers of the steps of each pass: a permutation by ``trial.seed``, cut into batches."""
    generator = np.random.default_rng(trial.seed)
    for epoch in range(trial.epochs):
        tick(epoch, trial.epochs)
        order = generator.permutation(rows)
        yield [order[i : i + trial.batch_size] for i in range(0, rows, trial.batch_size)]


def standardized(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """``features`` with mean 0 and variance 1 in each column, of images in each channel, float32.

    Means and variances are those of the rows ``train`` alone; a column that is constant there is
    only centred.
    """
    known = features[train].astype(np.float64)
    axes = (0, 2, 3) if features.ndim == 4 else 0
    mean, spread = known.mean(axis=axes, keepdims=True), known.std(axis=axes, keepdims=True)
    spread[spread == 0] = 1
    with np.errstate(over="ignore"):
        return ((features - mean) / spread).astype(np.float32)


def versions(of: str = "") -> dict[str, str]:
    """Versions of what computes the numbers of a model, its file's too if it is the user's own."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("softhot", "torch", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"  # run from its source tree
    if Path(of).suffix == FILE:
        from softhot.studies.models.own import digest

        found[Path(of).name] = digest(of)
    return found


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: faster for small networks, and the same bytes however many jobs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
