"""From records to one comparison: every arm, raw and scaled, against no smoothing, seed by seed.

Validation rows fit the temperatures and choose alpha; test rows are scored once, afterwards, with
both already fixed. :func:`choose` is given validation predictions only: it cannot see the test.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.calibration import apply_temperature, fit_temperature
from softhot.core.check import InputError, OneOf
from softhot.metrics import METRICS, Predictions, score
from softhot.studies.spec import StudySpec, arm_name
from softhot.studies.store import Record
from softhot.studies.verdict import FEWEST, Verdict, judge

SELECT = OneOf(*(name for name, metric in METRICS.items() if metric.best != "none"))
SCALED = ("nll", "brier")  # what rates probabilities is compared after scaling, the rest before
LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % t-interval; ``low`` and ``high`` are None below 3 seeds.

    ``values`` are the numbers of the single seeds, in the order of ``Comparison.seeds``.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """Mean ± t(0.975, n-1) · s / √n of n numbers, s their standard deviation (n-1).

        >>> round(Estimate.of([1.0, 2.0, 3.0]).high, 4)  # 2 + 4.3027 · 1 / √3
        4.4841
        """
        v = np.array(tuple(values), dtype=np.float64)
        mean, low, high = float(v.mean()), None, None
        if len(v) >= FEWEST:
            from scipy.stats import t

            half = float(t.ppf((1 + LEVEL) / 2, len(v) - 1) * standard_error(v))
            low, high = mean - half, mean + half
        return cls(mean, low, high, tuple(v.tolist()))


@dataclass(frozen=True)
class ArmSummary:
    """One arm over the seeds: each metric on validation and test, before and after scaling.

    ``difference_raw`` and ``difference_scaled`` are test scores minus those of "none" in the same
    column, paired by seed.
    """

    name: str
    alpha: float
    temperature: Estimate
    validation_raw: dict[str, Estimate]
    validation_scaled: dict[str, Estimate]
    test_raw: dict[str, Estimate]
    test_scaled: dict[str, Estimate]
    difference_raw: dict[str, Estimate]
    difference_scaled: dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """What a study found; plain data.

    Attributes:
        spec: The study.
        select: The metric that chose alpha.
        seeds: Seeds finished in every arm; no other seed is used.
        complete: Whether these are all seeds of the study.
        arms: In order of alpha, "none" first.
        chosen: The arm that is best on validation.
        one_se: The arm with the smallest alpha within one standard error of it.
        verdict: What follows, in words.
    """

    spec: StudySpec
    select: str
    seeds: tuple[int, ...]
    complete: bool
    arms: tuple[ArmSummary, ...]
    chosen: str
    one_se: str
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON."""
        return _plain(dataclasses.asdict(self))


Key = tuple[float, int]  # alpha, seed
Scores = dict[str, np.ndarray]  # metric -> (seeds,)


def compare(records: Iterable[Record], spec: StudySpec, select: str = "nll") -> Comparison:
    """Choose alpha on validation, score every arm on test, and judge.

    Args:
        records: Records of ``spec``, in any order; those of other studies are refused.
        spec: The study.
        select: Metric that chooses alpha: NLL and Brier score after temperature scaling, any
            other before; the gap by its absolute value.

    Raises:
        InputError: No seed is finished in every arm, a record is of another study, two records
            were scored on other rows, or ``select`` is no score.
    """
    SELECT.check("select", select)
    by_key = _by_key(records, spec)
    seeds = tuple(s for s in range(spec.seeds) if all((a, s) in by_key for a in spec.alphas))
    if not seeds:
        raise InputError(
            "records",
            "complete for at least one seed, that is, of all its arms",
            f"{len(by_key)} of {len(spec.trials())} trials",
            "Run the study's command again: it continues.",
        )
    keys = [(alpha, seed) for alpha in spec.alphas for seed in seeds]
    choice = choose({key: by_key[key].validation for key in keys}, select)
    test_raw, test_scaled = _scores({k: by_key[k].test for k in keys}, choice.temperatures)
    arms = tuple(
        ArmSummary(
            name=arm_name(alpha),
            alpha=alpha,
            temperature=Estimate.of(choice.temperatures[alpha, seed] for seed in seeds),
            validation_raw=_estimates(choice.raw[alpha]),
            validation_scaled=_estimates(choice.scaled[alpha]),
            test_raw=_estimates(test_raw[alpha]),
            test_scaled=_estimates(test_scaled[alpha]),
            difference_raw=_estimates(_minus(test_raw[alpha], test_raw[0.0])),
            difference_scaled=_estimates(_minus(test_scaled[alpha], test_scaled[0.0])),
        )
        for alpha in spec.alphas
    )
    chosen, one_se = arm_name(choice.best), arm_name(choice.one_se)
    verdict = judge(
        arms,
        chosen=chosen,
        one_se=one_se,
        rival=arm_name(choice.rival),
        select=select,
        planned=spec.seeds,
        rows=spec.test,
    )
    complete = len(seeds) == spec.seeds
    return Comparison(spec, select, seeds, complete, arms, chosen, one_se, verdict)


@dataclass(frozen=True)
class Choice:
    """What validation decides: temperatures, alphas, and the scores that led there.

    ``rival`` is the best alpha above 0, which is ``best`` unless that is 0.
    """

    best: float
    one_se: float
    rival: float
    temperatures: dict[Key, float]
    raw: dict[float, Scores]
    scaled: dict[float, Scores]


def choose(validation: Mapping[Key, Predictions], select: str = "nll") -> Choice:
    """Choose alpha from validation predictions by (alpha, seed).

    The best alpha has the best mean over seeds of ``select``; of equals, the smallest. The
    one-standard-error choice is the smallest alpha whose mean paired difference to the best is
    at most the standard error of that difference (Breiman et al. 1984, "Classification and
    regression trees", section 3.4.3; there the error is that of the best alone).
    """
    temperatures = {key: fit_temperature(held) for key, held in validation.items()}
    raw, scaled = _scores(validation, temperatures)
    column = scaled if select in SCALED else raw
    losses = {alpha: loss(select, scores[select]) for alpha, scores in column.items()}
    best = min(losses, key=lambda alpha: (losses[alpha].mean(), alpha))
    rival = min((a for a in losses if a), key=lambda alpha: (losses[alpha].mean(), alpha))
    close = []
    for alpha in losses:
        behind = losses[alpha] - losses[best]
        if behind.mean() <= (standard_error(behind) if len(behind) > 1 else 0.0):
            close.append(alpha)
    return Choice(best, min(close), rival, temperatures, raw, scaled)


def loss(metric: str, values: np.ndarray) -> np.ndarray:
    """``values`` turned so that lower is better: negated, made absolute, or as they are."""
    best = METRICS[metric].best
    return -values if best == "high" else np.abs(values) if best == "zero" else values


def standard_error(values: np.ndarray) -> float:
    """s / √n of n > 1 numbers."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _by_key(records: Iterable[Record], spec: StudySpec) -> dict[Key, Record]:
    """Records by alpha and seed, all of this study and all scored on the same rows."""
    expected = {(t.alpha, t.seed): t for t in spec.trials()}
    found: dict[Key, Record] = {}
    for record in records:
        key = record.trial.alpha, record.trial.seed
        if expected.get(key) != record.trial:
            raise InputError("records", "records of this study", record.trial)
        first = next(iter(found.values()), record)
        if record.split != first.split:
            raise InputError(
                "records",
                f"scored on one split, that of {first.trial.key}.json",
                f"{record.trial.key}.json",
                "The data or its splitting has changed in between. Run the study in a new folder.",
            )
        found[key] = record
    return found


def _scores(
    held: Mapping[Key, Predictions], temperatures: Mapping[Key, float]
) -> tuple[dict[float, Scores], dict[float, Scores]]:
    """Scores of every arm before and after scaling: alpha -> metric -> (seeds,)."""
    raw: dict[float, list[dict[str, float]]] = {}
    scaled: dict[float, list[dict[str, float]]] = {}
    for (alpha, seed), predictions in held.items():
        after = apply_temperature(predictions, temperatures[alpha, seed])
        raw.setdefault(alpha, []).append(score(predictions))
        scaled.setdefault(alpha, []).append(score(after))
    return _columns(raw), _columns(scaled)


def _columns(rows: dict[float, list[dict[str, float]]]) -> dict[float, Scores]:
    return {a: {m: np.array([s[m] for s in scores]) for m in METRICS} for a, scores in rows.items()}


def _minus(scores: Scores, others: Scores) -> Scores:
    return {metric: scores[metric] - others[metric] for metric in scores}


def _estimates(scores: Scores) -> dict[str, Estimate]:
    return {metric: Estimate.of(values) for metric, values in scores.items()}


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
