"""Fashion-MNIST with and without smoothing, from the same initial weights, over ten seeds.

python examples/fashion_mnist.py
"""

import numpy as np
import torch
from small import fit, mean_interval, network, predict, run

from softhot.datasets import load, split
from softhot.metrics import accuracy, confidence
from softhot.torch import CrossEntropyLoss


def clothes(train, test=2000):
    """Rows to train on and to report on, scaled to 0 .. 1."""
    data = load("fashion_mnist")
    rows = split(data, train, 10, test, seed=0)
    x = torch.from_numpy(data.features).flatten(1) / 255
    y = torch.from_numpy(data.labels)
    return (x[rows.train], y[rows.train]), (x[rows.test], y[rows.test]), data.class_names


def main(seeds=10, train=3000, epochs=15):
    rows, held_out, _ = clothes(train)
    scores = {0.0: [], 0.1: []}
    sure = {0.0: [], 0.1: []}
    for seed in range(seeds):
        for alpha in scores:
            model = network(784, seed=seed)  # the same weights for both
            fit(model, CrossEntropyLoss(label_smoothing=alpha), rows, epochs, seed)
            said = predict(model, held_out)
            scores[alpha].append(accuracy(said))
            sure[alpha].append(confidence(said))
    for alpha, values in scores.items():
        print(
            f"alpha {alpha}: test accuracy {np.mean(values):.4f}, over seeds "
            f"{min(values):.4f} to {max(values):.4f}; confidence {np.mean(sure[alpha]):.3f}"
        )
    differences = 100 * (np.array(scores[0.1]) - scores[0.0])
    mean, low, high = mean_interval(differences)
    print(
        f"difference {mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}; "
        f"smoothing ahead in {(differences > 0).sum()} of {seeds}"
    )
    return {"differences": differences, "interval": (mean, low, high), "confidence": sure}


if __name__ == "__main__":
    run(main)
