"""softhot against the losses of other libraries on random batches.

    python -m tests.differential --cases 100000

A case is one batch and one rival, compared in loss and gradient wherever the rival is right; where
it is not, docs/deviations.md shows how. torch, Keras and optax are the installed ones; the others
are formulas written anew from what each project defines.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import jax
import keras
import numpy as np
import optax
import torch
import torch.nn.functional as F

import softhot

TOLERANCE = 1e-9  # relative, in float64
TOLERANCE_32 = 2e-5  # for optax, which runs in JAX's float32


@dataclass(frozen=True)
class Problem:
    """A random batch: labels, some of them to be ignored, weights, and a smoothing argument."""

    logits: np.ndarray
    labels: np.ndarray
    alpha: float
    counted: np.ndarray
    weight: np.ndarray

    @property
    def classes(self) -> int:
        return self.logits.shape[1]

    @property
    def one_hot(self) -> np.ndarray:
        return np.eye(self.classes)[self.labels]


def problems(count: int, seed: int) -> Iterator[Problem]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n, k = int(rng.integers(1, 9)), int(2 + 60 * rng.random() ** 3)
        counted = rng.random(n) < 0.8
        counted[0] = True
        yield Problem(
            logits=rng.normal(size=(n, k)) * 10 ** rng.uniform(-1, 2) + rng.normal() * 10,
            labels=rng.integers(k, size=n),
            alpha=float(rng.choice([0.0, 1e-6, 0.1, rng.random() * 0.5])),
            counted=counted,
            weight=rng.uniform(0.2, 3, size=k),
        )


@dataclass(frozen=True)
class Rival:
    """Another loss: ``theirs(logits, problem)`` in torch, and what softhot calls the same."""

    name: str
    theirs: Callable[[torch.Tensor, Problem], torch.Tensor]
    rule: Callable[[Problem], softhot.Rule] = lambda p: softhot.Uniform(p.alpha)
    options: Callable[[Problem], dict[str, Any]] = lambda p: {"reduction": "mean"}
    labels: Callable[[Problem], np.ndarray] = lambda p: p.labels
    tolerance: float = TOLERANCE


def torch_loss(z: torch.Tensor, p: Problem, **options: Any) -> torch.Tensor:
    labels = torch.as_tensor(options.pop("labels", p.labels))
    return F.cross_entropy(z, labels, label_smoothing=p.alpha, **options)


def nll_and_sum(z: torch.Tensor, p: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of each row, and the negated sum of all its log-probabilities."""
    log_p = z.log_softmax(-1)
    picked = log_p.gather(-1, torch.as_tensor(p.labels)[:, None]).squeeze(-1)
    return -picked, -log_p.sum(-1)


def timm(z: torch.Tensor, p: Problem) -> torch.Tensor:
    nll, total = nll_and_sum(z, p)
    return ((1 - p.alpha) * nll + p.alpha * total / p.classes).mean()


def hugging_face(z: torch.Tensor, p: Problem) -> torch.Tensor:
    nll, total = nll_and_sum(z, p)
    kept = torch.as_tensor(p.counted)
    active = kept.sum()
    nll, total = (torch.where(kept, part, 0.0).sum() for part in (nll, total))
    return (1 - p.alpha) * nll / active + p.alpha * total / (active * p.classes)


def fairseq_old(z: torch.Tensor, p: Problem) -> torch.Tensor:
    nll, total = nll_and_sum(z, p)
    return (1 - p.alpha) * nll.sum() + p.alpha / p.classes * total.sum()


def fairseq(z: torch.Tensor, p: Problem) -> torch.Tensor:
    nll, total = nll_and_sum(z, p)
    each = p.alpha / (p.classes - 1)
    return (1 - p.alpha - each) * nll.sum() + each * total.sum()


def megatron(z: torch.Tensor, p: Problem) -> torch.Tensor:
    nll, total = nll_and_sum(z, p)
    share = p.alpha * p.classes / (p.classes - 1)
    return ((1 - share) * nll + share * total / p.classes).mean()


def liger(z: torch.Tensor, p: Problem) -> torch.Tensor:
    share = p.alpha / p.classes
    lse, true = z.logsumexp(-1), z.gather(-1, torch.as_tensor(p.labels)[:, None]).squeeze(-1)
    return ((1 - p.alpha) * (lse - true) - share * z.sum(-1) + p.alpha * lse).mean()


def segmentation_models(z: torch.Tensor, p: Problem) -> torch.Tensor:
    nll, total = nll_and_sum(z, p)
    return (1 - p.alpha) * nll.mean() + p.alpha / p.classes * total.mean()


def keras_categorical(z: torch.Tensor, p: Problem) -> torch.Tensor:
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=p.alpha, dtype="float64"
    )
    return loss(torch.as_tensor(p.one_hot), z)


def confidence_penalty(z: torch.Tensor, p: Problem) -> torch.Tensor:
    log_p = z.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return (nll_and_sum(z, p)[0] - 0.3 * entropy).mean()


def max_sup(z: torch.Tensor, p: Problem) -> torch.Tensor:
    return (nll_and_sum(z, p)[0] + 0.2 * (z.max(-1).values - z.mean(-1))).mean()


def others(p: Problem) -> softhot.Rule:
    return softhot.Others(p.alpha if p.alpha < (p.classes - 1) / p.classes else 0.0)


def below_top(theirs: Callable) -> Callable:
    """Leave an argument out at which a wrong class would have more than the right one."""

    def run(z: torch.Tensor, p: Problem) -> torch.Tensor:
        alpha = others(p).alpha
        return theirs(z, Problem(p.logits, p.labels, alpha, p.counted, p.weight))

    return run


def ignored(p: Problem) -> np.ndarray:
    return np.where(p.counted, p.labels, -100)


def soft(p: Problem) -> np.ndarray:
    """Half of the label's mass on its neighbour, as mixup makes it."""
    return 0.7 * p.one_hot + 0.3 * np.roll(p.one_hot, 1, axis=1)


RIVALS = (
    Rival("torch", torch_loss),
    Rival(
        "torch, sum and ignore_index",
        lambda z, p: torch_loss(z, p, labels=ignored(p), reduction="sum"),
        options=lambda p: {"reduction": "sum", "ignore_index": -100},
        labels=ignored,
    ),
    Rival(
        "torch, weight and ignore_index",
        lambda z, p: torch_loss(z, p, labels=ignored(p), weight=torch.as_tensor(p.weight)),
        options=lambda p: {
            "reduction": "mean",
            "ignore_index": -100,
            "weight": p.weight,
            "weighting": "class",
        },
        labels=ignored,
    ),
    Rival(
        "torch, probabilities",
        lambda z, p: torch_loss(z, p, labels=soft(p)),
        options=lambda p: {"reduction": "mean", "smooth_again": True},
        labels=soft,
    ),
    Rival(
        "torch, probabilities and weight",
        lambda z, p: torch_loss(z, p, labels=soft(p), weight=torch.as_tensor(p.weight)).mul(len(z)),
        options=lambda p: {
            "reduction": "sum",
            "smooth_again": True,
            "weight": p.weight,
            "weighting": "class",
        },
        labels=soft,
    ),
    # Keras smooths and reduces in float32, whatever the dtype of the loss.
    Rival("Keras CategoricalCrossentropy", keras_categorical, tolerance=1e-6),
    Rival("timm LabelSmoothingCrossEntropy", timm),
    Rival(
        "Hugging Face LabelSmoother",
        hugging_face,
        options=lambda p: {"reduction": "mean", "where": p.counted},
    ),
    Rival("fairseq, first versions", fairseq_old, options=lambda p: {"reduction": "sum"}),
    Rival(
        "fairseq, later versions",
        below_top(fairseq),
        rule=others,
        options=lambda p: {"reduction": "sum"},
    ),
    Rival("Megatron, one shard", below_top(megatron), rule=others),
    Rival("Liger, pytorch formula", liger),
    Rival("segmentation_models SoftCrossEntropyLoss", segmentation_models),
    Rival(
        "Pereyra et al., confidence penalty",
        confidence_penalty,
        rule=lambda p: softhot.ConfidencePenalty(0.3),
    ),
    Rival("Zhou et al., MaxSup", max_sup, rule=lambda p: softhot.MaxSup(0.2)),
)


def error(rival: Rival, problem: Problem) -> float:
    """The largest difference in loss or gradient, relative to the scale of each."""
    z = torch.tensor(problem.logits, requires_grad=True)
    loss = rival.theirs(z, problem)
    loss.backward()
    options = {"weighting": "sample"} | rival.options(problem)
    ours, gradient = softhot.cross_entropy_and_gradient(
        problem.logits, rival.labels(problem), rival.rule(problem), **options
    )
    # torch's log-softmax rounds at the size of the largest logit, so that is the scale.
    scale = 1 + np.abs(problem.logits).max() * float(problem.weight.max())
    rows = len(problem.logits) if options["reduction"] == "sum" else 1
    return max(
        abs(float(ours) - loss.item()) / (scale * rows),
        float(np.abs(gradient - z.grad.numpy()).max()) / (1 + np.abs(gradient).max()),
    )


def optax_error(problem: Problem) -> float:
    """The same against optax, in float32."""
    z = problem.logits.astype(np.float32)

    def loss(z):
        targets = optax.smooth_labels(
            jax.nn.one_hot(problem.labels, problem.classes), problem.alpha
        )
        return optax.softmax_cross_entropy(z, targets).sum()

    theirs, slope = jax.value_and_grad(loss)(z)
    ours, gradient = softhot.cross_entropy_and_gradient(
        z, problem.labels, softhot.Uniform(problem.alpha), reduction="sum"
    )
    scale = 1 + np.abs(z).max() * len(z)
    return max(
        abs(float(ours) - float(theirs)) / scale,
        float(np.abs(gradient - np.asarray(slope)).max()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches = -(-options.cases // len(RIVALS))
    worst = dict.fromkeys([rival.name for rival in RIVALS], 0.0)
    failed = 0
    for i, problem in enumerate(problems(batches, options.seed)):
        for rival in RIVALS:
            off = error(rival, problem)
            if not off <= rival.tolerance:
                failed += 1
                print(f"batch {i}, {rival.name}: off by {off:.2e}")
            worst[rival.name] = max(worst[rival.name], off if math.isfinite(off) else math.inf)
        if sys.stderr.isatty():
            print(f"\r{i + 1} of {batches} batches", end="", file=sys.stderr, flush=True)
    for name, off in worst.items():
        print(f"{name:<45} {batches} batches, largest difference {off:.1e}")
    sample = list(problems(min(batches, 200), options.seed))
    off = max(optax_error(problem) for problem in sample)
    failed += off > TOLERANCE_32
    print(f"{'optax (float32)':<45} {len(sample)} batches, largest difference {off:.1e}")
    print(f"{failed} differences beyond the tolerance in {batches * len(RIVALS)} cases")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
