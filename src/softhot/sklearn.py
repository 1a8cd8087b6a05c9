r"""scikit-learn: label smoothing and soft labels for any classifier that takes sample weights.

No classifier of scikit-learn takes soft labels. It need not: for every loss,

.. math:: \sum_i w_i \sum_k q_{ik}\, \ell(x_i, k)

is the objective on soft labels ``q``, and it is also, term by term, the objective on a larger
training set in which row i stands once for each class k, labelled k, with the sample weight
:math:`w_i q_{ik}`. :func:`expand_soft_targets` builds that set, :class:`LabelSmoothingClassifier`
fits an estimator to it.

>>> from sklearn.datasets import load_iris
>>> from sklearn.linear_model import LogisticRegression
>>> X, y = load_iris(return_X_y=True)
>>> model = LabelSmoothingClassifier(LogisticRegression(max_iter=500), label_smoothing=0.1)
>>> model.fit(X, y).predict_proba(X).shape
(150, 3)
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
except ModuleNotFoundError as error:
    message = "softhot.sklearn needs scikit-learn: pip install 'softhot[sklearn]'"
    raise ModuleNotFoundError(message, name="sklearn") from error

from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.utils import _safe_indexing, assert_all_finite, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
    validate_data,
)

from softhot.core.check import InputError, OneOf, SofthotWarning
from softhot.core.rule import SHARE, Base, Rule, Uniform, check_rule
from softhot.core.rules import NegativeUniform
from softhot.core.targets import check_labels, smooth_labels
from softhot.core.weights import PerSample

DEFAULT = 0.1
WEIGHT_SCALE = OneOf("sum", "mean")
AUTO_SCALE = OneOf("auto", "sum", "mean")
TAKE_WEIGHTS = (
    "LogisticRegression, HistGradientBoostingClassifier, RandomForestClassifier, SGDClassifier and "
    "MLPClassifier take it"
)


def expand_soft_targets(
    X: Any, Y: Any, *, sample_weight: Any = None, weight_scale: str = "sum"
) -> tuple[Any, np.ndarray, np.ndarray]:
    r"""Soft labels as hard labels with sample weights: one row for each class with mass.

    Args:
        X: N rows: array, sparse matrix or data frame.
        Y: real (N, K), each row a distribution over the classes: >= 0, sum 1.
        sample_weight: (N,), finite and >= 0; ones if left out.
        weight_scale: ``"sum"``: the copies of a row weigh together what the row weighed, so the
            *sum* of all weights stays. Right for objectives that add the weighted losses up and
            put a penalty beside the sum (``LogisticRegression``, ``SVC``, boosted trees): the
            penalty keeps its relative strength. ``"mean"``: all weights times
            ``len(X expanded) / N``, so the *mean* weight stays. Right for objectives that take the
            mean over rows or take a step for each row (``SGDClassifier``, mini-batches).

    Returns:
        ``(X, y, sample_weight)``: M rows, N <= M <= N K, the copies of a row side by side; class
        ids (M,); weights (M,) float64. A class without mass in a row gets no copy, so hard labels
        come back as they are. With uniform smoothing M is N K: mind the memory.

    Raises:
        InputError: if Y is not of shape (N, K), or a row is no distribution.

    >>> import numpy as np
    >>> X, Y = np.array([[10.0], [20.0]]), np.array([[0.9, 0.1], [0.0, 1.0]])
    >>> expanded, y, weight = expand_soft_targets(X, Y)
    >>> expanded.ravel().tolist(), y.tolist(), weight.tolist()
    ([10.0, 10.0, 20.0], [0, 1, 1], [0.9, 0.1, 1.0])
    """
    WEIGHT_SCALE.check("weight_scale", weight_scale)
    targets = _array("Y", Y)
    if targets.ndim != 2 or targets.shape[1] < 2 or targets.dtype.kind not in "fiub":
        raise InputError("Y", "real, of shape (N, K) with K >= 2", _seen(targets))
    check_labels(np, targets, targets.shape[1], soft=True)
    if hasattr(X, "tocsr"):
        X = X.tocsr()  # not every sparse format knows rows
    elif not hasattr(X, "shape") and not isinstance(X, list | tuple):
        X = np.asarray(X)
    size = X.shape[0] if hasattr(X, "shape") else len(X)
    if size != len(targets):
        raise InputError("Y", f"of {size} rows, as X is", targets.shape)
    weight = check_weight(sample_weight, size)
    rows, classes = np.nonzero(targets)
    weight = weight[rows] * targets[rows, classes]
    if weight_scale == "mean":
        weight *= len(rows) / size
    if len(rows) > size:  # else every row stands once, in its place
        X = _safe_indexing(X, rows)
    return X, classes, weight


def _estimator_has(method: str) -> Any:
    """Whether the estimator inside has ``method``; its own AttributeError says why not."""

    def check(self: LabelSmoothingClassifier) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), method)
        return True

    return check


class LabelSmoothingClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    r"""Fits any classifier that takes ``sample_weight`` to smoothed or soft labels.

    Exact, not a heuristic: the estimator minimises :math:`\sum_i w_i \sum_k q_{ik} \ell(x_i, k)`,
    by :func:`expand_soft_targets`, for whatever loss it has. For the log loss that is the cross
    entropy with the smoothed target ``q``. What is *not* a sum over rows stays outside of this:
    bootstrap samples, ``min_samples_leaf`` and mini-batches see up to K copies of a row. At
    ``label_smoothing=0`` the estimator is fitted to the data as they are.

    Predictions and ``score`` are on hard labels, so in ``GridSearchCV`` the candidates compare;
    ``scoring="neg_log_loss"`` is the one to use. No scorer of scikit-learn takes soft labels: there
    pass ``scoring=lambda model, X, Y: (Y * model.predict_log_proba(X)).sum(1).mean()``. Smoothed
    probabilities are less confident on purpose: rescale them (``CalibratedClassifierCV``) before
    they are used as probabilities.

    Args:
        estimator: a classifier whose ``fit`` takes ``sample_weight``. In a pipeline, smooth the
            last step, not the pipeline. Leave its ``class_weight`` alone and weight rows by their
            true class: ``fit(X, y, sample_weight=compute_sample_weight("balanced", y))``.
        label_smoothing: share alpha of the mass that goes to all K classes alike, 0 <= alpha < 1.
        rule: instead, any softhot rule for targets: ``Prior``, ``Similarity``, ``Ordinal``, ...
            Then ``label_smoothing`` must be left at its default.
        weight_scale: ``"sum"`` or ``"mean"``, see :func:`expand_soft_targets`: which of the two
            keeps the strength of the estimator's own regularisation. ``"auto"`` is ``"mean"`` for
            ``SGDClassifier`` and for ``MLPClassifier`` with mini-batches, ``"sum"`` for the rest.

    Attributes:
        classes_: (K,) class labels, sorted; 0 .. K-1 or the column names if fitted to soft labels.
            Rules with a number for each class mean this order.
        estimator_: the fitted estimator.
        rule_: the rule in use.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Raises:
        InputError: in ``fit``, naming argument, rule, value and next step.

    Warns:
        SofthotWarning: if the estimator splits its training rows itself (early stopping, inner
            cross-validation, out-of-bag scores): copies of one row would land on both sides.

    Papers: Szegedy et al., CVPR 2016, arXiv:1512.00567 (uniform smoothing).

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LabelSmoothingClassifier(LogisticRegression(max_iter=500))
    >>> grid = {"label_smoothing": [0.0, 0.1]}
    >>> GridSearchCV(model, grid, scoring="neg_log_loss", cv=2).fit(X, y).best_params_
    {'label_smoothing': 0.0}
    """

    def __init__(
        self,
        estimator: Any,
        label_smoothing: float = DEFAULT,
        *,
        rule: Rule | None = None,
        weight_scale: str = "auto",
    ) -> None:
        self.estimator = estimator
        self.label_smoothing = label_smoothing
        self.rule = rule
        self.weight_scale = weight_scale

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LabelSmoothingClassifier:
        """Fit the estimator.

        Args:
            X: (N, D), whatever the estimator takes.
            y: (N,) class labels, or soft labels: real (N, K) rows that sum to 1; of a data frame
                the columns name the classes. Soft labels are smoothed too, so pass
                ``label_smoothing=0`` to fit to them as they are.
            sample_weight: (N,), of the rows as they come.
        """
        _check_estimator(self.estimator)
        self.rule_ = one_rule(self.label_smoothing, self.rule)
        _check_makes_targets(self.rule_)
        validate_data(self, X, y, skip_check_array=True)
        self.classes_, labels, kind = encode_labels(y)
        targets = smooth_labels(labels, self.rule_, num_classes=len(self.classes_), kind=kind)
        unseen = ~targets.any(axis=0)
        if unseen.any():
            at = int(unseen.argmax())
            hint = "The estimator would not know the class: drop the column."
            raise InputError(f"y[:, {at}]", "a class with mass in some row", 0.0, hint)
        scale = AUTO_SCALE.check("weight_scale", self.weight_scale)
        if scale == "auto":
            scale = "mean" if _averages_over_rows(self.estimator) else "sum"
        expanded, ids, weight = expand_soft_targets(
            X, targets, sample_weight=sample_weight, weight_scale=scale
        )
        options = {"sample_weight": weight}
        if len(ids) > len(targets):
            _warn_if_it_splits(self.estimator, len(ids))
        elif sample_weight is None:
            options = {}  # given weights, some estimators draw other random numbers
        self.estimator_ = clone(self.estimator).fit(expanded, self.classes_[ids], **options)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(N,) class labels."""
        check_is_fitted(self)
        labels = self.estimator_.predict(X)
        return labels[:, 0] if getattr(labels, "ndim", 1) == 2 else labels  # CatBoost's column

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, K) probabilities, in the order of ``classes_``."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """(N, K) log-probabilities, in the order of ``classes_``."""
        check_is_fitted(self)
        return self.estimator_.predict_log_proba(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """The scores of the estimator: (N, K), or (N,) for two classes."""
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inside = get_tags(self.estimator)
        tags.input_tags = inside.input_tags
        if inside.classifier_tags is not None:
            tags.classifier_tags.multi_class = inside.classifier_tags.multi_class
            tags.classifier_tags.poor_score = inside.classifier_tags.poor_score
        tags.non_deterministic = inside.non_deterministic
        return tags


def one_rule(label_smoothing: Any, rule: Any) -> Rule:
    """The one rule that the two arguments of an estimator say."""
    if rule is None:
        return Uniform(SHARE.check("label_smoothing", label_smoothing))
    if label_smoothing != DEFAULT:
        hint = "Smoothing is given twice: keep the rule, it has its own alpha."
        raise InputError("label_smoothing", "left out beside a rule", label_smoothing, hint)
    return check_rule(rule)


def encode_labels(y: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """The K class labels; ids (N,) or distributions (N, K); and which, as ``smooth_labels`` says.

    Raises what scikit-learn raises for labels no classifier can take.
    """
    labels = _array("y", y)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if labels.dtype.kind not in "fiub":
            raise InputError("y", "class labels (N,) or probabilities (N, K)", _seen(labels))
        # scikit-learn keeps classes sorted everywhere, and reads columns of probabilities so.
        names = np.asarray(getattr(y, "columns", range(labels.shape[1])))
        classes, order = np.unique(names, return_index=True)
        if len(classes) < len(names):
            raise InputError("y", "a column for each class, of a name of its own", names.tolist())
        return classes, labels[:, order], "soft" if labels.dtype.kind == "f" else "one_hot"
    labels = column_or_1d(labels, warn=True)
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    classes, ids = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError("y", "labels of more than one class", classes.tolist())
    return classes, ids, "ids"


def _check_makes_targets(rule: Rule) -> None:
    """Refuse rules that are not just targets, known before training and nowhere negative."""
    hint = ""
    if isinstance(rule.base, NegativeUniform):
        hint = "Negative targets are no sample weights."
    elif rule.base.FROM_BATCH or isinstance(rule.base.alpha, PerSample):
        hint = "Fit to softhot.smooth_labels(...) with label_smoothing=0 instead."
    elif rule.penalties or type(rule.base).terms is not Base.terms:
        hint = "It is a loss of its own, not a target."
    if hint:
        raise InputError("rule", "a rule that makes targets from labels alone", rule, hint)


def _check_estimator(estimator: Any) -> None:
    name = type(estimator).__name__
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        hint = "Write LabelSmoothingClassifier(LogisticRegression())."
        raise InputError("estimator", "a classifier", estimator, hint)
    if not has_fit_parameter(estimator, "sample_weight"):
        hint = f"{TAKE_WEIGHTS}."
        if hasattr(estimator, "steps"):
            hint = "Put LabelSmoothingClassifier into the pipeline, around its last step."
        elif hasattr(estimator, "estimator"):
            hint = f"Put LabelSmoothingClassifier inside: {name}(LabelSmoothingClassifier(...))."
        raise InputError("estimator", "a classifier whose fit takes sample_weight", name, hint)
    # Weights by class would apply to the shares of the wrong classes too, and so move the optimum;
    # and "balanced" would count the copies, in which the classes are all but balanced.
    if (weight := getattr(estimator, "class_weight", None)) is not None:
        hint = (
            "Weight rows by their true class: fit(X, y, sample_weight="
            f"sklearn.utils.class_weight.compute_sample_weight({weight!r}, y))."
        )
        raise InputError(f"class_weight of {name}", "None", weight, hint)


def _averages_over_rows(estimator: Any) -> bool:
    """Whether the objective is a mean over rows (or steps) plus a penalty, not a sum plus one."""
    if isinstance(estimator, MLPClassifier):
        return estimator.solver != "lbfgs"
    return isinstance(estimator, SGDClassifier)


def _warn_if_it_splits(estimator: Any, rows: int) -> None:
    settings = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    stops = settings.get("early_stopping", settings.get("validation_fraction") is not None)
    if "early_stopping" not in settings and settings.get("n_iter_no_change") is None:
        stops = False
    if stops == "auto":  # HistGradientBoostingClassifier: beyond 10,000 rows
        stops = rows > 10_000
    guilty = [
        name
        for name, splits in (
            ("early stopping", stops),
            ("cv=", "cv" in settings),
            ("oob_score", settings.get("oob_score")),
        )
        if splits
    ]
    if guilty:
        text = (
            f"{type(estimator).__name__} splits the rows it is fitted to ({', '.join(guilty)}), "
            "and label smoothing makes copies of them: what it holds out, it has seen, and its "
            "score is on smoothed labels. Turn that off and choose with GridSearchCV around "
            "LabelSmoothingClassifier."
        )
        warnings.warn(text, SofthotWarning, stacklevel=3)


def check_weight(weight: Any, size: int) -> np.ndarray:
    """Sample weights, (size,) float64; ones for None."""
    if weight is None:
        return np.ones(size)
    weight = _array("sample_weight", weight)
    if weight.shape != (size,) or weight.dtype.kind not in "fiub":
        raise InputError("sample_weight", f"real, of shape ({size},)", _seen(weight))
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        at = int((~((weight >= 0) & (weight < np.inf))).argmax())
        raise InputError(f"sample_weight[{at}]", "finite and >= 0", float(weight[at]))
    if not weight.any():
        raise InputError("sample_weight", "positive for some row", "zeros only")
    return weight.astype(np.float64)


def _array(argument: str, value: Any) -> np.ndarray:
    if hasattr(value, "toarray"):
        raise InputError(argument, "a dense array", type(value).__name__, "Write .toarray().")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(argument, "an array, all rows of one length", value) from error


def _seen(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
