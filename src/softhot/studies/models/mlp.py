"""A perceptron with ReLU, dropout behind each hidden layer; without hidden layers linear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from softhot.studies.models.network import Dropout
from softhot.studies.spec import TrialSpec
from softhot.studies.train import standardized

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split


def inputs(dataset: Dataset, split: Split) -> Tensor:
    """Standardised features, (N, D)."""
    return torch.from_numpy(standardized(dataset.features, split.train)).flatten(1)


def build(trial: TrialSpec, x: Tensor, classes: int, noise: torch.Generator) -> nn.Module:
    """The network with PyTorch's own initial weights."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = x[0].numel()
    for following in trial.hidden or ():
        layers += [nn.Linear(width, following), nn.ReLU()]
        if trial.arm.recipe.dropout:
            layers.append(Dropout(trial.arm.recipe.dropout, noise))
        width = following
    layers.append(nn.Linear(width, classes))
    return nn.Sequential(*layers)
