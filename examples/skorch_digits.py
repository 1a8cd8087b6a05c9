"""Label smoothing as a parameter of a grid search with skorch.

python examples/skorch_digits.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from softhot.torch import CrossEntropyLoss


def network():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def main(epochs=10):
    X, y = load_digits(return_X_y=True)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        network, criterion=CrossEntropyLoss, optimizer=torch.optim.Adam, lr=3e-3, max_epochs=epochs,
        train_split=None, verbose=0,
    )  # fmt: skip
    grid = {"criterion__label_smoothing": [0.0, 0.05, 0.1, 0.2]}
    search = GridSearchCV(net, grid, scoring="neg_log_loss", cv=3)
    search.fit((X / 16).astype(np.float32), y)
    for candidate, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(candidate, f"log loss on hard labels {-score:.4f}")
    print("best:", search.best_params_)
    return search


if __name__ == "__main__":
    main()
