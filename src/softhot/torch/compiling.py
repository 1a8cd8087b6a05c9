"""The losses under ``torch.compile``, without graph breaks.

Uniform smoothing of class ids is one expression that Dynamo traces. Everything else goes into the
graph as one call, and what is inside that, the core, is traced by the layer below.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from softhot.core.binary import Bernoulli, BinaryRule
from softhot.core.check import InputError
from softhot.core.rule import Rule, Uniform, check_rule
from softhot.core.weights import PerSample
from softhot.kernels import choose, compiled
from softhot.torch.binary import binary_loss
from softhot.torch.categorical import Categorical
from softhot.torch.closed_form import check_once
from softhot.torch.plain import IDS

_RULES: dict[str, Any] = {}
_SMOOTH = Uniform(0.1)  # stands for any strength


def cross_entropy(
    input: Tensor,
    target: Tensor,
    rule: Rule | None,
    label_smoothing: float,
    reduction: str,
    options: dict[str, Any],
) -> Tensor:
    """What :func:`softhot.torch.cross_entropy` does while it is compiled."""
    given, alpha = _SMOOTH if rule is None else rule, options["alpha"]
    _check_strength(rule, label_smoothing, alpha)
    if _can_be_fused(input, target, given, options):
        share: Any = label_smoothing
        if alpha is not None:
            allowed: Any = given.base.RANGES["alpha"]
            share = torch.where(allowed.holds(alpha), alpha, torch.nan)
        elif rule is not None:
            share = rule.base.alpha
        return _fused(input, target, given, share, reduction, options)
    if rule is None:
        strength = torch.full((), label_smoothing, dtype=torch.float64, device=input.device)
        return _in_graph(input, target, "", strength, reduction, options)
    return _in_graph(input, target, _key(rule, id(rule)), None, reduction, options)


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
    _check_strength(rule, label_smoothing, None)
    given = (reduction, weight, where, options)
    if rule is None:
        strength = torch.full((), label_smoothing, dtype=torch.float64, device=input.device)
        return _binary_in_graph(input, target, "", strength, *given)
    return _binary_in_graph(input, target, _key(rule, id(rule)), None, *given)


def _check_strength(rule: Rule | None, label_smoothing: float, alpha: Tensor | None) -> None:
    """What the rule's own checks say, in operations that Dynamo traces."""
    _allow_in_graph()
    if rule is not None:
        check_once(label_smoothing)
    elif not 0 <= label_smoothing < 1:
        raise InputError("label_smoothing", "a real number in [0, 1)", label_smoothing)
    elif alpha is not None:
        raise InputError("alpha", "left out beside label_smoothing", alpha)


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
    input: Tensor, target: Tensor, rule: Rule, alpha: Any, reduction: str, options: dict[str, Any]
) -> Tensor:
    counted, labels, weight = options["where"], target.long(), options["weight"]
    if options["ignore_index"] is not None:
        kept = labels != options["ignore_index"]
        counted = kept if counted is None else counted & kept
    rows = compiled.loss(
        input.movedim(options["axis"], -1),
        labels,
        alpha,
        rule.base.mixing,
        counted,
    )
    weights = torch.ones_like(rows)
    if weight is not None:
        safe = labels if counted is None else torch.where(counted, labels, 0)
        weights = weight.to(rows.dtype)[safe]
        rows = rows * weights
    if reduction != "mean":
        return rows.sum() if reduction == "sum" else rows
    total = (weights if counted is None else torch.where(counted, weights, 0)).sum()
    return rows.sum() / torch.where(total > 0, total, 1)


def _allow_in_graph() -> None:
    """Make the two functions at the end opaque to Dynamo, which runs this as it is.

    Not earlier, since importing ``torch._dynamo`` takes seconds.
    """
    torch.compiler.allow_in_graph(_in_graph)
    torch.compiler.allow_in_graph(_binary_in_graph)


def _key(rule: Any, identity: int) -> str:
    """A name for the rule, which Dynamo asks for once: graphs hold names, guards identities."""
    if any(field.name not in rule.__dict__ for field in fields(rule)):
        hint = "Build it once, outside of the compiled function."
        raise InputError("rule", "built before it is compiled", type(rule).__name__, hint)
    key = f"{type(rule).__name__} {identity}"
    _RULES[key] = rule
    return key


# What torch.compiler.assume_constant_result sets, without its import of torch._dynamo.
_functions: tuple[Any, ...] = (_allow_in_graph, _key)
for _function in _functions:
    _function._dynamo_marked_constant = True


def _in_graph(
    input: Tensor,
    target: Tensor,
    key: str,
    strength: Tensor | None,
    reduction: str,
    options: dict[str, Any],
) -> Tensor:
    rule = check_rule(_RULES[key]) if strength is None else _of_strength(Uniform, strength)
    return Categorical(target, rule, reduction, options).differentiable(input)


def _binary_in_graph(
    input: Tensor,
    target: Tensor,
    key: str,
    strength: Tensor | None,
    reduction: str,
    weight: Tensor | None,
    where: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    rule = _RULES[key] if strength is None else _of_strength(Bernoulli, strength)
    loss = binary_loss(input, target, rule, reduction, weight, where, options)
    return loss.differentiable(input)


def _of_strength(kind: type, strength: Tensor) -> Any:
    """A rule whose alpha is a tensor, already checked, so that a new value needs no new graph."""
    rule: Any = object.__new__(kind)
    object.__setattr__(rule, "alpha", strength)
    return rule
