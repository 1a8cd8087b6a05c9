"""softhot against the losses of other libraries on random batches.

    python -m tests.differential --cases 100000 --write     # also writes docs/differential.md

A case is one batch and one rival, compared in loss and gradient wherever the rival is right; where
it is not, docs/deviations.md shows how. torch, Keras and optax are the installed ones; the others
are formulas written anew from what each project defines.
"""

import argparse
import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import jax
import keras
import numpy as np
import optax
import torch
import torch.nn.functional as F

import softhot

PAGE = Path(__file__).parent.parent / "docs" / "differential.md"
TOLERANCE = 1e-12  # relative, in float64


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


Loss = Callable[[torch.Tensor, Problem], torch.Tensor]


def differentiated(loss: Loss, p: Problem) -> tuple[float, np.ndarray]:
    """Value and gradient of a loss written in torch."""
    z = torch.tensor(p.logits, requires_grad=True)
    value = loss(z, p)
    value.backward()
    return value.item(), z.grad.numpy()


def optax_sum(z: jax.Array, labels: jax.Array, alpha: float) -> jax.Array:
    targets = optax.smooth_labels(jax.nn.one_hot(labels, z.shape[-1], dtype=z.dtype), alpha)
    return optax.softmax_cross_entropy(z, targets).sum()


optax_slope = jax.jit(jax.value_and_grad(optax_sum))


def optax_loss(p: Problem) -> tuple[float, np.ndarray]:
    with jax.enable_x64(True):
        value, slope = optax_slope(p.logits, p.labels, p.alpha)
        return float(value), np.asarray(slope)


@dataclass(frozen=True)
class Rival:
    """Another loss, in torch or with its own gradient, and what softhot calls the same."""

    name: str
    theirs: Loss | None
    rule: Callable[[Problem], softhot.Rule] = lambda p: softhot.Uniform(p.alpha)
    options: Callable[[Problem], dict[str, Any]] = lambda p: {"reduction": "mean"}
    labels: Callable[[Problem], np.ndarray] = lambda p: p.labels
    tolerance: float = TOLERANCE
    own: Callable[[Problem], tuple[float, np.ndarray]] | None = None

    def __call__(self, p: Problem) -> tuple[float, np.ndarray]:
        return self.own(p) if self.own else differentiated(self.theirs, p)


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
    Rival(
        "optax smooth_labels, softmax_cross_entropy",
        None,
        options=lambda p: {"reduction": "sum"},
        own=optax_loss,
    ),
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
    loss, slope = rival(problem)
    options = {"weighting": "sample"} | rival.options(problem)
    ours, gradient = softhot.cross_entropy_and_gradient(
        problem.logits, rival.labels(problem), rival.rule(problem), **options
    )
    # torch's log-softmax rounds at the size of the largest logit, so that is the scale.
    scale = 1 + np.abs(problem.logits).max() * float(problem.weight.max())
    rows = len(problem.logits) if options["reduction"] == "sum" else 1
    off = max(
        abs(float(ours) - loss) / (scale * rows),
        float(np.abs(gradient - slope).max()) / (1 + np.abs(gradient).max()),
    )
    return off if np.isfinite([loss, off]).all() and np.isfinite(slope).all() else np.inf


def report(worst: dict[str, float], batches: int, failed: int, seconds: float, seed: int) -> str:
    """The page: what was run with what, and the largest difference of each rival."""
    used = ("torch", "keras", "optax", "jax", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in used)
    cases = batches * len(worst)
    lines = [
        "# softhot against other libraries",
        "",
        f"{cases} random cases, {failed} of them beyond the tolerance.",
        "",
        "A case is a batch of 1 to 8 rows and 2 to 62 classes, with logits from 0.1 to hundreds,",
        "and one rival. Loss and gradient are compared in float64, relative to the largest logit",
        "(times the largest weight) and to the largest entry of the gradient. Tolerance: 1e-12;",
        "for Keras, which smooths and reduces in float32 whatever it is given, 1e-6. torch, Keras",
        "and optax are the installed ones, the other formulas are retyped. What is compared is",
        "what a rival gets right: [deviations.md](deviations.md) lists the rest.",
        "",
        f"Command: `python -m tests.differential --cases {cases} --seed {seed} --write`, "
        f"{datetime.date.today()}, {seconds:.0f} s. CI runs a sample.",
        f"Versions: {versions}.",
        "",
        "| rival | cases | largest relative difference |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {batches} | {off:.1e} |" for name, off in worst.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches = -(-options.cases // len(RIVALS))
    worst = dict.fromkeys([rival.name for rival in RIVALS], 0.0)
    failed, started = 0, time.perf_counter()
    for i, problem in enumerate(problems(batches, options.seed)):
        for rival in RIVALS:
            off = error(rival, problem)
            if not off <= rival.tolerance:
                failed += 1
                print(f"batch {i}, {rival.name}: off by {off:.2e}")
            worst[rival.name] = max(worst[rival.name], off)
        if sys.stderr.isatty():
            print(f"\r{i + 1} of {batches} batches", end="", file=sys.stderr, flush=True)
    page = report(worst, batches, failed, time.perf_counter() - started, options.seed)
    print(page)
    if options.write:
        PAGE.write_text(page)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
