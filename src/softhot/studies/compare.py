"""From records to one comparison: every arm, raw and mended, against "none", seed by seed.

Validation rows fit the remedies and choose each method's setting, by the policy of
:mod:`softhot.advice`; test rows are scored once, afterwards, with all of that fixed.
:func:`choose` is given validation predictions only: it cannot see the test.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot import advice
from softhot.advice import CRITERIA, Advice, Seen
from softhot.calibration import Desmoothing, apply_temperature, cross_fitted
from softhot.core.check import InputError, OneOf
from softhot.core.rule import HARD, Uniform
from softhot.core.rules import Others
from softhot.metrics import METRICS, Predictions, score
from softhot.studies.decision import FEWEST, WORTH
from softhot.studies.methods import NONE, Arm
from softhot.studies.methods import method as method_of
from softhot.studies.spec import StudySpec
from softhot.studies.store import Record
from softhot.studies.verdict import Verdict, judge

GOAL = OneOf(*sorted(CRITERIA, key=lambda goal: goal != "probabilities"))  # the default first
JUDGED = {"accuracy": "raw", "nll": "scaled"}  # the two differences that decide
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
    """One arm over the seeds: each metric on validation and test, before and after the remedies.

    ``raw`` is as trained, ``scaled`` after temperature scaling, ``desmoothed`` after
    :class:`softhot.calibration.Desmoothing`; that one is None but for "none", where it changes
    nothing, and for smoothing over all or over the wrong classes, whose map it takes back. Every
    ``difference`` is test scores minus those of "none" in the same column, paired by seed.

    Attributes:
        name: The arm's name, such as "uniform 0.1".
        alpha: The weight of plain uniform smoothing, 0 for "none", None for another method.
        method: The method's name.
        values: Its setting.
        temperature: T fitted on validation.
    """

    name: str
    alpha: float | None
    temperature: Estimate
    validation_raw: dict[str, Estimate]
    validation_scaled: dict[str, Estimate]
    test_raw: dict[str, Estimate]
    test_scaled: dict[str, Estimate]
    difference_raw: dict[str, Estimate]
    difference_scaled: dict[str, Estimate]
    test_desmoothed: dict[str, Estimate] | None = None
    difference_desmoothed: dict[str, Estimate] | None = None
    method: str = "uniform"
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Advantage:
    """A paired difference to "none" on test, and how sure it is.

    Attributes:
        difference: The estimate, with its own 95 % interval.
        p: Of a two-sided paired t-test, corrected by Holm's method for there being several methods
            (Holm 1979, "A simple sequentially rejective multiple test procedure"); None below 3
            seeds.
        practical: Probability that the method is better by more than is worth having
            (:data:`softhot.studies.decision.WORTH`), from the t-distribution of the mean difference
            under a flat prior; None below 3 seeds.
    """

    difference: Estimate
    p: float | None
    practical: float | None


@dataclass(frozen=True)
class MethodSummary:
    """One method: the setting that validation chose, and what it does on test.

    Attributes:
        name: The method.
        title: What it is.
        budget: How many settings it tried.
        arms: Their names, in order.
        chosen: The one that the policy takes.
        advantages: "accuracy" as trained, "nll" after temperature scaling.
    """

    name: str
    title: str
    budget: int
    arms: tuple[str, ...]
    chosen: str
    advantages: dict[str, Advantage]


@dataclass(frozen=True)
class Comparison:
    """What a study found; plain data.

    Attributes:
        spec: The study.
        goal: What one cares about, of :data:`GOAL`: it chose.
        seeds: Seeds finished in every arm; no other seed is used.
        complete: Whether these are all seeds of the study.
        arms: "none" first, then method by method.
        methods: In the order of the study; each with the setting that validation chose.
        best: "none" or the method's choice with the best score on validation.
        subject: The method that the verdict is about: "uniform" if it is there, else the best one.
        chosen: What :func:`softhot.advice.advise` takes for the goal, of "none" and those of the
            subject.
        rival: The same without "none": what the verdict sets beside it.
        lowest: The arm with the best score on validation, of those.
        verdict: What follows, in words.
        advice: What to do with the arms of the curve, by what one cares about.
    """

    spec: StudySpec
    goal: str
    seeds: tuple[int, ...]
    complete: bool
    arms: tuple[ArmSummary, ...]
    methods: tuple[MethodSummary, ...]
    best: str
    subject: str
    chosen: str
    rival: str
    lowest: str
    verdict: Verdict
    advice: dict[str, Advice]

    @property
    def criterion(self) -> str:
        """The metric that arms compete in on validation."""
        return CRITERIA[self.goal]

    @property
    def curve(self) -> tuple[ArmSummary, ...]:
        """ "none" and the arms of the subject: the alpha curve where that is "uniform"."""
        return tuple(arm for arm in self.arms if arm.method in ("none", self.subject))

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON."""
        content = _plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})
        return {**content, "spec": self.spec.to_dict()}


Key = tuple[Arm, int]  # arm, seed
Scores = dict[str, np.ndarray]  # metric -> (seeds,)


def compare(records: Iterable[Record], spec: StudySpec, goal: str = "probabilities") -> Comparison:
    """Choose every method's setting on validation, score every arm on test, and judge.

    Args:
        records: Records of ``spec``, in any order; those of other studies are refused.
        spec: The study.
        goal: "probabilities", "accuracy" or "ranking": what the policy of
            :func:`softhot.advice.advise` is to serve.

    Raises:
        InputError: No seed is finished in every arm, a record is of another study, two records
            were scored on other rows, or ``goal`` is none.
    """
    GOAL.check("goal", goal)
    by_key = _by_key(records, spec)
    arms = spec.arms
    seeds = whole_seeds(by_key, spec)
    if not seeds:
        raise InputError(
            "records",
            "complete for at least one seed, that is, of all its arms",
            f"{len(by_key)} of {len(spec.trials())} trials",
            "Run the study's command again: it continues.",
        )
    keys = [(arm, seed) for arm in arms for seed in seeds]
    choice = choose({key: by_key[key].validation for key in keys}, goal)
    summaries = _summaries({key: by_key[key].test for key in keys}, choice)
    named = {summary.name: summary for summary in summaries}
    methods = _methods(choice, named)
    tried = [arm for method in methods for arm in arms if arm.name == method.chosen]
    subject = "uniform" if "uniform" in spec.grids else choice.lowest(tried).method
    curve = [arm for arm in arms if arm.method in ("none", subject)]
    chosen, rival, lowest = choice.of(curve), choice.of(curve[1:]), choice.lowest(curve)
    best = choice.lowest([NONE, *tried]).name
    verdict = judge(
        [named[arm.name] for arm in curve],
        chosen=chosen.name,
        rival=rival.name,
        lowest=lowest.name,
        goal=goal,
        planned=spec.seeds,
        rows=spec.test,
        folds=spec.folds,
        methods=[(m, named[m.chosen]) for m in methods],
        best=best,
    )
    return Comparison(
        spec=spec,
        goal=goal,
        seeds=seeds,
        complete=len(seeds) == spec.seeds,
        arms=summaries,
        methods=methods,
        best=best,
        subject=subject,
        chosen=chosen.name,
        rival=rival.name,
        lowest=lowest.name,
        verdict=verdict,
        advice=choice.advice(curve),
    )


def whole_seeds(trials: Container[Key], spec: StudySpec) -> tuple[int, ...]:
    """The seeds of which every arm is among ``trials``: there is nothing to compare without one."""
    return tuple(s for s in range(spec.seeds) if all((arm, s) in trials for arm in spec.arms))


@dataclass(frozen=True)
class Choice:
    """What validation decides: remedies and scores by arm, and so which arm to take of any."""

    goal: str
    temperatures: dict[Key, float]
    desmoothings: dict[Key, Desmoothing | None]
    raw: dict[Arm, Scores]
    scaled: dict[Arm, Scores]
    seen: dict[str, Seen]

    def of(self, arms: Sequence[Arm]) -> Arm:
        """The arm that the policy takes of these, in their order."""
        name = advice.choose(self.goal, self._seen(arms))
        return next(arm for arm in arms if arm.name == name)

    def lowest(self, arms: Sequence[Arm]) -> Arm:
        """The arm with the best score, with no regard for luck; of equals, the first."""
        return min(arms, key=lambda arm: self.seen[arm.name].score(self.goal))

    def advice(self, arms: Sequence[Arm]) -> dict[str, Advice]:
        """The advice for every goal, by the same policy."""
        return advice.advised(self._seen(arms))

    def _seen(self, arms: Sequence[Arm]) -> dict[str, Seen]:
        return {arm.name: self.seen[arm.name] for arm in arms}


def choose(validation: Mapping[Key, Predictions], goal: str = "probabilities") -> Choice:
    """Fit the remedies on validation predictions by (arm, seed), and score what chooses."""
    fits = {key: cross_fitted(held) for key, held in validation.items()}
    temperatures = {key: temperature for key, (_, temperature) in fits.items()}
    desmoothings = {key: _desmoothing(key[0], held) for key, held in validation.items()}
    raw = _scores(validation)
    scaled = _scores({k: apply_temperature(p, temperatures[k]) for k, p in validation.items()})
    names = {arm.name: [key for key in validation if key[0] == arm] for arm, _ in validation}
    seen = advice.see(
        {name: [validation[key] for key in keys] for name, keys in names.items()},
        fits={name: [fits[key] for key in keys] for name, keys in names.items()},
    )
    return Choice(goal, temperatures, desmoothings, raw, scaled, seen)


def _desmoothing(arm: Arm, held: Predictions) -> Desmoothing | None:
    """Fitted on validation for the rules whose map it takes back."""
    rule = arm.recipe.rule
    inverse = isinstance(rule, Uniform | Others) and rule != HARD and not arm.recipe.human
    return Desmoothing.fit(held) if inverse else None


def _summaries(test: Mapping[Key, Predictions], choice: Choice) -> tuple[ArmSummary, ...]:
    """Every arm, scored on test."""
    raw = _scores(test)
    scaled = _scores({k: apply_temperature(p, choice.temperatures[k]) for k, p in test.items()})
    mended = {key: remedy.apply(test[key]) for key, remedy in choice.desmoothings.items() if remedy}
    desmoothed = {NONE: raw[NONE], **_scores(mended)}
    seeds = [seed for arm, seed in test if arm == NONE]
    return tuple(
        ArmSummary(
            name=arm.name,
            alpha=arm.alpha,
            method=arm.method,
            values=arm.values,
            temperature=Estimate.of(choice.temperatures[arm, seed] for seed in seeds),
            validation_raw=_estimates(choice.raw[arm]),
            validation_scaled=_estimates(choice.scaled[arm]),
            test_raw=_estimates(raw[arm]),
            test_scaled=_estimates(scaled[arm]),
            test_desmoothed=_estimates(desmoothed[arm]) if arm in desmoothed else None,
            difference_raw=_estimates(_minus(raw[arm], raw[NONE])),
            difference_scaled=_estimates(_minus(scaled[arm], scaled[NONE])),
            difference_desmoothed=_estimates(_minus(desmoothed[arm], desmoothed[NONE]))
            if arm in desmoothed
            else None,
        )
        for arm in raw
    )


def _methods(choice: Choice, named: Mapping[str, ArmSummary]) -> tuple[MethodSummary, ...]:
    """Every method but "none", with corrected p-values."""
    families: dict[str, list[Arm]] = {}
    for arm in choice.raw:
        if arm != NONE:
            families.setdefault(arm.method, []).append(arm)
    chosen = {name: choice.of(arms) for name, arms in families.items()}
    advantages: dict[str, dict[str, Advantage]] = {name: {} for name in families}
    for metric, column in JUDGED.items():
        differences = [
            getattr(named[arm.name], f"difference_{column}")[metric] for arm in chosen.values()
        ]
        corrected = holm([_p(difference) for difference in differences])
        for name, difference, p in zip(families, differences, corrected, strict=True):
            practical = _practical(metric, difference)
            advantages[name][metric] = Advantage(difference, p, practical)
    return tuple(
        MethodSummary(
            name=name,
            title=method_of(name).title,
            budget=len(arms),
            arms=tuple(arm.name for arm in arms),
            chosen=chosen[name].name,
            advantages=advantages[name],
        )
        for name, arms in families.items()
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction: the i-th smallest of n times n - i + 1, never falling, at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[i] = largest
    return corrected


def _p(difference: Estimate) -> float | None:
    """Two-sided p-value of a paired t-test; 0 or 1 where all seeds agree exactly."""
    if difference.low is None:
        return None
    from scipy.stats import t

    values = np.array(difference.values)
    error = standard_error(values)
    if error == 0:
        return float(difference.mean == 0)
    return float(2 * t.sf(abs(difference.mean) / error, len(values) - 1))


def _practical(metric: str, difference: Estimate) -> float | None:
    """Probability of being better by more than is worth having."""
    if difference.low is None:
        return None
    from scipy.stats import t

    values = np.array(difference.values)
    gain = difference.mean if METRICS[metric].best == "high" else -difference.mean
    error = standard_error(values)
    if error == 0:
        return float(gain > WORTH[metric])
    return float(t.sf((WORTH[metric] - gain) / error, len(values) - 1))


def standard_error(values: np.ndarray) -> float:
    """s / √n of n > 1 numbers."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _by_key(records: Iterable[Record], spec: StudySpec) -> dict[Key, Record]:
    """Records by arm and seed, all of this study; those of a fold were scored on the same rows."""
    expected = {(t.arm, t.seed): t for t in spec.trials()}
    found: dict[Key, Record] = {}
    of_fold: dict[int, Record] = {}
    for record in records:
        key = record.trial.arm, record.trial.seed
        if expected.get(key) != record.trial:
            raise InputError("records", "records of this study", record.trial)
        first = of_fold.setdefault(record.trial.fold, record)
        if record.split != first.split:
            raise InputError(
                "records",
                f"scored on one split, that of {first.trial.key}.json",
                f"{record.trial.key}.json",
                "The data or its splitting has changed in between. Run the study in a new folder.",
            )
        found[key] = record
    return found


def _scores(held: Mapping[Key, Predictions]) -> dict[Arm, Scores]:
    """Scores of every arm: arm -> metric -> (seeds,)."""
    rows: dict[Arm, list[dict[str, float]]] = {}
    for (arm, _), predictions in held.items():
        rows.setdefault(arm, []).append(score(predictions))
    return {
        arm: {m: np.array([s[m] for s in scores]) for m in METRICS} for arm, scores in rows.items()
    }


def _minus(scores: Scores, others: Scores) -> Scores:
    return {metric: scores[metric] - others[metric] for metric in scores}


def _estimates(scores: Scores) -> dict[str, Estimate]:
    return {metric: Estimate.of(values) for metric, values in scores.items()}


def _plain(value: Any) -> Any:
    """Tuples as lists and objects as dictionaries, as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
