"""Calibration curves of trained networks: hard, smoothed, and smoothed with a temperature.

python examples/calibration_curves.py [figure.svg]
"""

from small import digits, fit, network, predict, run

from softhot.calibration import Temperature
from softhot.metrics import ece, gap, nll
from softhot.torch import CrossEntropyLoss


def main(epochs=100):
    data = digits()
    report = {}
    for name, alpha in (("hard labels", 0.0), ("smoothed, 0.1", 0.1)):
        model = fit(network(), CrossEntropyLoss(label_smoothing=alpha), data.train, epochs)
        report[name] = predict(model, data.test)
        remedy = Temperature.fit(predict(model, data.valid))  # on rows of its own
        report[f"{name}, T = {remedy.temperature:.2f}"] = remedy.apply(report[name])
    for name, said in report.items():
        print(
            f"{name:24s} NLL {nll(said):.3f}   calibration error {ece(said):.3f}   "
            f"gap {gap(said):+.3f}"
        )
    return report


def draw(report):
    from matplotlib import pyplot

    from softhot.plots import plot_reliability

    figure, axes = pyplot.subplots(1, 3, figsize=(9.6, 4.2), layout="constrained")
    shown = [name for name in report if not name.startswith("hard labels,")]
    colours = ("#d55e00", "#0072b2", "#009e73")
    for ax, name, colour in zip(axes, shown, colours, strict=True):
        plot_reliability(report[name], bins=10, ax=ax, label=name, colour=colour)
    return figure


if __name__ == "__main__":
    run(main, draw)
