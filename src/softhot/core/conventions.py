"""One argument, many formulas: what ``label_smoothing=e`` means, by name, and how they convert.

Two conventions convert exactly if some alpha makes their targets equal for every label; the common
tongue is ``uniform``, the convention of Szegedy et al. and of torch, Keras, optax and timm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from softhot.core.check import InputError, Interval, OneOf

Formula = Callable[[float, int], float]
CLASSES = Interval(2, float("inf"), "[)", integer=True)


@dataclass(frozen=True)
class Convention:
    """What one number means: the targets of the true class and of each other, and who uses it.

    Attributes:
        on, off: target of the true class and of each other, from the argument ``e`` and K.
        to_uniform, from_uniform: the exact conversion, or None.
        why_not: why there is none.
        binary: only for two classes.
        top: the largest argument, from K: from there on a wrong class has as much as the right one.
    """

    formula: str
    used_by: str
    on: Formula
    off: Formula
    to_uniform: Formula | None = None
    from_uniform: Formula | None = None
    why_not: str = ""
    binary: bool = False
    top: Callable[[int], float] = lambda k: 1.0
    kept: bool = False


CONVENTIONS: dict[str, Convention] = {
    "uniform": Convention(
        formula="1 - e + e/K; e/K",
        used_by="Szegedy et al., torch, Keras, optax, timm, Hugging Face",
        on=lambda e, k: 1 - e + e / k,
        off=lambda e, k: e / k,
        to_uniform=lambda e, k: e,
        from_uniform=lambda a, k: a,
    ),
    "others": Convention(
        formula="1 - e; e/(K - 1)",
        used_by="later fairseq, Megatron, most hand-written losses",
        on=lambda e, k: 1 - e,
        off=lambda e, k: e / (k - 1),
        to_uniform=lambda e, k: e * k / (k - 1),
        from_uniform=lambda a, k: a * (k - 1) / k,
        top=lambda k: (k - 1) / k,
    ),
    "classy_vision": Convention(
        formula="(1 + e/K)/(1 + e); (e/K)/(1 + e)",
        used_by="ClassyVision, mmpretrain's mode of that name",
        on=lambda e, k: (1 + e / k) / (1 + e),
        off=lambda e, k: e / k / (1 + e),
        to_uniform=lambda e, k: e / (1 + e),
        from_uniform=lambda a, k: a / (1 - a),
        top=lambda k: float("inf"),
    ),
    "kept": Convention(
        formula="e + (1 - e)/K; (1 - e)/K",
        used_by="Composer 0.3, where the argument is the share that stays",
        on=lambda e, k: e + (1 - e) / k,
        off=lambda e, k: (1 - e) / k,
        to_uniform=lambda e, k: 1 - e,
        from_uniform=lambda a, k: 1 - a,
        kept=True,
    ),
    "binary_half": Convention(
        formula="1 - e/2; e/2",
        used_by="Keras BinaryCrossentropy, YOLOv5, softhot.Bernoulli",
        on=lambda e, k: 1 - e / 2,
        off=lambda e, k: e / 2,
        to_uniform=lambda e, k: e,
        from_uniform=lambda a, k: a,
        binary=True,
    ),
    "binary_full": Convention(
        formula="1 - e; e",
        used_by="segmentation_models, mmpretrain multi_label",
        on=lambda e, k: 1 - e,
        off=lambda e, k: e,
        to_uniform=lambda e, k: 2 * e,
        from_uniform=lambda a, k: a / 2,
        binary=True,
        top=lambda k: 0.5,
    ),
    "skip_pad": Convention(
        formula="1 - e; e/(K - 2), padding class 0",
        used_by="OpenNMT, the Annotated Transformer",
        on=lambda e, k: 1 - e,
        off=lambda e, k: e / (k - 2),
        why_not="it leaves the padding class without mass; pass allowed= to Others instead",
    ),
    "sigmoid_over_classes": Convention(
        formula="1 - e + e/K; e/K, on K sigmoids",
        used_by="timm BinaryCrossEntropy, multi-label recipes",
        on=lambda e, k: 1 - e + e / k,
        off=lambda e, k: e / k,
        why_not="each sigmoid is pulled towards 1/K, and a binary rule pulls towards 1/2",
    ),
    "one_sided": Convention(
        formula="1 - e; 0",
        used_by="GAN discriminators, softhot.OneSided",
        on=lambda e, k: 1 - e,
        off=lambda e, k: 0.0,
        why_not="only positives are smoothed; no two-sided rule does that",
    ),
}


def convert_alpha(alpha: float, frm: str, to: str, num_classes: int) -> float:
    """The argument that gives, in convention ``to``, the targets ``alpha`` gives in ``frm``.

    Args:
        alpha: the argument in convention ``frm``.
        frm, to: names in :data:`CONVENTIONS`.
        num_classes: K >= 2.

    Raises:
        InputError: if the two do not convert exactly, and why; or alpha is out of range.

    >>> round(convert_alpha(0.1, "others", "uniform", num_classes=10), 6)
    0.111111
    >>> convert_alpha(0.1, "uniform", "skip_pad", num_classes=10)
    Traceback (most recent call last):
    softhot.core.check.InputError: to must be a convention that converts exactly; got 'skip_pad'. \
It does not: it leaves the padding class without mass; pass allowed= to Others instead.
    """
    k = CLASSES.check("num_classes", num_classes)
    for argument, name in (("frm", frm), ("to", to)):
        convention = CONVENTIONS[OneOf(*CONVENTIONS).check(argument, name)]
        if convention.why_not and frm != to:
            hint = f"It does not: {convention.why_not}."
            raise InputError(argument, "a convention that converts exactly", name, hint)
        if convention.binary and k != 2:
            hint = "It speaks of one yes-or-no label: pass num_classes=2."
            raise InputError("num_classes", f"2 for {name!r}", k, hint)
    source, target = CONVENTIONS[frm], CONVENTIONS[to]
    alpha = alpha_range(source, k).check("alpha", alpha)
    if frm == to or source.to_uniform is None or target.from_uniform is None:
        return alpha
    return target.from_uniform(source.to_uniform(alpha, k), k)


def meanings(alpha: float, num_classes: int) -> list[dict[str, Any]]:
    """What the argument ``alpha`` means in every convention that takes it, for K classes.

    Returns:
        A row a convention: ``convention``, ``formula``, ``on``, ``off`` (the targets of the true
        class and of each other), ``uniform`` (the alpha of :class:`softhot.Uniform` that gives the
        same, or None) and ``used_by``. Binary conventions speak of one yes-or-no label.

    >>> [row["on"] for row in meanings(0.1, 10) if row["convention"] in ("uniform", "others")]
    [0.91, 0.9]
    """
    k = CLASSES.check("num_classes", num_classes)
    rows = []
    for name, convention in CONVENTIONS.items():
        if alpha in alpha_range(convention, k) and (name != "skip_pad" or k > 2):
            convert = convention.to_uniform
            row: dict[str, Any] = {"convention": name, "formula": convention.formula}
            row |= {"on": convention.on(alpha, k), "off": convention.off(alpha, k)}
            row |= {"uniform": convert(alpha, k) if convert else None}
            rows.append(row | {"used_by": convention.used_by})
    return rows


def alpha_range(convention: Convention, num_classes: int) -> Interval:
    """The arguments for which the true class keeps the most mass."""
    if convention.kept:
        return Interval(0, 1, "(]")
    return Interval(0, convention.top(num_classes), "[)")
