"""Many small networks trained at once: one batched matrix product a layer for all of them.

A *replica* is a network of one seed and one arm. Replicas of a seed start from the same initial
weights and take the same batches, whatever their arm, so that arms can be compared seed by seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softhot.core.check import InputError
from softhot.core.rule import Uniform
from softhot.core.weights import PerSample
from softhot.datasets import load, split
from softhot.reproduce.settings import Setting
from softhot.torch import cross_entropy

Layers = list[tuple[Tensor, Tensor]]
Tick = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Problem:
    """The data as tensors: features (N, D) with mean 0 and variance 1 on the training rows."""

    x: Tensor
    y: Tensor
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: int


def problem(setting: Setting) -> Problem:
    """Load and split the data of a setting."""
    data = load(setting.dataset)
    if data.kind == "texts":
        raise InputError("dataset", "tabular data or images", setting.dataset)
    parts = split(data, setting.train, setting.validation, setting.test, seed=0)
    x = np.asarray(data.features, np.float64).reshape(len(data), -1)
    spread = x[parts.train].std(axis=0)
    # One scale for all pixels of an image: a pixel that is hardly ever lit must not become loud.
    scale = np.where(spread > 0, spread, 1) if data.kind == "tabular" else spread.mean()
    x = ((x - x[parts.train].mean(axis=0)) / scale).astype(np.float32)
    y = torch.from_numpy(data.labels)
    return Problem(
        torch.from_numpy(x), y, parts.train, parts.validation, parts.test, len(data.class_names)
    )


@dataclass(frozen=True, eq=False)
class Trained:
    """Replicas after training; ``layers`` hold weights (A S, in, out) of A arms and S seeds."""

    layers: Layers
    arms: int
    seeds: int

    def logits(self, x: Tensor) -> np.ndarray:
        """(A, S, N, K) float32."""
        with torch.inference_mode():
            z = forward(self.layers, x.expand(self.arms * self.seeds, *x.shape))
        return z.reshape(self.arms, self.seeds, *z.shape[1:]).numpy()


def forward(layers: Layers, x: Tensor) -> Tensor:
    """Logits (R, B, K) of R replicas on batches (R, B, D) of their own."""
    for weight, bias in layers[:-1]:
        x = torch.baddbmm(bias, x, weight).relu()
    return torch.baddbmm(layers[-1][1], x, layers[-1][0])


def initial(widths: tuple[int, ...], seeds: int, arms: int) -> Layers:
    """PyTorch's own initial weights, the same in every arm of a seed."""
    stacked: list[list[tuple[Tensor, Tensor]]] = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(seeds):
            torch.manual_seed(seed)
            linear = [torch.nn.Linear(*pair) for pair in itertools.pairwise(widths)]
            stacked.append([(one.weight.T, one.bias[None]) for one in linear])
    layers = []
    for parts in zip(*stacked, strict=True):
        weight, bias = (torch.stack(part).repeat(arms, 1, 1) for part in zip(*parts, strict=True))
        layers.append((weight.detach().requires_grad_(), bias.detach().requires_grad_()))
    return layers


def batches(rows: int, size: int, seeds: int, epochs: int) -> Iterator[tuple[int, Tensor]]:
    """Epoch, and positions (S, B) of a step: for each seed permutations of its own."""
    generators = [np.random.default_rng(seed) for seed in range(seeds)]
    for epoch in range(epochs):
        order = torch.from_numpy(np.stack([g.permutation(rows) for g in generators]))
        for step in order.split(size, dim=1):
            yield epoch, step


def train(
    problem: Problem,
    setting: Setting,
    seeds: int,
    alphas: tuple[float, ...],
    *,
    labels: Tensor | None = None,
    after_epoch: Callable[[int, Trained], None] | None = None,
    tick: Tick = lambda _: None,
) -> Trained:
    """Networks on uniformly smoothed labels, one arm for each alpha.

    Args:
        labels: of the training rows, instead of the data's: (n,).
        after_epoch: called with the number of each finished epoch and the networks.
        tick: called with the number of each finished epoch.
    """
    y = problem.y[problem.train] if labels is None else labels
    weights = torch.tensor(alphas).repeat_interleave(seeds)

    def loss(logits: Tensor, steps: Tensor) -> Tensor:
        target = y[steps].repeat(len(alphas), 1)
        alpha = weights[:, None].expand(target.shape)
        return cross_entropy(
            logits.flatten(0, 1),
            target.flatten(),
            Uniform(PerSample()),
            alpha=alpha.flatten(),
            reduction="none",
        ).reshape(target.shape)

    return optimize(problem, setting, seeds, len(alphas), setting.hidden, loss, after_epoch, tick)


def distil(
    problem: Problem,
    setting: Setting,
    teachers: np.ndarray,
    temperatures: tuple[float, ...],
    tick: Tick = lambda _: None,
) -> Trained:
    """Small students of teachers, one arm for each teacher and temperature, in that order.

    Args:
        teachers: (A, S, n, K), their logits on the training rows.
        temperatures: T; the loss is ``T^2`` times the cross entropy of both softmaxes at T.
    """
    arms, seeds = len(teachers) * len(temperatures), teachers.shape[1]
    T = torch.tensor(temperatures).repeat(len(teachers)).repeat_interleave(seeds)[:, None, None]
    told = torch.from_numpy(teachers).repeat_interleave(len(temperatures), dim=0).flatten(0, 1)
    told = (told / T).softmax(-1)

    def loss(logits: Tensor, steps: Tensor) -> Tensor:
        at = steps.repeat(arms, 1)[..., None].expand(-1, -1, told.shape[-1])
        target = told.gather(1, at)
        return -(T**2)[..., 0] * (target * (logits / T).log_softmax(-1)).sum(-1)

    return optimize(problem, setting, seeds, arms, setting.student, loss, None, tick)


def optimize(
    problem: Problem,
    setting: Setting,
    seeds: int,
    arms: int,
    hidden: tuple[int, ...],
    loss: Callable[[Tensor, Tensor], Tensor],
    after_epoch: Callable[[int, Trained], None] | None,
    tick: Tick,
) -> Trained:
    """Adam on the mean loss of each batch; ``loss(logits, positions)`` is (A S, B)."""
    widths = (problem.x.shape[1], *hidden, problem.classes)
    layers = initial(widths, seeds, arms)
    found = Trained(layers, arms, seeds)
    parameters = [tensor for layer in layers for tensor in layer]
    optimizer = torch.optim.Adam(parameters, lr=setting.learning_rate, fused=True)
    x = problem.x[problem.train]
    last = 0
    for epoch, steps in batches(len(x), setting.batch_size, seeds, setting.epochs):
        if epoch != last:
            last = epoch
            tick(epoch)
            if after_epoch:
                after_epoch(epoch, found)
        logits = forward(layers, x[steps].repeat(arms, 1, 1))
        # The sum over replicas: each has a gradient of its own, that of its mean loss.
        optimizer.zero_grad()
        loss(logits, steps).mean(dim=1).sum().backward()
        optimizer.step()
    tick(setting.epochs)
    if after_epoch:
        after_epoch(setting.epochs, found)
    return found
