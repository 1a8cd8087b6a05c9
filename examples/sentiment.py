"""How people feel about films: Embedding and LSTM in Keras, and what some twenty raters said.

    KERAS_BACKEND=torch python examples/sentiment.py

The snippets are fetched once: softhot datasets --fetch movie_snippets
"""

import re
from collections import Counter

import keras
import numpy as np
from small import run

import softhot.keras
from softhot.datasets import load, split
from softhot.metrics import Predictions, accuracy, confidence, nll

WORDS, LENGTH = 4000, 24
NEUTRAL = 1  # the class that two classes leave out


def encode(texts, train):
    """Word numbers (N, LENGTH): 0 is nothing, 1 a word not among the commonest of training."""
    words = [re.findall(r"[a-z']+", text.lower()) for text in texts]
    common = Counter(word for row in train for word in words[row]).most_common(WORDS - 2)
    number = {word: n for n, (word, _) in enumerate(common, start=2)}
    encoded = np.zeros((len(texts), LENGTH), dtype=np.int32)
    for row, text in enumerate(words):
        ids = [number.get(word, 1) for word in text[:LENGTH]]
        encoded[row, LENGTH - len(ids) :] = ids
    return encoded


def train(x, targets, label_smoothing, classes, epochs):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((LENGTH,)),
            keras.layers.Embedding(WORDS, 16),
            keras.layers.LSTM(32),
            keras.layers.Dense(classes),
        ]
    )
    loss = softhot.keras.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    model.compile(keras.optimizers.Adam(5e-3), loss=loss)
    model.fit(x, targets, epochs=epochs, batch_size=64, verbose=0)
    return model


def main(rows=3000, epochs=6):
    data = load("movie_snippets")
    parts = split(data, rows, 500, 2000, seed=0)
    x, classes = encode(data.features, parts.train), len(data.class_names)
    one_hot, votes = np.eye(classes)[data.labels], data.soft_labels
    report = {"two classes": two_classes(x, data.labels, parts, epochs)}
    for name, targets, alpha in (
        ("hard labels", one_hot, 0.0),
        ("smoothed, 0.1", one_hot, 0.1),
        ("votes", votes, 0.0),
    ):
        model = train(x[parts.train], targets[parts.train], alpha, classes, epochs)
        logits = model.predict(x[parts.test], verbose=0)
        said = Predictions.from_logits(logits, data.labels[parts.test])
        humans = Predictions.from_logits(logits, votes[parts.test])
        report[name] = {
            "accuracy": accuracy(said),
            "confidence": confidence(said),
            "NLL": nll(said),
            "NLL of votes": nll(humans),
        }
        print(f"{name:14s}", "   ".join(f"{k} {v:.3f}" for k, v in report[name].items()))
    return report


def two_classes(x, labels, parts, epochs):
    """The mistake: a model that can only say negative or positive."""
    rows = parts.train[labels[parts.train] != NEUTRAL]
    positive = (labels == 2).astype(int)
    model = train(x[rows], np.eye(2)[positive[rows]], 0.1, 2, epochs)
    said = Predictions.from_logits(model.predict(x[parts.test], verbose=0), positive[parts.test])
    neutral = labels[parts.test] == NEUTRAL
    found = {
        "accuracy": float((said.correct & ~neutral).mean()),
        "without neutral": accuracy(said[~neutral]),
        "confidence on neutral": confidence(said[neutral]),
    }
    print("two classes   ", "   ".join(f"{k} {v:.3f}" for k, v in found.items()))
    return found


if __name__ == "__main__":
    run(main)
