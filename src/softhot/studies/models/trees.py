"""Trees of scikit-learn and LightGBM, through softhot's adapters: smoothing of targets only.

``epochs`` is the number of trees (boosting: for each class), and boosting shrinks by 100 times
``learning_rate``, so 0.1 by default. The seed draws rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from softhot.core.check import InputError
from softhot.core.rule import Rule
from softhot.studies.methods import TrainingRows
from softhot.studies.spec import TrialSpec
from softhot.studies.train import Trained

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split


def train(trial: TrialSpec, dataset: Dataset, split: Split) -> Trained:
    """Train one model of trees."""
    features = dataset.features.reshape(len(dataset), -1)
    x, y = features[split.train], dataset.labels[split.train]
    rule = trial.arm.recipe.fit(TrainingRows.of(dataset.take(split.train)))
    fit = {"forest": _forest, "boosting": _boosting}[trial.model]
    logits = fit(trial, rule, x, y, dataset.classes)
    return Trained(logits(features[split.validation]), logits(features[split.test]))


def _forest(trial: TrialSpec, rule: Rule, x: Any, y: Any, classes: int) -> Any:
    """A random forest; its shares of votes count one more vote, spread over all classes."""
    from sklearn.ensemble import RandomForestClassifier

    from softhot.sklearn import LabelSmoothingClassifier

    forest = RandomForestClassifier(trial.epochs, random_state=trial.seed, n_jobs=1)
    fitted = LabelSmoothingClassifier(forest, rule=rule).fit(x, y)

    def logits(rows: np.ndarray) -> np.ndarray:
        shares = fitted.predict_proba(rows)
        return np.log((shares * trial.epochs + 1 / classes) / (trial.epochs + 1)).astype(np.float32)

    return logits


def _boosting(trial: TrialSpec, rule: Rule, x: Any, y: Any, classes: int) -> Any:
    """Gradient boosting by LightGBM; logits are its margins."""
    try:
        import lightgbm
    except ModuleNotFoundError:
        hint = "pip install 'softhot[lightgbm]'."
        raise InputError("model", "one whose library is installed", "boosting", hint) from None

    from softhot.boosting import lightgbm_objective

    booster = lightgbm.LGBMClassifier(
        objective=lightgbm_objective(rule, classes),
        n_estimators=trial.epochs,
        learning_rate=min(1.0, 100 * trial.learning_rate),
        max_depth=4,
        num_leaves=15,
        min_child_samples=5,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.8,
        random_state=trial.seed,
        n_jobs=1,
        deterministic=True,
        verbose=-1,
    ).fit(x, y)

    def logits(rows: np.ndarray) -> np.ndarray:
        margins = np.asarray(booster.predict(rows, raw_score=True), np.float32)
        return margins if margins.ndim == 2 else np.stack([np.zeros_like(margins), margins], 1)

    return logits
