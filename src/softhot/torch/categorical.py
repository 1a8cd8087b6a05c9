"""Cross entropy of one class out of K: the way from the arguments of a call to a kernel."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from softhot.core.check import InputError
from softhot.core.losses import Batch
from softhot.core.rule import Rule, Uniform, check_rule
from softhot.kernels import Choice, choose, chunked
from softhot.torch import gpu, native
from softhot.torch.closed_form import check_once, is_wrapper, no_autocast, slices, wide
from softhot.torch.plain import Rows, plain_rows


@dataclass(frozen=True)
class Categorical:
    """A :class:`softhot.torch.closed_form.Loss`: all of a call but the logits.

    Attributes:
        options: the arguments of :class:`softhot.core.losses.Batch` by name.
        overwrite: whether the gradient may take the place of the logits. A kernel that turns them
            down when it is too late raises :class:`softhot.torch.native.Overwritten`.
    """

    target: Tensor
    rule: Rule
    reduction: str
    options: dict[str, Any]
    overwrite: bool = False

    def evaluate(
        self, logits: Tensor, *, gradient: bool, upstream: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Any]:
        on_cpu = native.is_laid_out(logits, self.target)
        on_gpu = not on_cpu and gpu.is_laid_out(logits, self.target)
        choice = self._choose(logits, native=on_cpu, triton=on_gpu)
        if choice.name in ("native", "triton"):
            kernel = native if choice.name == "native" else gpu
            done = kernel.evaluate(self, logits, gradient=gradient, upstream=upstream)
            if done is not None:
                return done
            choice = self._choose(logits)
        if choice.name == "chunked":
            rows = plain_rows(logits, self.target, self.rule.base, self.options)
            if rows is not None:
                return self._chunked(logits, rows, gradient=gradient, upstream=upstream)
        with no_autocast(logits):
            # If a part fails, all rows at once: an error then names the right one.
            with contextlib.suppress(InputError):
                return self._core(logits, self._cuts(logits), gradient, upstream)
            return self._core(logits, [...], gradient, upstream)

    def _choose(self, logits: Tensor, native: bool = False, triton: bool = False) -> Choice:
        return choose(
            self.rule,
            soft=self.target.ndim == logits.ndim,
            allowed=self.options["allowed"] is not None,
            weighting=self.options["weighting"],
            native=native,
            triton=triton,
        )

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

    def _chunked(
        self, logits: Tensor, rows: Rows, *, gradient: bool, upstream: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Any]:
        normalizer = rows.total(wide(logits)) if self.reduction == "mean" else None
        scale: Any = 1.0 if rows.weight is None else rows.weight
        if upstream is not None:
            scale = upstream * scale
        elif normalizer is not None and gradient:
            scale = scale / normalizer
        loss, slopes = chunked.loss_and_gradient(
            logits.movedim(1, -1) if logits.ndim > 2 else logits,
            rows.labels,
            rows.alpha,
            self.rule.base.mixing,
            scale=scale,
            counted=rows.counted,
            gradient=gradient,
            overwrite=self.overwrite,
        )
        loss = self._reduced(loss if rows.weight is None else loss * rows.weight, normalizer)
        if slopes is not None and logits.ndim > 2:
            slopes = slopes.movedim(-1, 1)
        return loss, slopes, None if gradient else normalizer

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
                    by = upstream[cut] if upstream.ndim else upstream
                    slope = slope * self.beside_logits(by)
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
        # The usual ones are made and checked once; some others warn every time.
        usual = type(label_smoothing) is float and 0 <= label_smoothing <= 0.5
        return _uniform(label_smoothing) if usual else Uniform(label_smoothing)
    check_once(label_smoothing)
    return check_rule(rule)


_uniform = lru_cache(maxsize=64)(Uniform)


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


def _classes_together(logits: Tensor, axis: int) -> Tensor:
    """A ``DTensor`` whose class axis is not sharded."""
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(logits, DTensor):
        return logits
    placements = [Replicate() if place.is_shard(axis) else place for place in logits.placements]
    return logits.redistribute(placements=placements)
