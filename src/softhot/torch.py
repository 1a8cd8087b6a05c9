"""PyTorch: the loss as a function and as a module that takes the place of torch's own.

>>> import torch, softhot.torch
>>> criterion = softhot.torch.CrossEntropyLoss(label_smoothing=0.1)
>>> loss = criterion(torch.randn(8, 10, requires_grad=True), torch.randint(10, (8,)))
>>> loss.backward()
"""

from __future__ import annotations

from typing import Any

try:
    import torch
except ModuleNotFoundError as error:
    message = "softhot.torch needs PyTorch: pip install 'softhot[torch]'"
    raise ModuleNotFoundError(message, name="torch") from error

from torch import Tensor, nn

from softhot.core.check import InputError
from softhot.core.losses import Batch
from softhot.core.rule import HARD, Rule, Uniform, check_rule


class _CrossEntropy(torch.autograd.Function):
    """Loss and closed-form gradient in one pass; the gradient is the one buffer it keeps.

    It is the gradient of the *sum*: in half precision, dividing it by the number of rows before
    the scale of a ``GradScaler`` arrives would flush it to zero.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, rule: Rule, options: dict) -> Tensor:
        batch = Batch(logits, labels, rule, **options)
        ctx.save_for_backward(batch.gradient_over(None))
        ctx.axis, ctx.reduction = options["axis"], options["reduction"]
        ctx.normalizer = batch.normalizer if ctx.reduction == "mean" else 1
        return batch.loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        upstream = upstream / ctx.normalizer
        if ctx.reduction == "none":
            upstream = upstream.unsqueeze(ctx.axis)
        return (gradient * upstream).to(gradient.dtype), None, None, None


def cross_entropy(
    input: Tensor,
    target: Tensor,
    rule: Rule | None = None,
    *,
    label_smoothing: float | None = None,
    weight: Tensor | None = None,
    weighting: str = "sample",
    ignore_index: int = -100,
    reduction: str = "mean",
    where: Tensor | None = None,
    allowed: Tensor | None = None,
    alpha: Tensor | None = None,
    prior: Tensor | None = None,
    smooth_again: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.cross_entropy` under any softhot rule.

    Args:
        input: logits ``(C)``, ``(N, C)`` or ``(N, C, d1, ...)``, as in torch.
        target: class ids ``()``, ``(N)``, ``(N, d1, ...)``, or probabilities of the shape of
            ``input``.
        rule: a softhot rule; or give
        label_smoothing: alpha of :class:`softhot.Uniform`. Without either: plain cross entropy.
        weight: C class weights.
        weighting: ``"sample"`` or ``"class"``, see :func:`softhot.cross_entropy`. torch's formula
            is ``"class"``, which can make a wrong class the best prediction.
        ignore_index: rows with this id are left out, as if deleted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The mean of no rows is 0, not NaN.
        where, allowed, alpha, prior, smooth_again: see :func:`softhot.cross_entropy`.

    Returns:
        float32, or float64 for float64 logits. Equal to torch's wherever torch is right.

    >>> import torch
    >>> logits, labels = torch.zeros(2, 4), torch.tensor([0, 3])
    >>> cross_entropy(logits, labels, label_smoothing=0.1)
    tensor(1.3863)
    """
    rule = _rule(rule, label_smoothing)
    soft = target.ndim == input.ndim
    options = {
        "axis": 1 if input.ndim > 1 else 0,
        # torch's default stands for "none" where there are no ids to ignore.
        "ignore_index": None if soft and ignore_index == -100 else ignore_index,
        "reduction": reduction,
        "weight": weight,
        "weighting": weighting,
        "where": where,
        "allowed": allowed,
        "alpha": alpha,
        "prior": prior,
        "smooth_again": smooth_again,
    }
    return _CrossEntropy.apply(input, target, rule, options)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """:class:`torch.nn.CrossEntropyLoss` under any softhot rule, smoothing in training only.

    Like dropout it acts while the module is in training mode; after ``eval()`` it is the plain
    cross entropy, so that validation losses of different alphas can be compared.

    Args:
        weight, ignore_index, reduction, label_smoothing: as in torch.
        rule: instead of ``label_smoothing``, any softhot rule.
        weighting: ``"sample"`` or ``"class"``, see :func:`softhot.cross_entropy`.
        smooth_in_eval: True keeps the rule in ``eval()``, as torch does.

    >>> import torch
    >>> criterion = CrossEntropyLoss(label_smoothing=0.1)
    >>> logits, labels = torch.tensor([[4.0, 0.0]]), torch.tensor([0])
    >>> criterion(logits, labels), criterion.eval()(logits, labels)
    (tensor(0.2181), tensor(0.0181))
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float | None = None,
        *,
        rule: Rule | None = None,
        weighting: str = "sample",
        smooth_in_eval: bool = False,
    ) -> None:
        self_rule = _rule(rule, label_smoothing)
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.rule = self_rule
        self.label_smoothing = getattr(self_rule.base, "alpha", 0.0)
        self.weighting = weighting
        self.smooth_in_eval = smooth_in_eval

    def forward(self, input: Tensor, target: Tensor, **batch: Any) -> Tensor:
        """The loss; ``batch`` are the arguments that come with data (``where``, ``alpha``, ...)."""
        rule = self.rule if self.training or self.smooth_in_eval else HARD
        if rule is HARD:
            batch = {k: v for k, v in batch.items() if k not in ("alpha", "prior")}
        return cross_entropy(
            input,
            target,
            rule,
            weight=self.weight,
            weighting=self.weighting,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            **batch,
        )

    def extra_repr(self) -> str:
        return f"rule={self.rule!r}"


def _rule(rule: Rule | None, label_smoothing: float | None) -> Rule:
    if rule is None:
        return HARD if label_smoothing is None else Uniform(label_smoothing)
    if label_smoothing is not None:
        hint = "Smoothing is given twice: keep the rule."
        raise InputError("label_smoothing", "left out beside a rule", label_smoothing, hint)
    return check_rule(rule)
