"""Grid search over the smoothing of a Keras network, on any of its backends.

KERAS_BACKEND=torch python examples/sklearn_keras_grid.py
"""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from softhot.sklearn_keras import KerasClassifier


def network(input_shape, num_classes, width=32):
    return keras.Sequential(
        [
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )


def main(epochs=15):
    X, y = load_digits(return_X_y=True)
    model = KerasClassifier(network, epochs=epochs, batch_size=64, random_state=0)
    grid = {"label_smoothing": [0.0, 0.1, 0.2]}
    search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=3).fit(X / 16, y)
    for candidate, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(candidate, f"log loss on hard labels {-score:.4f}")
    print("best:", search.best_params_)
    return search


if __name__ == "__main__":
    main()
