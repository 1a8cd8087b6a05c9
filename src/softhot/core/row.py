r"""The statistics of a row of logits, and the gradient of each.

For a row of logits ``z`` with ``p = softmax(z)`` every rule is a few coefficients on a few numbers,
which sum to 0 (identity 5):

=========== ============================ =================================
statistic   value                        gradient
=========== ============================ =================================
``lse``     ``log sum_k exp z_k``        ``p``
``true``    ``<y, z>`` (``z_y`` for ids) ``y``
``prior``   ``<u, z>``                   ``u``
``mean``    mean of ``z``                ``1/K``
``max``     ``max_k z_k``                one-hot of the first maximum
``expected````<p, z>``                   ``p * (1 + z - <p, z>)``
=========== ============================ =================================

All are taken of ``z - max z``. Cross entropy with any target is then a sum of terms none of which
is negative, so nothing cancels, and its relative error stays at a few units in the last place
however confident the prediction. Only :meth:`Row.squared_lse` asks for ``max z`` itself. Classes
that are not allowed, among them every class whose logit is -inf, have no mass in ``p``, ``y`` and
``u``, no gradient, and do not count in ``K``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from softhot.core.array import Array, accumulator, like, one_hot, take_class
from softhot.core.targets import Target


class Row:
    """The statistics of every row of a batch, each computed when a rule first asks for it.

    Attributes:
        mass, keep, alpha: total mass of the target and its two parts, each a number or ``(...)``:
            1, 1 - alpha and alpha unless class weights enter the target.
    """

    def __init__(self, logits: Array, target: Target, weight: Array | None) -> None:
        self.xp = xp = target.xp
        self.target = target
        self.dtype = dtype = accumulator(xp, logits)
        z = xp.astype(logits, dtype)
        self.allowed = target.allowed
        if self.allowed is not None:
            z = xp.where(self.allowed, z, xp.full_like(z, -xp.inf))
        top = xp.max(z, axis=-1, keepdims=True)
        self.top = top[..., 0]
        self.shifted = z - top
        self.exp = xp.exp(self.shifted)
        # exp(-inf) is 0, but 0 * -inf is not: below, a class that is not allowed just counts 0.
        self.z = self.shifted if self.allowed is None else self._masked(self.shifted)
        self.alpha = like(xp, z, target.alpha, dtype)
        self.soft_labels = xp.astype(target.labels, dtype) if target.soft else None
        self.u = xp.astype(target.prior, dtype) if target.prior is not None else None
        self.mass: Any = 1.0
        self.keep = 1 - self.alpha
        if weight is not None:
            self._weigh(weight)

    def _masked(self, values: Array) -> Array:
        return self.xp.where(self.allowed, values, self.xp.zeros_like(values))

    def _weigh(self, weight: Array) -> None:
        """Let class weights into the target: q becomes w * q, no longer of mass 1."""
        xp = self.xp
        u = self.u if self.u is not None else self.target.uniform(self.dtype)
        self.u = weight * u
        if self.soft_labels is None:
            on = xp.take(weight, xp.reshape(self.target.labels, (-1,)))
            on = xp.reshape(on, self.target.labels.shape)
            self.keep = self.keep * on
            self.mass = self.keep + self.alpha * xp.sum(self.u, axis=-1)
        else:
            self.soft_labels = weight * self.soft_labels
            on = xp.sum(self.soft_labels, axis=-1)
            self.mass = self.keep * on + self.alpha * xp.sum(self.u, axis=-1)

    @cached_property
    def rest(self) -> Array:
        """The sum of exponentials but for the maximum's own, which is 1."""
        xp = self.xp
        largest = self.exp == 1  # and what rounds to it; NaN stays among the others
        ties = xp.sum(xp.astype(largest, self.dtype), axis=-1) - 1
        # What is added for the largest is 0, but with the slope that differentiation has to see.
        return xp.sum(xp.where(largest, xp.expm1(self.shifted), self.exp), axis=-1) + ties

    @cached_property
    def peak(self) -> Array:
        """The first class with the largest logit."""
        return self.xp.argmax(self.shifted, axis=-1)

    @cached_property
    def probs(self) -> Array:
        """``p``, ``(..., K)``."""
        return self.exp / self.xp.expand_dims(1 + self.rest, axis=-1)

    @cached_property
    def lse(self) -> Array:
        return self.xp.log1p(self.rest)

    @cached_property
    def true(self) -> Array:
        if self.soft_labels is not None:
            return self.xp.sum(self.soft_labels * self.z, axis=-1)
        return take_class(self.xp, self.z, self.target.labels)

    @cached_property
    def mean(self) -> Array:
        if self.allowed is None:
            return self.xp.mean(self.z, axis=-1)
        return self.xp.sum(self.target.uniform(self.dtype) * self.z, axis=-1)

    @cached_property
    def prior(self) -> Array:
        return self.mean if self.u is None else self.xp.sum(self.u * self.z, axis=-1)

    @cached_property
    def max(self) -> Array:
        return self.xp.zeros_like(self.lse)

    @cached_property
    def expected(self) -> Array:
        return self.xp.sum(self.probs * self.z, axis=-1)

    def hinge(self, margin: float) -> Array:
        """``sum_k max(0, max z - z_k - margin)`` over the allowed classes."""
        return self.xp.sum(self._beyond(margin) * (-self.z - margin), axis=-1)

    def _beyond(self, margin: float) -> Array:
        beyond = -self.z > margin
        if self.allowed is not None:
            beyond = beyond & self.allowed
        return self.xp.astype(beyond, self.dtype)

    def linear(self, **coefficients: Any) -> tuple[Array, dict[Any, Any]]:
        """A sum of coefficients times statistics, and its partials: the coefficients."""
        value = sum(c * getattr(self, name) for name, c in coefficients.items())
        return value, coefficients

    def squared_lse(self, weight: float) -> tuple[Array, dict[Any, Any]]:
        """``weight`` times the square of ``lse`` of the logits themselves, and its partials."""
        whole = self.top + self.lse
        return weight * whole**2, {"lse": 2 * weight * whole}

    def gradient(self, partials: dict[Any, Any]) -> Array:
        """The chain rule: partial derivatives by statistic to the gradient by logit."""
        total: Any = 0.0
        for name, partial in partials.items():
            partial = self.xp.expand_dims(like(self.xp, self.z, partial, self.dtype), axis=-1)
            total = total + partial * self.slope(name)  # 0 for a class that is not allowed
        return total

    def slope(self, name: Any) -> Array:
        """The gradient of one statistic with respect to the logits, ``(..., K)``."""
        xp = self.xp
        if name == "lse":
            return self.probs
        if name == "true":
            return (
                self.target.label_mass(self.dtype) if self.soft_labels is None else self.soft_labels
            )
        if name == "prior" and self.u is not None:
            return self.u
        if name in ("prior", "mean"):
            return self.target.uniform(self.dtype)
        peak = one_hot(xp, self.peak, self.z.shape[-1], self.dtype)
        if name == "max":
            return peak
        if name == "expected":
            return self.probs * (1 + self.z - xp.expand_dims(self.expected, axis=-1))
        beyond = self._beyond(name[1])
        return xp.sum(beyond, axis=-1, keepdims=True) * peak - beyond
