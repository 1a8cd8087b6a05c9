"""Accuracy and likelihood against alpha: measured, over seeds, before and after rescaling.

python examples/alpha_curve.py [figure.svg]
"""

import tempfile

import numpy as np
from small import run

from softhot.studies import StudySpec, compare
from softhot.studies import run as train


def main(seeds=5, epochs=80, alphas=(0.02, 0.05, 0.1, 0.2, 0.4)):
    spec = StudySpec(dataset="digits", alphas=alphas, seeds=seeds, epochs=epochs)
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare(train(spec, folder, jobs=1).records(), spec)
    for arm in comparison.arms:
        print(
            f"alpha {arm.alpha:4}: accuracy {arm.test_raw['accuracy'].mean:.4f}   "
            f"NLL {arm.test_raw['nll'].mean:.3f}   after scaling by T = {arm.temperature.mean:.2f} "
            f"{arm.test_scaled['nll'].mean:.3f}"
        )
    smooth = [arm.test_raw["accuracy"] for arm in comparison.arms if arm.alpha]
    alphas_apart = np.ptp([one.mean for one in smooth])
    seeds_apart = np.mean([np.ptp(one.values) for one in smooth])
    print(
        f"accuracy of alphas above 0: {100 * alphas_apart:.2f} points from best to worst; "
        f"of seeds of one alpha: {100 * seeds_apart:.2f}"
    )
    print(f"chosen on validation: {comparison.chosen}")
    return comparison


def draw(comparison):
    from matplotlib import pyplot

    from softhot.plots import plot_curve

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for ax, metric in zip(axes, ("accuracy", "nll"), strict=True):
        plot_curve(comparison, metric, ax=ax)
    return figure


if __name__ == "__main__":
    run(main, draw)
