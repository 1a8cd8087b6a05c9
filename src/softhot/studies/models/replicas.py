"""Perceptrons of many arms and seeds trained as one program.

R = A S replicas, arm by arm, share an architecture and a split. Their weights are stacked, so a
layer is one batched matrix product; the rows of a batch, which the arms of a seed share, meet the
first layers of all arms in a single product; one optimizer steps over everything. Losses are taken
rule by rule, all strengths of uniform smoothing at once. Start, batches and noise are those of
:mod:`softhot.studies.models.network`, and so are the results but for rounding: in float64 to 1e-9
after whole trainings, in float32 as far as a unit in the last place of the initial weights goes
(docs/together.md). The gradient of the loss is softhot's; from there back it is written out here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from softhot.core.rule import HARD, Rule, Uniform
from softhot.core.weights import PerSample
from softhot.metrics import LastLayer
from softhot.studies.methods import Arm
from softhot.studies.models import model
from softhot.studies.models.network import (
    Mixing,
    Problem,
    initial_network,
    last_layer,
    linear_layers,
    problem,
    warm_up,
)
from softhot.studies.spec import TrialSpec
from softhot.studies.train import Trained, batches, one_thread
from softhot.torch import cross_entropy

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split

ROWS = 1024  # that are scored at a time


def train_together(trials: Sequence[TrialSpec], dataset: Dataset, split: Split) -> list[Trained]:
    """What each trial leaves; the trials are arms x seeds."""
    with one_thread():
        data = problem(dataset, split, model(trials[0].model).module)
        program = Program(trials, data)
        program.fit()
        held = program.logits(split.validation), program.logits(split.test)
        places = [program.place[trial.arm, trial.seed] for trial in trials]
        return [Trained(held[0][i], held[1][i], program.last_layer(i)) for i in places]


class Program:
    """The replicas' weights, and the steps that train them.

    Layer l of all replicas is ``(R, in, out)``, but the first is ``(S, in, A out)``.
    """

    def __init__(self, trials: Sequence[TrialSpec], data: Problem) -> None:
        self.data, self.trial = data, trials[0]
        seeds = sorted({trial.seed for trial in trials})
        arms = _by_rule(dict.fromkeys(trial.arm for trial in trials), data)
        self.rules = [arm.recipe.fit(data.rows) for arm in arms]
        # Mixtures differ from arm to arm, so there every replica brings rows of its own.
        self.mixed = any(arm.recipe.mixup for arm in arms)
        self.a, self.s = len(arms), len(seeds)
        self.place = {
            (arm, seed): i * self.s + j
            for i, arm in enumerate(arms)
            for j, seed in enumerate(seeds)
        }
        self.firsts = {seed: next(t for t in trials if t.seed == seed) for seed in seeds}
        self.noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.dropout = _column([arm.recipe.dropout for arm in arms], self.s)
        self.decay = _column([arm.recipe.weight_decay for arm in arms], self.s)
        self.mixing = [
            Mixing(t.seed, arm.recipe.mixup) for arm in arms for t in self.firsts.values()
        ]
        self._stack([initial_network(t, data) for t in self.firsts.values()])
        self.alphas = torch.tensor(
            [rule.base.alpha if _is_uniform(rule) else 0.0 for rule in self.rules]
        ).repeat_interleave(self.s)
        targets = data.soft if self.trial.arm.recipe.human else data.y
        assert targets is not None, "checked before"
        self.x, self.targets = data.x[data.split.train].flatten(1), targets[data.split.train]

    def _stack(self, networks: list[nn.Module]) -> None:
        """Weights, gradients and the state of the optimizer, each one stretch of memory."""
        linear = [linear_layers(network) for network in networks]
        r = self.a * self.s
        shapes: list[tuple[int, ...]] = []
        for layer in linear[0]:
            shapes += [(r, layer.in_features, layer.out_features), (r, 1, layer.out_features)]
        if not self.mixed:
            for i in (0, 1):
                _, rows, out = shapes[i]
                shapes[i] = self.s, rows, self.a * out
        self.weights = torch.empty(sum(map(math.prod, shapes)))
        self.slopes = torch.zeros_like(self.weights)
        self.views, self.gradients = _views(self.weights, shapes), _views(self.slopes, shapes)
        with torch.no_grad():
            for i, layers in enumerate(zip(*linear, strict=True)):
                for j, layer in enumerate(layers):
                    by_seed = self.by_arm(2 * i)[:, j], self.by_arm(2 * i + 1)[:, j]
                    by_seed[0].copy_(layer.weight.T)
                    by_seed[1].copy_(layer.bias)

    def by_arm(self, i: int, of: Tensor | None = None) -> Tensor:
        """Parameter i as (A, S, rows, out), whatever its layout."""
        view = self.views[i] if of is None else of
        if i > 1 or self.mixed:
            return view.view(self.a, self.s, *view.shape[1:])
        return view.view(self.s, view.shape[1], self.a, -1).permute(2, 0, 1, 3)

    # ------------------------------------------------------------------------------ training

    def fit(self) -> None:
        """Train every replica."""
        for _ in self.passes():
            pass

    def passes(self) -> Iterator[int]:
        """Train every replica; after each pass over the rows, how many passes are over."""
        trial = self.trial
        optimizer = Adam(self.weights, self.slopes, trial.learning_rate)
        kept = Kept(self) if trial.early_stopping else None
        orders = [batches(first, len(self.x)) for first in self.firsts.values()]
        warm, rules = warm_up(trial), self.rules
        for epoch, steps in enumerate(zip(*orders, strict=True), start=1):
            self.rules = rules if epoch > warm else [HARD] * self.a
            for rows in zip(*steps, strict=True):
                self.step(torch.from_numpy(np.stack(rows)))
                if self.decay is not None:
                    factor = (1 - trial.learning_rate * self.decay).view(self.a, self.s, 1, 1)
                    for i in range(len(self.views)):
                        self.by_arm(i).mul_(factor)
                optimizer.step()
            yield epoch
            if kept is not None and kept.over():
                break
        if kept is not None:
            kept.restore()

    def step(self, rows: Tensor) -> None:
        """The gradient of the mean loss on a batch; ``rows`` (S, B)."""
        x, targets, share = self.x[rows], self.targets[rows], None
        others = targets
        if self.mixed:
            partners, share = self._partners(rows.shape[1])
            x, other = x.repeat(self.a, 1, 1), self.x[rows]
            other = other[torch.arange(self.s)[:, None], partners].repeat(self.a, 1, 1)
            x = x.mul_(share).add_(other.mul_(1 - share))
            others = targets[torch.arange(self.s)[:, None], partners]
        hidden, keeps, z = self.forward(x, training=True)
        slope = self.slope(z, targets)
        if share is not None:
            slope = share * slope + (1 - share) * self.slope(z, others)
        self.backward(x, hidden, keeps, slope.div_(rows.shape[1]))

    def _partners(self, size: int) -> tuple[Tensor, Tensor]:
        """Partners of each seed (S, B), and the share that each replica keeps (R, 1, 1)."""
        drawn = [mixing.draw(size) for mixing in self.mixing]
        partners = torch.stack([partners for partners, _ in drawn[: self.s]])
        return partners, torch.tensor([share for _, share in drawn]).view(-1, 1, 1)

    def forward(
        self, x: Tensor, training: bool = False
    ) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
        """Hidden layers, what dropout left of them, and logits, all ``(R, B, width)``."""
        hidden: list[Tensor] = []
        keeps: list[Tensor | None] = []
        last = len(self.views) // 2 - 1
        for layer in range(last + 1):
            weight, bias = self.views[2 * layer : 2 * layer + 2]
            z = torch.baddbmm(bias, hidden[-1] if layer else x, weight)
            if not layer and not self.mixed:
                z = z.view(self.s, z.shape[1], self.a, -1).permute(2, 0, 1, 3)
                z = z.reshape(self.a * self.s, z.shape[2], -1) if layer == last else z
            if layer == last:
                return hidden, keeps, z
            h = torch.empty(self.a * self.s, *z.shape[-2:])
            torch.clamp_min(z, 0, out=h.view(z.shape))
            keep = self._keep(h) if training and self.dropout is not None else None
            hidden.append(h if keep is None else h.mul_(keep))
            keeps.append(keep)
        raise AssertionError("there is always a last layer")

    def _keep(self, h: Tensor) -> Tensor:
        """What dropout multiplies with: noise of the seed, the share of the arm."""
        assert self.dropout is not None
        noise = torch.stack([torch.rand(h.shape[1:], generator=g) for g in self.noise])
        kept = noise.repeat(self.a, 1, 1) >= self.dropout
        return kept / (1 - self.dropout)

    def slope(self, z: Tensor, targets: Tensor) -> Tensor:
        """The gradient by the logits of the summed losses, rule by rule."""
        out = torch.empty_like(z)
        start = 0
        while start < self.a:
            rule, end = self.rules[start], start + 1
            while end < self.a and _alike(self.rules[end], rule):
                end += 1
            part = slice(start * self.s, end * self.s)
            leaf = z[part].reshape(-1, z.shape[-1]).detach().requires_grad_()
            target = targets.repeat(end - start, *[1] * (targets.ndim - 1)).flatten(0, 1)
            alpha = None
            if _is_uniform(rule):
                rule, alpha = Uniform(PerSample()), self.alphas[part].repeat_interleave(z.shape[1])
            loss = cross_entropy(
                leaf, target, rule, alpha=alpha, reduction="sum", smooth_again=target.ndim == 2
            )
            out[part] = torch.autograd.grad(loss, leaf)[0].view(out[part].shape)
            start = end
        return out

    def backward(
        self, x: Tensor, hidden: list[Tensor], keeps: list[Tensor | None], slope: Tensor
    ) -> None:
        """From the gradient by the logits to that by every weight."""
        for layer in reversed(range(len(self.views) // 2)):
            if not layer and not self.mixed:
                slope = slope.view(self.a, self.s, *slope.shape[1:]).permute(1, 2, 0, 3)
                slope = slope.reshape(self.s, slope.shape[1], -1)
            below = hidden[layer - 1] if layer else x
            torch.bmm(below.mT, slope, out=self.gradients[2 * layer])
            torch.sum(slope, 1, keepdim=True, out=self.gradients[2 * layer + 1])
            if layer:
                slope = torch.bmm(slope, self.views[2 * layer].mT)
                keep = keeps[layer - 1]
                if keep is not None:
                    slope.mul_(keep)
                slope = torch.ops.aten.threshold_backward(slope, below, 0)

    # ------------------------------------------------------------------------------- scoring

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """float32 logits of these rows, (R, rows, K)."""
        found = []
        for i in range(0, len(rows), ROWS):
            x = self.data.x[rows[i : i + ROWS]].flatten(1)
            groups = self.a * self.s if self.mixed else self.s
            found.append(self.forward(x.expand(groups, *x.shape))[2].numpy())
        return np.concatenate(found, axis=1)

    def last_layer(self, replica: int) -> LastLayer | None:
        """What is kept of that replica's last layer."""
        last = len(self.views) - 2
        weight, bias = (self.by_arm(i)[divmod(replica, self.s)] for i in (last, last + 1))
        return last_layer(weight.T, bias[0])


class Adam:
    """:class:`torch.optim.Adam` of one tensor, from the function that it calls.

    The class would first import torch's compiler, which takes longer than a short study.
    """

    def __init__(self, weights: Tensor, slopes: Tensor, learning_rate: float) -> None:
        moments = [torch.zeros_like(weights)], [torch.zeros_like(weights)]
        largest: list[Tensor] = []  # of AMSGrad, which this is not
        self.tensors = ([weights], [slopes], *moments, largest, [torch.zeros(())])
        self.learning_rate = learning_rate

    def step(self) -> None:
        """Change the weights by what is in ``slopes`` now."""
        adam(
            *self.tensors,
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
            fused=True,
        )


class Kept:
    """Early stopping of every replica by itself: the weights with its best hard-label NLL.

    A replica whose time is over trains on with the others, but nothing of that is kept.
    """

    def __init__(self, program: Program) -> None:
        self.program, replicas = program, program.a * program.s
        self.nll, self.waited = torch.full((replicas,), math.inf), torch.zeros(replicas)
        self.best = [view.clone() for view in program.views]

    def over(self) -> bool:
        """Look at all replicas after a pass; whether all have stopped."""
        program, patience = self.program, self.program.trial.early_stopping
        rows = program.data.split.validation
        z = torch.from_numpy(program.logits(rows))
        y = program.data.y[rows].expand(len(z), -1)
        nll = nn.functional.cross_entropy(z.mT, y, reduction="none").mean(1)
        running = self.waited < patience
        better = running & (nll < self.nll)
        self.nll = nll.where(better, self.nll)
        self.waited = (self.waited + running).where(~better, 0)
        at = better.view(program.a, program.s)
        for i, best in enumerate(self.best):
            program.by_arm(i, best)[at] = program.by_arm(i)[at]
        return bool((self.waited >= patience).all())

    def restore(self) -> None:
        """Put the best weights of every replica back."""
        for view, best in zip(self.program.views, self.best, strict=True):
            view.copy_(best)


def _by_rule(arms: Sequence[Arm] | dict[Arm, None], data: Problem) -> list[Arm]:
    """The arms, those first whose rule is uniform smoothing, and equal rules side by side."""
    order: dict[str, int] = {}
    keyed = []
    for arm in arms:
        rule = arm.recipe.fit(data.rows)
        key = "" if _is_uniform(rule) else repr(rule)
        keyed.append((0 if not key else 1 + order.setdefault(key, len(order)), arm))
    return [arm for _, arm in sorted(keyed, key=lambda pair: pair[0])]


def _is_uniform(rule: Rule) -> bool:
    return isinstance(rule, Uniform) and isinstance(rule.alpha, float)


def _alike(one: Rule, two: Rule) -> bool:
    """Whether one call can take both."""
    return one == two or (_is_uniform(one) and _is_uniform(two))


def _column(values: list[float], seeds: int) -> Tensor | None:
    """A number for each replica, (R, 1, 1); None if all are 0."""
    if not any(values):
        return None
    return torch.tensor(values).repeat_interleave(seeds).view(-1, 1, 1)


def _views(memory: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    found, start = [], 0
    for shape in shapes:
        size = math.prod(shape)
        found.append(memory[start : start + size].view(shape))
        start += size
    return found
