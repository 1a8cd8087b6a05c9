"""Many small networks trained at once, by the program that trains the trials of a study together.

An arm's networks start, seed by seed, from the same initial weights as every other arm's and take
the same batches, so that arms can be compared seed by seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from softhot.reproduce.settings import Setting
from softhot.studies import StudySpec, TrialSpec
from softhot.studies.models.network import Problem
from softhot.studies.models.network import problem as as_tensors
from softhot.studies.models.replicas import Program
from softhot.studies.run import data
from softhot.studies.train import check_data

Tick = Callable[[int], None]


class Networks(Program):
    """Replicas of A arms and S seeds."""

    def said(self, rows: np.ndarray) -> np.ndarray:
        """Logits of these rows, (A, S, rows, K) float32."""
        z = self.logits(rows)
        return z.reshape(self.a, self.s, *z.shape[1:])


class Students(Networks):
    """Networks that learn from teachers alone.

    The loss of a row is ``T^2`` times the cross entropy of both softmaxes at T; its gradient by the
    student's logits is ``T (student - teacher)``.
    """

    def __init__(
        self, trials: Sequence[TrialSpec], data: Problem, told: Tensor, temperature: Tensor
    ) -> None:
        super().__init__(trials, data)
        self.told, self.temperature = told, temperature  # (A S, n, K) and (A S, 1, 1)
        self.targets = torch.arange(len(self.x))  # a row's target is where its teachers speak

    def slope(self, z: Tensor, targets: Tensor) -> Tensor:
        """The gradient by the logits of the summed losses."""
        at = targets.repeat(self.a, 1)[..., None].expand(z.shape)
        return self.temperature * ((z / self.temperature).softmax(-1) - self.told.gather(1, at))


def problem(setting: Setting) -> Problem:
    """Load and split the data of a setting."""
    (trial, *_) = trials(setting, seeds=1, alphas=(0.0, 0.1), hidden=setting.hidden)
    dataset, parts = data(trial)
    check_data(trial, dataset)
    return as_tensors(dataset, parts)


def trials(
    setting: Setting, seeds: int, alphas: tuple[float, ...], hidden: tuple[int, ...]
) -> tuple[TrialSpec, ...]:
    """What a study would train: perceptrons under uniform smoothing, without any first."""
    shared = ("dataset", "train", "validation", "test", "epochs", "batch_size", "learning_rate")
    options = {name: getattr(setting, name) for name in shared}
    return StudySpec(alphas=alphas, seeds=seeds, hidden=hidden, **options).trials()


def train(
    problem: Problem,
    setting: Setting,
    seeds: int,
    alphas: tuple[float, ...],
    *,
    labels: Tensor | None = None,
    after_epoch: Callable[[int, Networks], None] = lambda epoch, networks: None,
    tick: Tick = lambda _: None,
) -> Networks:
    """Networks on uniformly smoothed labels, one arm for each alpha; 0 is the first.

    Args:
        labels: of the training rows, instead of the data's: (n,).
        after_epoch: called with the number of each finished epoch and the networks.
        tick: called with the number of each finished epoch.
    """
    if labels is not None:
        y = problem.y.clone()
        y[problem.split.train] = labels
        problem = dataclasses.replace(problem, y=y)
    networks = Networks(trials(setting, seeds, alphas, setting.hidden), problem)
    for epoch in networks.passes():
        tick(epoch)
        after_epoch(epoch, networks)
    return networks


def distil(
    problem: Problem,
    setting: Setting,
    teachers: np.ndarray,
    temperatures: tuple[float, ...],
    tick: Tick = lambda _: None,
) -> Students:
    """Small students of teachers, one arm for each teacher and temperature, in that order.

    Args:
        teachers: (A, S, n, K), their logits on the training rows.
        temperatures: T, of teacher and student.
    """
    arms, seeds = len(teachers) * len(temperatures), teachers.shape[1]
    T = torch.tensor(temperatures).repeat(len(teachers)).repeat_interleave(seeds)[:, None, None]
    told = torch.from_numpy(teachers).repeat_interleave(len(temperatures), dim=0).flatten(0, 1)
    names = tuple(
        arm / (2 * arms) for arm in range(arms)
    )  # no student smooths: alphas tell arms apart
    of = trials(setting, seeds, names, setting.student)
    students = Students(of, problem, (told / T).softmax(-1), T)
    for epoch in students.passes():
        tick(epoch)
    return students
