"""The paper's table in small: data, model, accuracy without smoothing and with, one run or several.

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


def main(rows=ROWS, seeds=5, epochs=60, clothes=20_000):
    report = {}
    print("                       one run, as printed   another run       "
          f"mean of {seeds} pairs, 95 % interval")  # fmt: skip
    print("data           model   alpha 0  0.1          alpha 0  0.1      difference")
    for dataset, model in rows:
        few = {"train": clothes, "validation": 500, "epochs": epochs // 6, "batch_size": 128}
        spec = StudySpec(
            dataset=dataset, model=model, alphas=(0.1,), seeds=seeds,
            **(few if dataset == "fashion_mnist" else {"epochs": epochs}),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            hard, smooth = compare(train(spec, folder, jobs=1).records(), spec).arms
        pairs = list(
            zip(hard.test_raw["accuracy"].values, smooth.test_raw["accuracy"].values, strict=True)
        )
        change = report[dataset, model] = smooth.difference_raw["accuracy"]
        runs = "    ".join(
            f"{100 * before:5.2f}  {100 * after:5.2f} {mark(after - before)}"
            for before, after in pairs[:2]
        )
        print(
            f"{dataset:14s} {model:6s}    {runs}    {100 * change.mean:+.2f} "
            f"({100 * change.low:+.2f} to {100 * change.high:+.2f})"
        )
    return report


def mark(change):
    """What a reader of the table sees at a glance."""
    return "+" if change > 0 else "-" if change < 0 else "="


if __name__ == "__main__":
    run(main)
