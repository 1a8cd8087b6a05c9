"""What must hold of the Keras losses on every backend.

    KERAS_BACKEND=jax python tests/keras_checks.py [name of a check] ...

One process has one backend, so :mod:`test_keras` runs this file once for each. The last line
printed is JSON: the name of every check and why it failed, or null.
"""

import itertools
import json
import os
import sys
import warnings

import keras
import numpy as np
from keras import ops

from batches import K, N, run
from cases import BINARY, CASES, batch_with, can_combine, make_batch
from keras_harness import (
    BACKEND,
    LABELS,
    LOGITS,
    RANDOM,
    check,
    close,
    compiled,
    gradient,
    main,
    number,
    refuses,
)

BEFORE = {name.partition(".")[0] for name in sys.modules}

import softhot.keras as sk  # noqa: E402  # after the names above are noted
from softhot import (  # noqa: E402  # as above
    Bernoulli,
    PerSample,
    SofthotWarning,
    Teacher,
    Uniform,
    binary_cross_entropy_and_gradient,
    cross_entropy,
)
from softhot.core.rules import Focal  # noqa: E402  # as above

# What a Keras loss can be given: rules that need nothing from the batch.
OURS = [c for c in CASES if not c.batch]
# Compiling takes the time: where checks below say so, backends share the rules or options.
SHARE = {"tensorflow": slice(0, None, 2), "jax": slice(1, None, 2)}.get(BACKEND, slice(None))
PLACES = ("soft", "masked", "ignored", "middle", "sum", "mean")
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def a_loss(case, batch, **options):
    kind = sk.CategoricalCrossentropy if batch.soft else sk.SparseCategoricalCrossentropy
    if batch.ignore_index is not None:
        options["ignore_class"] = batch.ignore_index
    axis = 1 if batch.middle else -1
    reduction = {"mean": "sum_over_batch_size"}.get(batch.reduction, batch.reduction)
    return kind(rule=case.rule, axis=axis, reduction=reduction, dtype="float64", **options)


@check
def every_rule_is_the_reference():
    for i, case in enumerate(OURS):
        # Each operation that JAX meets for the first time is compiled: there, turn by turn.
        places = PLACES if BACKEND != "jax" else PLACES[i % len(PLACES) :][:1]
        for names in ([], *([place] for place in places)):
            if not can_combine(case, names):
                continue
            batch = batch_with(case, names)
            loss, slope = run(case.rule, batch)
            arrays, _ = batch.arguments()
            ours = a_loss(case, batch, from_logits=True)
            what = f"{case.name} {names}"
            # Keras takes the mean itself, on PyTorch with a divisor in float32.
            tolerance = 1e-6 if names == ["mean"] else 1e-12

            y, z = np.array(arrays["labels"]), np.array(arrays["logits"])

            def value(z, ours=ours, y=y):
                return ours(y, z)

            close(batch.back(number(value(z))), loss, tolerance, what)
            close(batch.back(gradient(value, z)), slope, tolerance, what)


@check
def compiled_it_is_the_reference():
    for i, case in [*enumerate(OURS)][SHARE]:
        names = [PLACES[i % len(PLACES)]]
        batch = batch_with(case, names if can_combine(case, names) else [])
        loss, _ = run(case.rule, batch)
        arrays, _ = batch.arguments()
        ours = compiled(a_loss(case, batch, from_logits=True).__call__)
        value = ours(*(ops.convert_to_tensor(arrays[name]) for name in ("labels", "logits")))
        close(batch.back(number(value)), loss, 1e-6 if names == ["mean"] else 1e-12, case.name)


@check
def probabilities_are_turned_into_logits():
    for case in OURS[SHARE]:
        batch = make_batch(case, scale=1.0)
        p = np.exp(batch.logits)
        p /= p.sum(1, keepdims=True)
        ours = a_loss(case, batch)
        reference = cross_entropy(np.log(p), batch.labels, case.rule)
        close(number(ours(batch.labels, p)), reference, 1e-12, case.name)
        # What is not allowed to be 0 in Keras is 1e-7.
        sure = np.array([[1.0, 0.0, 0.0, 0.0, 0.0]])
        assert np.isfinite(number(ours(np.array([1]), sure))).all(), case.name
        assert np.isfinite(gradient(lambda q, f=ours: f(np.array([1]), q), sure)).all(), case.name


@check
def binary_rules_are_the_reference():
    labels = np.array([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    z = RANDOM.normal(size=(2, 5)) * 3
    for name, rule, _ in BINARY:
        rows, slope = binary_cross_entropy_and_gradient(z, labels, rule)
        ours = sk.BinaryCrossentropy(from_logits=True, rule=rule, reduction=None, dtype="float64")
        close(number(ours(labels, z)), rows.mean(1), 1e-12, name)
        close(gradient(lambda z, f=ours: f(labels, z), z), slope / 5, 1e-12, name)
        other = sk.BinaryCrossentropy(rule=rule, reduction=None, dtype="float64")
        close(number(other(labels, 1 / (1 + np.exp(-z)))), rows.mean(1), 1e-9, name)
        if not isinstance(getattr(rule, "rates", 0), tuple):
            first = sk.BinaryCrossentropy(True, axis=1, rule=rule, reduction=None, dtype="float64")
            tall = first(labels[:, :, None], z[:, :, None])
            close(number(tall)[:, 0], rows.mean(1), 1e-12, name)


@check
def without_smoothing_and_with_it_they_are_keras_s_own():
    one_hot, wide = np.eye(K)[LABELS], LOGITS[:, None, :]
    weights = RANDOM.uniform(size=12)
    ways = [("sum_over_batch_size", None), ("sum_over_batch_size", weights), (None, weights)]
    ways += [("sum", None), ("mean", weights), ("mean_with_sample_weight", weights)]
    every = 3 if BACKEND == "jax" else 1
    for i, (reduction, weight) in enumerate(ways[::every]):
        for logits in (True, False) if BACKEND == "torch" else (i % 2 == (BACKEND == "jax"),):
            y_pred = LOGITS if logits else PROBS
            pairs = [("Sparse", LABELS, y_pred, {}), ("Sparse", LABELS[:, None], y_pred, {})]
            pairs += [("", one_hot, y_pred, {"label_smoothing": a}) for a in (0.0, 0.1)]
            for kind, y_true, predicted, options in pairs:
                name = f"{kind}CategoricalCrossentropy"
                options = {"from_logits": logits, "reduction": reduction, **options}
                mine, theirs = (getattr(m, name)(**options) for m in (sk, keras.losses))
                values = [f(y_true, predicted, sample_weight=weight) for f in (mine, theirs)]
                close(*map(number, values), 2e-6, (name, options))
            labels = (LOGITS > 0.5).astype(int)
            y_pred = LOGITS if logits else 1 / (1 + np.exp(-LOGITS))
            for alpha in (0.0, 0.1):
                options = {"from_logits": logits, "reduction": reduction, "label_smoothing": alpha}
                mine, theirs = (m.BinaryCrossentropy(**options) for m in (sk, keras.losses))
                values = [f(labels, y_pred, sample_weight=weight) for f in (mine, theirs)]
                close(*map(number, values), 2e-6, options)
    single = LABELS % 2
    for y_pred in (LOGITS[:, :1], LOGITS[:, 0]):
        for y_true in (single, single[:, None]):
            mine, theirs = (m.BinaryCrossentropy(from_logits=True) for m in (sk, keras.losses))
            close(number(mine(y_true, y_pred)), number(theirs(y_true, y_pred)), 2e-6)
    mine, theirs = (m.SparseCategoricalCrossentropy(True) for m in (sk, keras.losses))
    y_true = LABELS[:, None]
    close(number(mine(y_true, wide)), number(theirs(y_true, wide)), 2e-6)


@check
def ignoring_rows_is_deleting_them():
    gone = np.arange(12) % 3 == 0
    labels, weights = np.where(gone, 255, LABELS), RANDOM.uniform(size=12)
    ways = [("sum_over_batch_size", None), ("sum_over_batch_size", weights), ("sum", weights)]
    ways += [("mean_with_sample_weight", weights), ("sum", None)]
    for logits, (reduction, weight) in [*itertools.product((True, False), ways)][
        :: 4 if BACKEND == "jax" else 1
    ]:
        y_pred = (LOGITS if logits else PROBS).copy()
        y_pred[gone] = np.nan
        options = {"from_logits": logits, "reduction": reduction, "label_smoothing": 0.1}
        options["dtype"] = "float64"
        whole = sk.SparseCategoricalCrossentropy(ignore_class=255, **options)
        part = sk.SparseCategoricalCrossentropy(**options)
        left = weight[~gone] if weight is not None else None
        tolerance = 1e-12 if reduction == "sum" else 1e-6  # see above

        def of_whole(z, f=whole, w=weight):
            return f(labels, z, w)

        def of_part(z, f=part, w=left):
            return f(labels[~gone], z, w)

        close(number(of_whole(y_pred)), number(of_part(y_pred[~gone])), tolerance, options)
        slope = gradient(of_whole, y_pred)
        assert not slope[gone].any(), options
        close(slope[~gone], gradient(of_part, y_pred[~gone]), tolerance, options)
    none = sk.SparseCategoricalCrossentropy(True, ignore_class=255)(np.full(12, 255), LOGITS)
    assert number(none) == 0


@check
def the_metric_is_the_hard_loss():
    smoothed = sk.SparseCategoricalCrossentropy(True, 255, label_smoothing=0.3)
    labels = np.where(np.arange(12) % 3 == 0, 255, LABELS)
    counted, weights = labels != 255, RANDOM.uniform(size=12)
    rows = cross_entropy(LOGITS[counted], labels[counted], Uniform(0.0))
    for weight in (None, weights):
        metric = sk.NLL(smoothed)
        w = np.ones(counted.sum()) if weight is None else weight[counted]
        for part in (slice(0, 5), slice(5, 12)):
            metric.update_state(
                labels[part], LOGITS[part], None if weight is None else weight[part]
            )
        close(number(metric.result()), (w * rows).sum() / w.sum(), 2e-6)
    grid = sk.NLL(sk.SparseCategoricalCrossentropy(True, 255, label_smoothing=0.3))
    grid.update_state(labels.reshape(3, 4), LOGITS.reshape(3, 4, K), np.array([1.0, 2.0, 0.5]))
    w = np.repeat([1.0, 2.0, 0.5], 4)[counted]
    close(number(grid.result()), (w * rows).sum() / w.sum(), 2e-6)
    plain = sk.NLL(sk.CategoricalCrossentropy(label_smoothing=0.3))
    plain.update_state(np.eye(K)[LABELS], PROBS)
    close(number(plain.result()), cross_entropy(LOGITS, LABELS, Uniform(0.0)).mean(), 2e-6)
    binary = sk.NLL(sk.BinaryCrossentropy(True, 0.3))
    binary.update_state((LOGITS > 0).astype(int), LOGITS)
    close(number(binary.result()), np.log1p(np.exp(-np.abs(LOGITS))).mean(), 2e-6)
    refuses("loss must be a loss of softhot.keras", sk.NLL, keras.losses.MeanSquaredError())


@check
def masks_of_layers_count():
    """Padding that an Embedding masks, beside a class that is ignored."""
    tokens = np.array([[1, 2, 3, 0], [4, 5, 0, 0]])
    labels = np.array([[1, 255, 2, 0], [3, 4, 0, 0]])
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Embedding(6, K, mask_zero=True), keras.layers.Dense(K)]
    )
    loss = sk.SparseCategoricalCrossentropy(True, 255, label_smoothing=0.1)
    model.compile(loss=loss, weighted_metrics=[sk.NLL(loss)])
    value, nll = model.evaluate(tokens, labels, verbose=0)
    use = (tokens > 0) & (labels != 255)
    logits = number(model(tokens))[use]
    close(value, cross_entropy(logits, labels[use], Uniform(0.1)).mean(), 1e-5)
    close(nll, cross_entropy(logits, labels[use], Uniform(0.0)).mean(), 1e-5)


@check
def configurations_go_through_json():
    losses = [sk.SparseCategoricalCrossentropy(True, 3, "sum", 1, rule=c.rule) for c in OURS]
    losses += [
        sk.CategoricalCrossentropy(rule=c.rule, name="x", dtype="float64")
        for c in OURS
        if c.loss is None
    ]
    losses += [sk.BinaryCrossentropy(axis=0, rule=rule) for _, rule, _ in BINARY]
    losses += [sk.SparseCategoricalCrossentropy(label_smoothing=0.1)]
    for loss in losses:
        there = json.loads(json.dumps(keras.losses.serialize(loss)))
        assert there["registered_name"] == f"softhot>{type(loss).__name__}"
        back = keras.losses.deserialize(there)
        assert type(back) is type(loss)
        assert back.rule == loss.rule
        assert back.get_config() == loss.get_config()
        assert type(loss).from_config(loss.get_config()).get_config() == loss.get_config()
        metric = sk.NLL(loss, name="watch")
        again = sk.NLL.from_config(json.loads(json.dumps(metric.get_config())))
        assert again.get_config() == metric.get_config()
    assert losses[-1].get_config()["rule"] == {"rule": "Uniform", "alpha": 0.1}


@check
def half_precision_is_computed_in_single():
    k = 3000
    logits, labels = RANDOM.normal(size=(4, k)).astype("float16"), np.array([2049, 2999, 257, 1])
    expected = cross_entropy(logits.astype(float), labels, Uniform(0.1)).mean()
    policies = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", None)
    for policy in policies:
        loss = sk.SparseCategoricalCrossentropy(True, label_smoothing=0.1, dtype=policy)
        value = loss(labels, ops.convert_to_tensor(logits))
        assert (loss.dtype, keras.backend.standardize_dtype(value.dtype)) == ("float32", "float32")
        close(number(value), expected, 1e-5, policy)
    keras.config.set_floatx("bfloat16")
    try:
        close(
            number(sk.SparseCategoricalCrossentropy(True, label_smoothing=0.1)(labels, logits)),
            expected,
            1e-5,
        )
    finally:
        keras.config.set_floatx("float32")


@check
def bad_values_raise_or_are_nan():
    bad = LABELS.copy()
    bad[2] = K
    loss = sk.SparseCategoricalCrossentropy(True, reduction=None, label_smoothing=0.1)
    probs = sk.SparseCategoricalCrossentropy(reduction=None, label_smoothing=0.1)
    soft = sk.CategoricalCrossentropy(True, 0.1, reduction=None)
    binary = sk.BinaryCrossentropy(True, 0.1, reduction=None)
    one_hot, half = np.eye(K)[LABELS], LABELS.astype(float)
    one_hot[2], half[2] = 1.0, 0.5
    shifted = PROBS.copy()
    shifted[2] = LOGITS[2] - 5
    binary_labels = np.zeros((12, K))
    binary_labels[2, 1] = 2.0
    for function, y_true, y_pred, text in (
        (loss, bad, LOGITS, "y_true[2] must be a class id in 0 .. 4; got 5"),
        (loss, half, LOGITS, "y_true[2] must be a class id"),
        (probs, LABELS, shifted, "y_pred[2, 0] must be a probability"),
        (soft, one_hot, LOGITS, "y_true[2] must be a row that sums to 1"),
        (binary, binary_labels, LOGITS, "y_true[2, 1] must be"),
    ):
        refuses(text, function, y_true, y_pred)
        if BACKEND == "torch":
            continue
        tensors = [ops.convert_to_tensor(y, dtype="float32") for y in (y_true, y_pred)]
        rows = number(compiled(function.__call__)(*tensors))
        assert np.isnan(rows).tolist() == [i == 2 for i in range(12)], text
        slope = number(compiled(lambda y, z, f=function: slopes(f, y, z))(*tensors))
        assert np.isnan(slope[2]).any() or function is probs, text
        assert np.isfinite(np.delete(slope, 2, axis=0)).all(), text


def slopes(function, y_true, y_pred):
    if BACKEND == "jax":
        import jax

        return jax.grad(lambda z: function(y_true, z).sum())(y_pred)
    import tensorflow as tf

    return tf.gradients(function(y_true, y_pred), y_pred)[0]


@check
def wrong_arguments_raise():
    sparse, dense = sk.SparseCategoricalCrossentropy, sk.CategoricalCrossentropy
    refuses("from_logits must be True or False; got 0.1", sparse, 0.1)
    refuses(
        "label_smoothing must be left out beside a rule",
        sparse,
        rule=Uniform(0.1),
        label_smoothing=0.1,
    )
    refuses("Uniform.alpha must be a real number in [0, 1); got 1.0", sparse, label_smoothing=1.0)
    refuses("Uniform.alpha must be", dense, label_smoothing=True)
    refuses("Bernoulli.alpha must be", sk.BinaryCrossentropy, label_smoothing=-0.1)
    refuses("needs nothing from the batch", sparse, rule=Teacher(0.5))
    refuses("needs nothing from the batch", dense, rule=Uniform(PerSample()))
    refuses("rule must be a binary rule", sk.BinaryCrossentropy, rule=Uniform(0.1))
    refuses("rule must be", sparse, rule=Bernoulli(0.1))
    refuses("ignore_class must be an integer", sparse, ignore_class=0.5)
    refuses("y_true must be of shape (12,)", sparse(True), LABELS[:-1], LOGITS)
    refuses("y_true must be of shape (12, 5)", dense(True), LABELS, LOGITS)
    refuses("axis must be", sparse(True, axis=2), LABELS, LOGITS)
    refuses("y_pred.shape[1] must be at least 2", sparse(True), LABELS, LOGITS[:, :1])
    refuses("y_true must be an array or a tensor", sparse(True), [0, 1], [[1.0, 2.0], [0.0, 1.0]])
    refuses("class ids for Focal", dense(True, rule=Focal(2.0)), np.eye(K)[LABELS], LOGITS)


@check
def rows_mixed_in_half_precision_pass():
    lam = np.float16(0.3)
    mixed = np.eye(K, dtype="float16")[LABELS] * lam + np.eye(K, dtype="float16")[
        LABELS[::-1]
    ] * np.float16(0.7)
    value = sk.CategoricalCrossentropy(True, 0.1)(mixed, LOGITS)
    exact = mixed.astype(float) / mixed.astype(float).sum(1, keepdims=True)
    close(number(value), cross_entropy(LOGITS, exact, Uniform(0.1), smooth_again=True).mean(), 1e-5)


@check
def logits_after_a_softmax_warn():
    layer = keras.layers.Dense(K, activation="softmax")
    y_pred = layer(LOGITS.astype("float32"))
    exact = (
        cross_entropy(number(y_pred._keras_logits), LABELS, Uniform(0.1))
        if hasattr(y_pred, "_keras_logits")
        else None
    )
    if exact is None:  # JAX arrays carry no attributes
        return
    close(
        number(sk.SparseCategoricalCrossentropy(label_smoothing=0.1)(LABELS, y_pred)),
        exact.mean(),
        1e-5,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sk.SparseCategoricalCrossentropy(from_logits=True)(LABELS, y_pred)
    assert [w.category for w in caught] == [SofthotWarning]


@check
def importing_it_loads_no_other_framework():
    frameworks = {"torch", "jax", "tensorflow", "sklearn", "optax"}
    found = {name.partition(".")[0] for name in LOADED_BY_SOFTHOT}
    assert not (found - BEFORE) & frameworks


LOADED_BY_SOFTHOT = set(sys.modules)

import keras_training  # noqa: E402, F401 - its checks run too; it loads scikit-learn

if __name__ == "__main__":
    assert len(make_batch(CASES[0]).logits) == N
    assert os.environ["KERAS_BACKEND"] == BACKEND
    main()
