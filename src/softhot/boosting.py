r"""Gradient boosting: label smoothing as a custom objective of XGBoost, LightGBM and CatBoost.

With margins ``z`` (one a class), ``p = softmax(z)`` and the smoothed target ``q``, a row gives

.. math:: g_k = p_k - q_k, \qquad h_k = c\, p_k (1 - p_k)

where ``c`` is what the library's own softmax objective uses (below). With two classes and one
margin a row it is ``p = sigmoid(z)``, ``h = p (1 - p)``. Without smoothing the library's own
objective comes out, but for where the margins start.

=============== ===================== =======================================================
library         Hessian, K classes    start of the margins
=============== ===================== =======================================================
XGBoost         ``2 p (1 - p)``       ``base_score`` is not estimated for custom objectives
LightGBM        ``K/(K-1) p (1-p)``   ``boost_from_average`` has no effect on custom objectives
CatBoost        ``diag(p) - p p'``    ``boost_from_average`` is off for them
=============== ===================== =======================================================

These objectives import nothing but NumPy, except for CatBoost with soft labels. The other way
to the same models, :func:`softhot.sklearn.expand_soft_targets`, needs K times the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.core.binary import BinaryRule, smooth_binary_labels
from softhot.core.check import InputError
from softhot.core.rule import Base, Rule, Uniform, check_rule
from softhot.core.targets import CLASSES, check_labels, smooth_labels, target_matrix
from softhot.core.weights import PerSample


@dataclass(frozen=True, eq=False)
class BoostingObjective:
    """Gradient and Hessian of the smoothed loss; XGBoost and LightGBM call it.

    It takes both orders of arguments these libraries use, ``(margins, training set)`` of the
    native interface and ``(labels, margins, weights)`` of the scikit-learn one, and multiplies by
    the weights of the rows.

    Attributes:
        rule: the rule.
        num_classes: K.
        factor: ``c``, see the head of :mod:`softhot.boosting`; 1 for a single margin.
        least: lower bound of the Hessian.
        matrix: (K, K), the target of every class.
        soft: (N, K) smoothed targets of all rows, or None to read the labels.
    """

    rule: Rule
    num_classes: int
    factor: float
    least: float
    matrix: np.ndarray
    soft: np.ndarray | None = None

    def __call__(
        self, first: Any, second: Any, sample_weight: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        margins, labels, weight = _unpack(first, second, sample_weight)
        targets = self.soft if self.soft is not None else _targets(labels, self.matrix)
        if len(targets) != len(margins):
            hint = "The rows must be those of the training set, in its order."
            raise InputError("soft_labels", f"of {len(margins)} rows", targets.shape, hint)
        p = _probs(margins, self.num_classes)
        if margins.ndim == 1:
            p, targets, factor = p[:, 1], targets[:, 1], 1.0
        else:
            factor = self.factor
        gradient, hessian = p - targets, np.maximum(factor * p * (1 - p), self.least)
        if weight is not None:
            column = weight.reshape(-1, *[1] * (p.ndim - 1))
            gradient, hessian = column * gradient, column * hessian
        return gradient.astype(np.float32), hessian.astype(np.float32)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.rule!r}, num_classes={self.num_classes})"


def xgboost_objective(
    rule: Rule | float, num_classes: int = 2, *, soft_labels: Any = None
) -> BoostingObjective:
    """The objective for ``xgboost.train(..., obj=)`` and ``XGBClassifier(objective=)``.

    Args:
        rule: a target rule; a number means ``Uniform(number)``. For two classes also a binary rule.
        num_classes: K.
        soft_labels: (N, K) distributions of the training rows, in their order, instead of the
            labels of the training set; the rule applies to them too.

    Keep ``{"objective": "multi:softprob", "num_class": K}`` (``"binary:logistic"`` for two
    classes) among the parameters: predictions are then probabilities, and the evaluation metrics,
    ``mlogloss`` and early stopping on it, are on hard labels.

    Raises:
        InputError: here or while training, naming argument, rule, value and next step.

    >>> objective = xgboost_objective(0.1, num_classes=3)
    >>> gradient, hessian = objective([2], np.zeros((1, 3)))  # labels, margins
    >>> gradient.round(3).tolist()
    [[0.30000001192092896, 0.30000001192092896, -0.6000000238418579]]
    """
    matrix, rule = _matrix(rule, num_classes)
    return BoostingObjective(
        rule, num_classes, 2.0, 1e-16, matrix, _soft(soft_labels, rule, matrix)
    )


def lightgbm_objective(
    rule: Rule | float, num_classes: int = 2, *, soft_labels: Any = None
) -> BoostingObjective:
    """The objective for ``lightgbm.train({"objective": ...})`` and ``LGBMClassifier(objective=)``.

    Args:
        rule, num_classes, soft_labels: as in :func:`xgboost_objective`.

    LightGBM returns margins for every custom objective: ``scipy.special.softmax(margins, axis=1)``
    makes them probabilities, ``scipy.special.expit`` for two classes. Its own metrics
    would read the margins as probabilities: pass ``feval=lightgbm_nll`` (``eval_metric=`` in
    ``LGBMClassifier.fit``) to stop early on hard labels.

    Raises:
        InputError: here or while training, naming argument, rule, value and next step.
    """
    matrix, rule = _matrix(rule, num_classes)
    factor = num_classes / (num_classes - 1)
    return BoostingObjective(
        rule, num_classes, factor, 0.0, matrix, _soft(soft_labels, rule, matrix)
    )


def lightgbm_nll(first: Any, second: Any, sample_weight: Any = None) -> tuple[str, float, bool]:
    """Negative log-likelihood on hard labels from margins, for LightGBM: ``("nll", value, False)``.

    >>> name, value, higher_is_better = lightgbm_nll([0, 1], np.zeros((2, 4)))  # labels, margins
    >>> name, round(value, 4), higher_is_better
    ('nll', 1.3863, False)
    """
    margins, labels, weight = _unpack(first, second, sample_weight)
    if margins.ndim == 1:
        margins = np.stack([np.zeros_like(margins), margins], axis=1)
    ids = _ids(labels, margins.shape[1])
    top = margins.max(axis=1)
    lse = top + np.log(np.exp(margins - top[:, None]).sum(axis=1))
    nll = lse - margins[np.arange(len(ids)), ids]
    return "nll", float(np.average(nll, weights=weight)), False


def catboost_objective(
    rule: Rule | float, num_classes: int = 2, *, soft_labels: bool = False
) -> Any:
    """The objective for ``CatBoostClassifier(loss_function=)``.

    Args:
        rule, num_classes: as in :func:`xgboost_objective`.
        soft_labels: True for labels that are (N, K) distributions: ``CatBoost({"loss_function":
            ..., "eval_metric": "MultiRMSE"})``, which predicts margins. (CatBoost may shuffle
            rows, so the distributions have to be the labels of its pool.)

    CatBoost wants a metric beside a custom objective: ``eval_metric="MultiClass"`` (``"Logloss"``
    for two classes) is the negative log-likelihood on hard labels, and ``predict_proba`` works.
    Set ``leaf_estimation_method="Newton"`` to use the Hessian, as its own objective does.

    Raises:
        InputError: here, naming argument, rule, value and next step.
    """
    matrix, rule = _matrix(rule, num_classes)
    if soft_labels:
        return _catboost_soft(matrix)
    return CatBoostBinary(matrix) if num_classes == 2 else CatBoostMulti(matrix)


@dataclass(eq=False)  # not frozen: CatBoost sets attributes on objectives
class CatBoostBinary:
    """Derivatives of the log-likelihood (CatBoost climbs) of one margin a row."""

    matrix: np.ndarray

    def calc_ders_range(self, margins: Any, labels: Any, weights: Any) -> list[list[float]]:
        """``[[q - p, -p (1 - p)], ...]`` times the weights."""
        p = _probs(np.asarray(margins), 2)[:, 1]
        y = np.asarray(labels)
        q = (1 - y) * self.matrix[0, 1] + y * self.matrix[1, 1]  # a label may be a probability
        weight = 1.0 if weights is None else np.asarray(weights)
        return np.stack([weight * (q - p), -weight * p * (1 - p)], axis=1).tolist()


@dataclass(eq=False)
class CatBoostMulti:
    """Derivatives of the log-likelihood (CatBoost climbs) of K margins, row by row."""

    matrix: np.ndarray

    def calc_ders_multi(self, margins: Any, label: Any, weight: float) -> tuple[list, list]:
        """``q - p`` and ``p p' - diag(p)``, times the weight."""
        if len(margins) != len(self.matrix):
            hint = "Pass num_classes= as many as the labels have."
            raise InputError("num_classes", f"{len(margins)}", len(self.matrix), hint)
        p = np.exp(margins - np.max(margins))
        p /= p.sum()
        curvature = np.outer(p, p)
        curvature.ravel()[:: len(p) + 1] -= p
        return (weight * (self.target(label) - p)).tolist(), (weight * curvature).tolist()

    def target(self, label: Any) -> np.ndarray:
        """``q`` of a class id."""
        return self.matrix[int(label)]


def _catboost_soft(matrix: np.ndarray) -> Any:
    try:
        from catboost import MultiTargetCustomObjective
    except ModuleNotFoundError as error:
        message = "catboost_objective needs CatBoost: pip install 'softhot[catboost]'"
        raise ModuleNotFoundError(message, name="catboost") from error

    class CatBoostSoft(CatBoostMulti, MultiTargetCustomObjective):
        def target(self, label: Any) -> np.ndarray:
            return np.asarray(label, dtype=np.float64) @ self.matrix

    return CatBoostSoft(matrix)


def _unpack(first: Any, second: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Margins, labels and weights from either order of arguments."""
    if hasattr(second, "get_label"):
        margins, labels, weight = first, second.get_label(), second.get_weight()
    else:
        labels, margins = first, second
    weight = None if weight is None or not len(weight) else _numpy(weight).astype(np.float64)
    return _numpy(margins).astype(np.float64), _numpy(labels), weight


def _numpy(array: Any) -> np.ndarray:
    """``array`` on the CPU: XGBoost hands over CuPy arrays where the data lie on a GPU."""
    return np.asarray(array.get() if hasattr(array, "__cuda_array_interface__") else array)


def _probs(margins: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, K) probabilities from (N, K) margins, or from (N,) margins of class 1 against class 0."""
    if margins.ndim == 1:
        if num_classes != 2:
            hint = f"Set num_class={num_classes} among the parameters of the booster."
            raise InputError("margins", f"of shape (N, {num_classes})", margins.shape, hint)
        z = np.stack([np.zeros_like(margins), margins], axis=1)
    elif margins.shape[1:] == (num_classes,):
        z = margins
    else:
        hint = "num_classes of the objective and of the booster must agree."
        raise InputError("margins", f"of shape (N, {num_classes})", margins.shape, hint)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def _matrix(rule: Any, num_classes: Any) -> tuple[np.ndarray, Rule]:
    """The target of every class, (K, K), and the rule."""
    num_classes = CLASSES.check("num_classes", num_classes)
    if isinstance(rule, BinaryRule):
        if num_classes != 2:
            raise InputError("num_classes", "2 for a binary rule", num_classes)
        on = smooth_binary_labels(np.array([[0.0], [1.0]]), rule)
        return np.hstack([1 - on, on]), rule
    rule = check_rule(Uniform(rule) if isinstance(rule, float | int) else rule)
    base = rule.base
    allowed = "a rule that makes targets from labels alone"
    if rule.penalties or type(base).terms is not Base.terms:
        raise InputError("rule", allowed, rule, "It is a loss of its own, not a target.")
    if base.FROM_BATCH or isinstance(base.alpha, PerSample):
        hint = "Pass soft_labels=softhot.smooth_labels(...) and the rule Uniform(0.0)."
        raise InputError("rule", allowed, rule, hint)
    matrix = target_matrix(base, num_classes)
    assert matrix is not None  # only the rules refused above have none
    return matrix, rule


def _soft(labels: Any, rule: Rule, matrix: np.ndarray) -> np.ndarray | None:
    """The smoothed targets of the distributions the user gave, checked."""
    if labels is None:
        return None
    labels = np.asarray(labels, dtype=np.float64)
    if labels.ndim != 2 or labels.shape[1] != len(matrix):
        raise InputError("soft_labels", f"of shape (N, {len(matrix)})", labels.shape)
    if isinstance(rule, BinaryRule):
        return check_labels(np, labels, 2, soft=True) @ matrix
    return smooth_labels(labels, rule, num_classes=len(matrix), kind="soft")


def _targets(labels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Targets of class ids (N,), or of the (N, K) labels an XGBoost matrix can hold."""
    if labels.ndim == 2 and labels.shape[1] == len(matrix):
        return check_labels(np, labels, len(matrix), soft=True) @ matrix
    return matrix[_ids(labels, len(matrix))]


def _ids(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Class ids from the floats that boosting libraries keep labels in."""
    labels = np.ravel(labels)
    bad = ~((labels >= 0) & (labels < num_classes) & (labels == np.floor(labels)))
    if bad.any():
        at = int(bad.argmax())
        hint = "Say how many classes there are: num_classes=. Pass distributions as soft_labels=."
        allowed = f"a class id in 0 .. {num_classes - 1}"
        raise InputError(f"labels[{at}]", allowed, float(labels[at]), hint)
    return labels.astype(np.int64)
