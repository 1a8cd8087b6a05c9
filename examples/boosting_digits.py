"""Label smoothing in XGBoost, LightGBM and CatBoost: scikit-learn's digits.

python examples/boosting_digits.py
"""

import catboost
import lightgbm
import numpy as np
import xgboost
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split

from softhot.boosting import catboost_objective, lightgbm_objective, xgboost_objective


def by_xgboost(X, y, X_test, alpha):
    model = xgboost.XGBClassifier(
        objective=xgboost_objective(alpha, 10), n_estimators=30, max_depth=3, n_jobs=1
    )
    return model.fit(X, y).predict_proba(X_test)


def by_lightgbm(X, y, X_test, alpha):
    model = lightgbm.LGBMClassifier(
        objective=lightgbm_objective(alpha, 10), n_estimators=30, max_depth=3, n_jobs=1, verbose=-1
    )
    return softmax(model.fit(X, y).predict(X_test, raw_score=True), axis=1)


def by_catboost(X, y, X_test, alpha):
    model = catboost.CatBoostClassifier(
        loss_function=catboost_objective(alpha, 10),
        eval_metric="MultiClass",
        leaf_estimation_method="Newton",
        iterations=10,
        learning_rate=0.3,
        depth=3,
        thread_count=1,
        verbose=0,
        allow_writing_files=False,
    )
    return model.fit(X, y).predict_proba(X_test)


def main():
    report = {}
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, train_size=500, stratify=y, random_state=0)
    for name, fit in (
        ("XGBoost", by_xgboost),
        ("LightGBM", by_lightgbm),
        ("CatBoost", by_catboost),
    ):
        for alpha in (0.0, 0.1):
            probs = np.asarray(fit(X, y, X_test, alpha), dtype=np.float64)
            probs /= probs.sum(axis=1, keepdims=True)
            report[name, alpha] = probs.max(axis=1).mean()
            print(
                f"{name:8}  alpha {alpha}  log loss {log_loss(y_test, probs):.4f}  "
                f"accuracy {accuracy_score(y_test, probs.argmax(axis=1)):.4f}  "
                f"confidence {report[name, alpha]:.4f}"
            )
    return report


if __name__ == "__main__":
    main()
