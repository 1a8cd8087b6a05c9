"""Other people's kernels for a GPU, where they are installed, each as a loss of tensors."""

import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F

import softhot.torch

ALPHA = 0.1
Loss = Callable[..., torch.Tensor]


def logits_in(device: torch.device) -> dict[str, Loss]:
    """Losses of ``(logits, labels)``, all smoothed."""
    found = {
        "softhot": lambda z, y: softhot.torch.cross_entropy(z, y, label_smoothing=ALPHA),
        "softhot, in place": _in_place,
        "torch": lambda z, y: F.cross_entropy(z, y, label_smoothing=ALPHA),
    }
    if device.type == "cuda":
        found["torch.compile"] = torch.compile(found["torch"])
        found |= {name: make() for name, make in _KERNELS.items() if _module(name)}
    return found


def hidden_in(device: torch.device, alpha: float, threshold: float) -> dict[str, Loss]:
    """Losses of ``(hidden, weight, labels)``; those that cannot smooth say hard."""
    ours = softhot.torch.linear_cross_entropy
    found: dict[str, Loss] = {
        "softhot": lambda h, w, y: ours(h, w, y, label_smoothing=alpha),
        "softhot, hard": ours,
        "softhot, filtered": lambda h, w, y: ours(h, w, y, label_smoothing=alpha, filter=threshold),
        "torch": lambda h, w, y: F.cross_entropy(F.linear(h, w), y, label_smoothing=alpha),
    }
    if device.type == "cuda":
        found["torch.compile"] = torch.compile(found["torch"])
        found |= {name: make(alpha) for name, make in _LAYERS.items() if _module(name)}
    return found


def missing(device: torch.device) -> dict[str, str]:
    """Which are left out, and why."""
    if device.type != "cuda":
        return dict.fromkeys((*_KERNELS, *_LAYERS, "torch.compile"), "there is no GPU")
    names = (*_KERNELS, *_LAYERS)
    return {name: "not installed" for name in names if not _module(name)}


def _in_place(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The gradient where the logits were, computed with the loss."""
    return _InPlace.apply(logits, labels)


class _InPlace(torch.autograd.Function):
    """Measures the kernel alone: it works on a copy of the logits made at the first call.

    From the second on that copy holds gradients, whose loss costs the same.
    """

    source = spare = None

    @staticmethod
    def forward(ctx, logits, labels):
        from softhot.kernels.native import Coefficients
        from softhot.kernels.triton import launch

        rows = launch.Rows(
            *(labels, None, None, ALPHA, False, Coefficients(), None, 0, None, 0, logits.shape[1])
        )
        ones = torch.ones((), device=logits.device)
        divisor = torch.full((), float(len(labels)), device=logits.device)
        if _InPlace.source != (logits.data_ptr(), logits.shape):
            _InPlace.source, _InPlace.spare = (logits.data_ptr(), logits.shape), logits.clone()
        loss, ctx.slopes = launch.in_place(_InPlace.spare, rows, ones, divisor)
        return loss.sum() / divisor

    @staticmethod
    def backward(ctx, upstream):
        return ctx.slopes, None


def _liger() -> Loss:
    from liger_kernel.transformers.cross_entropy import LigerCrossEntropyLoss

    return LigerCrossEntropyLoss(label_smoothing=ALPHA)


def _flash() -> Loss:
    from flash_attn.ops.triton.cross_entropy import cross_entropy_loss

    return lambda z, y: cross_entropy_loss(z, y, label_smoothing=ALPHA)[0].mean()


def _liger_layer(alpha: float) -> Loss:
    from liger_kernel.transformers.fused_linear_cross_entropy import (
        LigerFusedLinearCrossEntropyLoss,
    )

    loss = LigerFusedLinearCrossEntropyLoss(label_smoothing=alpha)
    return lambda h, w, y: loss(w, h, y)


def _cut_hard(alpha: float) -> Loss:
    from cut_cross_entropy import linear_cross_entropy

    return lambda h, w, y: linear_cross_entropy(h, w, y)


def _cut_smoothed(alpha: float) -> Loss:
    hard = _cut_hard(alpha)
    smoothed = softhot.torch.with_smoothing(lambda h, w, y, b: hard(h, w, y))
    return lambda h, w, y: smoothed(h, w, y, label_smoothing=alpha)


_KERNELS = {"Liger": _liger, "flash-attention": _flash}
_LAYERS = {
    "Liger, layer": _liger_layer,
    "cut-cross-entropy, hard": _cut_hard,
    "cut-cross-entropy, rank one": _cut_smoothed,
}
_MODULES = {"Liger": "liger_kernel", "flash": "flash_attn", "cut": "cut_cross_entropy"}


def _module(name: str) -> bool:
    module = next(found for start, found in _MODULES.items() if name.startswith(start))
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
