"""The losses as functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softhot.core.binary import BinaryRule
from softhot.core.check import InputError
from softhot.core.losses import REDUCTION
from softhot.core.rule import Rule
from softhot.kernels.native import in_place
from softhot.torch import compiling, gpu
from softhot.torch.binary import binary_loss, binary_rule_of
from softhot.torch.categorical import Categorical, rule_of
from softhot.torch.closed_form import apply, is_traced
from softhot.torch.words import in_torch_words


def cross_entropy(
    input: Tensor,
    target: Tensor,
    rule: Rule | None = None,
    *,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    weighting: str = "sample",
    ignore_index: int | None = -100,
    reduction: str = "mean",
    where: Tensor | None = None,
    allowed: Tensor | None = None,
    alpha: Tensor | None = None,
    prior: Tensor | None = None,
    smooth_again: bool = False,
    inplace: bool = False,
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
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        where, allowed, alpha, prior, smooth_again: see :func:`softhot.cross_entropy`; ``where``
            and ``alpha`` have the shape of class ids.
        inplace: True lets the gradient take the memory of ``input``, which then holds nothing of
            use; the loss needs no memory beside it. Autograd refuses whatever else it has saved
            ``input`` for. Where that cannot be (rules with a prior, probabilities as targets,
            logits with gaps, ``torch.compile``) nothing is overwritten.

    Returns:
        float32, or float64 for float64 logits.

    Raises:
        InputError: naming argument, rule, value and next step. On a GPU the values of tensors are
            not looked at, so that nothing waits for it; logits never are: NaN and inf go through,
            as a ``GradScaler`` expects.

    Equal to torch's wherever torch is right. It differs where torch

    - divides the weighted mean of probability targets by N: here every mean is over the summed
      weights of the rows that count, so that ids and their one-hot rows give the same loss;
    - gives NaN for a batch of ignored rows: here 0, with zero gradients;
    - gives inf or NaN for masked (-inf) classes: here they have no mass and no gradient. A label
      on such a class is inf in both;
    - computes in half precision: here in float32, which the result also has;
    - lets logits be changed in place before ``backward()``: here that is an error of autograd's;
    - takes negative smoothing, ids out of range and rows that don't sum to 1.

    >>> import torch
    >>> logits, labels = torch.zeros(2, 4), torch.tensor([0, 3])
    >>> cross_entropy(logits, labels, label_smoothing=0.1)
    tensor(1.3863)
    """
    _check_tensors(input, target)
    reduction = REDUCTION.check("reduction", reduction)
    soft = target.ndim == input.ndim
    options: dict[str, Any] = {
        "axis": 1 if input.ndim > 1 else 0,
        # torch's default stands for "none" where there are no ids to ignore.
        "ignore_index": None if soft and ignore_index == -100 else ignore_index,
        "where": where,
        "allowed": allowed,
        "weight": weight,
        "weighting": weighting,
        "alpha": alpha,
        "prior": prior,
        "smooth_again": smooth_again,
    }
    if torch.compiler.is_compiling():
        return compiling.cross_entropy(input, target, rule, label_smoothing, reduction, options)
    rule = rule_of(rule, label_smoothing)
    overwrite = inplace and input.is_contiguous() and in_place(rule)
    loss = Categorical(target, rule, reduction, options, overwrite)
    others = (target, where, allowed, weight, alpha, prior)
    try:
        if input.requires_grad and gpu.is_laid_out(input, target) and not is_traced(input, *others):
            planned = gpu.apply(loss, input, gpu.rows_of(loss, input))
            if planned is not None:
                return planned
        return apply(loss, input, *others)
    except InputError as error:
        raise in_torch_words(error) from None


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    rule: BinaryRule | None = None,
    *,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    weighting: str = "sample",
    reduction: str = "mean",
    where: Tensor | None = None,
    axis: int = -1,
) -> Tensor:
    """:func:`torch.nn.functional.binary_cross_entropy_with_logits` under a binary softhot rule.

    Args:
        input: logits of any shape.
        target: 0/1 or probabilities of the same shape, of any dtype.
        rule: a binary rule; or give
        label_smoothing: alpha of :class:`softhot.Bernoulli`, which moves every label that share of
            the way to 1/2. Without either: plain binary cross entropy.
        weight: factor of every element of the loss, broadcasts to ``input``.
        pos_weight: weight of positives: one number, one for each label along ``axis``, or that
            with axes of length 1 as torch takes it, ``(L, 1, 1)``.
        weighting: ``"sample"`` or ``"class"``, see :func:`softhot.binary_cross_entropy`; torch's
            formula is ``"class"``.
        reduction: ``"mean"`` (over the elements that count), ``"sum"`` or ``"none"``.
        where: booleans that broadcast to ``input``; elements where it is false are left out.
        axis: the label axis.

    Returns:
        float32, or float64 for float64 logits. Equal to torch's for targets in [0, 1].

    Raises:
        InputError: naming argument, rule, value and next step.

    >>> import torch
    >>> logits, labels = torch.tensor([2.0]), torch.tensor([1])
    >>> binary_cross_entropy_with_logits(logits, labels, label_smoothing=0.1)
    tensor(0.2269)
    """
    _check_tensors(input, target)
    reduction = REDUCTION.check("reduction", reduction)
    options = {"pos_weight": pos_weight, "weighting": weighting, "axis": axis}
    arguments = (reduction, weight, where, options)
    if torch.compiler.is_compiling():
        return compiling.binary_cross_entropy(input, target, rule, label_smoothing, *arguments)
    rule = binary_rule_of(rule, label_smoothing)
    try:
        loss = binary_loss(input, target, rule, *arguments)
        return apply(loss, input, target, weight, where, pos_weight)
    except InputError as error:
        raise in_torch_words(error) from None


def _check_tensors(input: Any, target: Any) -> None:
    for name, value in (("input", input), ("target", target)):
        if not isinstance(value, Tensor):
            hint = "softhot.cross_entropy takes any array."
            raise InputError(name, "a torch.Tensor", type(value), hint)
    if not input.is_floating_point() or input.layout != torch.strided:
        hint = "Write input.float()."
        if input.layout != torch.strided:
            hint = "Write input.to_dense()."
        elif target.is_floating_point():
            hint = "Have input and target changed places?"
        found = f"{input.dtype}, {input.layout}"
        raise InputError("input", "real floating-point logits, dense", found, hint)
    if target.device != input.device:
        hint = "Move it there: target.to(input.device)."
        raise InputError("target", f"on the device of input, {input.device}", target.device, hint)
