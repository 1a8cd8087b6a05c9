"""Gradient boosting: the libraries' own objectives without smoothing, expansion with it."""

import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest
import xgboost
from catboost import CatBoost, CatBoostClassifier
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss

import softhot
from softhot import InputError
from softhot.boosting import (
    catboost_objective,
    lightgbm_nll,
    lightgbm_objective,
    xgboost_objective,
)
from softhot.sklearn import expand_soft_targets

pytestmark = [
    # CatBoost says on the first custom objective that it would be faster with numba.
    pytest.mark.filterwarnings("ignore:Failed to import numba:UserWarning"),
]
ROUNDS = 10
RULES = [
    softhot.Uniform(0.2),
    softhot.Others(0.1),
    softhot.Uniform(softhot.PerClass((0.05, 0.1, 0.3))),
    softhot.Prior(0.2, counts=(5, 3, 1)),
    softhot.Ordinal(scale=2.0),
    softhot.Similarity(0.1, ((0, 1, 0), (1, 0, 0), (0.5, 0.5, 0))),
]


def wine(classes=3, levels=12):
    """Every feature in a few levels: LightGBM guesses the rows of a bin from its Hessian, and when
    bins hold one row or two the guess can end its search for a split early."""
    X, y = load_wine(return_X_y=True)
    X = np.floor(levels * X.argsort(axis=0, kind="stable").argsort(axis=0) / len(X))
    w = np.random.default_rng(0).uniform(0.5, 2, len(y))
    return X, y if classes == 3 else (y > 0).astype(int), w


def soft_labels(n, k=3):
    return np.random.default_rng(1).dirichlet(np.ones(k), n)


# --- One function a library: train on (X, y, w), return margins --------------------------------
# Settings under which copies of a row are no news to the trees: no limits on row counts, no
# sampling, all distinct values as thresholds, margins that start at 0. Leaves stay large and gains
# above 0: in leaves of one or two rows several features part the same rows with the same gain, and
# the last bit of a sum decides which one is taken.


def by_xgboost(X, y, w, objective, classes):
    builtin = "multi:softprob" if classes > 2 else "binary:logistic"
    parameters = {
        "objective": builtin, "max_depth": 3, "nthread": 1, "eta": 0.3, "max_bin": 1024,
        "tree_method": "exact", "base_score": 0.5, "min_child_weight": 2, "gamma": 1e-2,
    }  # fmt: skip
    parameters |= {"num_class": classes} if classes > 2 else {}
    data = xgboost.DMatrix(X, y, weight=w)
    model = xgboost.train(parameters, data, ROUNDS, obj=objective)
    return model.predict(xgboost.DMatrix(X), output_margin=True)


def by_lightgbm(X, y, w, objective, classes):
    builtin = "multiclass" if classes > 2 else "binary"
    parameters = {
        "objective": objective or builtin, "num_leaves": 8, "learning_rate": 0.3, "num_threads": 1,
        "min_data_in_leaf": 0, "min_sum_hessian_in_leaf": 1, "min_data_in_bin": 1,
        "min_gain_to_split": 1e-2,
        "max_bin": 1024, "boost_from_average": False, "verbose": -1, "deterministic": True,
    }  # fmt: skip
    parameters |= {"num_class": classes} if classes > 2 else {}
    data = lightgbm.Dataset(X, y, weight=w)
    return lightgbm.train(parameters, data, ROUNDS).predict(X, raw_score=True)


def by_catboost(X, y, w, objective, classes, l2=1.0, **options):
    builtin = "MultiClass" if classes > 2 else "Logloss"
    model = CatBoost({
        "loss_function": objective or builtin, "eval_metric": builtin, "iterations": ROUNDS,
        "depth": 3, "learning_rate": 0.3, "bootstrap_type": "No", "random_strength": 0,
        "boosting_type": "Plain", "score_function": "L2", "leaf_estimation_method": "Newton",
        "leaf_estimation_iterations": 1, "l2_leaf_reg": l2, "thread_count": 1, "logging_level":
        "Silent", "allow_writing_files": False, "border_count": 254, "boost_from_average": False,
        **options,
    })  # fmt: skip
    return model.fit(X, y, sample_weight=w).predict(X, prediction_type="RawFormulaVal")


LIBRARIES = {
    "xgboost": (by_xgboost, xgboost_objective),
    "lightgbm": (by_lightgbm, lightgbm_objective),
    "catboost": (by_catboost, catboost_objective),
}
# XGBoost keeps margins in float32 and LightGBM gradients; CatBoost keeps all in float64, but the
# labels and weights it is given in float32.
ROUNDING = {"xgboost": 2e-5, "lightgbm": 1e-6, "catboost": 1e-6}


def centred(margins):
    """Margins without what softmax does not see."""
    return margins - margins.mean(axis=1, keepdims=True) if margins.ndim == 2 else margins


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_without_smoothing_it_is_the_library_s_own_objective(name, weighted, classes):
    train, make = LIBRARIES[name]
    X, y, w = wine(classes)
    w = w if weighted else None
    ours = train(X, y, w, make(0.0, classes), classes)
    theirs = train(X, y, w, None, classes)
    assert np.abs(theirs).max() > 0.9
    np.testing.assert_allclose(centred(ours), centred(theirs), atol=ROUNDING[name])


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_smoothing_equals_the_library_s_own_objective_on_the_expansion(name, rule):
    train, make = LIBRARIES[name]
    X, y, w = wine()
    Y = softhot.smooth_labels(y, rule, num_classes=3)
    expanded, ids, weight = expand_soft_targets(X, Y, sample_weight=w)
    # CatBoost scales its penalty by the mean weight, which the expansion divides by the copies.
    options = {"l2": len(ids) / len(y)} if name == "catboost" else {}
    direct = train(X, y, w, make(rule, 3), 3)
    theirs = by_rows(train(expanded, ids, weight, None, 3, **options), X, expanded)
    np.testing.assert_allclose(centred(direct), centred(theirs), atol=ROUNDING[name])


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("rule", [0.2, softhot.OneSided(0.1), softhot.Prior(0.1, (1, 3))], ids=repr)
def test_binary_smoothing_equals_the_expansion(name, rule):
    train, make = LIBRARIES[name]
    X, y, w = wine(2)
    if isinstance(rule, softhot.OneSided):
        q = softhot.smooth_binary_labels(y, rule)
        Y = np.stack([1 - q, q], axis=1)
    else:
        Y = softhot.smooth_labels(y, rule, num_classes=2)
    expanded, ids, weight = expand_soft_targets(X, Y, sample_weight=w)
    options = {"l2": len(ids) / len(y)} if name == "catboost" else {}
    direct = train(X, y, w, make(rule, 2), 2)
    theirs = by_rows(train(expanded, ids, weight, None, 2, **options), X, expanded)
    np.testing.assert_allclose(direct, theirs, atol=ROUNDING[name])


def by_rows(margins, X, expanded):
    """The margins of the rows of X, from those of the expansion."""
    where = {row.tobytes(): i for i, row in enumerate(expanded)}
    return margins[[where[row.tobytes()] for row in X]]


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_soft_labels_equal_the_expansion(name):
    train, make = LIBRARIES[name]
    X, y, w = wine()
    Y = soft_labels(len(X))
    smoothed = 0.9 * Y + 0.1 / 3
    expanded, ids, weight = expand_soft_targets(X, smoothed, sample_weight=w)
    direct = train(X, y, w, make(0.1, 3, soft_labels=Y), 3)
    theirs = by_rows(train(expanded, ids, weight, None, 3), X, expanded)
    np.testing.assert_allclose(centred(direct), centred(theirs), atol=ROUNDING[name])


def test_catboost_soft_labels_equal_the_expansion():
    X, _, w = wine()
    Y = soft_labels(len(X)).astype(np.float32)
    Y /= Y.sum(axis=1, keepdims=True)
    expanded, ids, weight = expand_soft_targets(X, Y, sample_weight=w)
    objective = catboost_objective(0.0, 3, soft_labels=True)
    direct = by_catboost(X, Y, w, objective, 3, eval_metric="MultiRMSE")
    theirs = by_catboost(expanded, ids, weight, None, 3, l2=len(ids) / len(X))
    theirs = by_rows(theirs, X, expanded)
    np.testing.assert_allclose(centred(direct), centred(theirs), atol=ROUNDING["catboost"])


def test_xgboost_takes_soft_labels_as_the_labels_of_its_matrix():
    X, y, w = wine()
    Y = soft_labels(len(X)).astype(np.float32)
    parameters = {"max_depth": 3, "nthread": 1, "base_score": 0.0}
    data = xgboost.DMatrix(X, Y, weight=w)
    ours = xgboost.train(parameters, data, 5, obj=xgboost_objective(0.1, 3)).predict(data)
    data = xgboost.DMatrix(X, y, weight=w)
    parameters |= {"objective": "multi:softprob", "num_class": 3}
    objective = xgboost_objective(0.1, 3, soft_labels=Y)
    theirs = xgboost.train(parameters, data, 5, obj=objective).predict(data)
    np.testing.assert_allclose(softmax(ours, axis=1), theirs, atol=1e-5)


# --- As the frameworks' people use them --------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_xgboost_early_stopping_and_probabilities_are_on_hard_labels(classes):
    X, y, _ = wine(classes)
    train, test = np.arange(0, len(X), 2), np.arange(1, len(X), 2)
    model = xgboost.XGBClassifier(
        objective=xgboost_objective(0.3, classes), n_estimators=60, learning_rate=1.0, n_jobs=1,
        early_stopping_rounds=3, eval_metric="mlogloss" if classes == 3 else "logloss",
    )  # fmt: skip
    model = clone(model).fit(X[train], y[train], eval_set=[(X[test], y[test])], verbose=False)
    probs = model.predict_proba(X[test])
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.best_score, log_loss(y[test], probs), rtol=1e-5)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X[test]), probs)


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_classifier_with_the_metric_on_hard_labels(classes):
    X, y, w = wine(classes)
    model = lightgbm.LGBMClassifier(
        objective=lightgbm_objective(0.2, classes), n_estimators=10, n_jobs=1, verbose=-1
    )
    model.fit(X, y, sample_weight=w, eval_X=X, eval_y=y, eval_metric=lightgbm_nll)
    margins = model.predict(X, raw_score=True)
    probs = softmax(margins, axis=1) if classes == 3 else expit(margins)
    reported = model.evals_result_["valid_0"]["nll"][-1]
    np.testing.assert_allclose(reported, log_loss(y, probs), rtol=1e-6)


def test_lightgbm_native_metric_respects_weights():
    X, y, w = wine()
    data, seen = lightgbm.Dataset(X, y, weight=w), {}
    parameters = {
        "objective": lightgbm_objective(0.2, 3), "num_class": 3, "verbose": -1, "num_threads": 1
    }  # fmt: skip
    model = lightgbm.train(
        parameters, data, 5, valid_sets=[data], feval=lightgbm_nll,
        callbacks=[lightgbm.record_evaluation(seen)],
    )  # fmt: skip
    truth = log_loss(y, softmax(model.predict(X), axis=1), sample_weight=w)
    np.testing.assert_allclose(seen["training"]["nll"][-1], truth, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_catboost_classifier_gives_probabilities(classes):
    X, y, _ = wine(classes)
    names = np.array(["ant", "bee", "cow"])[y]
    metric = "MultiClass" if classes == 3 else "Logloss"
    model = CatBoostClassifier(
        loss_function=catboost_objective(0.2, classes), eval_metric=metric, iterations=20, depth=3,
        learning_rate=0.5, verbose=0, allow_writing_files=False, thread_count=1,
        leaf_estimation_method="Newton",
    ).fit(X, names)  # fmt: skip
    assert model.score(X, names) > 0.95
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


def test_smoothing_lowers_confidence():
    X, y, _ = wine()
    for name, (train, make) in LIBRARIES.items():
        sure = [softmax(train(X, y, None, make(a, 3), 3), axis=1).max(1).mean() for a in (0, 0.3)]
        assert sure[0] > 0.85, name
        assert abs(sure[1] - (0.7 + 0.3 / 3)) < 0.06, name


# --- The gradient itself -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", [*RULES, softhot.NegativeUniform(-0.2)], ids=repr)
def test_gradient_is_that_of_the_loss_and_hessian_its_diagonal(rule):
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 3, (7, 3)), rng.integers(0, 3, 7)
    gradient, hessian = xgboost_objective(rule, 3)(y, z)
    _, truth = softhot.cross_entropy_and_gradient(z, y, rule)
    np.testing.assert_allclose(gradient, truth, atol=1e-6)
    step = 1e-5
    for k in range(3):
        up, down = z.copy(), z.copy()
        up[:, k] += step
        down[:, k] -= step
        slopes = [softhot.cross_entropy_and_gradient(m, y, rule)[1][:, k] for m in (up, down)]
        diagonal = (slopes[0] - slopes[1]) / (2 * step)
        np.testing.assert_allclose(hessian[:, k], 2 * diagonal, atol=1e-5)
        np.testing.assert_allclose(
            lightgbm_objective(rule, 3)(y, z)[1][:, k], 1.5 * diagonal, atol=1e-5
        )


def test_huge_margins_stay_finite():
    z = np.array([[1e30, -1e30, 0.0]])
    for make in (xgboost_objective, lightgbm_objective):
        for part in make(0.1, 3)([1], z) + make(0.1)([1], np.array([-1e30])):
            assert np.isfinite(part).all()


class OnGPU:
    """What CuPy's arrays look like from here."""

    __cuda_array_interface__ = {}

    def __init__(self, array):
        self.array = np.asarray(array)

    def __len__(self):
        return len(self.array)

    def get(self):
        return self.array


def test_arrays_on_a_gpu_are_fetched():
    z, y, w = np.zeros((2, 3)), np.array([0, 2]), np.array([1.0, 2.0])
    objective = xgboost_objective(0.1, 3)
    fetched, here = objective(OnGPU(y), OnGPU(z), OnGPU(w)), objective(y, z, w)
    np.testing.assert_array_equal(fetched, here)


# --- What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [xgboost_objective, lightgbm_objective, catboost_objective])
@pytest.mark.parametrize(
    ("rule", "classes", "text"),
    [
        (1.5, 3, r"Uniform.alpha must be a real number in \[0, 1\)"),
        (True, 3, "must be a real number"),
        (None, 3, "rule must be a rule"),
        (softhot.Teacher(), 3, r"labels alone.*soft_labels=softhot.smooth_labels"),
        (softhot.Uniform(softhot.PerSample()), 3, "labels alone"),
        (softhot.Uniform(0.1) + softhot.MaxSup(0.1), 3, "a loss of its own"),
        (softhot.Focal(), 3, "a loss of its own"),
        (softhot.OneSided(0.1), 3, "num_classes must be 2 for a binary rule; got 3"),
        (0.1, 1, "num_classes must be an integer >= 2; got 1"),
        (softhot.Prior(0.1, (1, 2)), 3, "Prior.counts must be of length 3"),
    ],
    ids=str,
)
def test_bad_rules(make, rule, classes, text):
    with pytest.raises(InputError, match=text):
        make(rule, classes)


@pytest.mark.parametrize(
    ("labels", "margins", "text"),
    [
        ([0, 3], np.zeros((2, 3)), r"labels\[1\] must be a class id in 0 .. 2; got 3.0"),
        ([0.5, 1], np.zeros((2, 3)), r"labels\[0\] must be a class id .*soft_labels="),
        ([np.nan, 1], np.zeros((2, 3)), r"labels\[0\] must be a class id"),
        ([0, 1], np.zeros(2), r"margins must be of shape \(N, 3\).*Set num_class=3"),
        ([0, 1], np.zeros((2, 4)), r"margins must be of shape \(N, 3\); got \(2, 4\)"),
        (np.full((2, 3), 0.5), np.zeros((2, 3)), "a row that sums to 1"),
    ],
)
def test_bad_batches(labels, margins, text):
    with pytest.raises(InputError, match=text):
        xgboost_objective(0.1, 3)(labels, margins)


def test_bad_soft_labels():
    for bad, text in (
        (np.zeros((4, 2)), r"soft_labels must be of shape \(N, 3\)"),
        (np.zeros((4, 3)), "a row that sums to 1"),
        (softhot.smooth_labels([0, 1], 0.1, num_classes=3), "not smoothed already"),
    ):
        with pytest.raises(InputError, match=text):
            xgboost_objective(0.1, 3, soft_labels=bad)
    objective = lightgbm_objective(0.1, 3, soft_labels=soft_labels(5))
    with pytest.raises(InputError, match=r"soft_labels must be of 4 rows; got \(5, 3\)"):
        objective([0] * 4, np.zeros((4, 3)))


def test_catboost_with_another_number_of_classes():
    X, y, _ = wine()
    with pytest.raises(Exception, match="num_classes must be 3; got 4"):
        by_catboost(X, y, None, catboost_objective(0.1, 4), 3)


def test_importing_it_loads_no_library_and_a_missing_one_names_the_extra():
    code = """
import sys
import softhot.boosting
assert not {"xgboost", "lightgbm", "catboost", "sklearn", "scipy"} & set(sys.modules)
sys.modules["catboost"] = None
softhot.boosting.catboost_objective(0.1, 3, soft_labels=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'softhot[catboost]'" in done.stderr


def test_example():
    path = Path(__file__).parent.parent / "examples" / "boosting_digits.py"
    confidence = runpy.run_path(str(path))["main"]()
    for name in ("XGBoost", "LightGBM", "CatBoost"):
        assert confidence[name, 0.1] < confidence[name, 0.0]
