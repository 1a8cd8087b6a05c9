"""skorch takes the PyTorch loss as it is: it looks for ``nn.CrossEntropyLoss`` and finds it."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.dataset import ValidSplit

import softhot
from shown import check_shown
from softhot.torch import BCEWithLogitsLoss, CrossEntropyLoss


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Network(torch.nn.Sequential):
    def __init__(self):
        layers = torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        super().__init__(*layers)


def digits(n=400):
    X, y = load_digits(return_X_y=True)
    return (X[:n] / 16).astype(np.float32), y[:n]


def net(criterion=CrossEntropyLoss, **options):
    torch.manual_seed(0)
    options = {"train_split": ValidSplit(4, stratified=True), "max_epochs": 3, **options}
    return NeuralNetClassifier(
        Network, criterion=criterion, optimizer=torch.optim.Adam, lr=1e-2, verbose=0,
        iterator_train__shuffle=False, **options,
    )  # fmt: skip


def test_probabilities_are_probabilities():
    X, y = digits()
    fitted = net(criterion__label_smoothing=0.1).fit(X, y)
    probs = fitted.predict_proba(X)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    with torch.no_grad():
        logits = fitted.module_(torch.tensor(X)).numpy()
    np.testing.assert_allclose(probs, softmax(logits, axis=1), atol=1e-6)
    assert fitted.score(X, y) > 0.7


def test_validation_is_on_hard_labels_and_training_is_not():
    X, y = digits()
    fitted = net(criterion__label_smoothing=0.3).fit(X, y)
    train, valid = fitted.get_split_datasets(X, y)
    (rows, labels) = zip(*valid, strict=True)
    truth = log_loss(labels, fitted.predict_proba(np.stack(rows)))
    np.testing.assert_allclose(fitted.history[-1, "valid_loss"], truth, rtol=1e-4)
    plain = net(torch.nn.CrossEntropyLoss, criterion__label_smoothing=0.3).fit(X, y)
    # The same training, of torch's own smoothing; its validation is smoothed too.
    ours, theirs = (f.history[:, "train_loss"] for f in (fitted, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert plain.history[-1, "valid_loss"] > truth + 0.05
    assert len(train) == 300


def test_without_smoothing_the_curve_is_torch_s():
    X, y = digits()
    ours, theirs = net().fit(X, y), net(torch.nn.CrossEntropyLoss).fit(X, y)
    for curve in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(ours.history[:, curve], theirs.history[:, curve], rtol=1e-4)


def test_grid_search_over_smoothing_and_rules():
    X, y = digits(200)
    grid = [
        {"criterion__label_smoothing": [0.0, 0.3]},
        {"criterion__rule": [softhot.Others(0.1), softhot.MaxSup(0.2)]},
    ]
    model = net(train_split=None, max_epochs=1)
    search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=2, error_score="raise")
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert clone(search.best_estimator_).criterion is CrossEntropyLoss


def test_two_classes_and_one_logit():
    X, y = digits()
    y = (y > 4).astype(np.float32)
    curves = []
    for criterion in (BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss):
        torch.manual_seed(0)
        fitted = NeuralNetBinaryClassifier(
            torch.nn.Linear, module__in_features=64, module__out_features=1, criterion=criterion,
            lr=0.5, max_epochs=3, verbose=0, iterator_train__shuffle=False,
        ).fit(X, y)  # fmt: skip
        curves.append(fitted.history[:, "train_loss"])
        p = fitted.predict_proba(X)
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(*curves, rtol=1e-5)
    fitted.set_params(criterion=BCEWithLogitsLoss, criterion__label_smoothing=0.3).fit(X, y)
    hard = -np.log(fitted.predict_proba(X)[range(len(y)), y.astype(int)]).mean()
    assert fitted.history[-1, "train_loss"] > hard  # smoothed while it trains


def test_example(capsys):
    path = Path(__file__).parent.parent / "examples" / "skorch_digits.py"
    search = runpy.run_path(str(path))["main"](epochs=1)
    assert len(search.cv_results_["params"]) == 4
    check_shown("skorch_digits", capsys.readouterr().out)
