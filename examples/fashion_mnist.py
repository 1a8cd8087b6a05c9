"""Fashion-MNIST with and without smoothing, from the same initial weights, over ten seeds.

    python examples/fashion_mnist.py

All 70,000 images: 58,000 to train on, 2,000 that nothing is chosen by here, 10,000 to report on.
The study trains all twenty networks as one program. For one seed both start from the same weights
and see the same batches.
"""

import tempfile

from small import run

from softhot.studies import StudySpec, compare
from softhot.studies import run as train


def main(seeds=10, rows=58_000, epochs=10):
    spec = StudySpec(
        dataset="fashion_mnist", alphas=(0.1,), seeds=seeds, hidden=(128,), epochs=epochs,
        batch_size=128, train=rows, validation=2_000, test=10_000,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arms = compare(train(spec, folder, jobs=1).records(), spec).arms
    for arm in arms:
        accuracy = arm.test_raw["accuracy"]
        print(
            f"alpha {arm.alpha}: test accuracy {accuracy.mean:.4f}, over seeds "
            f"{min(accuracy.values):.4f} to {max(accuracy.values):.4f}; "
            f"confidence {arm.test_raw['confidence'].mean:.3f}"
        )
    change = arms[1].difference_raw["accuracy"]
    print("one seed at a time:", *(f"{100 * value:+.2f}" for value in change.values), "points")
    print(
        f"mean difference {100 * change.mean:+.2f} points, 95 % interval {100 * change.low:+.2f} "
        f"to {100 * change.high:+.2f}; smoothing ahead in "
        f"{sum(value > 0 for value in change.values)} of {seeds}"
    )
    return {"arms": arms, "change": change}


if __name__ == "__main__":
    run(main)
