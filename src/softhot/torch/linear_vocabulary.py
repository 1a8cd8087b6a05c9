"""Cross entropy of a linear layer whose classes are spread over processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor

from softhot.core.check import InputError
from softhot.core.losses import REDUCTION
from softhot.core.rule import Rule
from softhot.torch.categorical import rule_of
from softhot.torch.linear import (
    ChunkLoss,
    Head,
    by_row,
    check_layer,
    checked,
    chunk_rows,
    in_autocast,
)
from softhot.torch.vocabulary import Shards, agreed


def vocab_parallel_linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    rule: Rule | None = None,
    *,
    label_smoothing: float = 0.0,
    group: dist.ProcessGroup | None = None,
    classes: Sequence[int] | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    where: Tensor | None = None,
    alpha: Tensor | None = None,
    memory: int | None = None,
) -> Tensor:
    """:func:`softhot.torch.linear_cross_entropy` of classes that are spread over processes.

    Every process holds the hidden states and labels of all rows and the weights of its own classes.
    Equal to the loss of the whole layer, on every process; so are the gradients, of which that by
    ``hidden`` is summed over the processes. For each chunk of rows one small collective gathers a
    few numbers a row. Called, and differentiated, by all processes of the group together.

    Args:
        hidden: ``(..., H)``, the same on every process.
        weight: this process's rows ``(C_r, H)`` of the whole ``(C, H)``, which may be none.
        labels: ids among all C classes, ``(...)``, the same on every process.
        bias: ``(C_r)`` or None.
        rule, label_smoothing, group, classes: see
            :func:`softhot.torch.vocab_parallel_cross_entropy`.
        class_weight: weights of all C classes, by which rows are multiplied.
        ignore_index, reduction, where, alpha: as for the dense loss.
        memory: bytes for a chunk of the largest process's logits; see
            :func:`softhot.torch.linear_cross_entropy`.

    Returns:
        float32, or float64 for float64 inputs; the same on every process.

    Raises:
        InputError: naming argument, rule, value and next step.
    """
    check_layer(hidden, weight, labels, bias, least=0)
    reduction = REDUCTION.check("reduction", reduction)
    rule = rule_of(rule, label_smoothing)
    hidden, weight, bias = in_autocast(hidden, weight, bias)
    counts = agreed(rule, classes, len(weight), hidden.device, group)
    options: dict[str, Any] = {
        "ignore_index": ignore_index,
        "where": where,
        "weight": class_weight,
        "weighting": "sample",
        "alpha": alpha,
        "prior": None,
    }
    for name in ("where", "alpha"):
        if isinstance(options[name], Tensor):
            options[name] = by_row(name, options[name], labels)
    h = hidden.reshape(-1, hidden.shape[-1])
    y, counted = checked(h, sum(counts), labels.reshape(-1), rule, options)
    rows = chunk_rows(h, max(counts), memory)
    head = ShardedHead(y, rule, reduction, options, rows, counted, None, False, counts, group)
    loss = head.apply(h, weight, bias)
    return loss.reshape(labels.shape) if reduction == "none" else loss


@dataclass(frozen=True)
class ShardedHead(Head):
    """A :class:`softhot.torch.linear.Head` of which this process has a part."""

    classes: tuple[int, ...] = ()
    group: dist.ProcessGroup | None = None

    def loss_of(self, cut: slice) -> ChunkLoss:
        options = {key: self.options[key] for key in ("where", "ignore_index", "alpha", "prior")}
        for name in ("where", "alpha"):
            if options[name] is not None:
                options[name] = options[name][cut]
        reduction = "none" if self.reduction == "none" else "sum"
        weight = self.options["weight"]
        return Shards(
            self.labels[cut], self.rule, reduction, self.classes, self.group, weight, options
        )

    def shared(self, slope: Tensor) -> Tensor:
        dist.all_reduce(slope, group=self.group)
        return slope

    def dense(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        allowed = "differentiated once, by backward()"
        hint = "For more, gather the weights and use softhot.torch.linear_cross_entropy."
        raise InputError("hidden", allowed, "create_graph", hint)
