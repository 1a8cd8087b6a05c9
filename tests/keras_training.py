"""Checks of the Keras losses that train a network or save it: part of :mod:`keras_checks`."""

import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

import softhot.keras as sk
from batches import K
from keras_harness import BACKEND, RANDOM, check, close, number
from softhot import MaxSup, Uniform, cross_entropy


def digits():
    features, labels = load_digits(return_X_y=True)
    return (features / 16).astype("float32"), labels


def network(activation=None):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation=activation),
        ]
    )


def history(loss, features, labels, activation=None, metrics=()):
    model = network(activation)
    model.compile(keras.optimizers.SGD(0.5), loss=loss, metrics=list(metrics))
    options = {"epochs": 3, "batch_size": 256, "validation_split": 0.2, "shuffle": False}
    return model.fit(features, labels, verbose=0, **options).history


@check
def training_is_that_of_keras():
    features, labels = digits()
    one_hot = np.eye(10)[labels]
    for activation, logits in ((None, True), ("softmax", False)):
        plain = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
        theirs = history(plain, features, labels, activation)
        ours = history(sk.SparseCategoricalCrossentropy(logits), features, labels, activation)
        close(ours["loss"], theirs["loss"], 1e-4)
        close(ours["val_loss"], theirs["val_loss"], 1e-4)
        assert theirs["loss"][-1] < 0.7 * theirs["loss"][0]
    dense = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    nll = keras.metrics.CategoricalCrossentropy("nll", from_logits=True)
    theirs = history(dense, features, one_hot, metrics=[nll])
    mine = sk.SparseCategoricalCrossentropy(True, label_smoothing=0.1)
    ours = history(mine, features, labels, metrics=[sk.NLL(mine)])
    for name in ("loss", "val_loss", "nll", "val_nll"):
        close(ours[name], theirs[name], 1e-4, name)
    assert ours["val_nll"] != ours["val_loss"]


@check
def saved_models_load():
    features, labels = digits()
    loss = sk.SparseCategoricalCrossentropy(True, rule=Uniform(0.1) + MaxSup(0.1))
    model = network()
    model.compile("adam", loss=loss, metrics=["accuracy", sk.NLL(loss)])
    stop = keras.callbacks.EarlyStopping("val_nll", patience=3)  # finds its own direction
    model.fit(
        features,
        labels,
        epochs=1,
        batch_size=256,
        validation_split=0.2,
        callbacks=[stop],
        verbose=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        back = keras.saving.load_model(path)
    assert back.loss.get_config() == loss.get_config()
    expected = model.evaluate(features, labels, verbose=0, return_dict=True)
    found = back.evaluate(features, labels, verbose=0, return_dict=True)
    assert expected.keys() == found.keys() == {"loss", "accuracy", "nll"}
    for name, value in expected.items():
        close(found[name], value, 1e-6, name)
    back.fit(features, labels, epochs=1, batch_size=256, verbose=0)


@check
def tf_keras_is_the_same():
    """With TensorFlow: its own name for Keras, its data sets and its strategies."""
    if BACKEND != "tensorflow":
        return
    import tensorflow as tf

    features, labels = digits()
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(256)
    loss = sk.SparseCategoricalCrossentropy(True, label_smoothing=0.1)
    expected = history(loss, features, labels)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = tf.keras.models.clone_model(network())
        model.set_weights(network().get_weights())
        model.compile(tf.keras.optimizers.SGD(0.5), loss, metrics=[sk.NLL(loss)])
    train = data.take(5)
    curve = model.fit(train, epochs=3, verbose=0).history
    close(curve["loss"], expected["loss"], 0.2)  # of nearly the same rows
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        back = tf.keras.models.load_model(Path(folder) / "model.keras")
    close(back.evaluate(data, verbose=0), model.evaluate(data, verbose=0), 1e-6)


@check
def sequences_of_unknown_length_train():
    """Sizes that are not known before a batch comes, in more than one dimension."""
    model = keras.Sequential([keras.Input((None, 8)), keras.layers.Dense(K)])
    loss = sk.SparseCategoricalCrossentropy(True, -1, label_smoothing=0.1)
    dense = sk.CategoricalCrossentropy(True, 0.1)
    for length in (3, 7):
        x = RANDOM.normal(size=(5, length, 8)).astype("float32")
        y = RANDOM.integers(-1, K, size=(5, length))
        y[0, 0] = 0
        model.compile("sgd", loss=loss, metrics=[sk.NLL(loss)])
        counted = y >= 0
        rows = cross_entropy(number(model(x))[counted], y[counted], Uniform(0.1))
        close(model.evaluate(x, y, batch_size=5, verbose=0)[0], rows.mean(), 1e-5)
        curve = model.fit(x, y, batch_size=2, verbose=0).history
        assert np.isfinite(curve["loss"]).all()
        model.compile("sgd", loss=dense, metrics=[sk.NLL(dense)])
        curve = model.fit(x, np.eye(K)[y], batch_size=2, verbose=0).history
        assert np.isfinite(curve["loss"]).all()


@check
def mixed_precision_trains():
    features, labels = digits()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        curve = history(
            sk.SparseCategoricalCrossentropy(True, label_smoothing=0.1), features, labels
        )
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(curve["loss"]).all()
    assert curve["loss"][-1] < 0.8 * curve["loss"][0]
