"""Which trials train together: those that one program can train, a bounded number at a time.

A group is some arms times some seeds of a study, and depends on the study alone. A group of which
some trials are missing is trained again as a whole, and only those are stored: so the bytes are the
same, whatever was cut off before. The first group is a single seed, so that a study soon has
something to show.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence

from softhot.core.check import Interval
from softhot.studies.methods import Arm
from softhot.studies.models import model
from softhot.studies.spec import TrialSpec

Group = tuple[TrialSpec, ...]

REPLICAS = 32  # in a group, unless one seed has more arms: enough to be fast, little to lose
ARMS = 64
VARIABLE = "SOFTHOT_REPLICAS"  # another number; 1 trains one by one


def together(trials: Sequence[TrialSpec], most: int | None = None) -> tuple[Group, ...]:
    """The trials of a study as groups, in the order in which they come first.

    At most ``most`` of them, by default :func:`replicas`, train together.

    >>> from softhot.studies import StudySpec
    >>> [len(group) for group in together(StudySpec(seeds=10).trials(), most=30)]
    [6, 30, 24]
    """
    most = replicas() if most is None else most
    if most == 1:
        return tuple((trial,) for trial in trials)
    families: dict[tuple[object, ...], list[TrialSpec]] = {}
    for trial in trials:
        families.setdefault(_kind(trial), []).append(trial)
    found: list[Group] = []
    for family in families.values():
        found += _cut(family, most, first=not found)
    order = {trial: i for i, trial in enumerate(trials)}
    return tuple(sorted(found, key=lambda group: order[group[0]]))


def replicas() -> int:
    """How many trials at most are to train together."""
    given = os.environ.get(VARIABLE, "")
    if not given:
        return REPLICAS
    number = int(given) if given.isdigit() else given
    return Interval(1, 10_000, integer=True).check(VARIABLE, number)


def reason(trial: TrialSpec) -> str:
    """Why a trial has to be trained by itself; empty if it has not."""
    alone = model(trial.model).alone
    if alone:
        return f"{trial.model}: {alone}"
    return _reason(trial.arm)


def reasons(trials: Iterable[TrialSpec]) -> list[str]:
    """What keeps some of these trials from training together, each reason once."""
    if replicas() == 1:
        return []
    return list(dict.fromkeys(filter(None, map(reason, trials))))


def _reason(arm: Arm) -> str:
    if arm.recipe.from_batch:
        return f"{arm.method}: its targets come from each model's own predictions"
    return ""


def _kind(trial: TrialSpec) -> tuple[object, ...]:
    """What trials have in common that one program trains; a lone one has nothing."""
    if reason(trial):
        return (trial.key,)
    recipe = trial.arm.recipe
    kind = (bool(recipe.mixup), bool(recipe.dropout), recipe.human, recipe.warm_up)
    return (trial.fold, *kind)


def _cut(family: list[TrialSpec], most: int, first: bool) -> Iterable[Group]:
    """Cut arms x seeds into products of ``most`` trials, with at least one seed each.

    If it is the study's ``first`` family, its first seed is cut off, unless that is one trial.
    """
    by_pair = {(trial.arm, trial.seed): trial for trial in family}
    arms = list(dict.fromkeys(trial.arm for trial in family))
    seeds = list(dict.fromkeys(trial.seed for trial in family))
    for j in range(0, len(arms), ARMS):
        some = arms[j : j + ARMS]
        step = max(1, most // len(some))
        alone = first and len(some) > 1
        starts = [0, *range(1, len(seeds), step)] if alone else range(0, len(seeds), step)
        for i, end in itertools.pairwise([*starts, len(seeds)]):
            pairs = [(arm, seed) for seed in seeds[i:end] for arm in some]
            yield tuple(by_pair[pair] for pair in pairs if pair in by_pair)
