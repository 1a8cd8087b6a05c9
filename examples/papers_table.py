"""The paper's table in small: data, model, metric, without smoothing and with.

python examples/papers_table.py
"""

import tempfile

from small import run

from softhot.studies import StudySpec, compare
from softhot.studies import run as train

ROWS = (
    ("digits", "mlp"),
    ("digits", "linear"),
    ("wine", "mlp"),
    ("breast_cancer", "mlp"),
    ("fashion_mnist", "mlp"),
)


def main(rows=ROWS, seeds=5, epochs=60, clothes=2000):
    report = {}
    print("data           model    accuracy, alpha 0   alpha 0.1   difference (95 % interval)")
    for dataset, model in rows:
        few = {"train": clothes, "validation": 500, "epochs": epochs // 3}
        spec = StudySpec(
            dataset=dataset, model=model, alphas=(0.1,), seeds=seeds,
            **(few if dataset == "fashion_mnist" else {"epochs": epochs}),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            comparison = compare(train(spec, folder, jobs=1).records(), spec)
        hard, smooth = comparison.arms
        change = report[dataset, model] = smooth.difference_raw["accuracy"]
        print(
            f"{dataset:14s} {model:6s}  {100 * hard.test_raw['accuracy'].mean:17.2f}   "
            f"{100 * smooth.test_raw['accuracy'].mean:9.2f}   {100 * change.mean:+.2f} "
            f"({100 * change.low:+.2f} to {100 * change.high:+.2f})"
        )
    return report


if __name__ == "__main__":
    run(main)
