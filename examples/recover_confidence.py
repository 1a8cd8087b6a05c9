"""Getting usable confidences back from a smoothed network: two remedies, and both.

python examples/recover_confidence.py
"""

from small import digits, fit, network, predict, run

from softhot.calibration import Desmoothing, Temperature
from softhot.metrics import accuracy, ece, nll
from softhot.torch import CrossEntropyLoss

ALPHA = 0.1


def main(epochs=100):
    data = digits()
    model = fit(network(), CrossEntropyLoss(label_smoothing=ALPHA), data.train, epochs)
    valid, test = predict(model, data.valid), predict(model, data.test)
    inverse = Desmoothing(ALPHA)
    scale = Temperature.fit(valid)
    report = {
        "as trained": test,
        "T of 1 or more": Temperature(max(1.0, scale.temperature)).apply(test),  # the mistake
        "de-smoothed": inverse.apply(test),
        "temperature": scale.apply(test),
        "both": Temperature.fit(inverse.apply(valid)).apply(inverse.apply(test)),
    }
    print(f"the temperature fitted on validation: {scale.temperature:.2f}")
    hard = predict(fit(network(), CrossEntropyLoss(), data.train, epochs), data.test)
    for name, said in {**report, "never smoothed": hard}.items():
        print(
            f"{name:15s} accuracy {accuracy(said):.3f}   NLL {nll(said):.3f}   "
            f"calibration error {ece(said):.3f}"
        )
    return report


if __name__ == "__main__":
    run(main)
