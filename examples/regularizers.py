"""Smoothing against weight decay and dropout: the same budget for each, chosen on validation.

python examples/regularizers.py
"""

import tempfile

import numpy as np
from small import run

from softhot.studies import StudySpec, compare
from softhot.studies import run as train

METHODS = ("uniform", "l2", "dropout")


def main(seeds=5, epochs=80, settings=None):
    spec = StudySpec(
        dataset="digits", methods=METHODS, settings=settings or {}, seeds=seeds, epochs=epochs
    )
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare(train(spec, folder, jobs=1).records(), spec)
    none = comparison.arms[0]
    print(f"none: accuracy {100 * none.test_raw['accuracy'].mean:.2f} %, "
          f"NLL after scaling {none.test_scaled['nll'].mean:.3f}")  # fmt: skip

    print("\nthe mistake: one setting of each, one seed")
    points = {arm.name: 100 * np.array(arm.difference_raw["accuracy"].values)
              for arm in comparison.arms}  # fmt: skip
    runs = {method.name: np.stack([points[name] for name in method.arms])
            for method in comparison.methods}  # fmt: skip
    for name, found in runs.items():  # settings x seeds
        ahead = (found[:, None] > runs["uniform"]).mean()  # each setting against each
        beats = "" if name == "uniform" else f"; above smoothing in {100 * ahead:.0f} % of pairs"
        print(f"{name:12s} {found.min():+.2f} to {found.max():+.2f} points above none{beats}")

    print(f"\nevery method tuned on validation, over {seeds} seeds; NLL after scaling")
    for method in comparison.methods:
        better = method.advantages["accuracy"].difference
        likelihood = method.advantages["nll"].difference
        print(
            f"{method.chosen:12s} best of {method.budget}: "
            f"accuracy {interval(better, 2, 100)} points, NLL {interval(likelihood, 3)}"
        )
    return comparison


def interval(estimate, digits, factor=1):
    mean, low, high = (factor * x for x in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


if __name__ == "__main__":
    run(main)
