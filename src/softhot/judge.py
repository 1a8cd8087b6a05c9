"""The judgement without training: what saved predictions say, and whether to smooth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.advice import Advice, advise
from softhot.calibration import cross_fitted
from softhot.core.check import InputError
from softhot.forecast import Forecast, forecast
from softhot.metrics import METRICS, Bootstrap, Predictions, bootstraps, paired, score

Z = 1.959964  # half-width of a 95 % interval, in standard errors


@dataclass(frozen=True, eq=False)
class Judgement:
    """What :func:`judge` found; every number is taken on true labels, never on smoothed ones.

    Attributes:
        predictions: as given.
        scaled: after temperature scaling, each half of the rows with the T fitted on the other.
        temperature: fitted on all rows: the one to use.
        scores, scaled_scores: metric -> value.
        intervals: metric -> 95 % interval of the score as given, for the choice of rows.
        forecast: what smoothing would do, if the model was trained without.
        advice: whether to rescale (:func:`softhot.advice.advise`).
        sentences: the judgement in words; the first is the headline.
    """

    predictions: Predictions
    scaled: Predictions
    temperature: float
    scores: dict[str, float]
    scaled_scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    forecast: Forecast
    advice: Advice
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rows, classes = len(self.predictions), self.predictions.num_classes
        del values["predictions"], values["scaled"]
        values |= {"forecast": self.forecast.to_dict(), "advice": self.advice.to_dict()}
        return {"rows": rows, "classes": classes, **values}


def judge(predictions: Predictions) -> Judgement:
    r"""Score predictions, rescale them, and say what smoothing would do.

    Temperature scaling is judged by two-fold cross-fitting, so no row is scored with a temperature
    that it helped to fit (:func:`softhot.calibration.cross_fitted`); smoothing by
    :func:`softhot.forecast.forecast`. A stream of any length is read a handful of times, in
    bounded memory.

    >>> rng = np.random.default_rng(0)
    >>> logits, labels = rng.normal(size=(500, 3)) * 4, rng.integers(3, size=500)
    >>> judge(Predictions.from_logits(logits, labels)).sentences[0][:13]
    'Overconfident'
    """
    fits = scaled, temperature = cross_fitted(predictions)
    scores, scaled_scores = score(predictions), score(scaled)
    intervals = _intervals(predictions)
    foreseen = forecast(predictions, scaled=(scaled, temperature))
    advice = advise({"model": predictions}, ["probabilities"], fits={"model": [fits]})
    found = Judgement(
        *(predictions, scaled, temperature, scores, scaled_scores, intervals, foreseen),
        advice=advice["probabilities"],
        sentences=(),
    )
    return dataclasses.replace(found, sentences=tuple(_sentences(found)))


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Several models on the same rows, each judged, and each against the first.

    Attributes:
        judgements: by name, in the order given.
        differences, scaled_differences: name -> metric -> that model minus the first, with the
            interval of a paired bootstrap; as given, and after temperature scaling.
        advice: which of them to use, by goal; the first stands for no smoothing.
        sentences: the differences in words; the first is the headline.
    """

    judgements: dict[str, Judgement]
    differences: dict[str, dict[str, Bootstrap]]
    scaled_differences: dict[str, dict[str, Bootstrap]]
    advice: dict[str, Advice]
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, as plain JSON values."""
        plain = {
            field: {
                name: {metric: dataclasses.asdict(found) for metric, found in row.items()}
                for name, row in getattr(self, field).items()
            }
            for field in ("differences", "scaled_differences")
        }
        judgements = {name: one.to_dict() for name, one in self.judgements.items()}
        advice = {goal: one.to_dict() for goal, one in self.advice.items()}
        return {"models": judgements, **plain, "advice": advice, "sentences": self.sentences}


def side_by_side(models: Mapping[str, Predictions]) -> SideBySide:
    """Judge two or more models on the same rows, by a bootstrap that pairs them row by row.

    The first is the one that the others are compared with, such as the model without smoothing.
    The intervals speak of the luck of these rows, not of the luck of training: one network a side
    says little about a recipe, and :mod:`softhot.studies` says more.

    The advice takes these rows for validation rows: a choice made on the rows that are reported
    flatters.

    Raises:
        InputError: fewer than two models, or their labels differ; the row is named.
    """
    if len(models) < 2:
        raise InputError("models", "at least two, by name", list(models))
    (first, base), *others = models.items()
    for name, other in others:
        try:
            paired(base, other)
        except InputError as error:
            raise InputError(f"{name}, beside {first},", error.allowed, error.value) from None
    judgements = {name: judge(predictions) for name, predictions in models.items()}
    names = [name for name, _ in others]
    raw = {name: _differences(judgements[name].predictions, base) for name in names}
    base_scaled = judgements[first].scaled
    scaled = {name: _differences(judgements[name].scaled, base_scaled) for name in names}
    sentences = tuple(_compared(name, first, raw[name], scaled[name]) for name in names)
    advice = advise(models, GOALS)
    sentences += tuple(advice[goal].sentence for goal in GOALS)
    return SideBySide(judgements, raw, scaled, advice, sentences)


def _differences(predictions: Predictions, base: Predictions) -> dict[str, Bootstrap]:
    return bootstraps(predictions, against=base, resamples=_resamples(len(base)))


def _resamples(rows: int) -> int:
    """Draws of a bootstrap: fewer of many rows, so that it takes seconds either way."""
    return int(np.clip(2_000_000 / rows, 200, 500))


def _intervals(p: Predictions) -> dict[str, tuple[float, float]]:
    """95 % intervals: normal for the metrics that are means over rows, bootstrap for the rest."""
    rows = p.rows
    correct = rows.correct.astype(np.float64)
    each = {
        "accuracy": correct,
        "nll": -rows.log_likelihood,
        "brier": rows.squared_error,
        "confidence": rows.confidence,
        "gap": rows.confidence - correct,
    }
    half = Z / math.sqrt(len(p))
    found = {
        name: (float(v.mean() - half * v.std()), float(v.mean() + half * v.std()))
        for name, v in each.items()
    }
    rest = [name for name in METRICS if name not in each]
    drawn = bootstraps(p, rest, resamples=_resamples(len(p)))
    return found | {name: (one.low, one.high) for name, one in drawn.items()}


def _sentences(judged: Judgement) -> list[str]:
    p, scores, scaled = judged.predictions, judged.scores, judged.scaled_scores
    temperature, intervals = judged.temperature, judged.intervals
    gap, (low, high) = scores["gap"], intervals["gap"]
    says = (
        f"it says {scores['confidence']:.1%} on average and is right {scores['accuracy']:.1%} of "
        f"the time (gap {100 * gap:+.1f} points, 95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f})."
    )
    name = "Overconfident" if low > 0 else "Underconfident" if high < 0 else "No detectable bias"
    found = [f"{name}: {says}", *judged.forecast.sentences]
    change = scores["nll"] - scaled["nll"]
    if change > 0.001 and judged.advice.temperature is not None:
        found.append(
            f"Rescaling needs no training: divide the logits by T = {temperature:.2f}. On rows it "
            f"was not fitted on, NLL goes from {scores['nll']:.3f} to {scaled['nll']:.3f} nats and "
            f"ECE from {scores['ece']:.1%} to {scaled['ece']:.1%}; accuracy stays."
        )
    else:
        found.append(f"Rescaling changes little (T = {temperature:.2f}).")
    if temperature < 0.95:
        found.append(
            "T below 1 sharpens: typical of a model trained with label smoothing, for which the "
            "forecast does not hold. As a teacher it says less of the wrong classes."
        )
    if p.floored:
        found.append(
            f"{p.floored} rows give their true class probability exactly 0, which would make the "
            "NLL infinite; they count with the smallest positive number. Save logits instead."
        )
    if p.tied:
        found.append(
            f"{p.tied} rows have several most probable true classes; accuracy takes the first."
        )
    found.append(
        "Whether smoothing would change accuracy cannot be seen from here; `softhot study` "
        "measures it."
    )
    return found


GOALS = ("accuracy", "probabilities", "ranking")  # of distillation, no scores say anything
SHOWN = {  # in the sentences of a comparison: name, factor, decimals, unit, which way is good
    "accuracy": ("accuracy", 100, 1, "points", 1),
    "nll": ("NLL", 1, 3, "nats", -1),
    "ece": ("ECE", 100, 1, "points", -1),
    "aurc": ("AURC", 1, 4, "", -1),
}


def _compared(
    name: str, first: str, raw: dict[str, Bootstrap], scaled: dict[str, Bootstrap]
) -> str:
    """One sentence: what is better, what is worse, what cannot be told."""
    by_verdict: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    columns = (("", raw), (" after scaling", scaled))
    for metric, (label, factor, digits, unit, good) in SHOWN.items():
        for suffix, found in columns[: 1 if metric in ("accuracy", "aurc") else 2]:
            d = found[metric]
            side = 1 if d.low > 0 else -1 if d.high < 0 else 0
            verdict = {good: "better", -good: "worse", 0: "not told apart"}[side]
            value, low, high = (f"{factor * x:+.{digits}f}" for x in (d.value, d.low, d.high))
            amount = f"{value} {unit}".rstrip()
            by_verdict[verdict].append(f"{label}{suffix} {amount} ({low} to {high})")
    told = [f"{verdict} in {', '.join(which)}" for verdict, which in by_verdict.items() if which]
    return f"Against {first}, {name}: {'; '.join(told)}."
