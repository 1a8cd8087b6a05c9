"""The judgement without training: what saved predictions say, and whether to smooth."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.calibration import apply_temperature, fit_temperature
from softhot.metrics import METRICS, Predictions, score

Z = 1.959964  # half-width of a 95 % interval, in standard errors


@dataclass(frozen=True, eq=False)
class Judgement:
    """What :func:`judge` found; every number is taken on hard labels.

    Attributes:
        predictions: as given.
        scaled: after temperature scaling, each half of the rows with the T fitted on the other.
        temperature: fitted on all rows: the one to use.
        scores, scaled_scores: metric -> value.
        intervals: metric -> 95 % interval, for the metrics that are means over rows.
        calibrating_alpha: the uniform smoothing that would bring mean confidence down to accuracy
            if training took the model to the optimum; None unless it is overconfident.
        sentences: the judgement in words; the first is the headline.
    """

    predictions: Predictions
    scaled: Predictions
    temperature: float
    scores: dict[str, float]
    scaled_scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    calibrating_alpha: float | None
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rows, classes = len(self.predictions), self.predictions.num_classes
        del values["predictions"], values["scaled"]
        return {"rows": rows, "classes": classes, **values}


def judge(predictions: Predictions) -> Judgement:
    r"""Score predictions, rescale them, and say what smoothing would do.

    Uniform smoothing lowers mean confidence by at least about :math:`\alpha (c - 1/K)`, with ``c``
    the mean confidence now; so it closes an overconfidence gap ``g`` at
    :math:`\alpha = g / (c - 1/K)`, and beyond twice that, raw calibration is worse than before.
    Networks move further than that (1 to 2 times, most at small alpha), hence "at most".

    Temperature scaling is judged by two-fold cross-fitting, so no row is scored with a temperature
    that it helped to fit.

    >>> rng = np.random.default_rng(0)
    >>> logits, labels = rng.normal(size=(500, 3)) * 4, rng.integers(3, size=500)
    >>> judge(Predictions.from_logits(logits, labels)).sentences[0][:13]
    'Overconfident'
    """
    scaled, temperature = cross_fitted(predictions)
    scores, scaled_scores = score(predictions), score(scaled)
    intervals = _intervals(predictions)
    low, _ = intervals["gap"]
    reach = scores["confidence"] - 1 / predictions.num_classes
    alpha = scores["gap"] / reach if low > 0 and reach > 0 else None
    if alpha is not None and alpha >= 1:
        alpha = None  # worse than chance: no smoothing makes up for that
    sentences = _sentences(predictions, scores, scaled_scores, intervals, temperature, alpha)
    return Judgement(
        *(predictions, scaled, temperature, scores, scaled_scores, intervals, alpha),
        sentences=tuple(sentences),
    )


def cross_fitted(predictions: Predictions) -> tuple[Predictions, float]:
    """Predictions rescaled by halves, each with the temperature of the other; and T of all rows."""
    temperature = fit_temperature(predictions)
    n = len(predictions)
    if n < 4:
        return apply_temperature(predictions, temperature), temperature
    order = np.random.default_rng(0).permutation(n)
    halves = order[: n // 2], order[n // 2 :]
    log_probs = np.empty_like(predictions.log_probs)
    for fitted, applied in (halves, halves[::-1]):
        t = fit_temperature(predictions[fitted])
        log_probs[applied] = apply_temperature(predictions[applied], t).log_probs
    return dataclasses.replace(predictions, log_probs=log_probs), temperature


def _intervals(p: Predictions) -> dict[str, tuple[float, float]]:
    """Normal intervals of the metrics that are means over rows."""
    rows = np.arange(len(p))
    wrong = (p.probs**2).sum(axis=1) - 2 * p.probs[rows, p.labels] + 1
    correct = p.correct.astype(np.float64)
    each = {
        "accuracy": correct,
        "nll": -p.log_probs[rows, p.labels],
        "brier": wrong,
        "confidence": p.confidence,
        "gap": p.confidence - correct,
    }
    half = Z / math.sqrt(len(p))
    return {
        name: (float(v.mean() - half * v.std()), float(v.mean() + half * v.std()))
        for name, v in each.items()
        if name in METRICS
    }


def _sentences(
    p: Predictions,
    scores: dict[str, float],
    scaled: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    temperature: float,
    alpha: float | None,
) -> list[str]:
    gap, (low, high) = scores["gap"], intervals["gap"]
    says = (
        f"it says {scores['confidence']:.1%} on average and is right {scores['accuracy']:.1%} of "
        f"the time (gap {100 * gap:+.1f} points, 95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f})."
    )
    name = "Overconfident" if low > 0 else "Underconfident" if high < 0 else "No detectable bias"
    found = [f"{name}: {says}"]
    reach = max(scores["confidence"] - 1 / p.num_classes, 0.0)
    if alpha is not None:
        found.append(
            "If it was trained without smoothing, uniform smoothing at alpha of at most "
            f"{alpha:.2g} would bring confidence down to accuracy; beyond {min(2 * alpha, 1):.2g} "
            "raw calibration would be worse than now."
        )
    else:
        found.append(
            "Smoothing would not help raw calibration: at alpha 0.1 confidence would fall by "
            f"{10 * reach:.1f} points or more, to a gap of {100 * gap - 10 * reach:+.1f} or less."
        )
    change = scores["nll"] - scaled["nll"]
    if change > 0.001:
        found.append(
            f"Rescaling needs no training: divide the logits by T = {temperature:.2f}. On rows it "
            f"was not fitted on, NLL goes from {scores['nll']:.3f} to {scaled['nll']:.3f} nats and "
            f"ECE from {scores['ece']:.1%} to {scaled['ece']:.1%}; accuracy stays."
        )
    else:
        found.append(f"Rescaling changes little (T = {temperature:.2f}).")
    if temperature < 0.95:
        found.append(
            "T below 1 sharpens: typical of a model trained with label smoothing. It also makes a "
            "poor teacher at high distillation temperature."
        )
    if p.floored:
        found.append(
            f"{p.floored} rows give their true class probability exactly 0, which would make the "
            "NLL infinite; they count with the smallest positive number. Save logits instead."
        )
    found.append(
        "Whether smoothing would change accuracy cannot be seen from here; `softhot study` "
        "measures it."
    )
    return found
