"""Where smoothing may do harm: single classes, and models that will teach another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from softhot.core.check import InputError
from softhot.metrics import Predictions, within_over_between
from softhot.report import words

CLASSES = 20  # that a panel shows; of more the ones that change most
UNCHANGED = "Recall of every class is compared with that of no smoothing"
TIGHTER = 1.5  # how much closer a class's rows must lie for a warning


def prepare_classes(
    base: Sequence[Predictions],
    arm: Sequence[Predictions],
    class_names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Change of every class's recall on test rows, paired over seeds, in the order of the classes.

    Returns:
        name, rows (of the class), before, after, change, low, high: shares; the 95 % interval is
        None below 3 seeds.
    """
    from softhot.studies.compare import Estimate

    y, k = base[0].labels, base[0].num_classes
    names = [str(c) for c in range(k)] if class_names is None else list(class_names)
    count = np.bincount(y, minlength=k)
    recall = [
        np.array([np.bincount(y, one.correct, k) for one in seeds]) / np.maximum(count, 1)
        for seeds in (base, arm)
    ]
    rows: list[dict[str, Any]] = []
    for c in np.flatnonzero(count):
        change = Estimate.of(recall[1][:, c] - recall[0][:, c])
        rows.append(
            {
                "name": names[c],
                "rows": int(count[c]),
                "before": float(recall[0][:, c].mean()),
                "after": float(recall[1][:, c].mean()),
                "change": change.mean,
                "low": change.low,
                "high": change.high,
            }
        )
    return rows


def worst_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The classes that a panel shows of :func:`prepare_classes`."""
    ordered = sorted(rows, key=lambda row: row["change"])
    few = len(ordered) <= CLASSES
    return ordered if few else ordered[: CLASSES // 2] + ordered[-CLASSES // 2 :]


def classes_finding(rows: Sequence[Mapping[str, Any]], label: str) -> str:
    """What the panel of classes shows, as its heading."""
    worse = [row["name"] for row in rows if row["high"] is not None and row["high"] < 0]
    better = [row["name"] for row in rows if row["low"] is not None and row["low"] > 0]
    if not worse and not better:
        return f"No single class clearly gains or loses at {label}"

    def told(names: list[str], verb: str) -> str:
        if len(names) == 1:
            return f"class {names[0]} {verb}s"
        shown = f"classes {words.joined(names)}" if len(names) <= 4 else f"{len(names)} classes"
        return f"{shown} {verb}"

    parts = [told(worse, "lose")] if worse else []
    parts += [told(better, "gain")] if better else []
    said = words.joined(parts)
    return f"{said[:1].upper()}{said[1:]} at {label}" + (
        "" if worse else ", and none clearly loses"
    )


def distillation(base: Sequence[Predictions], arm: Sequence[Predictions], label: str) -> str:
    """A warning for those who will teach another model with this one, with its measured reason."""
    advice = (
        "If this model will teach another one by its probabilities, try it without smoothing too: "
        "smoothing erases what they say about the wrong classes, and students were worse for it "
        "(Müller et al. 2019). In our own measurements on digits and Fashion-MNIST no student of a "
        "smoothed teacher was worse, and on digits they were better (softhot reproduce, claim 9). "
        "Only your own student can tell; it was not measured here."
    )
    try:
        before, after = (np.mean([_tightness(one) for one in s]) for s in (base, arm))
    except InputError:
        return advice
    if before <= TIGHTER * after:  # both are 0 where all rows of a class are alike
        return (
            f"{advice} The logits of a class lie no closer together at {label} than without it, so "
            "little may be lost."
        )
    return (
        f"{advice} The logits of a class lie {before / after:.1f} times closer together at "
        f"{label} than without it, as a share of the distance between classes."
    )


def _tightness(predictions: Predictions) -> float:
    """Distance within classes over distance between them."""
    z = np.asarray(predictions.log_probs)
    return within_over_between(z - z.mean(axis=1, keepdims=True), predictions.labels) ** 0.5
