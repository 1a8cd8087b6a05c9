"""The losses as modules that take the place of torch's own."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from softhot.core.binary import Bernoulli, BinaryRule
from softhot.core.check import InputError, SofthotWarning
from softhot.core.losses import REDUCTION, WEIGHTING
from softhot.core.rule import HARD, Rule
from softhot.torch.binary import binary_rule_of
from softhot.torch.categorical import rule_of
from softhot.torch.functional import binary_cross_entropy_with_logits, cross_entropy
from softhot.torch.linear import linear_cross_entropy

NOT_SMOOTH = Bernoulli(0.0)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """:class:`torch.nn.CrossEntropyLoss` under any softhot rule, smoothing in training only.

    Like dropout it acts while the module is in training mode; after ``eval()`` it is the plain
    cross entropy, so that validation losses of different alphas can be compared. The mode is the
    criterion's own: it follows ``model.eval()`` only as a part of the model, and otherwise wants
    ``criterion.eval()``. Where it differs from torch is listed at
    :func:`softhot.torch.cross_entropy`.

    Args:
        weight, ignore_index, reduction, label_smoothing: as in torch. ``label_smoothing`` is alpha
            of :class:`softhot.Uniform`.
        size_average, reduce: torch's deprecated names for ``reduction``; leave them out.
        rule: instead of ``label_smoothing``, any softhot rule. May be replaced at any time, for a
            schedule by ``criterion.rule = rule.at(epoch)``.
        weighting: ``"sample"`` or ``"class"``, see :func:`softhot.cross_entropy`.
        allowed: booleans ``(C)``, the classes that may have mass.
        smooth_in_eval: True keeps the rule in ``eval()``, as torch does.
        inplace: True lets the gradient take the memory of the logits.

    Warns:
        SofthotWarning: if it smooths while gradients are switched off, which looks like a
            validation in which nobody called ``criterion.eval()``.

    >>> import torch
    >>> criterion = CrossEntropyLoss(label_smoothing=0.1)
    >>> logits, labels = torch.tensor([[4.0, 0.0]]), torch.tensor([0])
    >>> criterion(logits, labels), criterion.eval()(logits, labels)
    (tensor(0.2181), tensor(0.0181))
    """

    y_int = True  # fastai's MixUp and CutMix ask whether the labels are class ids

    rule: Rule
    allowed: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        rule: Rule | None = None,
        weighting: str = "sample",
        allowed: Tensor | None = None,
        smooth_in_eval: bool = False,
        inplace: bool = False,
    ) -> None:
        _check_legacy(size_average, reduce)
        _check_tensors(weight=weight, allowed=allowed)
        _check_weighting(weighting, "weight", weight)
        rule = rule_of(rule, label_smoothing)
        reduction = REDUCTION.check("reduction", reduction)
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction)
        self.register_buffer("allowed", allowed)
        self.rule = rule
        self.weighting = weighting
        self.smooth_in_eval = smooth_in_eval
        self.inplace = inplace

    @property
    def label_smoothing(self) -> Any:
        """Alpha of the rule for targets. Setting it keeps the kind of the rule."""
        return self.rule.base.alpha

    @label_smoothing.setter
    def label_smoothing(self, value: Any) -> None:
        self.rule = _with_alpha(self.__dict__.get("rule", HARD), value)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        where: Tensor | None = None,
        allowed: Tensor | None = None,
        alpha: Tensor | None = None,
        prior: Tensor | None = None,
        smooth_again: bool = False,
    ) -> Tensor:
        """The loss; keyword arguments come with the batch, see :func:`softhot.cross_entropy`."""
        rule = self.rule
        if not _smooths(self, HARD, input):
            rule, alpha, prior = HARD, None, None
        if allowed is None:
            allowed = self.allowed
        elif self.allowed is not None:
            own = self.allowed
            if allowed.ndim == input.ndim:
                own = own.reshape(-1, *[1] * (input.ndim - 2))
            allowed = allowed & own
        return cross_entropy(
            input,
            target,
            rule,
            weight=self.weight,
            weighting=self.weighting,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            where=where,
            allowed=allowed,
            alpha=alpha,
            prior=prior,
            smooth_again=smooth_again,
            inplace=self.inplace,
        )

    def activation(self, input: Tensor) -> Tensor:
        """Probabilities from logits; fastai asks a loss for them."""
        return input.softmax(1 if input.ndim > 1 else 0)

    def decodes(self, input: Tensor) -> Tensor:
        """Class ids from logits; fastai asks a loss for them."""
        return input.argmax(1 if input.ndim > 1 else 0)

    def extra_repr(self) -> str:
        return _shown(self, weighting="sample", ignore_index=-100)


class LinearCrossEntropyLoss(nn.Module):
    """A linear layer and its cross entropy in one, so that the logits never exist all at once.

    Takes the place of :class:`torch.nn.LinearCrossEntropyLoss`, with the same parameters under the
    same names, and of an ``nn.Linear`` head before :class:`CrossEntropyLoss`. Smooths in training
    only, like that.

    Args:
        in_features, num_classes, bias, device, dtype: of the layer, ``self.linear``. Give it
            another's weights to tie them: ``criterion.linear.weight = embedding.weight``.
        reduction, weight, ignore_index, label_smoothing, rule, weighting, smooth_in_eval: as for
            :class:`CrossEntropyLoss`; ``weight`` are class weights.
        memory: bytes for a chunk of logits, see :func:`softhot.torch.linear_cross_entropy`.

    ``criterion.linear(hidden)`` gives the logits where they are wanted, as for predictions.

    >>> import torch
    >>> criterion = LinearCrossEntropyLoss(8, 100, label_smoothing=0.1)
    >>> loss = criterion(torch.randn(4, 8), torch.tensor([0, 5, 99, -100]))
    >>> loss.backward()
    """

    rule: Rule
    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        rule: Rule | None = None,
        weighting: str = "sample",
        smooth_in_eval: bool = False,
        memory: int | None = None,
    ) -> None:
        super().__init__()
        _check_tensors(weight=weight)
        _check_weighting(weighting, "weight", weight)
        self.linear = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        self.register_buffer("weight", weight)
        self.rule = rule_of(rule, label_smoothing)
        self.reduction = REDUCTION.check("reduction", reduction)
        self.ignore_index = ignore_index
        self.weighting = weighting
        self.smooth_in_eval = smooth_in_eval
        self.memory = memory

    @property
    def label_smoothing(self) -> Any:
        """Alpha of the rule for targets. Setting it keeps the kind of the rule."""
        return self.rule.base.alpha

    @label_smoothing.setter
    def label_smoothing(self, value: Any) -> None:
        self.rule = _with_alpha(self.rule, value)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        where: Tensor | None = None,
        alpha: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> Tensor:
        """The loss of hidden states ``(..., H)`` and class ids ``(...)``."""
        rule = self.rule
        if not _smooths(self, HARD, input):
            rule, alpha, prior = HARD, None, None
        return linear_cross_entropy(
            *(input, self.linear.weight, target, self.linear.bias, rule),
            class_weight=self.weight,
            weighting=self.weighting,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            where=where,
            alpha=alpha,
            prior=prior,
            memory=self.memory,
        )

    def extra_repr(self) -> str:
        return _shown(self, weighting="sample", ignore_index=-100, memory=None)


class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """:class:`torch.nn.BCEWithLogitsLoss` with smoothing, in training only.

    Args:
        weight, reduction, pos_weight: as in torch.
        size_average, reduce: torch's deprecated names for ``reduction``; leave them out.
        label_smoothing: alpha of :class:`softhot.Bernoulli`: every label moves that share of the
            way to 1/2.
        rule: instead of ``label_smoothing``, any binary softhot rule.
        weighting: ``"sample"`` or ``"class"`` (torch's formula), what ``pos_weight`` multiplies:
            see :func:`softhot.binary_cross_entropy`.
        axis: the label axis, for rules that treat labels differently or look at a whole row.
        smooth_in_eval: True keeps the rule in ``eval()``.

    Warns:
        SofthotWarning: as :class:`CrossEntropyLoss` does.

    >>> import torch
    >>> criterion = BCEWithLogitsLoss(label_smoothing=0.1)
    >>> logits, labels = torch.tensor([[4.0, -4.0]]), torch.tensor([[1, 0]])
    >>> criterion(logits, labels), criterion.eval()(logits, labels)
    (tensor(0.2181), tensor(0.0181))
    """

    rule: BinaryRule

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        *,
        rule: BinaryRule | None = None,
        weighting: str = "sample",
        axis: int = -1,
        smooth_in_eval: bool = False,
    ) -> None:
        _check_legacy(size_average, reduce)
        _check_tensors(weight=weight, pos_weight=pos_weight)
        _check_weighting(weighting, "pos_weight", pos_weight)
        rule = binary_rule_of(rule, label_smoothing)
        reduction = REDUCTION.check("reduction", reduction)
        super().__init__(weight, reduction=reduction, pos_weight=pos_weight)
        self.rule = rule
        self.weighting = weighting
        self.axis = axis
        self.smooth_in_eval = smooth_in_eval

    @property
    def label_smoothing(self) -> Any:
        """Alpha of the rule. Setting it keeps the kind of the rule."""
        return self.rule.alpha

    @label_smoothing.setter
    def label_smoothing(self, value: Any) -> None:
        self.rule = _with_alpha(self.rule, value)

    def forward(self, input: Tensor, target: Tensor, *, where: Tensor | None = None) -> Tensor:
        """The loss; ``where`` says which elements count."""
        return binary_cross_entropy_with_logits(
            input,
            target,
            self.rule if _smooths(self, NOT_SMOOTH, input) else NOT_SMOOTH,
            weight=self.weight,
            pos_weight=self.pos_weight,
            weighting=self.weighting,
            reduction=self.reduction,
            where=where,
            axis=self.axis,
        )

    def extra_repr(self) -> str:
        return _shown(self, weighting="sample", axis=-1)


def _smooths(criterion: Any, hard: Any, input: Tensor) -> bool:
    """Whether the rule applies now. A validation that forgot ``criterion.eval()`` is told so."""
    if criterion.smooth_in_eval or not criterion.training:
        return criterion.smooth_in_eval
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or input.requires_grad:
        return True
    if criterion.rule != hard:
        text = (
            "The loss is smoothed, though gradients are off: if this is a validation, call "
            "criterion.eval() before it and criterion.train() after it, or make the criterion a "
            "part of the model, whose mode it follows. If it is meant, pass smooth_in_eval=True."
        )
        warnings.warn(text, SofthotWarning, stacklevel=5)
    return True


def _check_legacy(size_average: Any, reduce: Any) -> None:
    for name, value in (("size_average", size_average), ("reduce", reduce)):
        if value is not None:
            hint = "torch deprecated it long ago; say reduction='mean', 'sum' or 'none'."
            raise InputError(name, "left out", value, hint)


def _check_tensors(**tensors: Any) -> None:
    for name, value in tensors.items():
        if value is not None and not isinstance(value, Tensor):
            hint = "Write torch.tensor([...])."
            if name == "weight" and isinstance(value, int | float):
                hint = "Pass smoothing by name: label_smoothing=."
            raise InputError(name, "a torch.Tensor", value, hint)


def _check_weighting(weighting: str, name: str, weight: Tensor | None) -> None:
    if WEIGHTING.check("weighting", weighting) == "class" and weight is None:
        hint = f"Pass {name}=, or leave weighting out."
        raise InputError("weighting", f"given only with {name}", "class", hint)


def _with_alpha(rule: Rule, alpha: Any) -> Any:
    if "alpha" not in rule.__dict__ or rule.penalties:
        hint = "Set criterion.rule instead."
        raise InputError("label_smoothing", f"left alone beside {rule!r}", alpha, hint)
    return replace(rule, alpha=alpha)  # type: ignore[type-var]  # every rule is a dataclass


def _shown(criterion: Any, **defaults: Any) -> str:
    parts = [f"rule={criterion.rule!r}"]
    for name, default in {**defaults, "reduction": "mean", "smooth_in_eval": False}.items():
        value = getattr(criterion, name)
        parts += [] if value == default else [f"{name}={value!r}"]
    return ", ".join(parts)
