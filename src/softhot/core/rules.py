"""The rules: what a loss is asked to do, as small frozen objects.

>>> Uniform(0.1) + ConfidencePenalty(0.1)
Uniform(alpha=0.1) + ConfidencePenalty(beta=0.1, threshold=None)

First the rules for targets, then the penalties. A new one is a dataclass here, with its formula,
paper and how it differs from its neighbours, and a line in ``tests/cases.py``; every law, namespace
and adapter then runs on it. Words and symbols: :mod:`softhot.core.rule`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.core.rule import (
    FULL_SHARE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Base,
    Penalty,
    Rule,
    sized,
)
from softhot.core.rule import Uniform as Uniform
from softhot.core.weights import Alpha, Schedule, numbers


@dataclass(frozen=True)
class Others(Base):
    r"""A share ``alpha`` goes to the K - 1 *wrong* classes alike; the true class keeps 1 - alpha.

    .. math:: q_y = 1 - \alpha, \qquad q_{k \ne y} = \alpha / (K - 1)

    Exactly :class:`Uniform` at ``alpha K / (K - 1)`` (identity 6). The convention of later fairseq,
    Megatron and most hand-written losses. ``alpha`` must stay below ``(K - 1) / K``: there the
    wrong classes would get as much mass as the right one.

    >>> from softhot import smooth_labels
    >>> smooth_labels([0], Others(0.1), num_classes=3)
    array([[0.9 , 0.05, 0.05]])
    """

    alpha: Alpha = 0.1
    RANGES = {"alpha": SHARE}

    def mixing(self, alpha: Any, num_classes: Any) -> Any:
        return alpha * num_classes / (num_classes - 1)


@dataclass(frozen=True)
class Prior(Base):
    r"""A share ``alpha`` goes to the classes by how frequent they are (unigram smoothing).

    .. math:: u_k = n_k^{1/T} / \sum_j n_j^{1/T}

    Args:
        alpha: share moved, 0 <= alpha < 1.
        counts: K counts or frequencies, not negative, not all 0.
        temperature: T > 0; above 1 flattens the distribution towards uniform.

    Unlike :class:`Uniform`, it can move the arg max towards frequent classes.
    Papers: Szegedy et al. 2016 (general u); Pereyra et al. 2017, arXiv:1701.06548 (unigram);
    Meister et al., ACL 2020, arXiv:2005.00820 (the temperature).

    >>> from softhot import smooth_labels
    >>> smooth_labels([0], Prior(0.1, counts=(1, 3)), num_classes=2)
    array([[0.925, 0.075]])
    """

    alpha: Alpha = 0.1
    counts: tuple[float, ...] = ()
    temperature: float = 1.0
    PRIOR = "shared"
    RANGES = {"alpha": SHARE, "temperature": POSITIVE}

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = numbers("Prior.counts", self.counts, ndim=1)
        if not (counts >= 0).all() or not counts.any():
            raise InputError("Prior.counts", "counts >= 0, not all 0", self.counts)
        object.__setattr__(self, "counts", tuple(counts.tolist()))

    def prior(self, num_classes: int) -> np.ndarray:
        counts = sized("Prior.counts", np.asarray(self.counts), num_classes)
        # Dividing by the largest first keeps huge counts from overflowing the power.
        tempered = (counts / counts.max()) ** (1.0 / self.temperature)
        return tempered / tempered.sum()


@dataclass(frozen=True)
class Similarity(Base):
    r"""A share ``alpha`` goes to the classes by how alike they are to the true one.

    .. math:: q = (1 - \alpha)\, e_y + \alpha\, S_y

    Args:
        alpha: share moved, 0 <= alpha <= 1; 1 replaces the label by row ``S_y`` altogether.
        matrix: ``(K, K)``, row y is the distribution for true class y: entries >= 0, rows sum to 1.

    :mod:`softhot.core.similarity` builds matrices from a hierarchy, embeddings or a confusion
    matrix. Papers: Bertinetto et al., CVPR 2020, arXiv:1912.09393 (hierarchy, alpha = 1);
    Liu and JaJa, 2021, arXiv:2006.14028 (class similarity).

    >>> from softhot import smooth_labels
    >>> cat_dog_car = ((0, 1, 0), (1, 0, 0), (0.5, 0.5, 0))
    >>> smooth_labels([0], Similarity(0.1, cat_dog_car), num_classes=3)
    array([[0.9, 0.1, 0. ]])
    """

    alpha: Alpha = 0.1
    matrix: tuple[tuple[float, ...], ...] = ()
    PRIOR = "by_class"
    RANGES = {"alpha": FULL_SHARE}

    def __post_init__(self) -> None:
        super().__post_init__()
        matrix = numbers("Similarity.matrix", self.matrix, ndim=2)
        if matrix.shape[0] != matrix.shape[1]:
            raise InputError("Similarity.matrix", "square, (K, K)", matrix.shape)
        if (matrix < 0).any():
            raise InputError("Similarity.matrix", "without negative entries", float(matrix.min()))
        sums = matrix.sum(axis=1)
        if not np.allclose(sums, 1, rtol=0, atol=1e-6):
            row = int(np.abs(sums - 1).argmax())
            total, hint = float(sums[row]), "Divide every row by its sum."
            raise InputError(f"Similarity.matrix[{row}]", "a row that sums to 1", total, hint)
        if np.abs(sums - 1).max() > 1e-12:  # else leave it, so that it survives a round trip
            matrix = matrix / sums[:, None]
        object.__setattr__(self, "matrix", tuple(map(tuple, matrix.tolist())))

    def prior(self, num_classes: int) -> np.ndarray:
        return sized("Similarity.matrix", _matrix(self.matrix), num_classes)


@dataclass(frozen=True)
class Ordinal(Base):
    r"""Ordered classes: the further a class is from the true one, the less mass it gets (SORD).

    .. math:: u_{y,k} = \mathrm{softmax}_k\bigl(-s\,\phi(r_y, r_k)\bigr), \qquad
              q = (1 - \alpha) e_y + \alpha u_y

    with :math:`\phi` = ``"absolute"`` :math:`|r_y - r_k|`, ``"squared"`` :math:`(r_y - r_k)^2` or
    ``"log"`` :math:`(\log r_y - \log r_k)^2`.

    Args:
        alpha: share moved, 0 <= alpha <= 1; the paper's method is 1, the default.
        scale: s > 0, how fast mass falls with distance.
        distance: the name of :math:`\phi`.
        positions: ranks ``r`` of the K classes, in any order; 1, 2, ..., K if not given.

    Paper: Diaz and Marathe, CVPR 2019, "Soft Labels for Ordinal Regression".

    >>> from softhot import smooth_labels
    >>> smooth_labels([1], Ordinal(scale=2.0), num_classes=3).round(3)
    array([[0.107, 0.787, 0.107]])
    """

    alpha: Alpha = 1.0
    scale: float = 1.0
    distance: str = "absolute"
    positions: tuple[float, ...] | None = None
    PRIOR = "by_class"
    RANGES = {
        "alpha": FULL_SHARE,
        "scale": POSITIVE,
        "distance": OneOf("absolute", "squared", "log"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions is not None:
            positions = numbers("Ordinal.positions", self.positions, ndim=1)
            if self.distance == "log" and (positions <= 0).any():
                hint = "Shift the positions, or use another distance."
                raise InputError("Ordinal.positions", "> 0 for 'log'", self.positions, hint)
            object.__setattr__(self, "positions", tuple(positions.tolist()))

    def prior(self, num_classes: int) -> np.ndarray:
        if self.positions is None:
            ranks = np.arange(1.0, num_classes + 1)
        else:
            ranks = sized("Ordinal.positions", np.asarray(self.positions), num_classes)
        if self.distance == "log":
            ranks = np.log(ranks)
        gap = ranks[:, None] - ranks[None, :]
        distance = np.abs(gap) if self.distance == "absolute" else gap**2
        mass = np.exp(-self.scale * distance)
        return mass / mass.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Online(Base):
    """A share ``alpha`` goes to what the model itself said of the class in the previous epoch.

    ``u_y`` is the mean prediction over the samples of class y that were predicted correctly;
    :class:`softhot.OnlineMeans` gathers it and hands it over as ``prior=``, a ``(K, K)`` array.

    Args:
        alpha: share moved, 0 <= alpha <= 1; the paper uses 0.5.

    Paper: Zhang et al., IEEE TIP 2021, arXiv:2011.12562.
    """

    alpha: Alpha = 0.5
    PRIOR = "by_class"
    FROM_BATCH = True
    RANGES = {"alpha": FULL_SHARE}


@dataclass(frozen=True)
class Teacher(Base):
    r"""A share ``alpha`` goes where a teacher puts it: another model, or this one trained before.

    .. math:: u_i = t_i^{1/T} / \sum_k t_{ik}^{1/T}

    The teacher's probabilities ``t``, ``(N, K)``, come with the batch as ``prior=``.

    Args:
        alpha: share moved, 0 <= alpha <= 1.
        temperature: T > 0; above 1 softens the teacher.

    The loss is not multiplied by T squared, as some distillation code does.
    Papers: Hinton et al. 2015, arXiv:1503.02531; Yuan et al., CVPR 2020, arXiv:1909.11723.
    """

    alpha: Alpha = 0.5
    temperature: float = 1.0
    PRIOR = "by_row"
    FROM_BATCH = True
    RANGES = {"alpha": FULL_SHARE, "temperature": POSITIVE}

    def refine(self, prior: Any, xp: Any) -> Any:
        if self.temperature == 1.0:
            return prior
        # Relative to the largest, so that no power underflows to a row of zeros.
        tempered = (prior / xp.max(prior, axis=-1, keepdims=True)) ** (1.0 / self.temperature)
        return tempered / xp.sum(tempered, axis=-1, keepdims=True)


@dataclass(frozen=True)
class NegativeUniform(Base):
    r"""Uniform smoothing with a *negative* share: it sharpens labels, to undo known label noise.

    .. math:: q_k = (1 - \alpha)\,[k = y] + \alpha / K, \qquad \alpha < 0

    It equals backward correction (Patrini et al. 2017) for symmetric noise: if a label is replaced,
    with probability ``rho``, by a class drawn uniformly from all K, take
    ``alpha = -rho / (1 - rho)`` (identity 10); :meth:`from_noise` computes it.

    **It needs** a known noise rate and a model warmed up with plain cross entropy: the loss has no
    lower bound (wrong classes have negative target), and from scratch it diverges.

    Paper: Wei et al., ICML 2022, arXiv:2106.04149.

    >>> NegativeUniform.from_noise(0.2)
    NegativeUniform(alpha=-0.25)
    """

    alpha: Alpha = -0.1
    RANGES = {"alpha": Interval(-math.inf, 0, "()")}

    @classmethod
    def from_noise(cls, rate: float, num_classes: int | None = None) -> NegativeUniform:
        """The rule that corrects noise of a known rate.

        Args:
            rate: 0 < rate < 1, the probability that a label was replaced by one drawn from all K
                classes; or, with ``num_classes``, from the K - 1 *wrong* ones (``rate < 1 - 1/K``).
        """
        rate = Interval(0, 1, "()").check("rate", rate)
        if num_classes is not None:
            k = Interval(2, math.inf, "[)", integer=True).check("num_classes", num_classes)
            rate = Interval(0, 1, "()").check(f"rate * {k} / ({k} - 1)", rate * k / (k - 1))
        return cls(-rate / (1 - rate))


@dataclass(frozen=True)
class Focal(Base):
    r"""Focal loss, a baseline that plays easy examples down instead of smoothing them.

    .. math:: L = -(1 - p_y)^\gamma \log p_y

    ``p_y`` is always that of the hard label, so it has no target: it takes class ids only, and
    :func:`softhot.smooth_labels` and :func:`softhot.desmooth` refuse it.

    Args:
        gamma: >= 0; 0 is plain cross entropy.

    Papers: Lin et al., ICCV 2017, arXiv:1708.02002; Mukhoti et al., NeurIPS 2020,
    arXiv:2002.09437 (as a calibration method, gamma = 3).
    """

    gamma: float = 2.0
    alpha: ClassVar[float] = 0.0  # type: ignore[misc]  # no field here, unlike in the base
    TARGET = False
    RANGES = {"gamma": NOT_NEGATIVE}

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        nll = row.lse - row.true
        wrong = -row.xp.expm1(-nll)  # 1 - p_y without cancellation
        # No power of 0: its slope is infinite, and a framework that differentiates this meets it.
        # Where 1 - p_y is 0, so are nll and the gradient, whatever the factor.
        positive = row.xp.where(wrong > 0, wrong, 1.0)
        factor = row.mass * positive**self.gamma
        ratio = nll / positive  # d/d nll of wrong^g nll is the slope
        slope = factor * (1 + self.gamma * (1 - wrong) * ratio)
        return factor * nll, {"lse": slope, "true": -slope}


@dataclass(frozen=True)
class ConfidencePenalty(Penalty):
    r"""Rewards entropy of the prediction: :math:`-\beta H(p)`.

    .. math:: H(p) = \mathrm{lse}(z) - \langle p, z\rangle, \qquad
              \nabla_z(-\beta H) = \beta\, p \odot (\log p + H)

    With ``threshold`` only predictions whose entropy is below it pay:
    :math:`\beta \max(0, \Gamma - H(p))`.

    Args:
        beta: weight > 0.
        threshold: Gamma > 0 in nats, or None.

    Label smoothing is KL(u || p) up to a constant, this is KL(p || u): identity 14.
    Paper: Pereyra et al., ICLR workshop 2017, arXiv:1701.06548.
    """

    beta: float = 0.1
    threshold: float | None = None
    RANGES = {"beta": POSITIVE}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None:
            value = POSITIVE.check("ConfidencePenalty.threshold", self.threshold)
            object.__setattr__(self, "threshold", value)

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        if self.threshold is None:
            return row.linear(lse=-self.beta, expected=self.beta)
        entropy = row.lse - row.expected
        pays = row.xp.astype(entropy < self.threshold, entropy.dtype)
        value = self.beta * pays * (self.threshold - entropy)
        return value, {"lse": -self.beta * pays, "expected": self.beta * pays}


@dataclass(frozen=True)
class MaxSup(Penalty):
    r"""Holds the *largest* logit down, right or wrong: :math:`\alpha\,(\max z - \bar z)`.

    Uniform smoothing is cross entropy plus :math:`\alpha (z_y - \bar z)` (identity 4): the same
    wherever the prediction is right; where it is wrong, smoothing pushes the true logit further
    down and this does not (identity 13). At ties the first maximum counts.

    Args:
        alpha: weight, 0 < alpha < 1; or a :class:`Schedule`.

    Paper: Zhou et al., NeurIPS 2025, arXiv:2502.15798.
    """

    alpha: Alpha = 0.1
    RANGES = {"alpha": Interval(0, 1, "()")}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.alpha, float | Schedule):
            raise InputError("MaxSup.alpha", "a number or a Schedule", self.alpha)

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        return row.linear(max=self.alpha, mean=-self.alpha)  # type: ignore[operator]  # a loss has fixed schedules


@dataclass(frozen=True)
class Margin(Penalty):
    r"""Lets logit gaps grow up to a margin, then pushes back (margin-based label smoothing).

    .. math:: w \sum_k \max(0,\ \max z - z_k - m)

    Args:
        weight: w > 0, of the *sum* over classes; the paper's code takes their mean, so its 0.1 is
            ``0.1 / K`` here.
        margin: m >= 0, in logit units. ``margin=0`` is :class:`MaxSup` at ``alpha = K w``.

    Paper: Liu et al., CVPR 2022, arXiv:2111.15430.
    """

    weight: float = 0.01
    margin: float = 10.0
    RANGES = {"weight": POSITIVE, "margin": NOT_NEGATIVE}

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        key = ("hinge", self.margin)
        return self.weight * row.hinge(self.margin), {key: self.weight}


@dataclass(frozen=True)
class ZLoss(Penalty):
    r"""Keeps the logits at the scale of log-probabilities: :math:`w\,\mathrm{lse}(z)^2`.

    A softmax does not feel a constant added to all logits, so nothing else holds it; in half
    precision it drifts until digits are lost. This penalty feels nothing but that constant: the
    best prediction stays (identity 19), unlike under :class:`ConfidencePenalty` or :class:`MaxSup`.

    Args:
        weight: w > 0; the paper uses 1e-4.

    Paper: Chowdhery et al. (PaLM), JMLR 2023, arXiv:2204.02311, section 5.

    >>> import numpy as np
    >>> from softhot import Uniform, cross_entropy
    >>> rule = Uniform(0.0) + ZLoss(0.5)
    >>> cross_entropy(np.log([[0.25, 0.75], [0.5, 1.5]]), np.array([1, 1]), rule).round(4)
    array([0.2877, 0.5279])
    """

    weight: float = 1e-4
    SHIFT_INVARIANT = False
    RANGES = {"weight": POSITIVE}

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        return row.squared_lse(self.weight)


RULES: dict[str, type[Rule]] = {
    name: rule for name, rule in Rule.known.items() if issubclass(rule, Base | Penalty)
}


@lru_cache(maxsize=16)
def _matrix(rows: tuple[tuple[float, ...], ...]) -> np.ndarray:
    array = np.asarray(rows)
    array.flags.writeable = False
    return array
