"""Cross entropy of the outputs of a linear layer, which never exist all at once.

The logits of one chunk of rows are computed, become their own gradient where they are, and are
multiplied into the gradients of hidden states, weights and bias before the next chunk takes their
place. Everything a chunk needs beside its matrix products is :mod:`softhot.torch.categorical`: any
rule, any kernel. Where another library has such a layer for hard labels, identity 17 of
docs/mathematics.md adds uniform smoothing to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import array_api_compat.torch as xp
import torch
import torch.nn.functional as F
from torch import Tensor

from softhot.core.check import InputError, Interval
from softhot.core.losses import REDUCTION, WEIGHTING, _check_weight
from softhot.core.rule import Rule
from softhot.core.targets import _alpha, check_labels
from softhot.core.weights import PerSample
from softhot.kernels import buffers, filtered, triton
from softhot.torch.categorical import Categorical, rule_of
from softhot.torch.closed_form import is_traced, scaled, slices, wide
from softhot.torch.functional import cross_entropy
from softhot.torch.native import Overwritten

SMALL = Interval(0, 1, "[)")
BYTES = Interval(1, float("inf"), "[)", integer=True)
CPU_CHUNK, DEVICE_CHUNK = 2**25, 2**29  # bytes below which smaller chunks only cost time
ROUNDINGS = 4  # how often a sum may be rounded to half precision
Slopes = tuple[Tensor | None, Tensor | None, Tensor | None]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    rule: Rule | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    weighting: str = "sample",
    ignore_index: int | None = -100,
    reduction: str = "mean",
    where: Tensor | None = None,
    alpha: Tensor | None = None,
    prior: Tensor | None = None,
    memory: int | None = None,
    filter: float | None = None,
    recompute: bool = False,
) -> Tensor:
    r"""Cross entropy of ``hidden @ weight.T + bias`` without ever holding all of these logits.

    The same number, and the same three gradients, as :func:`softhot.torch.cross_entropy` of
    :func:`torch.nn.functional.linear`. Beside the gradients it needs ``memory`` bytes, where that
    takes several times the logits. The gradients are computed with the loss, so it costs the three
    matrix products and little more; for ``reduction="none"`` and in float16, where they have to
    wait for the factors that come with ``backward()``, it costs four.

    Args:
        hidden: inputs of the layer, ``(..., H)``.
        weight: ``(C, H)``, as in :class:`torch.nn.Linear`.
        labels: class ids ``(...)``.
        bias: ``(C)`` or None. -inf marks a class that is not allowed.
        rule: any softhot rule; or give
        label_smoothing: alpha of :class:`softhot.Uniform`. Without either: plain cross entropy.
        class_weight: C class weights, ``weight`` of :func:`softhot.torch.cross_entropy`.
        weighting, ignore_index, reduction, where, alpha, prior: as there; ``where`` and ``alpha``
            have the shape of the labels.
        memory: bytes for a chunk of logits. By default about a sixth of all logits, at most the
            size of ``weight`` and at least 32 MiB; on a GPU half the size of ``weight`` and at
            least 512 MiB.
        filter: None for exact gradients. A number, such as 2**-12: blocks of 128 rows by 128
            classes in which no entry of ``p - q`` exceeds it are not multiplied; the mean of each
            of their rows stands for its entries (:mod:`softhot.kernels.filtered`). The loss stays
            exact. Late in training that saves most of two of the three matrix products.
        recompute: True leaves the gradients to the backward pass, which computes the logits once
            more: four products, and between the passes nothing is held but the inputs.

    Returns:
        float32, or float64 for float64 inputs.

    Raises:
        InputError: naming argument, rule, value and next step.

    Under autocast the layer computes in the dtype of autocast. In half precision the gradient of
    ``weight`` is summed over the chunks in that precision if there are at most four of them, and in
    float32 if there are more. ``torch.func``, ``torch.compile`` and double backward work, through
    all logits at once.

    >>> import torch
    >>> hidden, weight = torch.zeros(2, 8), torch.zeros(4, 8)
    >>> linear_cross_entropy(hidden, weight, torch.tensor([0, 3]), label_smoothing=0.1)
    tensor(1.3863)
    """
    check_layer(hidden, weight, labels, bias)
    reduction = REDUCTION.check("reduction", reduction)
    options: dict[str, Any] = {
        "ignore_index": ignore_index,
        "where": where,
        "weight": class_weight,
        "weighting": weighting,
        "alpha": alpha,
        "prior": prior,
    }
    hidden, weight, bias = in_autocast(hidden, weight, bias)
    if torch.compiler.is_compiling() or is_traced(
        hidden, weight.detach(), labels, where, class_weight, alpha, prior
    ):
        given = {"label_smoothing": label_smoothing, "reduction": reduction, **options}
        return _dense(hidden, weight, bias, labels, rule, given)
    rule = rule_of(rule, label_smoothing)
    h, y = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    for name in ("where", "alpha"):
        if isinstance(options[name], Tensor):
            options[name] = by_row(name, options[name], labels)
    if prior is not None and rule.base.PRIOR == "by_row":
        options["prior"] = prior.reshape(len(y), -1)
    y, counted = checked(h, len(weight), y, rule, options)
    rows = chunk_rows(h, len(weight), memory)
    if filter is not None:
        filter = SMALL.check("filter", filter)
    head = Head(
        y,
        rule,
        reduction,
        {"axis": 1, "allowed": None, **options},
        rows,
        counted,
        filter,
        recompute,
    )
    loss = head.apply(h, weight, bias)
    return loss.reshape(labels.shape) if reduction == "none" else loss


@dataclass(frozen=True)
class Head:
    """All of a call but hidden states, weights and bias.

    Attributes:
        options: those of :class:`softhot.torch.categorical.Categorical`.
        rows: how many rows a chunk has.
        counted: which rows count; None for all.
        filter: what counts as tiny in ``p - q``, or None.
        recompute: whether gradients wait for the backward pass.
    """

    labels: Tensor
    rule: Rule
    reduction: str
    options: dict[str, Any]
    rows: int
    counted: Tensor | None
    filter: float | None = None
    recompute: bool = False

    def apply(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _Chunks.apply(hidden, weight, bias, self)

    def dense(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The loss in operations that can be differentiated, to any order."""
        options = {k: v for k, v in self.options.items() if k not in ("axis", "allowed")}
        return _dense(
            *(hidden, weight, bias, self.labels, self.rule),
            {"reduction": self.reduction, **options},
        )

    def loss_of(self, cut: slice) -> ChunkLoss:
        """The loss of some rows, summed unless it is wanted by row."""
        options = dict(self.options)
        for name in ("where", "alpha"):
            if options[name] is not None:
                options[name] = options[name][cut]
        if options["prior"] is not None and self.rule.base.PRIOR == "by_row":
            options["prior"] = options["prior"][cut]
        reduction = "none" if self.reduction == "none" else "sum"
        return Categorical(self.labels[cut], self.rule, reduction, options)

    def shared(self, slope: Tensor) -> Tensor:
        """The gradient by hidden states, once all have added theirs."""
        return slope

    def total(self, dtype: torch.dtype) -> Tensor | None:
        """What a mean is divided by."""
        if self.reduction != "mean":
            return None
        weight, counted = self.options["weight"], self.counted
        if weight is not None:
            rows = weight.to(dtype)[self.labels]
            total = (rows if counted is None else rows.where(counted, 0)).sum()
        elif counted is not None:
            total = counted.sum(dtype=dtype)
        else:
            return torch.full((), len(self.labels), dtype=dtype, device=self.labels.device)
        return total.where(total > 0, 1)


class ChunkLoss(Protocol):
    """The loss of a chunk, as in :class:`softhot.torch.closed_form.Loss`.

    A dataclass whose field ``overwrite`` lets the gradient take the place of the logits.
    """

    def evaluate(
        self, logits: Tensor, *, gradient: bool, upstream: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Any]: ...


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:3]
        # Factors that come later: by row, or those that keep float16 from underflowing.
        half = hidden.dtype == torch.float16
        ctx.late = head.recompute or head.reduction == "none" or half
        now = (False,) * 3 if ctx.late else wanted
        total = head.total(wide(hidden))
        value, slopes = run(head, hidden, weight, bias, now, _over(total, hidden))
        ctx.head, ctx.divisor = head, total
        ctx.save_for_backward(hidden, weight, bias, *slopes)
        return value if total is None else value / total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *slopes = ctx.saved_tensors
        head: Head = ctx.head
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph=True: the gradients are to be differentiated
            inputs = [x for x, w in zip((hidden, weight, bias), wanted, strict=True) if w]
            value = head.dense(hidden, weight, bias)
            found = iter(torch.autograd.grad(value, inputs, upstream, create_graph=True))
            return (*(next(found) if w else None for w in wanted), None)
        if ctx.late:
            factor = upstream if ctx.divisor is None else upstream / ctx.divisor
            return (*run(head, hidden, weight, bias, wanted, factor)[1], None)
        return (*(None if s is None else scaled(s, upstream) for s in slopes), None)


def run(
    head: Head,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    wanted: tuple[bool, ...],
    factor: Tensor,
) -> tuple[Tensor, Slopes]:
    """Loss, summed or by row, and the gradients that are wanted, times ``factor``."""
    n, dtype, sums = len(hidden), hidden.dtype, wide(hidden)
    cuts = list(slices(n, head.rows))
    dh = _empty(hidden) if wanted[0] else None
    precise = dtype == sums or len(cuts) <= ROUNDINGS
    dw = (_empty(weight) if precise else _empty(weight, sums)) if wanted[1] else None
    db = torch.zeros(len(weight), dtype=sums, device=weight.device) if wanted[2] else None
    rows: list[Tensor] = []
    space = _space(hidden, min(head.rows, n), len(weight))
    with torch.autocast(hidden.device.type, enabled=False):
        for i, cut in enumerate(cuts):
            h = hidden[cut]
            by = factor[cut] if factor.ndim else factor
            value, dz = _chunk(head, cut, h, weight, bias, any(wanted), by, space[: len(h)])
            rows.append(value)
            if dz is None:
                continue
            if dw is not None and head.counted is not None:
                # 0 times what a row holds that doesn't count
                h = h.masked_fill(~head.counted[cut].unsqueeze(-1), 0)
            if head.filter is not None:
                part = None if dh is None else dh[cut]
                _filtered(dz, weight, h, by.abs() * head.filter, part, dw, first=i == 0)
            else:
                if dh is not None:
                    torch.mm(dz, weight, out=dh[cut])
                if dw is not None:
                    _add_product(dw, dz, h, first=i == 0)
            if db is not None:
                db += dz.sum(0, dtype=sums)
    if not cuts and dw is not None:
        dw.zero_()
    loss = torch.cat(rows) if head.reduction == "none" else torch.stack(rows or [factor * 0]).sum()
    slopes = (
        None if dh is None else head.shared(dh),
        None if dw is None else dw.to(dtype),
        None if db is None else db.to(dtype),
    )
    return loss, slopes


def _chunk(
    head: Head,
    cut: slice,
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gradient: bool,
    factor: Tensor,
    space: Tensor,
) -> tuple[Tensor, Tensor | None]:
    def logits() -> Tensor:
        if bias is None:
            return torch.mm(h, weight.T, out=space)
        return torch.addmm(bias, h, weight.T, out=space)

    loss: Any = head.loss_of(cut)
    if not gradient:
        return loss.evaluate(logits(), gradient=False)[0], None
    try:
        done = replace(loss, overwrite=True).evaluate(logits(), gradient=True, upstream=factor)
    except Overwritten:
        done = loss.evaluate(logits(), gradient=True, upstream=factor)
    return done[0], done[1]


def _filtered(
    dz: Tensor,
    weight: Tensor,
    h: Tensor,
    threshold: Tensor,
    dh: Tensor | None,
    dw: Tensor | None,
    first: bool,
) -> None:
    if triton.reason(dz.device.type) or dz.dtype == torch.float64:
        if first and dw is not None:
            dw.zero_()
        filtered.products(dz, weight, h, threshold, dh=dh, dw=dw)
    else:
        from softhot.kernels.triton.products import products

        products(dz, weight, h, threshold, dh=dh, dw=dw, first=first)


def _add_product(dw: Tensor, dz: Tensor, h: Tensor, first: bool) -> None:
    """Add ``dz.T @ h`` to what is there, or put it there."""
    if dw.dtype != dz.dtype:  # float32 sums of half precision, a band of classes at a time
        for band in slices(len(dw), max(1, 2**24 // max(1, dw.shape[1]))):
            part = torch.mm(dz[:, band].T, h)
            dw[band] = part if first else dw[band].add_(part)
    elif first:
        torch.mm(dz.T, h, out=dw)
    else:
        dw.addmm_(dz.T, h)


def chunk_rows(hidden: Tensor, classes: int, memory: int | None) -> int:
    """How many rows of logits a chunk has, all about alike."""
    n, row = len(hidden), max(1, classes * hidden.element_size())
    if memory is None:
        size = row * hidden.shape[1]
        if hidden.device.type == "cpu":
            memory = max(CPU_CHUNK, min(_round_up(-(-n // 6)) * row, size))
        else:
            memory = max(DEVICE_CHUNK, size // 2)
    most = max(1, BYTES.check("memory", memory) // row)
    rows = -(-n // max(1, -(-n // most)))
    return min(_round_up(rows), most)


def _round_up(rows: int) -> int:
    """To what matrix products take at once."""
    return -(-rows // 16) * 16


def in_autocast(*tensors: Tensor | None) -> Iterator[Any]:
    """The tensors as a linear layer takes them under autocast."""
    kind = next(t.device.type for t in tensors if t is not None)
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        tensors = tuple(
            t.to(dtype)
            if t is not None and t.is_floating_point() and t.dtype != torch.float64
            else t
            for t in tensors
        )
    return iter(tensors)


def _dense(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    rule: Rule | None,
    options: dict[str, Any],
) -> Tensor:
    logits = F.linear(hidden, weight, bias)
    if logits.ndim > 2:
        logits = logits.movedim(-1, 1)
    return cross_entropy(logits, labels, rule, **options)


def _over(total: Tensor | None, hidden: Tensor) -> Tensor:
    if total is None:
        return torch.ones((), dtype=wide(hidden), device=hidden.device)
    return 1 / total


def _empty(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for a gradient; on a CPU what the last step's has given back."""
    dtype = dtype or like.dtype
    return _lent(like, tuple(like.shape), dtype)


def _space(hidden: Tensor, rows: int, classes: int) -> Tensor:
    return _lent(hidden, (rows, classes), hidden.dtype)


def _lent(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    size = dtype.itemsize
    for length in shape:
        size *= length
    if like.device.type != "cpu" or size < buffers.SMALLEST:
        return torch.empty(shape, dtype=dtype, device=like.device)
    return torch.frombuffer(buffers.lend(size), dtype=dtype).view(shape)


# -------------------------------------------------------------------------------- checks


def check_layer(hidden: Any, weight: Any, labels: Any, bias: Any, least: int = 2) -> None:
    """Shapes, dtypes and devices of a layer with at least so many classes."""
    for name, value in (("hidden", hidden), ("weight", weight), ("labels", labels), ("bias", bias)):
        if name == "bias" and value is None:
            continue
        if not isinstance(value, Tensor):
            raise InputError(name, "a torch.Tensor", type(value))
        if value.device != hidden.device:
            hint = f"Move it there: {name}.to(hidden.device)."
            raise InputError(name, f"on the device of hidden, {hidden.device}", value.device, hint)
    if hidden.ndim < 1 or not hidden.is_floating_point():
        raise InputError("hidden", "real, (..., H)", (hidden.dtype, tuple(hidden.shape)))
    if weight.ndim != 2 or weight.shape[1] != hidden.shape[-1] or len(weight) < least:
        allowed = f"of shape (C, {hidden.shape[-1]}), at least {least} classes"
        raise InputError("weight", allowed, tuple(weight.shape))
    if bias is not None and bias.shape != (len(weight),):
        raise InputError("bias", f"of shape ({len(weight)},)", tuple(bias.shape))
    if labels.shape != hidden.shape[:-1] or labels.is_floating_point():
        allowed = f"class ids of shape {tuple(hidden.shape[:-1])}"
        hint = "For distributions use softhot.torch.cross_entropy."
        raise InputError("labels", allowed, (labels.dtype, tuple(labels.shape)), hint)
    if not torch.is_autocast_enabled(hidden.device.type):
        for name, value in (("weight", weight), ("bias", bias)):
            if value is not None and value.dtype != hidden.dtype:
                hint = f"Cast one of them: {name}.to(hidden.dtype)."
                raise InputError(name, f"{hidden.dtype}, as hidden is", value.dtype, hint)


def by_row(name: str, value: Tensor, labels: Tensor) -> Tensor:
    """What comes with each label, one after the other."""
    if value.shape != labels.shape:
        allowed = f"one for each label, shape {tuple(labels.shape)}"
        raise InputError(name, allowed, tuple(value.shape))
    return value.reshape(-1)


def checked(
    hidden: Tensor, k: int, labels: Tensor, rule: Rule, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """What a chunk would only find in its own rows: labels in range and which of them count."""
    look, ignore = labels.device.type == "cpu", options["ignore_index"]
    counted = options["where"]
    if counted is not None and (not isinstance(counted, Tensor) or counted.dtype != torch.bool):
        raise InputError("where", "booleans", getattr(counted, "dtype", counted))
    ids = labels.long()
    if ignore is not None:
        if type(ignore) is not int:
            raise InputError("ignore_index", "an integer or None", ignore)
        kept = ids != ignore
        if not look or not bool(kept.all()):
            counted = kept if counted is None else counted & kept
    ids = check_labels(xp, ids, k, soft=False, counted=counted, validate=look)
    if counted is not None:
        # Seen as rows that don't count from here on, whatever the id.
        options["where"], options["ignore_index"] = counted, None
    elif ignore is not None:
        options["ignore_index"] = None
    if isinstance(rule.base.alpha, PerSample) or options["alpha"] is not None:
        _alpha(xp, ids, rule.base, k, options["alpha"], wide(hidden), counted, look)
    WEIGHTING.check("weighting", options["weighting"])
    if options["weight"] is not None:
        _check_weight(xp, options["weight"], hidden.new_empty((1, k)), k, look)
    return ids, counted
