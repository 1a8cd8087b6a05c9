"""Smoothing an array of labels: class ids or one-hot, and where K comes from.

python examples/label_arrays.py
"""

import numpy as np
from small import run

import softhot
from softhot.datasets import load


def guessed(labels, alpha):
    """A mistake that is easy to make: K taken from whatever the batch happens to contain."""
    classes, position = np.unique(labels, return_inverse=True)
    one_hot = np.eye(len(classes))[position]
    return (1 - alpha) * one_hot + alpha / len(classes)


def main():
    labels = load("digits").labels[10:15]  # five rows of ten classes
    print("labels             ", labels)

    targets = softhot.smooth_labels(labels, 0.1, num_classes=10)
    print("targets, row 0     ", targets[0].round(3))

    one_hot = np.eye(10)[labels]
    again = softhot.smooth_labels(one_hot, 0.1, num_classes=10)
    print("from one-hot       ", "the same" if np.allclose(again, targets) else "different")

    wrong = guessed(labels, 0.1)
    print("K guessed, row 0   ", wrong[0].round(3), f"of {wrong.shape[1]} classes")
    return {"targets": targets, "again": again, "wrong": wrong}


if __name__ == "__main__":
    run(main)
