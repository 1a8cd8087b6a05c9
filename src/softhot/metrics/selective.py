"""Selective risk: the errors that are left when the least certain rows are set aside.

Rows are ranked by ``ranking``, which is the confidence unless a remedy brought its own. Rows of
equal rank count with the mean over all their orders, which is exact and cheap, because every
number here is linear in the order of a tied group.
"""

from __future__ import annotations

import math

import numpy as np

from softhot.core.check import Interval
from softhot.metrics.predictions import Predictions, Rows, Undefined, rows_of

COVERAGE = Interval(0, 1, "(]")


def aurc(predictions: Predictions | Rows) -> float:
    """Area under the risk-coverage curve: mean over k = 1 .. N of the error rate of the k surest.

    In [0, 1], low is best: (1/N) sum_k errors(k) / k, rows sorted by falling confidence (Geifman,
    Uziel and El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers").
    Rows of equal confidence count with the mean over all their orders.

    Pitfalls: mixes accuracy with ranking (:func:`e_aurc`, :func:`auroc`); the few surest rows
    dominate (:func:`augrc`); other definitions prepend the point (0, 0), use trapezoids, or let
    the order of rows break ties.
    """
    return float(risk_coverage(predictions).mean())


def e_aurc(predictions: Predictions | Rows) -> float:
    """Excess AURC: :func:`aurc` less that of the best order of the same errors, in [0, 1].

    0 if every wrong row is less certain than every right one. With m errors among N rows the best
    order has (1/N) sum over j = 1 .. m of j / (N - m + j), taken exactly; Geifman et al. 2019 use
    its limit r + (1 - r) log(1 - r), r = m / N, under which small sets fall below 0.

    Pitfall: as it removes accuracy, a model can win by making errors that are easy to see.
    """
    rows = rows_of(predictions)
    errors = int((~rows.correct).sum())
    j = np.arange(1, errors + 1)
    best = float((j / (len(rows) - errors + j)).sum()) / len(rows)
    return max(0.0, aurc(rows) - best)


def augrc(predictions: Predictions | Rows) -> float:
    """Area under the generalised risk-coverage curve: of P(wrong and kept), in [0, 1/2].

    Trapezoids under errors(k) / N against k / N from the point (0, 0): the chance that a random
    row is wrong and among those kept, over all coverages (Traub et al. 2024, "Overcoming common
    flaws in the evaluation of selective classification systems"). Equal to
    (1 - AUROC) acc (1 - acc) + (1 - acc)²/2, and computed so, ties included.

    Pitfall: weighs all coverages alike, so the surest rows count less than in :func:`aurc`; the
    two can disagree about smoothing. Report both.
    """
    rows = rows_of(predictions)
    wrong = int((~rows.correct).sum())
    inversions = wrong * (len(rows) - wrong) - _ordered_pairs(rows)
    return (inversions + wrong**2 / 2) / len(rows) ** 2


def risk_at(predictions: Predictions | Rows, coverage: float) -> float:
    """Error rate of the ceil(coverage · N) surest rows, coverage in (0, 1].

    Pitfall: one point of the curve; choose it before looking. Rows tied at the cut count with
    the error rate of their group.

    >>> p = Predictions.from_probs([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [0, 1, 1])
    >>> risk_at(p, 0.5)
    0.5
    """
    COVERAGE.check("coverage", coverage)
    risk = risk_coverage(predictions)
    # A coverage of 0.8 is a little more than 8/10 in binary: 10 rows must not become 9.
    return float(risk[max(1, math.ceil(coverage * len(risk) - 1e-9)) - 1])


def risk_at_80(predictions: Predictions | Rows) -> float:
    """Error rate of the surest 80 % of the rows: :func:`risk_at` with coverage 0.8."""
    return risk_at(predictions, 0.8)


def auroc(predictions: Predictions | Rows) -> float:
    """AUROC of errors: chance that a random right row is more certain than a random wrong one.

    In [0, 1], 1/2 for a coin; ties count one half. Hendrycks and Gimpel 2017, "A baseline for
    detecting misclassified and out-of-distribution examples".

    Pitfalls: knows nothing of accuracy, so a worse model can have a better one: read it beside.
    Without errors, or with errors only, it is not defined: :class:`Undefined`.
    """
    rows = rows_of(predictions)
    wrong = int((~rows.correct).sum())
    if wrong in (0, len(rows)):
        allowed = "right in some rows and wrong in others"
        raise Undefined("predictions", allowed, f"{wrong} of {len(rows)} wrong")
    return _ordered_pairs(rows) / (wrong * (len(rows) - wrong))


def risk_coverage(predictions: Predictions | Rows) -> np.ndarray:
    """(N,) error rate of the k surest rows, k = 1 .. N: the curve that :func:`aurc` averages."""
    size, wrong = _groups(rows_of(predictions))
    errors = np.cumsum(np.repeat(wrong / size, size))
    return errors / np.arange(1, len(errors) + 1)


def _groups(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Number of rows and of errors at each level of certainty, the surest first."""
    _, group, size = np.unique(-rows.ranking, return_inverse=True, return_counts=True)
    return size, np.bincount(group, ~rows.correct)


def _ordered_pairs(rows: Rows) -> float:
    """Pairs of a right row above a wrong one; equal ones count one half."""
    size, wrong = _groups(rows)
    right = size - wrong
    return float(wrong @ (np.cumsum(right) - right / 2))
