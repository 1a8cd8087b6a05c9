"""The boosting libraries' part of docs/parity.md: built-in objectives beside softhot's.

None hands out the gradient of its own objective, so what each makes of it is compared: the margins
of small models, trained with either on scikit-learn's wine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ROUNDS, BOUND = 5, 2e-5  # XGBoost keeps margins in float32
INTRO = f"""\
## Gradient boosting

No library hands out the gradient of its own objective. Here each trains {ROUNDS} rounds on
scikit-learn's wine, and what is shown are the negative log-likelihood of the training rows and the
margins of the first of them, less their mean. Built-in objectives know no label smoothing; those
for two classes that take probabilities as labels (`y1` are the labels 0 and 1 moved to 0.05 and
0.95) and copies of every row with sample weights (`copies`,
`softhot.sklearn.expand_soft_targets`) have the same effect; CatBoost scales its penalty by the mean
weight, which copies divide by three, so there it was made three times as large. Bound: {BOUND:g}.

| | built in | softhot | NLL | margins | is |
|---|---|---|---|---|---|
"""


def by_xgboost(X: Any, y: Any, w: Any, objective: Any, classes: int) -> Callable:
    import xgboost

    builtin = "multi:softprob" if classes > 2 else "binary:logistic"
    parameters = {
        "objective": builtin, "max_depth": 3, "nthread": 1, "eta": 0.3, "max_bin": 1024,
        "tree_method": "exact", "base_score": 0.5, "min_child_weight": 2, "gamma": 1e-2,
    }  # fmt: skip
    parameters |= {"num_class": classes} if classes > 2 else {}
    obj = None if isinstance(objective, str) else objective
    model = xgboost.train(parameters, xgboost.DMatrix(X, y, weight=w), ROUNDS, obj=obj)
    return lambda X: model.predict(xgboost.DMatrix(X), output_margin=True)


def by_lightgbm(X: Any, y: Any, w: Any, objective: Any, classes: int) -> Callable:
    import lightgbm

    parameters = {
        "objective": objective, "num_leaves": 8, "learning_rate": 0.3, "num_threads": 1,
        "min_data_in_leaf": 0, "min_sum_hessian_in_leaf": 1, "min_data_in_bin": 1,
        "min_gain_to_split": 1e-2, "max_bin": 1024, "boost_from_average": False, "verbose": -1,
        "deterministic": True,
    }  # fmt: skip
    parameters |= {"num_class": classes} if classes > 2 else {}
    model = lightgbm.train(parameters, lightgbm.Dataset(X, y, weight=w), ROUNDS)
    return lambda X: model.predict(X, raw_score=True)


def by_catboost(X: Any, y: Any, w: Any, objective: Any, classes: int) -> Callable:
    from catboost import CatBoost

    copies = len(X) / len(np.unique(X, axis=0))

    model = CatBoost({
        "loss_function": objective, "eval_metric": "MultiClass" if classes > 2 else "CrossEntropy",
        "iterations": ROUNDS, "depth": 3, "learning_rate": 0.3, "bootstrap_type": "No",
        "random_strength": 0, "boosting_type": "Plain", "score_function": "L2",
        "leaf_estimation_method": "Newton", "leaf_estimation_iterations": 1, "l2_leaf_reg": copies,
        "thread_count": 1, "logging_level": "Silent", "allow_writing_files": False,
        "border_count": 254, "boost_from_average": False,
    })  # fmt: skip
    model.fit(X, y, sample_weight=w)
    return lambda X: model.predict(X, prediction_type="RawFormulaVal")


# Of each library: training, its objectives for many and for two classes, softhot's.
LIBRARIES: dict[str, tuple[Callable, str, str, str]] = {
    "xgboost": (by_xgboost, "multi:softprob", "binary:logistic", "xgboost_objective"),
    "lightgbm": (by_lightgbm, "multiclass", "cross_entropy", "lightgbm_objective"),
    "catboost": (by_catboost, "MultiClass", "CrossEntropy", "catboost_objective"),
}


def wine() -> tuple[np.ndarray, np.ndarray]:
    """Every feature in twelve levels, so that no two splits come to the same."""
    from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True)
    return np.floor(12 * X.argsort(axis=0, kind="stable").argsort(axis=0) / len(X)), y


def section() -> str:
    from scipy.special import log_softmax

    import softhot
    import softhot.boosting
    from softhot.sklearn import expand_soft_targets

    X, y = wine()
    two = (y > 0).astype(int)
    copies = expand_soft_targets(X, softhot.smooth_labels(y, 0.1, num_classes=3))
    lines = []
    for name, (train, many, binary, make) in LIBRARIES.items():
        builders = vars(softhot.boosting)
        pairs = (
            ((X, y, None), repr(many), (X, y, None), f"{make}(0.0, 3)", 3, "Uniform(0.0)"),
            (copies, f"{many!r}, copies", (X, y, None), f"{make}(0.1, 3)", 3, "Uniform(0.1)"),
            (
                (X, 0.9 * two + 0.05, None), f"{binary!r}, y1",
                (X, two, None), f"{make}(Bernoulli(0.1))", 2, "Bernoulli(0.1)",
            ),
        )  # fmt: skip
        for theirs, words, ours, code, classes, rule in pairs:
            labels = y if classes == 3 else two
            builtin = many if classes == 3 else binary
            objective = eval(code, {**builders, "Bernoulli": softhot.Bernoulli})
            margins = []
            for data, given in ((theirs, builtin), (ours, objective)):
                z = np.asarray(train(*data, given, classes)(X), np.float64)
                z = z if z.ndim == 2 else np.stack([0 * z, z], axis=1)
                margins.append(z - z.mean(axis=1, keepdims=True))
            nll = -log_softmax(margins[0], axis=1)[np.arange(len(X)), labels].mean()
            row = ", ".join(f"{v:.3f}" for v in margins[0][0])
            cells = (name, f"`{words}`", f"`{code}`", f"{nll:.3f}", row, f"`{rule}`")
            lines.append(f"| {' | '.join(cells)} |")
            off = np.abs(margins[0] - margins[1]).max()
            if not off <= BOUND:
                raise AssertionError(f"{name}: {words} and {code} are {off} apart")
    return INTRO + "\n".join(lines) + "\n"
