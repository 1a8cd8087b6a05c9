"""The native kernel: loads the compiled library, checks it once, and hands it pointers.

``native.cpp`` says what it computes, ``hatch_build.py`` builds it. It takes class ids, rules whose
penalties are linear in the statistics of a row, and float32, bfloat16 or float16 logits with the
class axis last. Whatever it refuses goes another way; nothing depends on it being there.

The environment variable ``SOFTHOT_NATIVE`` turns it off (``0``) or limits it to an instruction set
(``avx2``, ``baseline``).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from softhot.core.rule import Base, Penalty, Rule, Uniform

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "_native.so"
Entry = Callable[[bytes], int]
INSTRUCTION_SETS = ("avx512bf16", "avx512", "avx2", "baseline")  # best first
# What native.cpp calls Call, and its enumerations.
CALL = struct.Struct("@11P4q5d4i")
DTYPES = {"float32": 0, "bfloat16": 1, "float16": 2}
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
HAS_IGNORE, PRIOR_BY_CLASS, PRIOR_BY_ROW, WEIGHT_BY_CLASS, NO_MASKED, LENIENT = 1, 2, 4, 8, 16, 32
INT32_LABELS = 64
# A thread is worth waking for this many logits.
LOGITS_A_THREAD = 2**15


@dataclass(frozen=True)
class Library:
    """The kernel for this processor, or why there is none.

    Attributes:
        entry: the compiled function, or None.
        reason: for people: what runs, or what is missing.
        handler: the same function as XLA calls it, for :mod:`softhot.kernels.xla`.
    """

    entry: Entry | None
    reason: str
    handler: Any = None


@cache
def library() -> Library:
    """Load the library, once in a process, and believe it only if it computes right."""
    wanted = os.environ.get("SOFTHOT_NATIVE", "")
    if wanted == "0":
        return Library(None, "switched off by SOFTHOT_NATIVE=0")
    try:
        entries = load(LIBRARY)
    except OSError as error:
        return Library(None, str(error))
    name = wanted or next(iter(entries), "none")
    if name not in entries:
        found = ", ".join(entries)
        return Library(None, f"SOFTHOT_NATIVE={wanted}, but this processor has: {found}")
    wrong = _self_check(entries[name])
    if wrong:
        return Library(None, f"its {name} code is wrong on this machine: {wrong}")
    handler = getattr(ctypes.CDLL(str(LIBRARY)), f"softhot_xla_{name}")
    return Library(entries[name], f"runs its {name} code", handler)


def load(path: Path) -> dict[str, Entry]:
    """The functions of a compiled library that this processor can run, fastest first."""
    if not path.exists():
        raise OSError("not built: install softhot with a C++ compiler, or run hatch_build.py")
    try:
        loaded = ctypes.CDLL(str(path))
        found = loaded.softhot_version()
    except (OSError, AttributeError) as error:
        raise OSError(f"{path.name} cannot be loaded: {error}") from error
    if found != source_version():
        raise OSError(f"{path.name} was made from other sources: run hatch_build.py")
    entries = {}
    for name in INSTRUCTION_SETS:
        if hasattr(loaded, f"softhot_{name}") and loaded.softhot_supports(name.encode()):
            entry = getattr(loaded, f"softhot_{name}")
            entry.argtypes, entry.restype = [ctypes.c_char_p], ctypes.c_int
            entries[name] = entry
    return entries


def source_version() -> int:
    """The number by which a library knows the sources it was made from."""
    sources = [(FOLDER / name).read_bytes() for name in ("native.cpp", "simd.h", "xla.h")]
    return zlib.crc32(b"".join(sources)) & 0x7FFFFFFF


# -------------------------------------------------------------------------------- rules


@dataclass(frozen=True)
class Coefficients:
    """What penalties add to the coefficients of the row statistics; of lse(z)^2 in ``square``."""

    lse: float = 0.0
    mean: float = 0.0
    max: float = 0.0
    expected: float = 0.0
    square: float = 0.0


class _Probe:
    """A row that has no numbers: penalties that kernels know tell it their coefficients."""

    def linear(self, **coefficients: float) -> tuple[float, dict[str, float]]:
        return 0.0, coefficients

    def squared_lse(self, weight: float) -> tuple[float, dict[str, float]]:
        return 0.0, {"square": weight}


@lru_cache(maxsize=64)
def coefficients(penalties: tuple[Penalty, ...]) -> Coefficients | None:
    """The coefficients that ``penalties`` add, or None if a penalty is not linear.

    >>> from softhot import Margin, MaxSup
    >>> coefficients((MaxSup(0.2),))
    Coefficients(lse=0.0, mean=-0.2, max=0.2, expected=0.0, square=0.0)
    >>> coefficients((Margin(),)) is None
    True
    """
    total: dict[str, float] = {}
    for penalty in penalties:
        try:
            _, own = penalty.terms(_Probe())
        except AttributeError:  # it asks for the numbers
            return None
        for name, value in own.items():
            total[name] = total.get(name, 0.0) + value
    if not total.keys() <= {"lse", "mean", "max", "expected", "square"}:
        return None
    return Coefficients(**total)


def takes(rule: Rule, squares: bool = False) -> bool:
    """Whether a kernel can compute the rule: a target rule as they all are, linear penalties.

    The Triton kernels know one ``squares`` besides, that of lse(z); this one does not.
    """
    base, extra = rule.base, coefficients(rule.penalties)
    if extra is None or (extra.square and not squares):
        return False
    return type(base).terms is Base.terms and not base.FROM_BATCH


def share(rule: Rule, num_classes: int) -> float | None:
    """The rule's weight on the prior where one number says it; None leaves the case to others."""
    base = rule.base
    if not takes(rule) or not isinstance(base.alpha, float):
        return None
    mixed = base.mixing(base.alpha, num_classes)
    return mixed if mixed is base.alpha or mixed < 1 else None


def _plain_share(rule: Rule) -> bool:
    return type(rule.base).mixing is Base.mixing


def in_place(rule: Rule) -> bool:
    """Whether a lenient call never turns logits down, so that its gradient may overwrite them."""
    return _plain_share(rule) and rule.base.PRIOR == "uniform"


def prior(rule: Rule, num_classes: int) -> np.ndarray | None:
    """The prior that comes with the rule, float32 ``(K,)`` or ``(K, K)``; None for the uniform."""
    table = rule.base.prior(num_classes)
    return None if table is None else np.ascontiguousarray(table, np.float32)


# -------------------------------------------------------------------------------- a call


def run(
    rule: Rule,
    entry: Entry | None = None,
    *,
    dtype: str,
    logits: int,
    labels: int,
    shape: tuple[int, int],
    stride: int,
    loss: int,
    gradient: int = 0,
    normalizer: int = 0,
    alpha: float | int = 0.0,
    counted: int = 0,
    prior: int = 0,
    weight: int = 0,
    scale: int = 0,
    ignore_index: int | None = None,
    weighting: str = "sample",
    reduction: str = "mean",
    pool: int = 0,
    threads: int = 1,
    lenient: bool = False,
) -> bool:
    """Compute loss and gradient; arrays are addresses, 0 for those left out.

    Args:
        rule: one that :func:`takes` says yes to.
        entry: another function than that of :func:`library`.
        dtype: of logits and gradient.
        logits: ``shape = (N, K)``, rows ``stride`` elements apart. -inf is a missing class.
        labels: ``(N,)`` int64.
        loss: float32, ``(N,)`` for ``reduction="none"``, else one number.
        gradient: ``(N, K)`` without gaps, of the reduced loss (of the sum for ``"none"``); may be
            the logits, see :func:`in_place`.
        normalizer: one float64, what a mean was divided by.
        alpha: the share of the prior, in the convention of :class:`softhot.Uniform`: a number, or
            the address (an int) of ``(N,)`` float32.
        counted: ``(N,)`` bytes: whether a row counts.
        prior: float32 ``(K,)``, or ``(K, K)`` for a rule with a prior by class.
        weight: ``(K,)`` float32 class weights.
        scale: ``(N,)`` float32 factors of the rows' gradients.
        pool: address of ``GOMP_parallel`` in the OpenMP library to use, see :func:`pool_of`.
        lenient: logits may be anything: a row that is not finite gets loss and gradient NaN, a
            label on a missing class loss inf.

    Returns:
        Whether it was done. If not, because of labels out of range, of logits that are NaN, inf or
        -inf in a whole row, of a label on a missing class, or of missing classes where the rule
        makes more of them than the kernel knows, the outputs hold nothing of use.
    """
    entry = entry or library().entry
    extra = coefficients(rule.penalties)
    if entry is None or extra is None or extra.square:
        return False
    n, k = shape
    flags = LENIENT if lenient else 0
    if ignore_index is not None:
        flags |= HAS_IGNORE
    if weighting == "class":
        flags |= WEIGHT_BY_CLASS
    if prior and rule.base.PRIOR == "by_class":
        flags |= PRIOR_BY_CLASS
    if not _plain_share(rule):
        flags |= NO_MASKED  # the share depends on how many classes a row has
    address, share = (alpha, 0.0) if isinstance(alpha, int) else (0, alpha)
    arguments = (
        *(logits, gradient, loss, normalizer, labels, counted, address, prior, weight, scale, pool),
        *(n, k, stride, ignore_index or 0),
        *(share, extra.lse, extra.mean, extra.max, extra.expected),
        *(DTYPES[dtype], REDUCTIONS[reduction], min(threads, n * k // LOGITS_A_THREAD), flags),
    )
    return entry(CALL.pack(*arguments)) == 0


@lru_cache(maxsize=8)
def pool_of(path: str) -> int:
    """The address of ``GOMP_parallel`` in a library or one that it leans on; 0 if there is none.

    ``libtorch_cpu`` leads to the OpenMP library that torch itself runs on: its threads, no others.
    """
    try:
        function = ctypes.CDLL(path).GOMP_parallel
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def any_pool() -> int:
    """:func:`pool_of` torch if it is loaded, else of the system: never a second one."""
    return _torch_pool() if "torch" in sys.modules else pool_of("libgomp.so.1")


@cache
def _torch_pool() -> int:
    folder = Path(sys.modules["torch"].__path__[0])
    return pool_of(str(folder / "lib" / "libtorch_cpu.so"))


@cache
def processors() -> int:
    """How many this process may use, or ``OMP_NUM_THREADS``."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated):
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _self_check(entry: Entry) -> str:
    """A small batch against the reference; an empty string, or what came out wrong."""
    from softhot.core.losses import cross_entropy_and_gradient

    random = np.random.default_rng(0)
    for k in (2, 10, 33, 2500):
        logits = (4 * random.standard_normal((17, k))).astype(np.float32)
        labels = random.integers(k, size=17)
        loss, gradient = np.empty(1, np.float32), np.empty_like(logits)
        done = run(
            *(Uniform(0.1), entry),
            dtype="float32",
            logits=logits.ctypes.data,
            labels=labels.ctypes.data,
            shape=(17, k),
            stride=k,
            loss=loss.ctypes.data,
            gradient=gradient.ctypes.data,
            alpha=0.1,
        )
        if not done:
            return f"it refuses a batch of {k} classes"
        wide = logits.astype(np.float64)
        right = cross_entropy_and_gradient(wide, labels, Uniform(0.1), reduction="mean")
        if not np.allclose(loss, right[0], rtol=1e-5) or not np.allclose(
            gradient, right[1], rtol=1e-4, atol=1e-6 / 17
        ):
            return f"loss or gradient of {k} classes"
    return ""
