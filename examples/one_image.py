"""One test image: what two networks say of it, with and without smoothing.

python examples/one_image.py [figure.svg]
"""

import torch
from small import fit, network, predict, run

import softhot
from softhot.datasets import load, split
from softhot.metrics import confidence
from softhot.torch import CrossEntropyLoss


def clothes(train, test=2000):
    """Fashion-MNIST: rows to train on and to report on, scaled to 0 .. 1, and the classes."""
    data = load("fashion_mnist")
    rows = split(data, train, 10, test, seed=0)
    x = torch.from_numpy(data.features).flatten(1) / 255
    y = torch.from_numpy(data.labels)
    return (x[rows.train], y[rows.train]), (x[rows.test], y[rows.test]), data.class_names


def main(train=20_000, epochs=10):
    rows, held_out, names = clothes(train)
    said = {
        alpha: predict(
            fit(network(784), CrossEntropyLoss(label_smoothing=alpha), rows, epochs), held_out
        )
        for alpha in (0.0, 0.1, 0.3)
    }
    all_right = said[0.0].correct & said[0.1].correct & said[0.3].correct
    sure = said[0.0].probs.max(axis=1)
    image = int(
        abs(sure - 0.99 + 9 * ~all_right).argmin()
    )  # right, and 99 % sure without smoothing
    print(f"a test image of class {names[said[0.0].labels[image]]!r}")
    for alpha, one in said.items():
        told = softhot.explain(softhot.Uniform(alpha), 10).confidence if alpha else 1.0
        print(
            f"alpha {alpha}: this image {one.probs[image].max():.3f}, "
            f"mean of the test rows {confidence(one):.3f}, a finished model {told:.2f}"
        )
    smooth = said[0.1]
    rows = (smooth.confidence > 0.7) & (smooth.confidence < 0.8)
    right = smooth.correct[rows].mean()
    print(f"of the rows about which alpha 0.1 says 0.7 to 0.8, right {right:.2f}")
    return {"image": image, "said": said, "pixels": held_out[0][image], "names": names}


def draw(report):
    from matplotlib import pyplot

    from softhot.plots import plot_softmax

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(8, 3.6), width_ratios=(1, 3), layout="constrained"
    )
    left.imshow(report["pixels"].reshape(28, 28).numpy(), cmap="Greys")
    left.set_axis_off()
    models = {f"alpha {alpha}": said for alpha, said in report["said"].items()}
    plot_softmax(models, report["image"], report["names"], ax=right)
    return figure


if __name__ == "__main__":
    run(main, draw)
