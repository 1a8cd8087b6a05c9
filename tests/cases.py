"""The case table: one line a rule, and every law, library, dtype and option runs on it.

A line says what the rule means in the words of its paper, for K = 5, without a formula of the
library: the share ``a`` that is moved and the distribution ``u`` it is moved to (for true class
``y``; ``given`` is what comes with the batch), what a penalty adds, and the target of class 1
worked out by hand.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from batches import GRID, Batch, K, N
from softhot import (
    Bernoulli,
    ConfidencePenalty,
    Focal,
    Margin,
    MassPreserving,
    MaxSup,
    NegativeUniform,
    OneSided,
    Online,
    Ordinal,
    Others,
    PerClass,
    PerSample,
    Platt,
    Prevalence,
    Prior,
    Rule,
    Similarity,
    Teacher,
    Uniform,
    ZLoss,
)

ROWS = np.random.default_rng(7).dirichlet(np.ones(K), size=K)  # a mean prediction a class
TEACHER = np.random.default_rng(8).dirichlet(np.ones(K), size=N)  # a prediction a sample
SHARES = np.tile([0.0, 0.125, 0.25, 0.375, 0.5, 0.0625], N // 6)  # a weight a sample
ALIKE = ((0, 4, 3, 2, 1), (4, 0, 4, 1, 1), (2, 3, 0, 3, 2), (1, 2, 3, 0, 4), (1, 2, 3, 4, 0))
ALIKE = tuple(tuple(v / 10 for v in row) for row in ALIKE)


@dataclass(frozen=True)
class Case:
    """A rule and what it means."""

    name: str
    rule: Rule
    a: float | Callable | None  # a number, or of the class; None: the batch says
    u: Callable  # (y, given) -> K masses, normalised by whoever reads them
    row: tuple  # the target of class 1
    batch: dict[str, Any] | None = None
    penalty: Callable | None = None  # (z, p, math) -> number
    loss: Callable | None = None  # (p, math) -> number, instead of cross entropy; p = p_y
    ordered: bool = False  # the order of the classes is part of the rule


def flat(y, given):
    return [1] * K


def others(y, given):
    return [int(k != y) for k in range(K)]


def falling(distance):
    return lambda y, given: [math.exp(-distance(y, k)) for k in range(K)]


def entropy(p, m):
    return -sum(x * m.log(x) for x in p if x > 0)


def too_wide(z, margin):
    return sum(max(0, max(z) - x - margin) for x in z)


def lse(z, m):
    return m.log(sum(m.exp(x) for x in z))


def tenth(y):
    return y / 10


def counted(*counts):
    return lambda y, given: counts


def alike(y, given):
    return ALIKE[y]


def come(y, given):
    return given


def top(z):
    return max(z) - sum(z) / len(z)


HARD_ROW = (0, 1, 0, 0, 0)
TENTH_ROW = (0.025, 0.9, 0.025, 0.025, 0.025)
UNIFORM_ROW = (0.02, 0.92, 0.02, 0.02, 0.02)
E1, E2, E3 = (math.exp(-d) for d in (1, 2, 3))
ORDINAL = tuple(v / (E1 + 1 + E1 + E2 + E3) for v in (E1, 1, E1, E2, E3))
# Ranks 1, 2, 4, 7, 11, distance (r - 2)^2 / 10: 0.1, 0, 0.4, 2.5, 8.1.
SQUARED = [math.exp(-d) for d in (0.1, 0.0, 0.4, 2.5, 8.1)]
# (log r - log 2)^2: log 2 is 1 octave; ranks 1, 2, 4, 8, 16 are 1, 0, 1, 2, 3 octaves away.
OCTAVE = math.log(2) ** 2
LOG = [math.exp(-OCTAVE * n * n) for n in (1, 0, 1, 2, 3)]
RANKS = (1, 2, 4, 7, 11)
PERCLASS = PerClass((0.0, 0.1, 0.2, 0.3, 0.4))


def mixed(a, row, y=1):
    """``(1 - a) e_y + a row``, the row normalised."""
    return tuple((1 - a) * (k == y) + a * v / sum(row) for k, v in enumerate(row))


CASES = (
    Case("hard", Uniform(0.0), 0, flat, HARD_ROW),
    Case("uniform", Uniform(0.1), 0.1, flat, UNIFORM_ROW),
    Case("uniform per class", Uniform(PERCLASS), tenth, flat, UNIFORM_ROW),
    Case("uniform per sample", Uniform(PerSample()), None, flat, TENTH_ROW, {"alpha": SHARES}),
    Case("others", Others(0.1), 0.1, others, TENTH_ROW),
    Case("others per class", Others(PERCLASS), tenth, others, TENTH_ROW),
    Case(
        "others per sample",
        Others(PerSample()),
        None,
        others,
        (0.03125, 0.875, 0.03125, 0.03125, 0.03125),
        {"alpha": SHARES},
    ),
    Case(
        "prior",
        Prior(0.1, (1, 2, 3, 4, 10)),
        0.1,
        counted(1, 2, 3, 4, 10),
        (0.005, 0.91, 0.015, 0.02, 0.05),
    ),
    Case(
        "prior, tempered",
        Prior(0.1, (1, 4, 9, 16, 400), 2.0),
        0.1,
        counted(1, 2, 3, 4, 20),
        mixed(0.1, (1, 2, 3, 4, 20)),
    ),
    Case(
        "prior per class",
        Prior(PERCLASS, (1, 2, 3, 4, 10)),
        tenth,
        counted(1, 2, 3, 4, 10),
        (0.005, 0.91, 0.015, 0.02, 0.05),
    ),
    Case("similarity", Similarity(0.2, ALIKE), 0.2, alike, (0.08, 0.8, 0.08, 0.02, 0.02)),
    Case("similarity, whole", Similarity(1.0, ALIKE), 1, alike, (0.4, 0, 0.4, 0.1, 0.1)),
    Case(
        "similarity per class",
        Similarity(PERCLASS, ALIKE),
        tenth,
        alike,
        (0.04, 0.9, 0.04, 0.01, 0.01),
    ),
    Case("ordinal", Ordinal(), 1, falling(lambda y, k: abs(y - k)), ORDINAL, ordered=True),
    Case(
        "ordinal, squared",
        Ordinal(0.5, 0.1, "squared", RANKS),
        0.5,
        falling(lambda y, k: (RANKS[y] - RANKS[k]) ** 2 / 10),
        mixed(0.5, SQUARED),
    ),
    Case(
        "ordinal, log",
        Ordinal(0.5, 1.0, "log", (1, 2, 4, 8, 16)),
        0.5,
        falling(lambda y, k: OCTAVE * (y - k) ** 2),
        mixed(0.5, LOG),
    ),
    Case(
        "online", Online(0.5), 0.5, lambda y, given: given[y], mixed(0.5, ROWS[1]), {"prior": ROWS}
    ),
    Case(
        "teacher",
        Teacher(0.5),
        0.5,
        come,
        mixed(0.5, TEACHER[1]),
        {"prior": TEACHER, "by_row": True},
    ),
    Case(
        "teacher, softened",
        Teacher(0.25, 2.0),
        0.25,
        lambda y, given: [t**0.5 for t in given],
        mixed(0.25, TEACHER[1] ** 0.5),
        {"prior": TEACHER, "by_row": True},
    ),
    Case(
        "teacher per sample",
        Teacher(PerSample()),
        None,
        come,
        mixed(0.125, TEACHER[1]),
        {"prior": TEACHER, "by_row": True, "alpha": SHARES},
    ),
    Case("negative", NegativeUniform(-0.25), -0.25, flat, (-0.05, 1.2, -0.05, -0.05, -0.05)),
    Case("focal", Focal(2.0), 0, flat, HARD_ROW, loss=lambda p, m: -((1 - p) ** 2) * m.log(p)),
    Case(
        "focal, fractional",
        Focal(0.5),
        0,
        flat,
        HARD_ROW,
        loss=lambda p, m: -((1 - p) ** m.mpf(0.5)) * m.log(p),
    ),
    Case(
        "confidence penalty",
        ConfidencePenalty(0.25),
        0,
        flat,
        HARD_ROW,
        penalty=lambda z, p, m: -entropy(p, m) / 4,
    ),
    Case(
        "confidence penalty, hinge",
        ConfidencePenalty(0.25, 0.5),
        0,
        flat,
        HARD_ROW,
        penalty=lambda z, p, m: max(0, 0.5 - entropy(p, m)) / 4,
    ),
    Case("maxsup", MaxSup(0.125), 0, flat, HARD_ROW, penalty=lambda z, p, m: top(z) / 8),
    Case(
        "margin", Margin(0.125, 3.0), 0, flat, HARD_ROW, penalty=lambda z, p, m: too_wide(z, 3) / 8
    ),
    Case("z-loss", ZLoss(0.125), 0, flat, HARD_ROW, penalty=lambda z, p, m: lse(z, m) ** 2 / 8),
    Case(
        "uniform and penalties",
        Uniform(0.1) + MaxSup(0.125) + Margin(0.125, 3.0) + ConfidencePenalty(0.25),
        0.1,
        flat,
        UNIFORM_ROW,
        penalty=lambda z, p, m: (top(z) + too_wide(z, 3)) / 8 - entropy(p, m) / 4,
    ),
    Case(
        "focal and a penalty",
        Focal(2.0) + MaxSup(0.125),
        0,
        flat,
        HARD_ROW,
        penalty=lambda z, p, m: top(z) / 8,
        loss=lambda p, m: -((1 - p) ** 2) * m.log(p),
    ),
)

TARGET_CASES = [c for c in CASES if c.penalty is None and c.loss is None]

# A binary rule and the targets of the rows (1, 0, 0, 1, 0) and (0, 0, 1, 0, 0), by hand.
BINARY = (
    ("bernoulli", Bernoulli(0.1), ((0.95, 0.05, 0.05, 0.95, 0.05), (0.05, 0.05, 0.95, 0.05, 0.05))),
    (
        "prevalence",
        Prevalence(0.1, (0.5, 0.1, 0, 1, 0.2)),
        ((0.95, 0.01, 0, 1, 0.02), (0.05, 0.01, 0.9, 0.1, 0.02)),
    ),
    (
        "prevalence, one",
        Prevalence(0.1, (0.2,)),
        ((0.92, 0.02, 0.02, 0.92, 0.02), (0.02, 0.02, 0.92, 0.02, 0.02)),
    ),
    ("one-sided", OneSided(0.1), ((0.9, 0, 0, 0.9, 0), (0, 0, 0.9, 0, 0))),
    (
        "one-sided, negative",
        OneSided(0.1, "negative"),
        ((1, 0.1, 0.1, 1, 0.1), (0.1, 0.1, 1, 0.1, 0.1)),
    ),
    (
        "mass-preserving",
        MassPreserving(0.1),
        ((0.94, 0.04, 0.04, 0.94, 0.04), (0.02, 0.02, 0.92, 0.02, 0.02)),
    ),
    ("platt", Platt(3.0, 8.0), ((0.8, 0.1, 0.1, 0.8, 0.1), (0.1, 0.1, 0.8, 0.1, 0.1))),
    (
        "platt per label",
        Platt((3, 0, 3, 8, 3), (8, 2, 8, 0, 8)),
        ((0.8, 0.25, 0.1, 0.9, 0.1), (0.1, 0.25, 0.8, 0.5, 0.1)),
    ),
)


def make_batch(case, seed=0, scale=None):
    """N rows over K classes, from timid to certain, right and wrong; no two logits alike."""
    random = np.random.default_rng(seed)
    scale = np.resize([0.1, 1.0, 3.0, 12.0], N) if scale is None else np.full(N, scale)
    logits = random.normal(size=(N, K)) * scale[:, None]
    return Batch(logits, np.resize(np.arange(K), N), **(case.batch or {}))


def near(batch, seed):
    """Classes around every label: at least three of them, and every one with label mass."""
    mass = batch.labels > 0 if batch.soft else np.eye(K, dtype=bool)[batch.labels]
    keep = np.random.default_rng(seed).random(mass.shape) < 0.4
    return keep | mass | np.roll(mass, 1, axis=1) | np.roll(mass, 2, axis=1)


def soft(batch):
    """Mixtures of two neighbouring classes; quarters, which every dtype holds exactly."""
    eye, share = np.eye(K), np.resize([1.0, 0.75, 0.5], N)[:, None]
    return replace(
        batch, labels=share * eye[batch.labels] + (1 - share) * eye[(batch.labels + 1) % K]
    )


def allowed(batch):
    return replace(batch, allowed=near(batch, 1))


def masked(batch):
    logits = np.where(near(batch, 2), batch.logits, -np.inf)
    return replace(batch, logits=logits)


def ignored(batch):
    rows, labels = np.arange(N) % 5 == 1, batch.labels.copy()
    labels[rows] = -100
    return replace(_spoiled(batch, rows), labels=labels, ignore_index=-100)


def where(batch):
    rows = np.arange(N) % 7 == 2
    labels = batch.labels.copy()
    labels[rows] = np.nan if batch.soft else 77
    return replace(_spoiled(batch, rows), labels=labels, where=~rows)


def _spoiled(batch, rows):
    """Rows that don't count may hold anything."""
    parts = {}
    for name in ("logits", "alpha", "allowed", *(["prior"] if batch.by_row else [])):
        array = getattr(batch, name)
        if array is not None:
            parts[name] = array.copy()
            parts[name][rows] = False if name == "allowed" else np.nan
    return replace(batch, **parts)


WEIGHT = np.array([1.0, 0.5, 2.0, 1.25, 3.0])

# In this order they can be combined; each is a way to call every loss.
OPTIONS = {
    "soft": soft,
    "allowed": allowed,
    "masked": masked,
    "weight": lambda batch: replace(batch, weight=WEIGHT),
    "class weight": lambda batch: replace(batch, weight=WEIGHT, weighting="class"),
    "ignored": ignored,
    "where": where,
    "middle": lambda batch: replace(batch, middle=True),
    "sum": lambda batch: replace(batch, reduction="sum"),
    "mean": lambda batch: replace(batch, reduction="mean"),
}
EXCLUDE = ({"soft", "ignored"}, {"weight", "class weight"}, {"sum", "mean"})


def can_combine(case, names):
    """Whether these options go together with this rule."""
    if "soft" in names and case.loss is not None:
        return False  # Focal speaks of the probability of one true class
    return not any(pair <= set(names) for pair in EXCLUDE)


def batch_with(case, names, seed=0):
    """The case's batch with these options on."""
    batch = make_batch(case, seed)
    for name, option in OPTIONS.items():
        if name in names:
            batch = option(batch)
    return batch


assert GRID[0] * GRID[1] == N
