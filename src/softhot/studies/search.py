"""Adaptive search: each method's validation scores decide which setting it tries next.

One Optuna study for each method, with a sampler whose arguments are pinned here and whose seed
comes from the method's name. It is asked and told in a fixed order, so it can be played again from
the scores in the store: a search that was cut off continues as if it never had been, and nothing
but the run's folder is needed. In that folder it looks like a grid that grows.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from softhot.calibration import apply_temperature, cautious_temperature
from softhot.core.check import InputError
from softhot.metrics import METRICS
from softhot.studies.methods import Arm, method
from softhot.studies.spec import StudySpec
from softhot.studies.store import SETTINGS, Store

DIGITS = 4  # significant ones, of every setting
PINNED: dict[str, Any] = {
    "n_startup_trials": 3,
    "n_ei_candidates": 24,
    "multivariate": True,
    "constant_liar": False,
}


def search(spec: StudySpec, folder: str | Path, train: Callable[[StudySpec], Store]) -> Store:
    """Run the search in ``folder``: ``train`` runs a grid there.

    The score of a setting is the mean over seeds of the hard-label NLL on validation after
    temperature scaling; one of which a trial failed has none.
    """
    base = dataclasses.replace(spec, settings={}, alphas=None)
    scores: dict[Arm, float] = {}
    if (Path(folder) / SETTINGS).exists():
        there = Store.open(folder)
        if dataclasses.replace(there.spec, settings={}, alphas=None) != base:
            return train(base)  # which says what differs
        scores = validation_scores(there, complete=True)
    while True:
        arms, over = plan(base, scores)
        found: dict[str, tuple[tuple[float, ...], ...]] = {}
        for arm in arms:
            found[arm.method] = (*found.get(arm.method, ()), arm.values)
        store = train(dataclasses.replace(base, settings=found))
        if over:
            return store
        scores = validation_scores(store)


def plan(spec: StudySpec, scores: Mapping[Arm, float]) -> tuple[list[Arm], bool]:
    """The settings to be tried as far as ``scores`` tell, and whether those are all.

    The first setting of every method is the middle of its grid.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        hint = "pip install 'softhot[optuna]', or leave the option out for the grid."
        raise InputError("search", "grid, as Optuna is not installed", spec.search, hint) from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    arms: list[Arm] = []
    over = True
    for name in spec.methods or ():
        known = method(name)
        tuned = known.parameters
        names = [f"{i} {parameter.name}" for i, parameter in enumerate(tuned)]
        seed = zlib.crc32(name.encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some arguments may change: they are pinned
            sampler = optuna.samplers.TPESampler(seed=seed, **PINNED)
        study = optuna.create_study(sampler=sampler)
        middle = known.grid[len(known.grid) // 2]
        study.enqueue_trial(dict(zip(names, middle, strict=True)))
        distributions: dict[str, Any] = {
            key: optuna.distributions.FloatDistribution(p.low, p.high, log=p.log)
            for key, p in zip(names, tuned, strict=True)
        }
        asked: list[Arm] = []
        for _ in range(spec.budget if tuned else 1):
            trial = study.ask(distributions)
            values = tuple(float(f"{trial.params[key]:.{DIGITS}g}") for key in names)
            arm = Arm(name, values)
            asked.append(arm)
            if arm not in scores:
                over = False
                break
            if math.isfinite(scores[arm]):
                study.tell(trial, scores[arm])
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        arms += dict.fromkeys(asked)
    return arms, over


def validation_scores(store: Store, *, complete: bool = False) -> dict[Arm, float]:
    """The score of each arm of the store's study; inf where a trial is missing.

    With ``complete`` such arms are left out instead: they were cut off rather than failed.
    """
    nll: dict[Arm, list[float]] = {arm: [] for arm in store.spec.arms}
    for record in store.records():
        held = record.validation
        scaled = apply_temperature(held, cautious_temperature(held))
        nll[record.trial.arm].append(METRICS["nll"].function(scaled))
    whole = store.spec.seeds
    return {
        arm: float(np.mean(values)) if len(values) == whole else math.inf
        for arm, values in nll.items()
        if len(values) == whole or not complete
    }
