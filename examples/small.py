"""What the examples share: digits in three parts, a small network, and how it is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softhot.datasets import load, split
from softhot.metrics import Predictions


@dataclass
class Parts:
    """Rows to train on, to choose by, and to report on: features (N, D) and class ids (N,)."""

    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def digits(train: int = 600, valid: int = 300, test: int = 897) -> Parts:
    """Handwritten digits, 8 x 8 pixels, scaled to 0 .. 1."""
    data = load("digits")
    rows = split(data, train, valid, test, seed=0)
    x, y = torch.from_numpy(data.features / 16), torch.from_numpy(data.labels)
    return Parts(*((x[part], y[part]) for part in (rows.train, rows.validation, rows.test)))


def network(inputs: int = 64, classes: int = 10, hidden: int = 128, seed: int = 0) -> nn.Sequential:
    """The same initial weights for the same seed, whatever it will be trained with."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def fit(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    rows: tuple[Tensor, Tensor],
    epochs: int = 100,
    seed: int = 0,
) -> nn.Module:
    """Train with Adam; batches come in the same order for the same seed."""
    x, y = rows
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=order).split(64):
            optimizer.zero_grad()
            criterion(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model


def predict(model: nn.Module, rows: tuple[Tensor, Tensor]) -> Predictions:
    """What the model says of these rows, beside what they are."""
    with torch.no_grad():
        return Predictions.from_logits(model(rows[0]), rows[1])


def run(main: Callable[[], Any], draw: Callable[[Any], Any] | None = None) -> None:
    """What a script does when it is run: print, and save its figure if a file is named."""
    report = main()
    if draw and len(sys.argv) > 1:
        draw(report).savefig(sys.argv[1])
