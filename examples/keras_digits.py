"""Label smoothing in Keras 3: scikit-learn's digits, with and without.

    KERAS_BACKEND=jax python examples/keras_digits.py

Integer labels, one line to smooth and one to watch: ``val_loss`` is smoothed too, with a floor of
its own, so the callback and the comparison look at ``val_nll``, the loss on the labels as they are.
"""

import argparse

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softhot.keras


def network():
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def fit(label_smoothing, data, epochs):
    x, x_test, y, y_test = data
    keras.utils.set_random_seed(0)
    model = network()
    loss = softhot.keras.SparseCategoricalCrossentropy(
        from_logits=True, label_smoothing=label_smoothing
    )
    model.compile("adam", loss=loss, metrics=["accuracy", softhot.keras.NLL(loss)])
    stop = keras.callbacks.EarlyStopping("val_nll", patience=5, restore_best_weights=True)
    model.fit(x, y, epochs=epochs, validation_split=0.2, callbacks=[stop], verbose=0)
    return model.evaluate(x_test, y_test, verbose=0, return_dict=True)


def main(epochs=50):
    features, labels = load_digits(return_X_y=True)
    data = train_test_split(features / 16, labels, test_size=0.5, random_state=0)
    report = {"hard": fit(0.0, data, epochs), "smoothed": fit(0.1, data, epochs)}
    for name, scores in report.items():
        print(f"{name:9s}", "  ".join(f"{k} {v:.4f}" for k, v in sorted(scores.items())))
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=50)
    main(parser.parse_args().epochs)
