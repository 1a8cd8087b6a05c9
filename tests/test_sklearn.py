"""scikit-learn: the objective is the smoothed one, and the estimator is a good citizen."""

import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import estimator_checks_generator
from threadpoolctl import threadpool_limits

import softhot
from softhot import InputError, SofthotWarning
from softhot.sklearn import LabelSmoothingClassifier, expand_soft_targets

RULES = [
    softhot.Uniform(0.1),
    softhot.Others(0.1),
    softhot.Uniform(softhot.PerClass((0.05, 0.1, 0.3))),
    softhot.Prior(0.2, counts=(5, 3, 1)),
    softhot.Ordinal(scale=2.0),
    softhot.Similarity(0.1, ((0, 1, 0), (1, 0, 0), (0.5, 0.5, 0))),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other take a hundred times as long on matrices this small."""
    with threadpool_limits(1):
        yield


def iris(n=150, seed=0):
    X, y = load_iris(return_X_y=True)
    rows = np.random.default_rng(seed).permutation(150)[:n]
    return StandardScaler().fit_transform(X[rows]), y[rows]


def soft(n, k, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), n)


def optimum(X, Y, C=1.0, weight=None, mean=False):
    """The minimiser of the soft-label objective itself, found without expansion."""
    n, k = Y.shape
    w = np.ones(n) if weight is None else np.asarray(weight)
    factor = 1 / n if mean else C

    def objective(flat):
        beta = flat.reshape(-1, k)
        logits = X @ beta[:-1] + beta[-1]
        options = {"smooth_again": True}
        loss, slope = softhot.cross_entropy_and_gradient(logits, Y, softhot.Uniform(0.0), **options)
        slope = factor * w[:, None] * slope
        penalty = beta[:-1] if not mean else C * beta[:-1]
        value = factor * (w @ loss) + 0.5 * (penalty * beta[:-1]).sum()
        return value, np.vstack([X.T @ slope + penalty, slope.sum(0)]).ravel()

    start = np.zeros((X.shape[1] + 1) * k)
    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    beta = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return beta.reshape(-1, k)[:-1].T


def tight(**options):
    return LogisticRegression(tol=1e-9, max_iter=5000, **options)


# --- scikit-learn's own checks -----------------------------------------------------------------

CHECKED = [
    LabelSmoothingClassifier(LogisticRegression()),
    LabelSmoothingClassifier(LogisticRegression(), 0.0),
    LabelSmoothingClassifier(GaussianNB(), 0.3),
]
CHECKS = [
    (estimator, check)
    for model in CHECKED
    for estimator, check in estimator_checks_generator(model, mark=None)
    if check.func.__name__ != "check_array_api_input"  # needs a setting of its own, see below
]


@pytest.mark.parametrize(
    ("estimator", "check"),
    CHECKS,
    ids=[f"{e.estimator.__class__.__name__}-{e.label_smoothing}-{c.func.__name__}-{i}"
         for i, (e, c) in enumerate(CHECKS)],
)  # fmt: skip
def test_check_estimator(estimator, check):
    check(estimator)


def test_check_array_api_input():
    code = """
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_array_api_input
from softhot.sklearn import LabelSmoothingClassifier
check_array_api_input("LabelSmoothingClassifier", LabelSmoothingClassifier(LogisticRegression()),
                      array_namespace="array_api_strict")
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


# --- The objective is the smoothed one ---------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(1, 6),
    k=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    zeros=st.floats(0, 0.8),
    scale=st.sampled_from(["sum", "mean"]),
)
def test_expansion_is_the_same_objective(n, k, seed, zeros, scale):
    rng = np.random.default_rng(seed)
    Y = rng.dirichlet(np.ones(k), n)
    Y *= (rng.random((n, k)) >= zeros) | (np.arange(k) == Y.argmax(1)[:, None])
    Y /= Y.sum(1, keepdims=True)
    w, logits = rng.random(n), rng.normal(0, 5, (n, k))
    plain = softhot.Uniform(0.0)
    rows, ids, weight = expand_soft_targets(np.arange(n), Y, sample_weight=w, weight_scale=scale)
    on_soft = w @ softhot.cross_entropy(logits, Y, plain, smooth_again=True)
    on_hard = weight @ softhot.cross_entropy(logits[rows], ids, plain)
    factor = len(rows) / n if scale == "mean" else 1
    np.testing.assert_allclose(on_hard, factor * on_soft, rtol=1e-12)
    np.testing.assert_allclose(weight.sum(), factor * w.sum(), rtol=1e-12)
    assert len(rows) == np.count_nonzero(Y)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_logistic_regression_reaches_the_optimum_of_the_smoothed_loss(rule):
    X, y = iris()
    model = LabelSmoothingClassifier(tight(C=0.5), rule=rule).fit(X, y)
    truth = optimum(X, softhot.smooth_labels(y, rule, num_classes=3), C=0.5)
    np.testing.assert_allclose(model.estimator_.coef_, truth, atol=1e-5)


def test_two_classes():
    X, y = iris()
    X, y = X[y > 0], y[y > 0]
    model = LabelSmoothingClassifier(tight(), 0.2).fit(X, y)
    truth = optimum(X, softhot.smooth_labels(y - 1, 0.2, num_classes=2), C=1.0)
    # scikit-learn penalises one vector of two classes; ours are two, of opposite sign: half each.
    half = optimum(X, softhot.smooth_labels(y - 1, 0.2, num_classes=2), C=0.5)
    assert np.abs(truth[1] - truth[0] - model.estimator_.coef_).max() > 1e-3
    np.testing.assert_allclose(model.estimator_.coef_[0], half[1] - half[0], atol=1e-4)


def test_soft_labels_and_sample_weights_reach_their_optimum():
    X, _ = iris()
    Y, w = soft(150, 4), np.random.default_rng(1).random(150)
    model = LabelSmoothingClassifier(tight(), 0.0).fit(X, Y, sample_weight=w)
    np.testing.assert_allclose(model.estimator_.coef_, optimum(X, Y, weight=w), atol=1e-5)
    assert model.classes_.tolist() == [0, 1, 2, 3]


def test_no_smoothing_is_the_estimator_itself():
    X, y = iris()
    for plain in (LogisticRegression(), RandomForestClassifier(5, random_state=0), GaussianNB()):
        ours = LabelSmoothingClassifier(plain, 0.0).fit(X, y)
        np.testing.assert_array_equal(
            ours.predict_proba(X), clone(plain).fit(X, y).predict_proba(X)
        )


def test_the_penalty_of_a_mean_objective_keeps_its_strength():
    X, y = iris()
    Y = softhot.smooth_labels(y, 0.3, num_classes=3)
    mlp = MLPClassifier((), solver="lbfgs", alpha=1.0, tol=1e-12, max_iter=5000, random_state=0)
    model = LabelSmoothingClassifier(mlp, 0.3).fit(X, y)
    np.testing.assert_allclose(model.estimator_.coefs_[0].T, optimum(X, Y), atol=1e-3)

    binary = (y > 0).astype(int)
    half = optimum(X, softhot.smooth_labels(binary, 0.3, num_classes=2), C=0.1, mean=True)
    sgd = SGDClassifier(
        "log_loss", alpha=0.05, learning_rate="invscaling", eta0=0.1, tol=None, max_iter=300,
        random_state=0, average=True,
    )  # fmt: skip
    auto = LabelSmoothingClassifier(sgd, 0.3).fit(X, binary).estimator_.coef_[0]
    summed = LabelSmoothingClassifier(sgd, 0.3, weight_scale="sum").fit(X, binary)
    truth = half[1] - half[0]
    assert np.abs(auto - truth).max() < 0.02
    assert np.abs(summed.estimator_.coef_[0] - truth).max() > 0.05


def test_expansion_hand_computed():
    X = scipy.sparse.csr_matrix([[1.0, 0.0], [0.0, 2.0]])
    Y = [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    expanded, y, w = expand_soft_targets(X, Y, sample_weight=[2, 3])
    assert scipy.sparse.issparse(expanded)
    assert expanded.toarray().tolist() == [[1, 0], [1, 0], [0, 2]]
    assert y.tolist() == [0, 1, 2]
    assert w.tolist() == [1, 1, 3]
    assert expand_soft_targets(X, Y, weight_scale="mean")[2].tolist() == [0.75, 0.75, 1.5]
    frame = pd.DataFrame({"a": [1, 2]})
    assert list(expand_soft_targets(frame, Y)[0].columns) == ["a"]
    assert expand_soft_targets(["p", "q"], Y)[0] == ["p", "p", "q"]


# --- A good citizen ----------------------------------------------------------------------------


def test_grid_search_scores_hard_labels():
    X, y = iris()
    model = make_pipeline(StandardScaler(), LabelSmoothingClassifier(LogisticRegression(C=1e3)))
    grid = {"labelsmoothingclassifier__label_smoothing": [0.0, 0.05, 0.5]}
    search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=3).fit(X, y)
    best = {k.split("__")[1]: v for k, v in search.best_params_.items()}
    parts = make_pipeline(
        StandardScaler(), LabelSmoothingClassifier(LogisticRegression(C=1e3), **best)
    )
    by_hand = cross_val_score(parts, X, y, scoring="neg_log_loss", cv=3).mean()
    assert search.best_score_ == by_hand
    scores = search.cv_results_["mean_test_score"]
    assert len(set(scores)) == 3
    fitted = search.best_estimator_
    assert -log_loss(y, fitted.predict_proba(X)) > search.cv_results_["mean_test_score"].min()


def test_string_labels_pickle_and_clone():
    X, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = LabelSmoothingClassifier(LogisticRegression(), rule=softhot.Others(0.1)).fit(X, names)
    assert model.classes_.tolist() == sorted(set(names))
    assert model.score(X, names) > 0.9
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert clone(model).rule == softhot.Others(0.1)
    assert clone(model).get_params()["estimator__C"] == 1.0
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    assert model.decision_function(X).shape == (150, 3)


def test_columns_of_a_frame_name_the_classes():
    X, _ = iris()
    Y = pd.DataFrame(soft(150, 3), columns=["ant", "bee", "cow"])
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = LabelSmoothingClassifier(LogisticRegression(), 0.0).fit(frame, Y)
    assert model.classes_.tolist() == ["ant", "bee", "cow"]
    assert model.feature_names_in_.tolist() == list("abcd")
    assert set(model.predict(frame)) <= {"ant", "bee", "cow"}
    # In whatever order they come: classes are sorted, as everywhere in scikit-learn.
    again = clone(model).fit(frame, Y[["cow", "ant", "bee"]])
    assert again.classes_.tolist() == ["ant", "bee", "cow"]
    np.testing.assert_allclose(again.predict_proba(frame), model.predict_proba(frame), atol=1e-6)
    with pytest.raises(InputError, match="a name of its own"):
        model.fit(frame, Y.set_axis(["ant", "bee", "ant"], axis=1))


def test_soft_labels_in_a_grid_search():
    X, _ = iris()
    Y = soft(150, 3)

    def score(model, X, Y):
        return (Y * model.predict_log_proba(X)).sum(1).mean()

    model = LabelSmoothingClassifier(LogisticRegression(), 0.0)
    search = GridSearchCV(model, {"estimator__C": [1e-4, 1.0]}, scoring=score, cv=3)
    assert np.isfinite(search.fit(X, Y).cv_results_["mean_test_score"]).all()


def test_a_column_of_predictions_is_a_row_of_labels():
    from catboost import CatBoostClassifier

    X, y = iris()
    trees = CatBoostClassifier(n_estimators=2, verbose=0, allow_writing_files=False)
    model = LabelSmoothingClassifier(trees, 0.1).fit(X, np.array(["ant", "bee", "cow"])[y])
    assert model.predict(X).shape == (150,)
    assert (model.classes_[model.predict_proba(X).argmax(1)] == model.predict(X)).all()


def test_one_hot_integers_are_labels_too():
    X, y = iris()
    one_hot = np.eye(3, dtype=int)[y]
    a, b = (LabelSmoothingClassifier(LogisticRegression(), 0.1).fit(X, t) for t in (one_hot, y))
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def test_methods_are_those_of_the_estimator():
    svm = LabelSmoothingClassifier(LinearSVC())
    assert not hasattr(svm, "predict_proba")
    assert hasattr(svm, "decision_function")
    X, y = iris()
    assert svm.fit(X, y).score(X, y) > 0.8


def test_weights_by_true_class_instead_of_class_weight():
    X, y = iris()
    w = compute_sample_weight({0: 1, 1: 2, 2: 5}, y)
    model = LabelSmoothingClassifier(tight(), 0.1).fit(X, y, sample_weight=w)
    Y = softhot.smooth_labels(y, 0.1, num_classes=3)
    np.testing.assert_allclose(model.estimator_.coef_, optimum(X, Y, weight=w), atol=1e-5)
    hint = (
        r"class_weight of LogisticRegression must be None.*compute_sample_weight\('balanced', y\)"
    )
    with pytest.raises(InputError, match=hint):
        LabelSmoothingClassifier(LogisticRegression(class_weight="balanced")).fit(X, y)


# --- What is refused, and what is warned of ----------------------------------------------------


@pytest.mark.parametrize("value", softhot.core.rule.SHARE.bad_values())
def test_bad_label_smoothing(value):
    X, y = iris(30)
    with pytest.raises(InputError, match="label_smoothing must be a real number in"):
        LabelSmoothingClassifier(LogisticRegression(), value).fit(X, y)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"estimator": LogisticRegression}, "estimator must be a classifier; .*Logist"),
        ({"estimator": KNeighborsClassifier()}, "takes sample_weight; got 'KNeigh.*HistGrad"),
        ({"estimator": make_pipeline(LogisticRegression())}, "into the pipeline, around"),
        (
            {"estimator": GridSearchCV(LogisticRegression(), {})},
            r"inside: GridSearchCV\(LabelSmoothingClassifier",
        ),
        ({"label_smoothing": 0.2, "rule": softhot.Uniform(0.1)}, "given twice"),
        ({"rule": 0.1}, r"Write softhot.Uniform\(0.1\)"),
        ({"rule": softhot.Teacher()}, "smooth_labels.* with label_smoothing=0"),
        ({"rule": softhot.Uniform(softhot.PerSample())}, "with label_smoothing=0"),
        ({"rule": softhot.Uniform(0.1) + softhot.MaxSup(0.1)}, "a loss of its own"),
        ({"rule": softhot.Focal(2.0)}, "a loss of its own"),
        ({"rule": softhot.NegativeUniform(-0.1)}, "no sample weights"),
        ({"weight_scale": "average"}, "weight_scale must be one of 'auto', 'sum', 'mean'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:20],
)
def test_bad_arguments(arguments, text):
    X, y = iris(30)
    model = LabelSmoothingClassifier(**{"estimator": LogisticRegression(), **arguments})
    with pytest.raises(InputError, match=text):
        model.fit(X, y)


@pytest.mark.parametrize(
    ("Y", "text"),
    [
        ([[0.5, 0.6], [1.0, 0.0]], r"labels\[0\] must be a row that sums to 1; got 1.1"),
        ([[1.5, -0.5], [1.0, 0.0]], r"labels\[0, 1\] must be a probability >= 0; got -0.5"),
        ([[1.0, np.nan], [1.0, 0.0]], r"labels\[0, 1\] must be a probability"),
        ([[1.0, 0.0], [1.0, 0.0]], r"y\[:, 1\] must be a class with mass in some row"),
        ([[1, 1], [1, 0]], r"multi-hot"),
        (["a", "a"], r"more than one class; got \['a'\]"),
        ([[1.0, 0.0], [1.0]], r"y must be an array, all rows of one length"),
        ([["a", "b"], ["c", "d"]], r"class labels \(N,\) or probabilities \(N, K\)"),
        (scipy.sparse.eye_array(2), r"y must be a dense array"),
    ],
)
def test_bad_labels(Y, text):
    with pytest.raises(InputError, match=text):
        LabelSmoothingClassifier(LogisticRegression(), 0.0).fit([[0.0], [1.0]], Y)


def test_bad_expansions():
    X, Y = np.zeros((2, 1)), [[0.5, 0.5], [1.0, 0.0]]
    for bad, text in (
        (
            {"Y": [0.5, 0.5]},
            r"Y must be real, of shape \(N, K\) with K >= 2; got .float64 of shape",
        ),
        ({"X": np.zeros((3, 1))}, r"Y must be of 3 rows, as X is; got \(2, 2\)"),
        ({"sample_weight": [1, 2, 3]}, r"sample_weight must be real, of shape \(2,\)"),
        ({"sample_weight": [1, -2]}, r"sample_weight\[1\] must be finite and >= 0; got -2.0"),
        ({"sample_weight": [1, np.nan]}, r"sample_weight\[1\] must be finite"),
        ({"weight_scale": "auto"}, r"weight_scale must be one of 'sum', 'mean'"),
    ):
        with pytest.raises(InputError, match=text):
            expand_soft_targets(**{"X": X, "Y": Y, **bad})


def test_labels_smoothed_already_are_not_smoothed_again():
    X, y = iris(30)
    with pytest.raises(InputError, match="not smoothed already"):
        LabelSmoothingClassifier(LogisticRegression()).fit(
            X, softhot.smooth_labels(y, 0.1, num_classes=3)
        )


@pytest.mark.parametrize(
    ("estimator", "text"),
    [
        (HistGradientBoostingClassifier(max_iter=1, early_stopping=True), "early stopping"),
        (SGDClassifier("log_loss", early_stopping=True, random_state=0), "early stopping"),
        (RandomForestClassifier(oob_score=True, random_state=0), "oob_score"),
        (CalibratedClassifierCV(LogisticRegression(), cv=2), "cv="),
    ],
    ids=lambda value: type(value).__name__,
)
def test_estimators_that_split_their_rows_are_warned_of(estimator, text):
    X, y = iris()
    with pytest.warns(SofthotWarning, match=text):
        LabelSmoothingClassifier(estimator, 0.1).fit(X, y)


def test_no_copies_no_warning():
    X, y = iris()
    stops = HistGradientBoostingClassifier(max_iter=1, early_stopping=True)
    LabelSmoothingClassifier(stops, 0.0).fit(X, y)
    LabelSmoothingClassifier(HistGradientBoostingClassifier(max_iter=1), 0.1).fit(X, y)


def test_example(capsys):
    path = Path(__file__).parent.parent / "examples" / "sklearn_digits.py"
    search = runpy.run_path(str(path))["main"]()
    assert search.best_score_ > -0.6
    assert "accuracy on new data 0.9" in capsys.readouterr().out
