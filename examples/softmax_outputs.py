"""What training with smoothed labels does to the softmax, and what smoothing predictions does.

python examples/softmax_outputs.py [figure.svg]
"""

import numpy as np
from small import digits, fit, network, predict, run

from softhot.metrics import Predictions, accuracy, confidence
from softhot.torch import CrossEntropyLoss


def main(alpha=0.1, epochs=100):
    data = digits()
    hard, smooth = (
        predict(fit(network(), CrossEntropyLoss(label_smoothing=a), data.train, epochs), data.test)
        for a in (0.0, alpha)
    )
    mixed = (1 - alpha) * hard.probs + alpha / 10  # no training: arithmetic on predictions
    report = {
        "hard labels": hard,
        "smoothed labels": smooth,
        "smoothed predictions": Predictions.from_probs(mixed, hard.labels),
    }
    order = np.argsort(hard.probs.max(1))
    for name, said in report.items():
        same = (np.argsort(said.probs.max(1)) == order).mean()
        changed = (said.probs.argmax(1) != hard.probs.argmax(1)).sum()
        print(
            f"{name:21s} accuracy {accuracy(said):.3f}   confidence {confidence(said):.3f}   "
            f"decisions changed {changed:2d}   order kept {'yes' if same > 0.99 else 'no'}"
        )
    return report


def draw(report):
    from softhot.plots import plot_softmax

    hard = report["hard labels"].probs
    row = int(np.abs(hard.max(1) - 0.9).argmin())  # one it is sure of, but not entirely
    return plot_softmax(report, row).figure


if __name__ == "__main__":
    run(main, draw)
