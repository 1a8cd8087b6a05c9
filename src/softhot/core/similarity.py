"""Builders of :class:`softhot.Similarity` rules: from a hierarchy, embeddings or confusions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval
from softhot.core.rules import Similarity
from softhot.core.weights import Alpha, numbers

POSITIVE = Interval(0, math.inf, "()")


def from_hierarchy(
    paths: Sequence[Sequence[str]], *, beta: float = 10.0, alpha: Alpha = 1.0
) -> Similarity:
    r"""Classes near each other in a tree share mass.

    .. math:: S_{y,k} \propto \exp(-\beta\, d(y, k) / \max d)

    with ``d`` the height of the lowest common ancestor above the deeper of the two leaves.

    Args:
        paths: for each class its path from the root, the class itself last.
        beta: > 0; large is nearly one-hot, small nearly uniform. The paper uses 4 to 30.
        alpha: 1 replaces the label by its row, as in the paper.

    Paper: Bertinetto et al., CVPR 2020, arXiv:1912.09393.

    >>> from_hierarchy([("animal", "cat"), ("animal", "dog"), ("car",)], beta=2.0).matrix[0]
    (0.66524095..., 0.24472847..., 0.09003057...)
    """
    beta = POSITIVE.check("beta", beta)
    allowed = "at least two paths of names, none empty"
    if not _is_list(paths) or len(paths) < 2:
        raise InputError("paths", allowed, paths)
    for i, path in enumerate(paths):
        if not _is_list(path) or not path:
            raise InputError(f"paths[{i}]", allowed, path, 'Write ("animal", "cat").')
    paths = [tuple(path) for path in paths]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise InputError("paths", "different from class to class", twice[0])
    height = np.zeros((len(paths), len(paths)))
    for i, a in enumerate(paths):
        for j, b in enumerate(paths[:i]):
            shared = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
            shared = min(len(a), len(b)) if shared is None else shared
            height[i, j] = height[j, i] = max(len(a), len(b)) - shared
    mass = np.exp(-beta * height / height.max())
    return Similarity(alpha, mass / mass.sum(axis=1, keepdims=True))


def from_embeddings(embeddings: Any, *, temperature: float = 0.1, alpha: Alpha = 0.1) -> Similarity:
    r"""Classes with similar embeddings share mass: a softmax of cosines over the *other* classes.

    Args:
        embeddings: ``(K, D)``, one vector a class (class means of features, word vectors).
        temperature: > 0; small puts all mass on the nearest class.
        alpha: share moved.

    Paper: Liu and JaJa 2021, arXiv:2006.14028.

    >>> from_embeddings([[1, 0], [1, 0.1], [0, 1]], temperature=1.0).matrix[2]
    (0.47514..., 0.52485..., 0.0)
    """
    temperature = POSITIVE.check("temperature", temperature)
    vectors = numbers("embeddings", embeddings, ndim=2)
    if len(vectors) < 2:
        raise InputError("embeddings", "of at least 2 classes", vectors)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        at = int(np.argmin(norms))
        raise InputError(f"embeddings[{at}]", "a vector with a direction", vectors[at])
    cosine = (vectors / norms) @ (vectors / norms).T
    np.fill_diagonal(cosine, -np.inf)
    mass = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / temperature)
    return Similarity(alpha, mass / mass.sum(axis=1, keepdims=True))


def from_confusion(counts: Any, *, alpha: Alpha = 0.1) -> Similarity:
    """Classes that get mistaken for each other share mass, in the proportion of the mistakes.

    Args:
        counts: ``(K, K)``, how often true class ``y`` (row) was called ``k`` (column); the diagonal
            is not looked at. A class never mistaken spreads its share over the others alike.
        alpha: share moved.

    >>> from_confusion([[50, 3, 1], [0, 9, 0], [0, 0, 9]]).matrix[0]
    (0.0, 0.75, 0.25)
    """
    mass = numbers("counts", counts, ndim=2)
    if mass.shape[0] != mass.shape[1] or len(mass) < 2:
        raise InputError("counts", "square, (K, K) with K >= 2", mass.shape)
    if (mass < 0).any():
        raise InputError("counts", ">= 0", float(mass.min()))
    mass = mass * (1 - np.eye(len(mass)))
    none = mass.sum(axis=1) == 0
    mass[none] = (1 - np.eye(len(mass)))[none]
    return Similarity(alpha, mass / mass.sum(axis=1, keepdims=True))


def _is_list(value: Any) -> bool:
    """Whether ``value`` is a sequence and no text, whose letters nobody means."""
    return isinstance(value, Sequence) and not isinstance(value, str)
