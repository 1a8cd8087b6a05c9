"""The formula, three ways: by its target, by statistics of a row, by PyTorch; and its gradient.

python examples/formula.py [figure.svg]
"""

import numpy as np
import torch
from small import digits, fit, network, run
from torch.nn.functional import cross_entropy

import softhot


def main(alpha=0.1):
    data = digits()
    model = fit(network(), cross_entropy, data.train, epochs=3)
    z, y = model(data.test[0]).detach().double().numpy(), data.test[1].numpy()
    n, K = z.shape

    # 1. By its definition: a target, and the cross entropy against it.
    q = softhot.smooth_labels(y, alpha, num_classes=K)
    log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    by_target = -(q * log_p).sum(axis=1)

    # 2. Without any target: three numbers of a row are enough.
    lse, true, mean = np.logaddexp.reduce(z, axis=1), z[np.arange(n), y], z.mean(axis=1)
    by_row = lse - (1 - alpha) * true - alpha * mean

    # 3. By PyTorch, and 4. by softhot with its gradient, which is p - q.
    logits, labels = torch.from_numpy(z), torch.from_numpy(y)
    by_torch = cross_entropy(logits, labels, label_smoothing=alpha, reduction="none").numpy()
    loss, gradient = softhot.cross_entropy_and_gradient(z, y, softhot.Uniform(alpha))

    report = {
        "target - statistics": np.abs(by_target - by_row).max(),
        "target - PyTorch": np.abs(by_target - by_torch).max(),
        "target - softhot": np.abs(by_target - loss).max(),
        "gradient - (p - q)": np.abs(gradient - (np.exp(log_p) - q)).max(),
    }
    for name, difference in report.items():
        print(f"{name:20s} largest difference {'0' if difference < 1e-12 else difference}")
    floor = softhot.explain(softhot.Uniform(alpha), K).loss_floor
    print(f"least smoothed loss {loss.min():.4f}, the floor {floor:.4f}")
    return report | {"least": loss.min(), "floor": floor}


def draw(report):
    from matplotlib import pyplot

    from softhot.plots import plot_gradient, plot_loss

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    plot_loss(ax=left)
    plot_gradient(ax=right)
    return figure


if __name__ == "__main__":
    run(main, draw)
