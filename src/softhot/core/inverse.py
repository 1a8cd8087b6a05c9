"""Undoing smoothing: from what a smoothed model says back to what it would say without."""

from __future__ import annotations

from typing import Any

import numpy as np

from softhot.core.array import Array, accumulator, as_arrays, kind, like
from softhot.core.check import InputError
from softhot.core.rule import Base, Rule, Uniform, check_rule
from softhot.core.targets import (
    CLASSES,
    check_axis,
    check_labels,
    make_target,
    prior_last,
    target_matrix,
)
from softhot.core.weights import PerClass, PerSample


def desmooth(
    probs: Any,
    rule: Rule | float,
    *,
    axis: int = -1,
    alpha: Any = None,
    prior: Any = None,
    clip: bool = True,
) -> Array:
    r"""The distribution that smoothing would have turned into ``probs``: its exact inverse.

    Smoothing is a linear map of label distributions, :math:`q = S^\top y`; a model trained to the
    end on smoothed labels predicts :math:`S^\top` of the true posterior (identity 8), and this
    takes it back (identity 9). For a shared prior it is :math:`(p - \alpha u)/(1 - \alpha)`.

    On real networks it is only part of the way: they stop further from the corner than the optimum
    of the loss. Temperature scaling on held-out data did better wherever we compared; this needs no
    data. For uniform smoothing the order of classes, and so accuracy, never changes.

    Args:
        probs: ``(..., K, ...)`` probabilities, class axis at ``axis``.
        rule: the target rule used in training; a number means ``Uniform(number)``.
        axis: the class axis.
        alpha, prior: what the rule took with the batch, see :func:`softhot.smooth_labels`.
        clip: raise what falls below 0 (a prediction beyond any smoothed target) to 0 and
            renormalise. False returns the plain inverse, which may be negative.

    Returns:
        Array of the shape and dtype of ``probs``.

    Raises:
        InputError: also where no inverse exists (alpha = 1, or similarity rows that coincide).

    Paper: Yamasaki and Tanaka 2023, arXiv:2305.08501 (the estimator and its consistency).

    >>> desmooth([[0.925, 0.025, 0.025, 0.025]], 0.1).round(12)
    array([[1., 0., 0., 0.]])
    """
    rule = check_rule(Uniform(rule) if isinstance(rule, float | int) else rule)
    base = rule.base
    if rule.penalties or not base.TARGET:
        hint = "Only smoothed targets have an inverse: fit a temperature instead."
        raise InputError("rule", "a rule for targets", rule, hint)
    probs, xp = as_arrays("probs", probs)
    if kind(xp, probs) != "real" or probs.ndim == 0:
        raise InputError("probs", "an array of probabilities", probs.dtype)
    axis = check_axis(axis, probs.ndim)
    num_classes = CLASSES.check(f"probs.shape[{axis}]", probs.shape[axis])
    p = check_labels(xp, xp.moveaxis(probs, axis, -1), num_classes, soft=True, argument="probs")
    p = xp.astype(p, accumulator(xp, p))
    prior = prior_last(xp, base, prior, p, axis)
    if base.PRIOR == "by_class" or isinstance(base.alpha, PerClass):
        plain = _invert_map(xp, p, target_matrix(base, num_classes, prior))
    else:
        plain = _invert_mix(xp, p, base, alpha, prior)
    if clip:
        plain = xp.where(plain > 0, plain, xp.zeros_like(plain))
        plain = plain / xp.sum(plain, axis=-1, keepdims=True)
    return xp.moveaxis(xp.astype(plain, probs.dtype), -1, axis)


def _invert_mix(xp: Any, p: Array, base: Base, alpha: Any, prior: Any) -> Array:
    """Invert ``(1 - a) y + a u`` where neither ``a`` nor ``u`` depends on the class."""
    # Any labels of the right shape will do, for the same reason.
    target = make_target(xp, p, base, p.shape[-1], alpha=alpha, prior=prior, smooth_again=True)
    u = target.uniform(p.dtype) if target.prior is None else target.prior
    a = like(xp, p, target.alpha, p.dtype)
    a = xp.expand_dims(a, axis=-1) if a.ndim else a
    if bool(xp.any(a >= 1)):
        raise InputError("alpha", "below 1, where nothing of the label is left to find", 1.0)
    return (p - a * u) / (1 - a)


def _invert_map(xp: Any, p: Array, matrix: np.ndarray | None) -> Array:
    """Solve ``y @ matrix = p``."""
    if matrix is None:
        hint = "Row by row the weight differs, so there is no one map to invert."
        raise InputError("rule", "a rule with one weight for each class", PerSample(), hint)
    if np.linalg.cond(matrix) > 1e12:
        hint = "Some classes have the same target, so nothing can tell them apart."
        raise InputError("rule", "one whose map can be inverted", "a singular map", hint)
    return p @ like(xp, p, np.linalg.inv(matrix), p.dtype)
