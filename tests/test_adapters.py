"""What every adapter owes: the whole case table, only its own framework, and what to install.

Adapters over arrays of their own run the table in their own files: ``test_torch_losses``,
``test_torch_distributed``, ``test_jax``, ``keras_checks``. Here are the others. An adapter that
cannot carry a rule out refuses it by name; none gives a number of another rule.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import softhot
from backends import Backend
from batches import K, N, run
from cases import BINARY, CASES, OPTIONS, TARGET_CASES, batch_with, can_combine, make_batch
from softhot import InputError
from test_house import FLOORS

ROOT = Path(softhot.__file__).parent
TORCH = Backend("torch", "float64")
case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def close(found, expected, bound=1e-12, what=""):
    np.testing.assert_allclose(found, expected, rtol=bound, atol=bound, err_msg=str(what))


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ------------------------------------------------------------------------------- the case table


@case
def test_the_torch_module(case):
    """With ``where``, ``alpha`` and the like in the call, and the rest in the constructor."""
    import torch

    from softhot.torch import CrossEntropyLoss

    def module(logits, labels, rule, *, axis, weight=None, weighting, ignore_index, **options):
        reduction = options.pop("reduction")
        weighting = weighting if weight is not None else "sample"
        ignore = -100 if ignore_index is None else ignore_index
        criterion = CrossEntropyLoss(
            weight, None, ignore, None, reduction, rule=rule, weighting=weighting
        )
        logits = logits.clone().requires_grad_()
        loss = criterion(logits, labels, **options)
        return loss, torch.autograd.grad(loss.sum(), logits)[0]

    for names in ([], *([name] for name in OPTIONS)):
        if can_combine(case, names):
            batch = batch_with(case, names)
            found, expected = run(case.rule, batch, TORCH, module), run(case.rule, batch)
            for a, b in zip(found, expected, strict=True):
                close(a, b, 1e-12, names)


@case
def test_hugging_face(case):
    import torch

    from softhot.huggingface import SmoothLoss

    if case.batch:
        with pytest.raises(InputError, match="needs nothing from the batch"):
            SmoothLoss(case.rule)
        return
    for names in ([], ["soft"], ["masked"], ["ignored"]):
        if not can_combine(case, names):
            continue
        batch = replace(batch_with(case, names), reduction="mean")
        loss, slope = run(case.rule, batch)
        shape = (4, 6, K) if names == ["ignored"] else (N, K)  # (N, T, K), or (N, K)
        z = torch.tensor(batch.logits).reshape(shape).requires_grad_()
        y = torch.tensor(batch.labels).reshape(shape if batch.soft else shape[:-1])
        smooth = SmoothLoss(case.rule, shift=False)
        # Of twice as many labels in the micro-batches of the step it is half.
        twice = 2 * torch.tensor(batch.counted.sum())
        for value, factor in (
            (smooth({"logits": z}, y), 1),
            (smooth({"logits": z}, y, num_items_in_batch=twice), 2),
        ):
            close(factor * value.item(), loss, 1e-12, names)
            (gradient,) = torch.autograd.grad(value, z)
            close(factor * gradient.reshape(N, K).numpy(), slope, 1e-12, names)


@pytest.mark.parametrize(("name", "rule", "targets"), BINARY, ids=[name for name, *_ in BINARY])
def test_hugging_face_with_independent_labels(name, rule, targets):
    import torch

    from softhot.huggingface import SmoothLoss

    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (7, 5)), random.integers(2, size=(7, 5))
    z, y = torch.tensor(logits, requires_grad=True), torch.tensor(labels).double()
    loss, slope = softhot.binary_cross_entropy_and_gradient(logits, labels, rule, reduction="mean")
    smooth = SmoothLoss(rule)
    for value, factor in (
        (smooth({"logits": z}, y), 1),
        (smooth({"logits": z}, y, num_items_in_batch=torch.tensor(70)), 2),
    ):
        close(factor * value.item(), loss)
        close(factor * torch.autograd.grad(value, z)[0].numpy(), slope)
    with torch.no_grad():  # evaluation
        hard = torch.nn.functional.binary_cross_entropy_with_logits(z, y)
        close(smooth({"logits": z}, y).item(), hard.item())
    with pytest.raises(InputError, match="labels must be of the shape of the logits"):
        smooth({"logits": z}, y[:, 0].long())


@case
def test_scikit_learn(case):
    from sklearn.linear_model import LogisticRegression

    from softhot.sklearn import LabelSmoothingClassifier, expand_soft_targets

    batch = make_batch(case)
    model = LabelSmoothingClassifier(LogisticRegression(max_iter=5000), rule=case.rule)
    if case not in TARGET_CASES or case.batch or case.name == "negative":
        with pytest.raises(InputError, match="rule must be"):
            model.fit(batch.logits, batch.labels)
        return
    for labels in (batch.labels, batch_with(case, ["soft"]).labels):
        kind = "soft" if labels.ndim == 2 else "ids"
        targets = softhot.smooth_labels(labels, case.rule, num_classes=K, kind=kind)
        rows, ids, weight = expand_soft_targets(np.arange(N), targets)
        hard = softhot.Uniform(0.0)
        losses, slopes = softhot.cross_entropy_and_gradient(batch.logits[rows], ids, hard)
        loss, gradient = np.zeros(N), np.zeros((N, K))
        np.add.at(loss, rows, weight * losses)
        np.add.at(gradient, rows, weight[:, None] * slopes)
        expected = run(case.rule, replace(batch, labels=labels))
        close(loss, expected[0])
        close(gradient, expected[1])
        assert model.fit(batch.logits, labels).classes_.tolist() == [*range(K)]


@case
def test_gradient_boosting(case):
    from softhot.boosting import catboost_objective, lightgbm_objective, xgboost_objective

    makers = xgboost_objective, lightgbm_objective, catboost_objective
    if case not in TARGET_CASES or case.batch:
        for make in makers:
            with pytest.raises(InputError, match="rule must be"):
                make(case.rule, K)
        return
    batch, rows = make_batch(case), batch_with(case, ["soft"])
    p = np.exp(softhot.metrics.convert.log_softmax(batch.logits))
    for make, factor in zip(makers[:2], (2, K / (K - 1)), strict=True):
        for given in (batch, rows):
            options = {"soft_labels": given.labels} if given.soft else {}
            gradient, hessian = make(case.rule, K, **options)(batch.labels, batch.logits)
            close(gradient, run(case.rule, given)[1], 1e-6)  # these libraries take float32
            close(hessian, factor * p * (1 - p), 1e-6)
    for given in (batch, rows):
        objective = catboost_objective(case.rule, K, soft_labels=given.soft)
        for i in range(N):
            slope, curve = objective.calc_ders_multi([*batch.logits[i]], given.labels[i], 1.0)
            close(slope, -run(case.rule, given)[1][i])
            close(curve, np.outer(p[i], p[i]) - np.diag(p[i]))


@pytest.mark.parametrize(("name", "rule", "targets"), BINARY, ids=[name for name, *_ in BINARY])
def test_gradient_boosting_of_two_classes(name, rule, targets):
    from softhot.boosting import catboost_objective, xgboost_objective

    random = np.random.default_rng(0)
    z, y = random.normal(0, 3, 20), random.integers(2, size=20)
    try:
        _, slope = softhot.binary_cross_entropy_and_gradient(z[:, None], y[:, None], rule)
    except InputError as error:  # a rule of five labels
        with pytest.raises(InputError, match=re.escape(error.argument)):
            xgboost_objective(rule)
        return
    close(xgboost_objective(rule)(y, z)[0], slope[:, 0], 1e-6)
    ders = np.array(catboost_objective(rule).calc_ders_range(z, y, None))
    p = 1 / (1 + np.exp(-z))
    close(ders, np.stack([-slope[:, 0], -p * (1 - p)], axis=1))


# --------------------------------------------------------------------------------- what is loaded

# Of each adapter: what it may load, and what its message must say to install if one is missing.
FRAMEWORKS = ("torch", "jax", "keras", "tensorflow", "sklearn", "optax", "flax", "xgboost")
FRAMEWORKS += ("lightgbm", "catboost", "transformers", "lightning", "skorch")
ADAPTERS = {
    "torch": ({"torch"}, {"torch": "torch"}),
    "jax": ({"jax"}, {"jax": "jax"}),
    "keras": ({"keras"}, {"keras": "keras"}),
    "sklearn": ({"sklearn"}, {"sklearn": "sklearn"}),
    "boosting": (set(), {}),
    "huggingface": ({"torch"}, {"torch": "huggingface"}),
    "lightning": ({"torch", "lightning"}, {"lightning": "lightning"}),
    "sklearn_keras": (
        {"sklearn", "keras"},
        {"keras": "keras,sklearn", "sklearn": "keras,sklearn"},
    ),
}
IMPORT = """
import json, sys
from importlib import import_module
adapter, allowed, frameworks, missing = json.loads(sys.argv[1])
messages = {}
for name in missing:
    sys.modules[name] = None
    try:
        import_module("softhot." + adapter)
    except ModuleNotFoundError as error:
        messages[name] = [error.name, str(error)]
    del sys.modules[name]
for name in allowed:
    import_module(name)
before = set(sys.modules)  # a framework may import what it finds
import_module("softhot." + adapter)
loaded = set(sys.modules) - before
print(json.dumps([messages, [name for name in frameworks if name in loaded]]))
"""


def test_the_table_is_complete():
    assert {name for name, floor in FLOORS.items() if floor == 2} == {*ADAPTERS}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_importing_one_loads_only_its_framework_and_says_what_to_install(adapter, tmp_path):
    allowed, extras = ADAPTERS[adapter]
    arguments = json.dumps([adapter, [*allowed], FRAMEWORKS, [*extras]])
    environment = {"KERAS_BACKEND": "numpy", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT, arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT.parent)},
    )
    assert done.returncode == 0, done.stderr
    messages, loaded = json.loads(done.stdout.splitlines()[-1])
    assert not loaded
    project = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text())["project"]
    for framework, extra in extras.items():
        name, message = messages[framework]
        assert name == framework
        assert f"softhot.{adapter} needs" in message
        assert f"pip install 'softhot[{extra}]'" in message
        assert {*extra.split(",")} <= {*project["optional-dependencies"]}
