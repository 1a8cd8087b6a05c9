"""PyTorch's loss, the loss many write by hand, and the number that makes them equal.

python examples/torch_conventions.py
"""

import torch
from small import digits, network, run
from torch import nn

import softhot
from softhot.torch import CrossEntropyLoss


class HandWritten(nn.Module):
    """A loss as found in many repositories: the moved mass goes to the K - 1 wrong classes."""

    def __init__(self, smoothing):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits, labels):
        others = self.smoothing / (logits.shape[1] - 1)
        target = torch.full_like(logits, others).scatter(1, labels[:, None], 1 - self.smoothing)
        return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def main(K=10):
    x, y = digits().test
    logits = 4 * network()(x).detach().double()
    to_all = softhot.convert_alpha(0.1, "others", "uniform", num_classes=K)
    losses = {
        ("torch", 0.1): nn.CrossEntropyLoss(label_smoothing=0.1),
        ("softhot", 0.1): CrossEntropyLoss(label_smoothing=0.1),
        ("by hand", 0.1): HandWritten(0.1),
        ("softhot Others", 0.1): CrossEntropyLoss(rule=softhot.Others(0.1)),
        ("torch", to_all): nn.CrossEntropyLoss(label_smoothing=to_all),
    }
    report = {}
    for (name, number), criterion in losses.items():
        report[name, number] = criterion(logits, y).item()
        found = softhot.diagnose(criterion, argument=number, num_classes=K)
        print(
            f"{name:14s} {number:.4f}   loss {report[name, number]:.6f}   "
            f"which is {found.convention} {found.alpha:.4f}"
        )
    return report


if __name__ == "__main__":
    run(main)
