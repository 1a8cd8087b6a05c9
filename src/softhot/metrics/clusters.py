"""How tightly rows of a class lie together: in features, or in centred logits.

Smoothing draws the rows of a class together, which may help accuracy and costs what a teacher or
a transfer task would need. The measures here disagree with each other at times (a trace ratio may
fall tenfold while a cosine measure does not move), so report more than one, on held-out rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from softhot.core.array import as_arrays, to_numpy
from softhot.core.check import InputError


def within_over_between(features: Any, labels: Any) -> float:
    """Spread within classes over spread between them: tr S_W / tr S_B, in [0, inf); low is tight.

    S_W is the mean over rows of (h - mean of its class)(...)', S_B the mean over rows of (mean of
    its class - mean of all)(...)', so that S_W + S_B is the total covariance.

    Args:
        features: (N, D) penultimate activations; or logits, with their row mean removed.
        labels: (N,) class ids, any integers; two classes or more.

    Pitfalls: one direction of large spread decides it; no scale, yet not the same in features
    and in logits.

    >>> round(within_over_between([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1]), 9)
    0.04
    """
    within, between = _scatter(features, labels)
    return float(np.vdot(within, within) / np.vdot(between, between))


def nc1(features: Any, labels: Any) -> float:
    """Within-class variability of neural collapse: tr(S_W S_B⁺) / K, in [0, inf); low is tight.

    As :func:`within_over_between`, but each direction of S_B is measured with its own scale, and
    directions in which class means do not differ are left out (S_B⁺ is the pseudo-inverse).
    Papyan, Han and Donoho 2020, "Prevalence of neural collapse during the terminal phase of deep
    learning training"; for unequal classes each row counts alike.

    Pitfall: two classes that nearly coincide make S_B nearly singular, and the number explode.

    >>> round(nc1([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1]), 9)
    0.02
    """
    within, between = _scatter(features, labels)
    # S_B = M'M has the right singular vectors of M, and its squares. No D x D matrix is built.
    _, size, axes = np.linalg.svd(between, full_matrices=False)
    used = size > size[0] * 1e-9
    spread = ((within @ axes[used].T) ** 2).sum(axis=0)
    return float((spread / size[used] ** 2).sum()) / len(between)


@dataclass(frozen=True, eq=False)
class LastLayer:
    """What the plane of templates needs of a last layer z = W h + b where h was not kept.

    ``gram`` (K, K) are the inner products W W' of the templates, ``bias`` (K,) is b.
    """

    gram: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class TemplatePlane:
    """Coordinates in the plane through three class templates.

    ``points`` (N, 2) are the projected features, ``corners`` (3, 2) the templates: the first at
    the origin, the second on the positive first axis, the third above it.
    """

    points: np.ndarray
    corners: np.ndarray


def template_plane(features: Any, weights: Any, classes: Any, bias: Any = None) -> TemplatePlane:
    """Features projected onto the plane through the last layer's rows of three classes.

    Müller, Kornblith and Hinton 2019, "When does label smoothing help?", figure 1: with smoothing
    the rows of each class gather in tight clusters at equal distances. Draw training and test
    rows of the three classes, with and without smoothing.

    Args:
        features: (N, D) penultimate activations.
        weights: (K, D) weights of the last layer, row k the template of class k.
        classes: three different class ids.
        bias: (K,) of the last layer: templates become (w, b), features (h, 1).

    Pitfalls: a picture and no score; axes of two models have different scales; what stands off
    the plane is not seen.

    >>> plane = template_plane([[1.0, 1.0, 5.0]], [[0.0, 0, 0], [2, 0, 0], [0, 2, 0]], [0, 1, 2])
    >>> plane.points.tolist(), plane.corners.tolist()
    ([[1.0, 1.0]], [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    """
    h, w = _numbers("features", features, 2), _numbers("weights", weights, 2)
    if w.shape[1] != h.shape[1]:
        raise InputError("weights", f"of shape (K, {h.shape[1]}), as wide as features", w.shape)
    if bias is not None:
        b = _numbers("bias", bias, 1)
        if b.shape != (len(w),):
            raise InputError("bias", f"of shape ({len(w)},)", b.shape)
        h, w = np.column_stack([h, np.ones(len(h))]), np.column_stack([w, b])
    first, *others = w[_three(classes, len(w))]
    sides = np.array(others) - first
    return _plane((h - first) @ sides.T, sides @ sides.T, 1e-15 * np.vdot(sides, sides), classes)


def template_plane_of_logits(logits: Any, layer: LastLayer, classes: Any) -> TemplatePlane:
    """:func:`template_plane` of features that were not kept, from their logits.

    Exact: an axis of the plane is a combination of differences of templates, and the product of a
    row's features with w_i - w_j is the difference of its z - b. What is the same in all logits
    of a row does not matter, so log-probabilities will do.

    Args:
        logits: (N, K), or log-probabilities.
        layer: the last layer, of K classes; ``gram`` in float32 costs about six digits.
        classes: three different class ids.

    >>> layer = LastLayer(np.diag([0.0, 4, 4]), np.array([0.0, 0, 1]))
    >>> template_plane_of_logits([[0.0, 2.0, 3.0]], layer, [0, 1, 2]).points.tolist()
    [[1.0, 1.0]]
    """
    z, gram = _numbers("logits", logits, 2), _numbers("gram", layer.gram, 2)
    b, k = _numbers("bias", layer.bias, 1), z.shape[1]
    if gram.shape != (k, k) or b.shape != (k,):
        shapes = f"{gram.shape} and {b.shape}"
        raise InputError("layer", f"of the logits' {k} classes, ({k}, {k}) and ({k},)", shapes)
    ids = _three(classes, k)
    gram, differences = gram[np.ix_(ids, ids)], np.array([[-1, 1, 0], [-1, 0, 1]])
    products = ((z - b)[:, ids] - gram[0]) @ differences.T
    rounding = np.finfo(np.float32).eps * np.abs(gram).max()
    return _plane(products, differences @ gram @ differences.T, 10 * rounding, classes)


def _three(classes: Any, k: int) -> np.ndarray:
    ids = _numbers("classes", classes, 1)
    if len(set(ids.tolist())) != 3 or len(ids) != 3 or not np.isin(ids, np.arange(k)).all():
        raise InputError("classes", f"three different ids in [0, {k - 1}]", classes)
    return ids.astype(int)


def _plane(products: np.ndarray, gram: np.ndarray, rounding: float, classes: Any) -> TemplatePlane:
    """The plane of two sides with that Gram matrix (2, 2); ``products`` (N, 2) are those with them.

    With gram = L L' the axes are L⁻¹ times the sides: Gram and Schmidt's.
    """
    height = gram[1, 1] - gram[0, 1] ** 2 / gram[0, 0] if gram[0, 0] > rounding else 0.0
    if height <= rounding:
        raise InputError("classes", "three whose templates are not on one line", classes)
    sides = np.linalg.cholesky(gram)
    return TemplatePlane(np.linalg.solve(sides, products.T).T, np.vstack([np.zeros(2), sides]))


def _scatter(features: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of S_W (N, D) and of S_B (K, D): each is its root's transpose times itself."""
    h, y = _numbers("features", features, 2), _numbers("labels", labels, 1)
    if y.shape != (len(h),) or (y % 1 != 0).any():
        raise InputError("labels", f"class ids of shape ({len(h)},)", labels)
    _, ids, count = np.unique(y, return_inverse=True, return_counts=True)
    if len(count) < 2:
        raise InputError("labels", "of two classes or more", labels)
    h = h - h.mean(axis=0)
    sums = np.zeros((len(count), h.shape[1]))
    np.add.at(sums, ids, h)
    means = sums / count[:, None]
    between = means * np.sqrt(count / len(h))[:, None]
    if np.vdot(between, between) <= 1e-18 * np.vdot(h, h):
        raise InputError("features", "different in the mean from class to class", "equal means")
    return (h - means[ids]) / np.sqrt(len(h)), between


def _numbers(argument: str, value: Any, dimensions: int) -> np.ndarray:
    array = np.asarray(to_numpy(as_arrays(argument, value)[0]), dtype=np.float64)
    if array.ndim != dimensions or not array.size:
        shape = "(N, D)" if dimensions == 2 else "(N,)"
        raise InputError(argument, f"of shape {shape}, not empty", array.shape)
    if not np.isfinite(array).all():
        raise InputError(argument, "finite", array[~np.isfinite(array)][0])
    return array
