"""Write docs/together.md: how far training together is from training one by one, and why.

    python -m docs.together

Takes about ten minutes on one core. The numbers are a machine's own: with other instructions
rounding falls out differently.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from softhot.studies import StudySpec
from softhot.studies.groups import together
from softhot.studies.models.network import Problem, fit, initial_network, logits, problem
from softhot.studies.models.replicas import Program
from softhot.studies.run import data
from softhot.studies.spec import TrialSpec
from softhot.studies.train import one_thread

PAGE = Path(__file__).with_suffix(".md")
NUDGES = 3
STUDIES = {
    "Digits, 40 % wrong labels, 150 passes": StudySpec(
        "digits",
        label_noise=0.4,
        methods=("uniform", "similarity", "maxsup", "confidence_penalty", "l2", "dropout", "mixup"),
        settings={
            "uniform": ((0.1,), (0.4,)),
            "similarity": ((0.02,), (0.4,)),
            "maxsup": ((0.2,),),
            "confidence_penalty": ((0.4,),),
            "l2": ((3,),),
            "dropout": ((0.2,), (0.4,)),
            "mixup": ((0.1,), (2,)),
        },
        seeds=1,
    ),
    "Fashion-MNIST, 5,000 rows, 6 passes": StudySpec(
        "fashion_mnist",
        subset=5000,
        epochs=6,
        methods=("uniform", "similarity", "mixup"),
        settings={"uniform": ((0.1,),), "similarity": ((0.4,),), "mixup": ((0.4,), (2,))},
        seeds=1,
    ),
}
INTRO = """\
# Trained together or one by one

Arms and seeds that share an architecture train as one program, {doc}`several times faster
<speed>`. It is the same training, from the same initial weights, with the same batches and noise:
only sums are taken in another order. What does that change?

- **In float64**, less than 1e-9 of the largest logit after whole trainings, of every method, by
  test: the two compute the same function.
- **In float32**, which studies use, 2e-6 after a few steps, by test. But sooner or later the input
  of a hidden unit is so near 0 that rounding decides whether the unit is on; its gradient jumps,
  and from there on the trainings drift apart, as any two do that differ anywhere. In the last arm
  below that happens in step 73, at an input of 2.4e-7. So the tolerance is this: **together differs
  from alone as much as alone differs from itself, once every initial weight is moved by at most one
  unit in its last place.** A test holds both to the same size, and the table shows them.

That is luck of the same kind as a seed, and far less of it, as the last column shows. On one
machine the same command gives the same bytes: which trials train together depends on the study,
never on `--jobs` or on what was cut off. `SOFTHOT_REPLICAS=1` trains one by one.

Numbers are the largest difference of a logit on test rows. *Unit in last place*: three random
moves of the initial weights. *Predictions*: the share of test rows that are predicted otherwise
than alone: together, and with the next seed. `python -m docs.together` writes this page.
"""


@dataclass(frozen=True)
class Difference:
    """Of one arm's test logits, together against alone.

    Attributes:
        arm: its name.
        largest: the largest logit, for scale.
        logit: the largest difference.
        flipped: the share of rows with another prediction.
        nudged: the largest differences that nudges of the initial weights make alone.
        reseeded: the share of rows that the next seed predicts otherwise; None if not asked for.
    """

    arm: str
    largest: float
    logit: float
    flipped: float
    nudged: tuple[float, ...]
    reseeded: float | None


def differences(spec: StudySpec, dtype: torch.dtype, nudges: int = 0) -> Iterator[Difference]:
    """Train every arm of ``spec`` that can be together, and alone, in ``dtype``."""
    dataset, parts = data(spec)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        given = problem(dataset, parts)
        given = dataclasses.replace(given, x=given.x.to(dtype))
        with one_thread():
            for group in together(spec.trials(), most=32):
                if len(group) > 1:
                    yield from _of_group(group, given, nudges)
    finally:
        torch.set_default_dtype(before)


def _of_group(group: tuple[TrialSpec, ...], given: Problem, nudges: int) -> Iterator[Difference]:
    program = Program(group, given)
    program.fit()
    found = program.logits(given.split.test)
    for trial in group:
        z, one = alone(trial, given), found[program.place[trial.arm, trial.seed]]
        following = dataclasses.replace(trial, seed=trial.seed + 1)
        yield Difference(
            trial.arm.name,
            float(np.abs(z).max()),
            float(np.abs(z - one).max()),
            _flipped(z, one),
            tuple(float(np.abs(z - alone(trial, given, n)).max()) for n in range(nudges)),
            _flipped(z, alone(following, given)) if nudges else None,
        )


def _flipped(one: np.ndarray, other: np.ndarray) -> float:
    return float((one.argmax(1) != other.argmax(1)).mean())


def alone(trial: TrialSpec, given: Problem, nudge: int | None = None) -> np.ndarray:
    """Test logits, trained one by one; nudged, each initial weight moves by -1, 0 or 1 unit."""
    network = initial_network(trial, given)
    if nudge is not None:
        generator = torch.Generator().manual_seed(nudge)
        with torch.no_grad():
            for weight in network.parameters():
                units = torch.randint(-1, 2, weight.shape, generator=generator)
                weight.copy_(weight.nextafter(weight + units.sign()))
    fit(trial, given, network)
    return logits(network, given, given.split.test)


def digit(value: float) -> str:
    """Its first digit and its size."""
    return f"{float(f'{value:.0e}'):g}"


def section(title: str, spec: StudySpec) -> str:
    """A table, a row for each arm."""
    rows = [
        "| arm | largest logit | in float64 | in float32 | unit in last place | predictions |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    double = {one.arm: one.logit for one in differences(spec, torch.float64)}
    for one in differences(spec, torch.float32, NUDGES):
        nudged = ", ".join(map(digit, sorted(one.nudged)))
        rows.append(
            f"| {one.arm} | {one.largest:.0f} | {double[one.arm]:.0e} | {digit(one.logit)} | "
            f"{nudged} | {100 * one.flipped:.1f} %, {100 * (one.reseeded or 0):.1f} % |"
        )
        print(rows[-1], flush=True)
    return f"## {title}\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    parts = [section(title, spec) for title, spec in STUDIES.items()]
    PAGE.write_text("\n".join([INTRO, *parts]))


if __name__ == "__main__":
    main()
