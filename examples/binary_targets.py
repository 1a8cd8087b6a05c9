"""Smoothing binary targets, and a recipe that turns every label into 0.

python examples/binary_targets.py
"""

import numpy as np
from small import run

import softhot
from softhot.datasets import load


def in_place(y, epsilon=0.1):
    """The recipe: fine for floats, but an integer array cannot hold 0.1 or 0.9."""
    y = y.copy()
    y[np.where(y == 0)] = epsilon
    y[np.where(y == 1)] = 1 - epsilon
    return y


def main():
    labels = load("breast_cancer").labels
    recipe = in_place(labels)
    print("labels             ", labels[18:22], labels.dtype)
    print("recipe, integers   ", recipe[18:22], f"{(recipe != 0).sum()} of {len(labels)} kept")
    print("recipe, floats     ", in_place(labels.astype(float))[18:22])

    targets = softhot.smooth_binary_labels(labels, softhot.Bernoulli(0.2))
    print("Bernoulli(0.2)     ", targets[18:22])
    alpha = softhot.convert_alpha(0.1, "binary_full", "uniform", num_classes=2)
    print(f"so 0.1 and 0.9 is alpha = {alpha}")
    return {"recipe": recipe, "targets": targets, "alpha": alpha, "labels": labels}


if __name__ == "__main__":
    run(main)
