"""One label as a distribution: a tenth of its mass moved, to all classes or to the others.

python examples/single_label.py [figure.svg]
"""

from small import run

import softhot
from softhot.datasets import DATASETS

NAMES = DATASETS["digits"].class_names
RULES = {"hard": 0.0, "to all": softhot.Uniform(0.1), "to the others": softhot.Others(0.1)}


def main(label=3):
    report = {}
    for name, rule in RULES.items():
        (target,) = report[name] = softhot.smooth_labels([label], rule, num_classes=len(NAMES))
        print(f"{name:14s} true class {target[label]:.4f}   each other {target[0]:.4f}")
    alpha = softhot.convert_alpha(0.1, "others", "uniform", num_classes=len(NAMES))
    print(f"0.1 to the others is {alpha:.4f} to all")
    return report


def draw(report):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(8, 2.6), sharey=True, layout="constrained")
    for ax, (name, (target,)) in zip(axes, report.items(), strict=True):
        bars = ax.bar(NAMES, target, color="#0072b2")
        shown = [f"{share:.2g}" if k in (3, 7) and share else "" for k, share in enumerate(target)]
        ax.bar_label(bars, shown, fontsize=9)
        ax.set(yscale="log", ylim=(3e-3, 2.5))  # or the small shares could not be seen
        ax.set_title(name, loc="left", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlabel("class")
    axes[0].set_ylabel("target, logarithmic")
    return figure


if __name__ == "__main__":
    run(main, draw)
