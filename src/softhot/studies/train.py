"""Training of one trial: the same start and the same batches in every arm of a seed.

Nothing but the loss differs between the arms of one seed, so their difference is the effect of
the rule and not of luck. Held-out rows are only ever scored, never trained on or stopped by: the
network trains for a fixed number of epochs and its last weights count.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from softhot.studies.spec import TrialSpec
from softhot.studies.store import TrialResult

if TYPE_CHECKING:
    import torch

    from softhot.datasets import Dataset, Split


class Diverged(RuntimeError):
    """Training ended in numbers that are not finite."""


def train(trial: TrialSpec, dataset: Dataset, split: Split) -> TrialResult:
    """Train one network and keep its logits on the validation and the test rows.

    A perceptron with ReLU, Adam at a constant step size, mean loss over each batch, one thread.
    The loss is ``softhot.torch.cross_entropy`` under ``Uniform(trial.alpha)``.

    Raises:
        Diverged: The logits are not finite; a smaller ``learning_rate`` helps.
    """
    import torch

    from softhot.core.rule import Uniform
    from softhot.torch import cross_entropy

    began = time.perf_counter()
    rule = Uniform(trial.alpha)
    features = torch.from_numpy(standardized(dataset.features, split.train))
    labels = torch.from_numpy(dataset.labels)
    with one_thread():
        network = initial_network(trial, features.shape[1], len(dataset.class_names))
        optimizer = torch.optim.Adam(network.parameters(), lr=trial.learning_rate, fused=True)
        x, y = features[split.train], labels[split.train]
        for rows in batches(trial, len(y)):
            loss = cross_entropy(network(x[rows]), y[rows], rule)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            validation = network(features[split.validation]).numpy()
            test = network(features[split.test]).numpy()
    if not (np.isfinite(validation).all() and np.isfinite(test).all()):
        raise Diverged("training diverged: logits are not finite. Try a smaller learning_rate")
    return TrialResult(
        validation_logits=validation,
        validation_labels=dataset.labels[split.validation],
        test_logits=test,
        test_labels=dataset.labels[split.test],
        seconds=time.perf_counter() - began,
        versions=versions(),
        split=split.digest,
    )


def initial_network(trial: TrialSpec, inputs: int, classes: int) -> torch.nn.Sequential:
    """The network before training: its weights depend on ``trial.seed`` and the widths alone.

    PyTorch's own initial weights; its global generator is left as it was.
    """
    import torch

    widths = [inputs, *trial.hidden, classes]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        layers: list[torch.nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers += [torch.nn.Linear(width, following), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def batches(trial: TrialSpec, rows: int) -> Iterator[np.ndarray]:
    """Row numbers of each step: per epoch one permutation, cut into batches, by ``trial.seed``."""
    generator = np.random.default_rng(trial.seed)
    for _ in range(trial.epochs):
        order = generator.permutation(rows)
        for start in range(0, rows, trial.batch_size):
            yield order[start : start + trial.batch_size]


def standardized(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """``features`` (N, D) with mean 0 and variance 1 in each column, as float32.

    Means and variances are those of the rows ``train`` alone; a column that is constant there is
    only centred.
    """
    known = features[train].astype(np.float64)
    spread = known.std(axis=0)
    spread[spread == 0] = 1
    return ((features - known.mean(axis=0)) / spread).astype(np.float32)


def versions() -> dict[str, str]:
    """Versions of what computes a trial's numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("softhot", "torch", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"  # run from its source tree
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
