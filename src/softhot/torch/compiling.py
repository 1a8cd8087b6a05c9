"""The losses under ``torch.compile``, without graph breaks.

Uniform smoothing of class ids is one expression that Dynamo traces. Everything else goes into the
graph as one call, and what is inside that, the core, is traced by the layer below.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from softhot.core.binary import BinaryRule
from softhot.core.check import InputError
from softhot.core.rule import Rule, Uniform
from softhot.core.weights import PerSample
from softhot.kernels import choose, compiled
from softhot.torch.binary import binary_loss, binary_rule_of
from softhot.torch.categorical import IDS, Categorical, rule_of
from softhot.torch.closed_form import check_once

_RULES: dict[str, Any] = {}


def cross_entropy(
    input: Tensor,
    target: Tensor,
    rule: Rule | None,
    label_smoothing: float,
    reduction: str,
    options: dict[str, Any],
) -> Tensor:
    """What :func:`softhot.torch.cross_entropy` does while it is compiled."""
    given = Uniform(label_smoothing) if rule is None else rule
    if _can_be_fused(input, target, given, options):
        if rule is not None:
            check_once(label_smoothing)
        return _fused(input, target, given, reduction, options)
    key = _key(rule, 0 if rule is None else id(rule), label_smoothing, False)
    return _in_graph(input, target, key, reduction, options)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    rule: BinaryRule | None,
    label_smoothing: float,
    reduction: str,
    weight: Tensor | None,
    where: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    """What :func:`softhot.torch.binary_cross_entropy_with_logits` does while it is compiled."""
    key = _key(rule, 0 if rule is None else id(rule), label_smoothing, True)
    return _binary_in_graph(input, target, key, reduction, weight, where, options)


def _can_be_fused(input: Tensor, target: Tensor, rule: Rule, options: dict[str, Any]) -> bool:
    """Whether the batch is one for :mod:`softhot.kernels.compiled`, and nothing is out of order."""
    soft, weighting = target.ndim == input.ndim, options["weighting"]
    allowed, where = options["allowed"] is not None, options["where"]
    if choose(rule, soft=soft, allowed=allowed, weighting=weighting, compiled=True).name == "core":
        return False
    rows = input.shape[:1] + input.shape[2:] if input.ndim > 1 else input.shape[1:]
    alpha, given, weight = rule.base.alpha, options["alpha"], options["weight"]
    return (
        input.is_floating_point()
        and target.dtype in IDS
        and target.shape == rows
        and options["prior"] is None
        and (where is None or (where.dtype == torch.bool and where.shape == rows))
        and (weight is None or weight.shape == (input.shape[options["axis"]],))
        and (isinstance(alpha, float) if given is None else isinstance(alpha, PerSample))
        and (given is None or given.shape == rows)
    )


def _fused(
    input: Tensor, target: Tensor, rule: Rule, reduction: str, options: dict[str, Any]
) -> Tensor:
    counted, labels, weight = options["where"], target.long(), options["weight"]
    if options["ignore_index"] is not None:
        kept = labels != options["ignore_index"]
        counted = kept if counted is None else counted & kept
    given: Any = options["alpha"]
    share: Any = rule.base.alpha if given is None else given
    rows = compiled.loss(
        input.movedim(options["axis"], -1),
        labels,
        share,
        rule.base.mixing,
        counted,
    )
    weights = torch.ones_like(rows)
    if weight is not None:
        weights = weight[labels if counted is None else torch.where(counted, labels, 0)]
        rows = rows * weights
    if reduction != "mean":
        return rows.sum() if reduction == "sum" else rows
    total = (weights if counted is None else torch.where(counted, weights, 0)).sum()
    return rows.sum() / torch.where(total > 0, total, 1)


def _key(rule: Any, identity: int, label_smoothing: float, binary: bool) -> str:
    """A name for the rule; a graph holds strings, and Dynamo guards the identity.

    Dynamo runs this as it is, once for each rule. It also makes the two functions below opaque to
    Dynamo; not earlier, since importing ``torch._dynamo`` takes seconds.
    """
    torch.compiler.allow_in_graph(_in_graph)
    torch.compiler.allow_in_graph(_binary_in_graph)
    if rule is not None and any(field.name not in rule.__dict__ for field in fields(rule)):
        hint = "Build it once, outside of the compiled function."
        raise InputError("rule", "built before it is compiled", type(rule).__name__, hint)
    rule = (binary_rule_of if binary else rule_of)(rule, label_smoothing)
    key = f"{rule!r} {identity}"
    _RULES[key] = rule
    return key


# What torch.compiler.assume_constant_result sets, without its import of torch._dynamo.
_key._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _in_graph(
    input: Tensor, target: Tensor, key: str, reduction: str, options: dict[str, Any]
) -> Tensor:
    return Categorical(target, _RULES[key], reduction, options).differentiable(input)


def _binary_in_graph(
    input: Tensor,
    target: Tensor,
    key: str,
    reduction: str,
    weight: Tensor | None,
    where: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    loss = binary_loss(input, target, _RULES[key], reduction, weight, where, options)
    return loss.differentiable(input)
