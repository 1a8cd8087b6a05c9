"""Three papers, one line each, and what a small study on digits finds of it.

python examples/three_papers.py
"""

import tempfile

from small import run

from softhot.studies import StudySpec, compare
from softhot.studies import run as train

PENALTIES = (0.1, 0.3)


def main(seeds=5, epochs=80):
    spec = StudySpec(
        dataset="digits",
        methods=("uniform", "confidence_penalty"),
        settings={"uniform": (0.05, 0.1), "confidence_penalty": PENALTIES},
        seeds=seeds,
        epochs=epochs,
    )
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare(train(spec, folder, jobs=1).records(), spec)
    arms = {arm.name: arm for arm in comparison.arms}
    plain, smooth = arms["none"], arms["uniform 0.1"]
    best = max(
        (arm for arm in comparison.arms if arm.method == "confidence_penalty"),
        key=lambda arm: arm.validation_raw["accuracy"].mean,
    )
    report = {
        "Szegedy et al. 2016: accuracy rises": told(smooth.difference_raw["accuracy"], "points"),
        "Müller et al. 2019: NLL gets worse": told(smooth.difference_raw["nll"], "nats"),
        "  ... and calibration better": told(smooth.difference_raw["ece"], "points"),
        "  ... as temperature scaling does": (
            f"{100 * plain.test_raw['ece'].mean:.1f} % without either, "
            f"{100 * plain.test_scaled['ece'].mean:.1f} % scaled, "
            f"{100 * smooth.test_raw['ece'].mean:.1f} % smoothed"
        ),
        "Pereyra et al. 2017: a penalty does too": told(best.difference_raw["accuracy"], "points"),
    }
    for claim, found in report.items():
        print(f"{claim:40s} {found}")
    return {"arms": arms, "best": best.name}


def told(change, unit):
    mean, low, high = (x * (100 if unit == "points" else 1) for x in
                       (change.mean, change.low, change.high))  # fmt: skip
    return f"{mean:+.3f} {unit} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    run(main)
