"""Reliability of every arm before and after every remedy, as one set of panels that move together.

What costs most is fitted here once: each seed's remedies, on its own validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from softhot import plots
from softhot.calibration import Desmoothing, Remedy, Temperature, VectorScaling
from softhot.metrics import Predictions, ece, gap, nll
from softhot.report import words

REMEDIES: dict[str, type[Remedy] | None] = {
    "as trained": None,
    "temperature": Temperature,
    "vector scaling": VectorScaling,
    "desmoothing": Desmoothing,
}
ARMS = 10  # that the page offers to follow: its size is bounded whatever the study's
CLASSES = 10  # whose own diagrams the panels offer
BINS, CLASS_BINS = 15, 10
MANY = 100  # classes from which on a factor for each class asks for more rows than there are


def prepare_linked(
    validation: Mapping[str, Sequence[Predictions]],
    test: Mapping[str, Sequence[Predictions]],
    class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Everything the linked panels show, by arm and remedy.

    Args:
        validation, test: predictions by arm, one for each seed, in the same order.
        class_names: K names.

    Returns:
        ``arms``, ``remedies`` and ``classes``: what can be chosen. ``top``: by remedy, rows of
        :func:`softhot.plots.prepare_reliability` with their ``arm``'s number; ``each``: the same
        for single classes, with the number of the class in ``classes``. ``scores``: by arm and
        remedy the mean NLL, ECE and gap, and how the remedy came out.
    """
    first = next(iter(test.values()))[0]
    k = first.num_classes
    classes = _classes(test, k)
    remedies = [name for name in REMEDIES if not (name == "vector scaling" and k >= MANY)]
    top: dict[str, plots.Rows] = {name: [] for name in remedies}
    each: dict[str, plots.Rows] = {name: [] for name in remedies}
    scores: list[dict[str, dict[str, Any]]] = []
    for number, arm in enumerate(test):
        scores.append({})
        for remedy in remedies:
            kind = REMEDIES[remedy]
            fits = [kind.fit(held) for held in validation[arm]] if kind else []
            after = list(test[arm])
            if kind:
                after = [fit.apply(one) for fit, one in zip(fits, after, strict=True)]
            rows = plots.prepare_reliability(after, BINS)
            top[remedy] += [{"arm": number} | row for row in rows]
            for at, class_id in enumerate(classes):
                draws = 0 if remedy in ("vector scaling", "desmoothing") else 100
                rows = plots.prepare_reliability(after, CLASS_BINS, class_id=class_id, draws=draws)
                each[remedy] += [{"arm": number, "class": at} | row for row in rows]
            scores[-1][remedy] = {
                "nll": words.quantity("nll", _mean(nll, after)),
                "ece": words.quantity("ece", _mean(ece, after)),
                "gap": words.quantity("gap", _mean(gap, after)),
                "fit": _fit(fits),
            }
    names = [str(c) for c in range(k)] if class_names is None else list(class_names)
    return {
        "arms": list(test),
        "remedies": remedies,
        "classes": [names[c] for c in classes],
        "top": top,
        "each": each,
        "scores": scores,
    }


def _classes(test: Mapping[str, Sequence[Predictions]], k: int) -> list[int]:
    """All classes, or of many those whose stated share is furthest from the true one."""
    if k <= CLASSES:
        return list(range(k))
    off = np.zeros(k)
    for seeds in test.values():
        for one in seeds:
            stated = np.exp(np.asarray(one.log_probs)).mean(axis=0)
            off += np.abs(stated - np.bincount(one.labels, minlength=k) / len(one))
    return sorted(np.argsort(-off, kind="stable")[:CLASSES].tolist())


def _mean(metric: Any, predictions: Sequence[Predictions]) -> float:
    return float(np.mean([metric(one) for one in predictions]))


def _fit(fits: Sequence[Any]) -> str:
    """How a remedy came out, mean over seeds."""
    if not fits:
        return ""
    if isinstance(fits[0], Temperature):
        return f"T = {np.mean([one.temperature for one in fits]):.2f}"
    if isinstance(fits[0], Desmoothing):
        return f"alpha = {np.mean([one.alpha for one in fits]):.2f}"
    weights = np.mean([one.weights for one in fits], axis=0)
    return f"factors {weights.min():.2f} to {weights.max():.2f}"
