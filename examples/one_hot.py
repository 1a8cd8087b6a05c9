"""One-hot and smoothing in one step: a recipe whose rows sum to 1.8, and one whose rows sum to 1.

python examples/one_hot.py
"""

import numpy as np
from small import run

import softhot
from softhot.datasets import load


def recipe(labels, K, epsilon=0.1):
    """As in a widely read post, for labels that count from 1: epsilon in every wrong class."""
    target = np.full((len(labels), K), epsilon)
    target[np.arange(len(labels)), labels - 1] = 1 - epsilon
    return target


def main(K=10):
    labels = load("digits").labels
    wrong = recipe(labels + 1, K)
    right = softhot.smooth_labels(labels, softhot.Others(0.1), num_classes=K)
    off_by_one = recipe(labels, K)  # labels from 0, as most libraries have them
    report = {
        "sums": wrong.sum(axis=1),
        "right sums": right.sum(axis=1),
        "hit": (off_by_one.argmax(axis=1) == labels).mean(),
        "found": softhot.diagnose(wrong[:100], labels=labels[:100]),
    }
    print(f"the recipe's rows sum to {report['sums'].max():.1f}, softhot's to 1")
    print(f"with labels from 0 the recipe marks the true class in {report['hit']:.0%} of the rows")
    print("what diagnose says:", ", ".join(mistake.name for mistake in report["found"].mistakes))
    print("a row of softhot's:", right[0].round(4))
    return report


if __name__ == "__main__":
    run(main)
