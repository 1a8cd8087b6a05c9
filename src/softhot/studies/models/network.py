"""Networks in PyTorch, one at a time: the loop that every other way of training must agree with.

AdamW at a constant step size, mean loss over each batch, one thread. The loss is
``softhot.torch.cross_entropy`` under the arm's rule.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from softhot.core.online import OnlineMeans
from softhot.core.rule import HARD, Rule
from softhot.core.rules import Online, Teacher
from softhot.metrics import LastLayer
from softhot.studies.methods import NONE, TrainingRows
from softhot.studies.models import model
from softhot.studies.spec import TrialSpec
from softhot.studies.train import Trained, batches, one_thread
from softhot.torch import cross_entropy

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split

CLASSES = 1_000  # most of which the last layer's Gram matrix is kept


@dataclass(frozen=True, eq=False)
class Problem:
    """Data as tensors: ``x`` of all N rows, ready for the model, ``y`` (N,), ``soft`` (N, K)."""

    x: Tensor
    y: Tensor
    soft: Tensor | None
    classes: int
    split: Split
    rows: TrainingRows


@functools.lru_cache(maxsize=2)
def problem(dataset: Dataset, split: Split, module: str = "mlp") -> Problem:
    """The data as tensors, made once for all trials on one split by the ``module`` of the model."""
    soft = dataset.soft_labels
    x = _module(module).inputs(dataset, split)
    embedded = x[split.train].numpy() if x.is_floating_point() else None
    return Problem(
        x=x,
        y=torch.from_numpy(dataset.labels),
        soft=None if soft is None else torch.from_numpy(soft.astype(np.float32)),
        classes=len(dataset.class_names),
        split=split,
        rows=TrainingRows.of(dataset.take(split.train), embedded),
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"softhot.studies.models.{name}")


class Dropout(nn.Module):
    """Dropout whose noise comes from a generator of its own, so that the arms of a seed share it.

    A unit is dropped where its noise, uniform in [0, 1), is below the share: what an arm drops, an
    arm with a larger share drops too.
    """

    def __init__(self, share: float, noise: torch.Generator) -> None:
        super().__init__()
        self.share, self.noise = share, noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(x.shape, generator=self.noise) >= self.share
        return x * kept / (1 - self.share)


def initial_network(trial: TrialSpec, problem: Problem) -> nn.Module:
    """The network before training: its weights depend on ``trial.seed`` and the widths alone.

    PyTorch's own initial weights; its global generator is left as it was.
    """
    noise = torch.Generator().manual_seed(trial.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        module = _module(model(trial.model).module)
        return module.build(trial, problem.x, problem.classes, noise)


class Mixing:
    """Which rows of each batch are mixed and by how much; partners are the same in every arm."""

    def __init__(self, seed: int, a: float) -> None:
        self.a = a
        self.partners = np.random.default_rng([seed, 1])
        self.shares = np.random.default_rng([seed, 2])

    def draw(self, rows: int) -> tuple[Tensor, float]:
        """The partner of each row, and the share that the row itself keeps."""
        partners = torch.from_numpy(self.partners.permutation(rows))
        return partners, float(self.shares.beta(self.a, self.a))


def train(trial: TrialSpec, dataset: Dataset, split: Split) -> Trained:
    """Train one network."""
    with one_thread():
        data = problem(dataset, split, model(trial.model).module)
        network = initial_network(trial, data)
        fit(trial, data, network)
        last = linear_layers(network)[-1]
        return Trained(
            logits(network, data, split.validation),
            logits(network, data, split.test),
            last_layer(last.weight.detach(), last.bias.detach()),
        )


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """Its linear layers in their order; the last one gives the logits."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def last_layer(weight: Tensor, bias: Tensor) -> LastLayer | None:
    """What is kept of the layer that gives the logits; ``weight`` (K, D), ``bias`` (K,)."""
    if len(weight) > CLASSES:
        return None
    gram = (weight.double() @ weight.double().mT).float()
    if not gram.isfinite().all():  # squares may overflow where no logit does
        return None
    return LastLayer(gram.numpy(), bias.numpy().copy())


def fit(trial: TrialSpec, data: Problem, network: nn.Module) -> None:
    """Train ``network`` in place."""
    recipe = trial.arm.recipe
    warm, rules = warm_up(trial), (HARD, recipe.fit(data.rows))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=trial.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    x, y = data.x[data.split.train], data.y[data.split.train]
    targets = data.soft[data.split.train] if recipe.human and data.soft is not None else y
    mixing = Mixing(trial.seed, recipe.mixup) if recipe.mixup else None
    online = OnlineMeans(data.classes) if isinstance(rules[1].base, Online) else None
    teacher = taught(trial, data) if isinstance(rules[1].base, Teacher) else None
    best = Best(trial.early_stopping)
    network.train()
    for epoch, steps in enumerate(batches(trial, len(y))):
        rule = rules[epoch >= warm]
        means = None if online is None else torch.from_numpy(online.means.astype(np.float32))

        def loss_of(z: Tensor, rows: Any, rule: Rule = rule, means: Any = means) -> Tensor:
            target, prior = targets[rows], means if teacher is None else teacher[rows]
            return cross_entropy(z, target, rule, prior=prior, smooth_again=target.ndim == 2)

        for rows in steps:
            inputs = x[rows]
            if mixing is None:
                z = network(inputs)
                loss = loss_of(z, rows)
            else:
                partners, share = mixing.draw(len(rows))
                z = network(share * inputs + (1 - share) * inputs[partners])
                loss = share * loss_of(z, rows) + (1 - share) * loss_of(z, rows[partners])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if online is not None:
                online.update(z.detach().softmax(-1).numpy(), y[rows].numpy())
        if online is not None:
            online.finish_epoch()
        if best.patience and best.over(network, data):
            break
    best.restore(network)


def warm_up(trial: TrialSpec) -> int:
    """Passes, the first ones, in which the rule is plain cross entropy."""
    return round(trial.arm.recipe.warm_up * trial.epochs)


def taught(trial: TrialSpec, data: Problem) -> Tensor:
    """What the network of the same seed says of the training rows when trained plainly, (N, K)."""
    return _taught(dataclasses.replace(trial, arm=NONE), data)


@functools.lru_cache(maxsize=1)  # the settings of a seed come one after another
def _taught(trial: TrialSpec, data: Problem) -> Tensor:
    network = initial_network(trial, data)
    fit(trial, data, network)
    return torch.from_numpy(logits(network, data, data.split.train)).softmax(-1)


class Best:
    """Early stopping: the weights with the lowest hard-label NLL on validation."""

    def __init__(self, patience: int) -> None:
        self.patience, self.waited = patience, 0
        self.nll = float("inf")
        self.weights: Any = None

    def over(self, network: nn.Module, data: Problem) -> bool:
        """Look at the network after a pass; whether to stop."""
        z = torch.from_numpy(logits(network, data, data.split.validation))
        network.train()
        nll = float(nn.functional.cross_entropy(z, data.y[data.split.validation]))
        if nll < self.nll:
            self.nll, self.waited = nll, 0
            self.weights = copy.deepcopy(network.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, network: nn.Module) -> None:
        """Put the best weights back, if any were kept."""
        if self.weights is not None:
            network.load_state_dict(self.weights)


def logits(network: nn.Module, data: Problem, rows: np.ndarray) -> np.ndarray:
    """float32 logits of these rows, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        return np.concatenate([network(data.x[part]).numpy() for part in _parts(rows)])


def _parts(rows: np.ndarray, size: int = 4096) -> Iterator[np.ndarray]:
    for i in range(0, len(rows), size):
        yield rows[i : i + size]
