"""Learning from wrong labels: shares of them, strengths of smoothing, right rows to test on.

python examples/label_noise.py
"""

import tempfile

import numpy as np
from small import run

from softhot.datasets import corrupt_labels
from softhot.studies import StudySpec, compare
from softhot.studies import run as train


def main(rates=(0.0, 0.2, 0.4), alphas=(0.1, 0.3), seeds=5, epochs=80):
    report = {}
    for rate in rates:
        spec = StudySpec(
            dataset="digits", alphas=alphas, label_noise=rate, seeds=seeds, epochs=epochs
        )
        with tempfile.TemporaryDirectory() as folder:
            records = train(spec, folder, jobs=1).records()
        comparison = compare(records, spec)
        report[rate] = comparison.arms
        print(f"{100 * rate:.0f} % wrong labels")
        for arm in comparison.arms:
            change = arm.difference_raw["accuracy"]
            told = "" if arm.alpha == 0 else f"   {100 * change.mean:+.2f} points"
            if change.low is not None and arm.alpha:
                told += f" ({100 * change.low:+.2f} to {100 * change.high:+.2f})"
            print(f"  alpha {arm.alpha}: accuracy {arm.test_raw['accuracy'].mean:.4f}{told}")
        seen = {alpha: seen_accuracy(records, alpha, rate) for alpha in (0.0, *alphas)}
        gains = ", ".join(f"{100 * (seen[a] - seen[0.0]):+.2f}" for a in alphas)
        print(f"  judged by labels as wrong: accuracy {seen[0.0]:.4f}, {gains} points")
    return report


def seen_accuracy(records, alpha, rate):
    """The mistake: accuracy on test rows whose labels are as wrong as those of training."""
    said = [record.test for record in records if record.trial.alpha == alpha]
    labels = corrupt_labels(said[0].labels, said[0].num_classes, rate, seed=1)
    return np.mean([(one.predicted == labels).mean() for one in said])


if __name__ == "__main__":
    run(main)
