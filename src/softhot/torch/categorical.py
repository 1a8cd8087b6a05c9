"""Cross entropy of one class out of K: the way from the arguments of a call to a kernel."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softhot.core.check import InputError
from softhot.core.losses import Batch
from softhot.core.rule import Rule, Uniform, check_rule
from softhot.core.weights import PerClass, PerSample
from softhot.kernels import choose, chunked
from softhot.torch.closed_form import check_once, is_wrapper, no_autocast, slices, wide

IDS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
BY_ROW = ("where", "alpha")


@dataclass(frozen=True)
class Categorical:
    """A :class:`softhot.torch.closed_form.Loss`: all of a call but the logits.

    Attributes:
        options: the arguments of :class:`softhot.core.losses.Batch` by name.
    """

    target: Tensor
    rule: Rule
    reduction: str
    options: dict[str, Any]

    def evaluate(
        self, logits: Tensor, *, gradient: bool, upstream: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Any]:
        choice = choose(
            self.rule,
            soft=self.target.ndim == logits.ndim,
            allowed=self.options["allowed"] is not None,
            weighting=self.options["weighting"],
        )
        plain = self._plain_rows(logits) if choice.name == "chunked" else None
        if plain is not None:
            return self._chunked(logits, *plain, gradient=gradient, upstream=upstream)
        with no_autocast(logits):
            # If a part fails, all rows at once: an error then names the right one.
            with contextlib.suppress(InputError):
                return self._core(logits, self._cuts(logits), gradient, upstream)
            return self._core(logits, [...], gradient, upstream)

    def differentiable(self, logits: Tensor) -> Tensor:
        if is_wrapper(logits):
            logits = _classes_together(logits, self.options["axis"])
        with no_autocast(logits):
            batch = self._batch(logits, ..., whole=True)
            return self._reduced(_rows(batch), batch.normalizer)

    def beside_logits(self, upstream: Tensor) -> Tensor:
        return upstream.unsqueeze(self.options["axis"]) if upstream.ndim else upstream

    def _reduced(self, rows: Tensor, normalizer: Any) -> Tensor:
        if self.reduction == "none":
            return rows
        return rows.sum() / normalizer if self.reduction == "mean" else rows.sum()

    # ------------------------------------------------------------- class ids and a uniform prior

    def _plain_rows(self, logits: Tensor) -> tuple[Any, ...] | None:
        """Labels, which rows count, alpha and weight of each; None if anything is out of order.

        The reference then says what. Only on a CPU are values looked at.
        """
        target, options, base = self.target, self.options, self.rule.base
        shape = list(logits.shape)
        k = shape.pop(options["axis"]) if shape else 0
        if k < 2 or not target.numel() or list(target.shape) != shape or target.dtype not in IDS:
            return None
        if not logits.is_floating_point() or options["prior"] is not None:
            return None
        look = logits.device.type == "cpu"
        labels, counted, ignore = target.long(), options["where"], options["ignore_index"]
        if counted is not None and not _fits(counted, labels, torch.bool):
            return None
        least, most = _extremes(labels, look)
        if ignore is not None and (type(ignore) is not int or not look or least <= ignore <= most):
            if type(ignore) is not int:
                return None
            kept = labels != ignore
            counted = kept if counted is None else counted & kept
        if counted is not None:
            labels = labels.where(counted, 0)
            least, most = _extremes(labels, look)
        if look and not 0 <= least <= most < k:
            return None
        alpha: Any = base.alpha
        allowed: Any = base.RANGES["alpha"]
        worst = alpha
        if isinstance(alpha, PerSample):
            alpha = options["alpha"]
            if alpha is None or not _fits(alpha, labels) or not alpha.is_floating_point():
                return None
            seen = alpha if counted is None or not look else alpha[counted]
            least, worst = _extremes(seen, look and seen.numel())
            alpha = alpha.to(wide(logits))
            if look and seen.numel() and not (least in allowed and worst in allowed):
                return None
        elif options["alpha"] is not None:
            return None
        elif isinstance(alpha, PerClass):
            if len(alpha.values) != k:
                return None
            worst = max(alpha.values)
            alpha = torch.tensor(alpha.values, dtype=wide(logits), device=logits.device)[labels]
        if worst is not None and not base.mixing(worst, k) < 1:
            return None
        weight = options["weight"]
        if weight is not None:
            if not (_fits(weight, logits.new_empty(k)) and weight.is_floating_point()):
                return None
            least, most = _extremes(weight, look)
            if look and not 0 <= least <= most < float("inf"):
                return None
            weight = weight.to(wide(logits))[labels]
            weight = weight if counted is None else weight.where(counted, 0)
        return labels, counted, alpha, weight

    def _chunked(
        self,
        logits: Tensor,
        labels: Tensor,
        counted: Tensor | None,
        alpha: Any,
        weight: Tensor | None,
        *,
        gradient: bool,
        upstream: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Any]:
        normalizer: Any = None
        if self.reduction == "mean":
            if weight is None:
                normalizer = (
                    labels.numel()
                    if counted is None
                    else counted.sum(dtype=wide(logits)).clamp_(min=1)
                )
            else:
                normalizer = weight.sum()
                normalizer = normalizer.where(normalizer > 0, 1)
        scale: Any = 1.0 if weight is None else weight
        if upstream is not None:
            scale = upstream * scale
        elif normalizer is not None and gradient:
            scale = scale / normalizer
        rows, slopes = chunked.loss_and_gradient(
            logits.movedim(1, -1) if logits.ndim > 2 else logits,
            labels,
            alpha,
            self.rule.base.mixing,
            scale=scale,
            counted=counted,
            gradient=gradient,
        )
        loss = self._reduced(rows if weight is None else rows * weight, normalizer)
        if slopes is not None and logits.ndim > 2:
            slopes = slopes.movedim(-1, 1)
        return loss, slopes, None if gradient else normalizer

    # -------------------------------------------------------------------------- everything else

    def _core(
        self, logits: Tensor, cuts: Any, gradient: bool, upstream: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Any]:
        slopes = torch.empty_like(logits) if gradient else None
        rows, total = [], torch.zeros((), dtype=wide(logits), device=logits.device)
        for cut in cuts:
            batch = self._batch(logits[cut].to(wide(logits)), cut, whole=cut is ...)
            rows.append(_rows(batch))
            total += _row_weights(batch, rows[-1]).sum()
            if slopes is not None:
                slope = batch.gradient_over(None)
                if upstream is not None:
                    slope = slope * self.beside_logits(
                        upstream if not upstream.ndim else upstream[cut]
                    )
                slopes[cut] = slope
        normalizer = total.where(total > 0, 1) if self.reduction == "mean" else None
        loss = self._reduced(rows[0] if len(rows) == 1 else torch.cat(rows), normalizer)
        return loss, slopes, normalizer

    def _cuts(self, logits: Tensor) -> Any:
        """Slices of the first axis that fit the cache, or all at once."""
        given = [
            value for value in (self.target, *self.options.values()) if hasattr(value, "shape")
        ]
        cuttable = logits.ndim > 1 and all(isinstance(value, Tensor) for value in given)
        if not cuttable or logits.numel() <= chunked.CPU_BLOCK or logits.device.type != "cpu":
            return [...]
        return slices(len(logits), chunked.CPU_BLOCK * len(logits) // logits.numel())

    def _batch(self, logits: Tensor, cut: Any, whole: bool) -> Batch:
        """The core's view of these rows.

        Values are checked unless that means waiting for a GPU. Logits that are not finite are let
        through, as torch does.
        """
        options = dict(self.options)
        if cut is not ...:
            for name in ("where", "alpha", "allowed", "prior"):
                options[name] = self._part(name, options[name], logits, cut)
        target = self.target[cut]
        look = is_wrapper(logits) or logits.device.type == "cpu"
        try:
            return Batch(logits, target, self.rule, **options, validate=look)
        except InputError as error:
            not_finite = error.argument.startswith("logits[")
            masked = error.allowed == "an allowed class" and options["allowed"] is None
            if not whole or not (not_finite or masked):
                raise
        return Batch(logits, target, self.rule, **options, validate=False)

    def _part(self, name: str, value: Any, logits: Tensor, cut: slice) -> Any:
        """The rows of an argument that belong to a slice of the logits."""
        if value is None or (name == "prior" and self.rule.base.PRIOR != "by_row"):
            return value
        ndim = logits.ndim if name in ("allowed", "prior") else logits.ndim - 1
        return value[cut] if value.ndim == ndim and len(value) > 1 else value


def rule_of(rule: Rule | None, label_smoothing: float) -> Rule:
    """The rule that a call asks for, by itself or by its strength."""
    if rule is None:
        return Uniform(label_smoothing)
    check_once(label_smoothing)
    return check_rule(rule)


def _rows(batch: Batch) -> Tensor:
    """The loss of every row; inf where the label is on a class that has no mass."""
    target = batch.target
    if target.allowed is None:
        return batch.loss
    if target.soft:
        lost = ((target.labels > 0) & ~target.allowed).any(-1)
    else:
        lost = ~target.allowed.gather(-1, target.labels.unsqueeze(-1)).squeeze(-1)
    return batch.loss.masked_fill(lost, float("inf"))


def _row_weights(batch: Batch, rows: Tensor) -> Tensor:
    """What every row weighs in a mean."""
    weights = torch.ones_like(rows) if batch.scale is None else batch.scale
    return weights if batch.counted is None else weights.where(batch.counted, 0)


def _fits(value: Any, beside: Tensor, dtype: torch.dtype | None = None) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == beside.shape
        and value.device == beside.device
        and dtype in (None, value.dtype)
    )


def _extremes(values: Tensor, look: Any) -> tuple[Any, Any]:
    """The least and the largest value, if they may be looked at."""
    return tuple(extreme.item() for extreme in values.aminmax()) if look else (None, None)  # type: ignore[return-value]


def _classes_together(logits: Tensor, axis: int) -> Tensor:
    """A ``DTensor`` whose class axis is not sharded."""
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(logits, DTensor):
        return logits
    placements = [Replicate() if place.is_shard(axis) else place for place in logits.placements]
    return logits.redistribute(placements=placements)
