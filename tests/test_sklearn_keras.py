"""A Keras network inside scikit-learn: the grid search that is asked for, and what it takes."""

import os
import pickle
import random
import runpy
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported

import keras
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import softhot
from shown import check_shown
from softhot import InputError
from softhot.sklearn_keras import KerasClassifier

# Keras 3.15 hands its variables to NumPy 2 in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other take twenty times as long on networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(input_shape, num_classes, width=16, end="softmax"):
    layers = [
        keras.layers.Dense(width, activation="relu"),
        keras.layers.Dropout(0.1),
        keras.layers.Dense(num_classes, activation=end),
    ]
    return keras.Sequential(layers)


def digits(n=200):
    X, y = load_digits(return_X_y=True)
    return X[:n] / 16, y[:n]


def model(**options):
    options = {"epochs": 2, "optimizer": keras.optimizers.Adam(0.02), "random_state": 0, **options}
    return KerasClassifier(network, **options)


QUICK = model(optimizer=keras.optimizers.Adam(0.1))
EXCEPT = {
    "check_array_api_input": "needs SCIPY_ARRAY_API in the environment",
    "check_sample_weight_equivalence_on_dense_data": (
        "a row of weight 2 is in one mini-batch, two rows of weight 1 are in two"
    ),
}
CHECKS = [
    (estimator, check)
    for estimator, check in estimator_checks_generator(QUICK, mark=None)
    if check.func.__name__ not in EXCEPT
]


@pytest.mark.parametrize(
    ("estimator", "check"),
    CHECKS,
    ids=[f"{check.func.__name__}-{i}" for i, (_, check) in enumerate(CHECKS)],
)
def test_check_estimator(estimator, check):
    check(estimator)


def test_grid_search_over_smoothing_scored_by_hard_labels():
    X, y = digits()
    steps = make_pipeline(MinMaxScaler(), model())
    grid = {"kerasclassifier__label_smoothing": [0.0, 0.1, 0.3]}
    search = GridSearchCV(steps, grid, scoring="neg_log_loss", cv=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert len(set(scores)) == 3
    best = search.best_params_["kerasclassifier__label_smoothing"]
    total = []
    for train, test in StratifiedKFold(2).split(X, y):
        alone = make_pipeline(MinMaxScaler(), model(label_smoothing=best)).fit(X[train], y[train])
        total.append(-log_loss(y[test], alone.predict_proba(X[test])))
    assert np.isclose(np.mean(total), search.best_score_, rtol=1e-6)


def test_grid_search_over_the_architecture_and_the_optimizer():
    X, y = digits(100)
    grid = {"model_kwargs": [{"width": 2}, {"width": 20}], "optimizer": ["sgd", "adam"]}
    search = GridSearchCV(model(epochs=1), grid, cv=2, scoring="neg_log_loss").fit(X, y)
    assert len(set(search.cv_results_["mean_test_score"])) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_clone_keeps_everything_and_trains_the_same():
    X, y = digits(100)
    stop = keras.callbacks.EarlyStopping(monitor="val_nll", patience=1)
    fit_kwargs = {"validation_split": 0.2, "callbacks": [stop]}
    first = model(epochs=50, fit_kwargs=fit_kwargs, rule=softhot.Others(0.1)).fit(X, y)
    second = clone(first).fit(X, y)
    assert 1 < len(first.history_["val_nll"]) < 50
    assert first.history_ == second.history_
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.rule_ == softhot.Others(0.1)
    assert stop.stopped_epoch == 0  # what was passed in is as it was


def test_seeds_are_put_back_and_used():
    X, y = digits(60)
    random.seed(1), np.random.seed(1)  # noqa: NPY002  # the global generator is what is tested
    expected = random.random(), np.random.rand()  # noqa: NPY002  # the global generator is what is tested
    random.seed(1), np.random.seed(1)  # noqa: NPY002  # the global generator is what is tested
    first = model(random_state=3).fit(X, y).predict_proba(X)
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002  # the global generator is what is tested
    assert (first == model(random_state=3).fit(X, y).predict_proba(X)).all()
    assert (first != model(random_state=4).fit(X, y).predict_proba(X)).any()


def test_without_smoothing_the_loss_curve_is_that_of_keras():
    X, y = digits()
    ours = model(label_smoothing=0.0).fit(X, y)
    keras.utils.set_random_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
    plain = network((64,), 10)
    outputs = plain(X[:8], training=False)
    plain.compile(
        keras.optimizers.Adam(0.02), keras.losses.CategoricalCrossentropy(), metrics=["accuracy"]
    )
    # Building these later would draw random numbers in between.
    plain.compute_loss(None, np.eye(10)[y[:8]], outputs)
    plain.compute_metrics(None, np.eye(10)[y[:8]], outputs)
    theirs = plain.fit(X, np.eye(10)[y], epochs=2, batch_size=32, verbose=0).history
    np.testing.assert_allclose(ours.history_["loss"], theirs["loss"], rtol=1e-5)
    # Without smoothing the hard-label metric is the loss.
    np.testing.assert_allclose(ours.history_["nll"], ours.history_["loss"], rtol=1e-5)


def test_the_loss_is_smoothed_and_the_metric_is_not():
    X, y = digits()
    fitted = model(label_smoothing=0.2).fit(X, y)
    fitted.set_params(fit_kwargs={"validation_data": (X, y)}).fit(X, y)
    validation = {k: v[-1] for k, v in fitted.history_.items() if k.startswith("val_")}
    truth = log_loss(y, fitted.predict_proba(X))
    np.testing.assert_allclose(validation["val_nll"], truth, rtol=1e-5)
    assert fitted.history_["loss"][-1] > fitted.history_["nll"][-1]


def test_logits_strings_weights_soft_labels_and_pickle():
    X, y = digits()
    names = np.array(list("abcdefghij"))[y]
    logits = model(from_logits=True, model_kwargs={"end": None}, epochs=10)
    logits.fit(X, names, sample_weight=1.0 + (y == 3))
    assert logits.score(X, names) > 0.8
    probs = logits.predict_proba(X)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(logits)).predict_proba(X), probs)

    Y = softhot.smooth_labels(y, 0.1, num_classes=10)
    hard, soft = model().fit(X, y), model(label_smoothing=0.0).fit(X, Y)
    np.testing.assert_allclose(hard.predict_proba(X), soft.predict_proba(X), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"model": network((64,), 10)}, "a function that builds a network.*weights of the last"),
        ({"model": lambda shape, k: 3}, "returns a keras.Model; got 3"),
        ({"model_kwargs": {"end": None}}, "pass from_logits=True"),
        ({"from_logits": True}, "pass from_logits=False"),
        ({"model": lambda shape, k: network(shape, 7)}, r"of shape \(8, 10\); got \(8, 7\)"),
        ({"epochs": 0}, "epochs must be an integer >= 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer >= 1"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be a real number in \[0, 1\)"),
        ({"rule": softhot.Teacher()}, "rule"),
        ({"rule": softhot.Focal(), "label_smoothing": 0.2}, "given twice"),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(InputError, match=text):
        model().set_params(**options).fit(*digits(100))


def test_example(capsys):
    path = Path(__file__).parent.parent / "examples" / "sklearn_keras_grid.py"
    search = runpy.run_path(str(path))["main"](epochs=1)
    assert len(search.cv_results_["params"]) == 3
    check_shown("sklearn_keras_grid", capsys.readouterr().out)
