"""Replicas that train as one program, against the same training one after another in plain PyTorch.

A plain trial is what a user writes: nn.Sequential, F.cross_entropy(label_smoothing=...) and
torch.optim.Adam. One sample of it is a whole seed of the study's arms; ours is a whole group, in
this process, on one thread or on all. Times are for one step of one replica.
"""

import itertools

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.timing import interleaved
from softhot.datasets import Dataset, Split
from softhot.studies import StudySpec, TrialSpec
from softhot.studies.groups import together
from softhot.studies.models.network import Problem, problem
from softhot.studies.models.replicas import Program
from softhot.studies.run import data

SEED = 0


def plain(trials: tuple[TrialSpec, ...], given: Problem, fused: bool) -> None:
    """The trials one after another."""
    widths = [given.x[0].numel(), *(trials[0].hidden or ()), given.classes]
    x, y = given.x[given.split.train].flatten(1), given.y[given.split.train]
    for trial in trials:
        layers = []
        for width, following in itertools.pairwise(widths):
            layers += [torch.nn.Linear(width, following), torch.nn.ReLU()]
        network = torch.nn.Sequential(*layers[:-1])
        optimizer = torch.optim.Adam(network.parameters(), lr=trial.learning_rate, fused=fused)
        for _ in range(trial.epochs):
            for rows in torch.randperm(len(x)).split(trial.batch_size):
                optimizer.zero_grad()
                loss = F.cross_entropy(network(x[rows]), y[rows], label_smoothing=trial.alpha or 0)
                loss.backward()
                optimizer.step()


def clothes(rows: int) -> tuple[Dataset, Split]:
    """Random numbers of Fashion-MNIST's shape: speed does not depend on what is in them."""
    random = np.random.default_rng(SEED)
    features = random.standard_normal((rows + 20, 784), dtype=np.float32)
    names = tuple(map(str, range(10)))
    labels = np.arange(rows + 20) % 10
    parts = (range(rows), range(rows, rows + 10), range(rows + 10, rows + 20))
    return Dataset("clothes", features, labels, names, "", ""), Split(*map(np.array, parts))


def cases():
    digits = StudySpec(epochs=3)
    yield "digits study, 6 arms x 10 seeds", together(digits.trials()), data(digits), 6.0
    settings = {"hidden": (256,), "epochs": 1, "batch_size": 128}
    fashion = StudySpec(alphas=(0.05, 0.1, 0.2), seeds=8, **settings)
    yield "784-256-10, batch 128, 32 replicas", (fashion.trials(),), clothes(640), 1.5


def products(trials: tuple[TrialSpec, ...], given: Problem) -> None:
    """The matrix products of these replicas' steps alone, stacked: no training is faster."""
    widths = [given.x[0].numel(), *(trials[0].hidden or ()), given.classes]
    rows, last = trials[0].batch_size, len(widths) - 2
    inputs = [torch.rand(len(trials), rows, width) for width in widths]
    weights = [torch.rand(len(trials), *pair) for pair in itertools.pairwise(widths)]
    slopes = [torch.empty_like(weight) for weight in weights]
    for _ in range(trials[0].epochs * -(-len(given.split.train) // rows)):
        for layer, weight in enumerate(weights):
            torch.bmm(inputs[layer], weight, out=inputs[layer + 1])
        for layer in range(last, -1, -1):
            torch.bmm(inputs[layer].mT, inputs[layer + 1], out=slopes[layer])
            if layer:
                torch.bmm(inputs[layer + 1], weights[layer].mT, out=inputs[layer])


def on(threads: int, run, *arguments):
    """A call of ``run`` on so many threads."""

    def timed():
        torch.set_num_threads(threads)
        run(*arguments)

    return timed


def ours(groups, given: Problem) -> None:
    for group in groups:
        Program(group, given).fit()


def rows(options):
    for name, groups, (dataset, split), bar in cases():
        given, trials = problem(dataset, split), tuple(itertools.chain(*groups))
        steps = trials[0].epochs * -(-len(split.train) // trials[0].batch_size)
        sample = trials[: len(trials) // 10 or 1]  # the digits study's first group: a seed
        variants = {
            "plain": on(options.threads, plain, sample, given, False),
            "plain, one thread": on(1, plain, sample, given, False),
            "plain, fused Adam": on(options.threads, plain, sample, given, True),
            "together, one thread": on(1, ours, groups, given),
            "together": on(options.threads, ours, groups, given),
            "the products alone": on(options.threads, products, groups[-1], given),
        }
        times = interleaved(variants, "plain", options.rounds)
        for variant, time in times.items():
            stacked = variant.startswith("the")
            whole = variant.startswith("together")
            count = len(trials) if whole else len(groups[-1]) if stacked else len(sample)
            yield {
                "what": name,
                "variant": variant,
                "replicas": len(groups[-1]) if whole or stacked else 1,
                "step_us": 1e6 * time.seconds / steps / count,
                "ratio": time.ratio * count / len(sample),
                "disturbed": time.disturbed,
                "bar": bar if variant == "together" else None,
            }


def table(records):
    lines = [
        "| what | variant | us a step of a replica | times plain | bar |",
        "|---|---|---|---|---|",
    ]
    for row in records:
        bar = "" if row["bar"] is None else f"{row['bar']:g}"
        numbers = f"{row['step_us']:.0f} | {row['ratio']:.2f} | {bar} |"
        lines.append(f"| {row['what']} | {row['variant']} | {numbers}")
    return "\n".join(lines)
