"""A small convolutional network, made to be fast on a CPU.

Each width is a 3 x 3 convolution with stride 2 and ReLU, then one linear layer. Strides instead of
pooling and pixels in channels-last order make it several times faster there.
"""

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
    """Images standardised by channel, (N, C, H, W), channels last in memory."""
    x = torch.from_numpy(standardized(dataset.features, split.train))
    return x.contiguous(memory_format=torch.channels_last)


def build(trial: TrialSpec, x: Tensor, classes: int, noise: torch.Generator) -> nn.Module:
    """The network with PyTorch's own initial weights; dropout stands before the linear layer."""
    layers: list[nn.Module] = []
    channels, height, width = x.shape[1:]
    for following in trial.hidden or ():
        convolution = nn.Conv2d(channels, following, 3, stride=2, padding=1)
        layers += [convolution, nn.ReLU(inplace=True)]
        channels, height, width = following, -(-height // 2), -(-width // 2)
    layers.append(nn.Flatten())
    if trial.arm.recipe.dropout:
        layers.append(Dropout(trial.arm.recipe.dropout, noise))
    layers.append(nn.Linear(channels * height * width, classes))
    network = nn.Sequential(*layers)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
