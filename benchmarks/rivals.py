"""Other people's kernels for a GPU, where they are installed, each as a loss of tensors."""

import contextlib
import importlib
from collections.abc import Callable
from importlib import metadata

import torch
import torch.nn.functional as F

import softhot.torch

ALPHA = 0.1
Loss = Callable[..., torch.Tensor]


def logits_in(device: torch.device) -> dict[str, Loss]:
    """Losses of ``(logits, labels)``, smoothed but for the one that says hard."""
    found = {
        "softhot": lambda z, y: softhot.torch.cross_entropy(z, y, label_smoothing=ALPHA),
        "softhot, hard": softhot.torch.cross_entropy,
        "softhot, in place": over_a_copy(_ours_in_place),
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
        "softhot, filtered, recomputed": lambda h, w, y: ours(
            h, w, y, label_smoothing=alpha, filter=threshold, recompute=True
        ),
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


def over_a_copy(kernel: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Loss:
    """A loss whose kernel returns itself and the gradient, which it writes over its logits.

    So that all others still find these, it gets a copy of them, made at the first call. From the
    second on that copy holds gradients, whose loss costs the same.
    """
    copies: dict[tuple, torch.Tensor] = {}
    return lambda z, y: _Overwriting.apply(z, y, kernel, copies)


class _Overwriting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, kernel, copies):
        key = (logits.data_ptr(), logits.shape)
        if key not in copies:
            copies.clear()
            copies[key] = logits.detach().clone()
        loss, ctx.slopes = kernel(copies[key], labels)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        return ctx.slopes, None, None, None


def _ours_in_place(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    from softhot.kernels.native import Coefficients
    from softhot.kernels.triton import launch

    rows = launch.Rows(
        *(labels, None, None, ALPHA, False, Coefficients(), None, 0, None, 0, logits.shape[1])
    )
    ones = torch.ones((), device=logits.device)
    divisor = torch.full((), float(len(labels)), device=logits.device)
    loss, slopes = launch.in_place(logits, rows, ones, divisor)
    return loss.sum() / divisor, slopes


def _liger() -> Loss:
    from liger_kernel.transformers.cross_entropy import LigerCrossEntropyLoss

    loss = LigerCrossEntropyLoss(label_smoothing=ALPHA)

    def with_gradient(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            value = loss(leaf, labels)
            return value.detach(), torch.autograd.grad(value, leaf)[0]

    smoothed = over_a_copy(with_gradient)
    return lambda z, y: smoothed(z, y) if torch.is_grad_enabled() else loss(z.detach(), y)


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


def versions() -> dict[str, str]:
    """Of what runs on the GPU here."""
    found = {"cuda": torch.version.cuda or "none"}
    for name in ("triton", "liger-kernel", "flash-attn", "cut-cross-entropy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _module(name: str) -> bool:
    module = next(found for start, found in _MODULES.items() if name.startswith(start))
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
