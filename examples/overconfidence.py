"""Two networks that differ in nothing but the loss: how sure they are, right and wrong.

python examples/overconfidence.py [figure.svg]
"""

from small import digits, fit, network, predict, run

from softhot.metrics import accuracy, confidence, confidence_on_errors, gap
from softhot.torch import CrossEntropyLoss


def main(epochs=100):
    data = digits()
    report = {}
    for name, alpha in (("hard labels", 0.0), ("smoothed, 0.1", 0.1)):
        model = fit(network(), CrossEntropyLoss(label_smoothing=alpha), data.train, epochs)
        report[name] = said = predict(model, data.test)
        print(
            f"{name:14s} accuracy {accuracy(said):.3f}   confidence {confidence(said):.3f}   "
            f"where wrong {confidence_on_errors(said):.3f}   gap {gap(said):+.3f}"
        )
    return report


def draw(report):
    from softhot.plots import plot_confidence

    return plot_confidence(report).figure


if __name__ == "__main__":
    run(main, draw)
