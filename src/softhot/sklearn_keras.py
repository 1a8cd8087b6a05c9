"""A Keras network as a scikit-learn classifier: clones, grid search, probabilities, seeds.

>>> import keras
>>> def network(input_shape, num_classes, width=32):
...     return keras.Sequential([
...         keras.layers.Dense(width, activation="relu"),
...         keras.layers.Dense(num_classes, activation="softmax"),
...     ])
>>> model = KerasClassifier(network, label_smoothing=0.1, epochs=20, random_state=0)
>>> model.get_params()["label_smoothing"]
0.1
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

try:
    import keras
    from sklearn.base import BaseEstimator, ClassifierMixin
except ModuleNotFoundError as error:
    message = (
        "softhot.sklearn_keras needs Keras and scikit-learn: pip install 'softhot[keras,sklearn]'"
    )
    raise ModuleNotFoundError(message, name=str(error.name).partition(".")[0]) from error

from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from softhot.core.check import InputError, Interval
from softhot.core.rule import Rule
from softhot.core.targets import smooth_labels
from softhot.keras import NLL, CategoricalCrossentropy, SparseCategoricalCrossentropy
from softhot.sklearn import DEFAULT, check_weight, encode_labels, one_rule

COUNT = Interval(1, float("inf"), "[)", integer=True)


class KerasClassifier(ClassifierMixin, BaseEstimator):
    """Trains a Keras network with label smoothing; a scikit-learn classifier in all else.

    The training loss is that of :mod:`softhot.keras`. Everything that compares models is on the
    labels as they are: ``score``, ``scoring="neg_log_loss"`` and, while training, the metrics
    ``nll`` and ``accuracy``. With ``fit_kwargs={"validation_split": 0.1}`` monitor ``val_nll`` and
    not ``val_loss``, whose lowest value depends on the smoothing.

    Args:
        model: function ``(input_shape, num_classes, **model_kwargs)`` that returns a fresh network,
            not compiled. ``input_shape`` is that of one row; the network returns (N, K).
        label_smoothing: share alpha of the mass that goes to all K classes alike, 0 <= alpha < 1.
        rule: instead, any softhot rule that needs nothing from the batch. Then
            ``label_smoothing`` must be left at its default.
        from_logits: whether the network returns logits; False if it ends in a softmax. Checked.
        optimizer: name, optimizer or config, as in ``keras.Model.compile``; every ``fit`` starts
            it afresh.
        epochs, batch_size: as in ``keras.Model.fit``.
        model_kwargs: further arguments for ``model``; search over a list of such dictionaries.
        fit_kwargs: further arguments for ``keras.Model.fit``, such as callbacks.
        random_state: None, an int or a ``RandomState``. With an int, two fits give the same
            weights; Keras' global generators are seeded for that, Python's and NumPy's are put
            back.

    Attributes:
        classes_: (K,) class labels, sorted; 0 .. K-1 or the column names if fitted to soft labels.
        model_: the trained network.
        history_: metric name -> one number an epoch.
        rule_: the rule in use.

    Raises:
        InputError: in ``fit``, naming argument, rule, value and next step.

    Differs from ``keras.wrappers.SKLearnClassifier``: a clone keeps every argument (there
    ``fit_kwargs`` are lost, so a grid search trains one epoch), and there is ``predict_proba``.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        label_smoothing: float = DEFAULT,
        *,
        rule: Rule | None = None,
        from_logits: bool = False,
        optimizer: Any = "adam",
        epochs: int = 10,
        batch_size: int = 32,
        model_kwargs: Mapping[str, Any] | None = None,
        fit_kwargs: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.label_smoothing = label_smoothing
        self.rule = rule
        self.from_logits = from_logits
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.model_kwargs = model_kwargs
        self.fit_kwargs = fit_kwargs
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KerasClassifier:
        """Train a fresh network.

        Args:
            X: (N, ...) numbers.
            y: (N,) class labels, or soft labels: real (N, K) rows that sum to 1.
            sample_weight: (N,).
        """
        rule = one_rule(self.label_smoothing, self.rule)
        epochs = COUNT.check("epochs", self.epochs)
        batch_size = COUNT.check("batch_size", self.batch_size)
        validate_data(self, X, y, skip_check_array=True)
        X = validate_data(self, X, allow_nd=True)
        self.classes_, labels, kind = encode_labels(y)
        if len(X) != len(labels):
            raise InputError("y", f"of {len(X)} rows, as X is", len(labels))
        if kind == "ids":
            loss = SparseCategoricalCrossentropy(self.from_logits, rule=rule)
        else:
            # Checked here: where Keras compiles, a loss cannot look at values.
            smooth_labels(labels, rule.base, num_classes=len(self.classes_), kind=kind)
            loss = CategoricalCrossentropy(self.from_logits, rule=rule)
        weight = None if sample_weight is None else check_weight(sample_weight, len(X))
        with _seeded(self.random_state):
            network = self._build(X)
            network.compile(
                optimizer=_fresh(self.optimizer),
                loss=loss,
                metrics=[NLL(loss), "accuracy"],
            )
            # Unless they are built, Keras builds both on batches of ones: no distributions.
            outputs = network(X[:8], training=False)
            network.compute_loss(None, labels[:8], outputs)
            network.compute_metrics(None, labels[:8], outputs)
            # Callbacks have state: what was passed in must be as new at the next fit.
            options = {"verbose": 0, **copy.deepcopy(dict(self.fit_kwargs or {}))}
            self.history_ = network.fit(
                X, labels, sample_weight=weight, epochs=epochs, batch_size=batch_size, **options
            ).history
        self.rule_, self.model_ = rule, network
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, K) float64 probabilities, in the order of ``classes_``; rows sum to 1."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, reset=False)
        outputs = self.model_.predict(X, batch_size=self.batch_size, verbose=0)
        outputs = np.asarray(outputs, dtype=np.float64)
        if self.from_logits:
            outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return outputs / outputs.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """(N,) class labels."""
        probs = self.predict_proba(X)
        return self.classes_[probs.argmax(axis=1)]

    def _build(self, X: np.ndarray) -> Any:
        """A fresh network, checked on a few rows to return what the loss will read."""
        if not callable(self.model) or isinstance(self.model, keras.Model):
            hint = "A network that exists would go on from the weights of the last fit."
            raise InputError("model", "a function that builds a network", self.model, hint)
        network = self.model(X.shape[1:], len(self.classes_), **(self.model_kwargs or {}))
        if not isinstance(network, keras.Model):
            raise InputError("model", "a function that returns a keras.Model", network)
        outputs = keras.ops.convert_to_numpy(network(X[:8], training=False)).astype(np.float64)
        shape = (min(8, len(X)), len(self.classes_))
        if outputs.shape != shape:
            raise InputError("the network's output", f"of shape {shape}", outputs.shape)
        normal = (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3)
        if normal == bool(self.from_logits):
            seen = "probabilities" if normal else "no probabilities"
            hint = f"The network returns {seen}: pass from_logits={not normal}."
            raise InputError("from_logits", repr(not normal), self.from_logits, hint)
        return network

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags


def _fresh(optimizer: Any) -> Any:
    """An optimizer without history."""
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return type(optimizer).from_config(optimizer.get_config())
    return keras.optimizers.get(optimizer)


@contextlib.contextmanager
def _seeded(random_state: Any) -> Iterator[None]:
    """Keras' generators seeded from ``random_state``; Python's and NumPy's as before afterwards."""
    if random_state is None:
        yield
        return
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global generator is what Keras seeds
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  # the global generator is what Keras seeds
