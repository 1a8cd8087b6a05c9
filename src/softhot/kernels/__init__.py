"""Faster ways to the same numbers, each held to the readable reference in :mod:`softhot.core`.

:func:`choose` is the one place that says which way a batch takes, and why. Kernels know no rule:
they take coefficients on the statistics of a row (:mod:`softhot.core.row`) and nothing else.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from softhot.core.rule import Base, Rule
from softhot.kernels import triton
from softhot.kernels.native import library, takes


@dataclass(frozen=True)
class Choice:
    """The way a batch takes.

    Attributes:
        name: ``"triton"`` (:mod:`softhot.kernels.triton`: on a GPU, one pass over the logits each
            way), ``"native"`` (:mod:`softhot.kernels.native`: compiled code, one pass over the
            logits; JAX's way to it is :mod:`softhot.kernels.xla`), ``"chunked"``
            (:mod:`softhot.kernels.chunked`: closed-form gradient, rows in blocks that fit the
            cache), ``"compiled"`` (:mod:`softhot.kernels.compiled`: one expression for a compiler
            to fuse) or ``"core"`` (the reference: with its closed-form gradient, or differentiated
            by whoever has to see the operations).
        reason: why, for people.
    """

    name: str
    reason: str


NATIVE = Choice("native", "class ids and rows of floats: one pass of compiled code")


def choose(
    rule: Rule,
    *,
    soft: bool = False,
    allowed: bool = False,
    weighting: str = "sample",
    traced: bool = False,
    compiled: bool = False,
    native: bool = False,
    triton: bool = False,
) -> Choice:
    """Which kernel a batch takes.

    Args:
        rule: a softhot rule.
        soft: whether labels are distributions, not class ids.
        allowed: whether a class mask comes with the call.
        weighting: ``"sample"`` or ``"class"``.
        traced: whether somebody has to see the operations: ``torch.func``, forward-mode
            differentiation, a tensor subclass such as ``DTensor``, or an argument besides the
            logits that wants a gradient.
        compiled: whether that somebody is ``torch.compile``.
        native: whether dtype, device and layout are those of the native kernel. It may still turn
            the batch down for its values; then ask again without.
        triton: the same of the Triton kernels.

    >>> from softhot import Prior, Uniform
    >>> choose(Uniform(0.1))
    Choice(name='chunked', reason='class ids and a uniform prior: lse, z_y and mean z are enough')
    >>> choose(Prior(0.1, counts=(3, 1))).name
    'core'
    """
    seen = soft or allowed or traced or compiled
    if triton and not seen and takes(rule, squares=True):
        return Choice("triton", "class ids on a GPU, rows of floats: the Triton kernels")
    if native and not seen and takes(rule) and library().entry is not None:
        return NATIVE
    if rule.penalties or type(rule.base).terms is not Base.terms:
        return Choice("core", "the rule needs more statistics of a row than a target does")
    if rule.base.PRIOR != "uniform":
        return Choice("core", "the rule brings a prior of its own")
    if soft:
        return Choice("core", "labels are distributions")
    if allowed:
        return Choice("core", "a class mask comes with the call")
    if weighting != "sample":
        return Choice("core", "class weights enter the target")
    if compiled:
        return Choice("compiled", "torch.compile fuses what it sees")
    if traced:
        return Choice("core", "the operations themselves are asked for")
    return Choice("chunked", "class ids and a uniform prior: lse, z_y and mean z are enough")


def ways() -> dict[str, str]:
    """What every kernel takes, and whether those that are compiled run on this machine."""
    found = library()
    native = found.reason if found.entry else f"not used here: {found.reason}"
    missing = triton.reason("cuda")
    if missing:
        on_gpu = f"not used here: {missing}"
    elif gpu := triton.device():
        on_gpu = f"used on {gpu}"
    else:
        on_gpu = "installed, but this machine has no GPU to use it on"
    return {
        "triton": f"{on_gpu} (CUDA; rows of float32, bfloat16 or float16, class ids, any rule "
        "whose prior is known and whose penalties are linear or a z-loss)",
        "native": f"{native} (CPU; rows of float32, bfloat16 or float16, class ids, any rule whose "
        "prior is known and whose penalties are linear; PyTorch, NumPy, and JAX from 0.8 on if the "
        f"prior is uniform{_refused_by_xla()})",
        "chunked": "plain PyTorch, rows in blocks that fit the cache (any device; class ids, "
        "uniform prior)",
        "compiled": "one expression for torch.compile to fuse (class ids, uniform prior)",
        "core": "everything else, and what all of them are held to",
    }


def _refused_by_xla() -> str:
    xla = sys.modules.get("softhot.kernels.xla")  # what nobody uses is not loaded to be asked
    name, why = xla.target() if xla and library().entry else ("", "")
    return f"; JAX here: not used, {why}" if name is None else ""


def explain() -> str:
    """:func:`ways` for people, a line each; the first that takes a batch computes it.

    >>> explain().splitlines()[-1]
    'core: everything else, and what all of them are held to'
    """
    return "\n".join(f"{name}: {text}" for name, text in ways().items())
