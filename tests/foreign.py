"""Losses and targets of other hands, written out from their formulas."""

import numpy as np
import torch
import torch.nn.functional as F

SOFTMAX = ("uniform", "others", "classy_vision", "kept", "skip_pad")
ON_OFF = {
    "uniform": lambda e, k: (1 - (k - 1) * e / k, e / k),
    "others": lambda e, k: (1 - e, e / (k - 1)),
    "classy_vision": lambda e, k: ((k + e) / (k * (1 + e)), e / (k * (1 + e))),
    "kept": lambda e, k: (((k - 1) * e + 1) / k, (1 - e) / k),
    "binary_half": lambda e, k: (1 - e / 2, e / 2),
    "binary_full": lambda e, k: (1 - e, e),
    "skip_pad": lambda e, k: (1 - e, e / (k - 2)),
    "sigmoid_over_classes": lambda e, k: (1 - (k - 1) * e / k, e / k),
    "one_sided": lambda e, k: (1 - e, 0.0),
}
UNIFORM = {  # the uniform alpha with the same targets
    "uniform": lambda e, k: e,
    "others": lambda e, k: e * k / (k - 1),
    "classy_vision": lambda e, k: e / (1 + e),
    "kept": lambda e, k: 1 - e,
    "binary_half": lambda e, k: e,
    "binary_full": lambda e, k: 2 * e,
}


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def targets_of(name, e, k, labels):
    """Dense targets of a convention."""
    on, off = ON_OFF[name](e, k)
    rows = np.full((len(labels), k), off)
    rows[np.arange(len(labels)), labels] = on
    if name == "skip_pad":
        rows[:, 0] = 0
        rows[labels == 0] = 0
    return rows


def loss_of(name, e, reduce=lambda rows: rows):
    if name in SOFTMAX:

        def softmax_loss(z, y):
            return reduce(-(targets_of(name, e, z.shape[1], y) * log_softmax(z)).sum(axis=1))

        return softmax_loss

    def sigmoid_loss(z, y):
        q = targets_of(name, e, z.shape[1], y)
        return reduce((np.logaddexp(0, z) - q * z).mean(axis=1))

    return sigmoid_loss


def names(found):
    """Those of its mistakes."""
    return {mistake.name for mistake in found.mistakes}


def uniform(z, y, e=0.1):
    return -(targets_of("uniform", e, z.shape[1], y) * log_softmax(z)).sum(axis=1)


def torch_uniform(z, y, e=0.1):
    return F.cross_entropy(z, y, label_smoothing=e)


class TorchSmoothed(torch.nn.Module):
    def forward(self, z, y):
        return torch_uniform(z, y)


class FixedClasses(torch.nn.Module):
    """The hand-written module: K is an argument, the target is built in forward."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, pred, target):
        pred = pred.log_softmax(dim=-1)
        q = torch.full_like(pred, 0.1 / (self.classes - 1))
        q.scatter_(1, target.unsqueeze(1), 0.9)
        return torch.mean(torch.sum(-q * pred, dim=-1))
