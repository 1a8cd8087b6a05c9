r"""From what a loss returns to the target it trains on, and from two targets to a convention.

Cross entropy against *any* target is linear in statistics of the logits:

.. math:: L(z) = m\,\mathrm{lse}(z) - \langle q, z\rangle + c

so the loss at a few more random logits than there are unknowns gives ``m``, ``q`` and ``c`` by
least squares, and a residual at rounding level is the proof that the loss has that form. Its
relatives are linear in other statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from softhot.core.conventions import CONVENTIONS, Convention
from softhot.core.diagnosis.probe import Array, lse, sigmoid, softmax

ROUNDING = 2e-7  # of targets that went through float32 on their way into a float64 loss
# A form fits if it leaves less than this share of how much the loss varies. Plain cross entropy may
# leave more than rounding, as people add an epsilon here and there.
EXACT, CLOSE = 1e-5, 1e-4


@dataclass(frozen=True)
class Form:
    """A formula: ``response(loss) = <mass(x), m> - <x, q> + <rest(x), r>`` for ``x = of(logits)``.

    Attributes:
        mass: statistics whose coefficients say how much target there is, ``(N,)`` or ``(N, K)``.
        rest: statistics that are neither mass nor class, by name.
        of: what stands in for the logits.
        response: what is linear, from the loss.
        family: ``"softmax"`` (one label a row) or ``"sigmoid"`` (K independent labels).
        gives: what the loss is given (see :data:`.probe.GIVES`) when it has this form.
    """

    mass: Callable[[Array], Array]
    rest: Mapping[str, Callable[[Array], Array]]
    of: Callable[[Array], Array] = lambda z: z
    response: Callable[[Array], Array] = lambda loss: loss
    family: str = "softmax"
    gives: tuple[str, ...] = ("logits",)


def _softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


CONSTANT = {"constant": lambda z: np.ones(len(z))}
FORMS: dict[str, Form] = {
    "cross entropy": Form(mass=lse, rest=CONSTANT, gives=("logits", "probabilities")),
    "binary cross entropy": Form(
        mass=_softplus, rest=CONSTANT, family="sigmoid", gives=("logits", "sigmoid probabilities")
    ),
    "cross entropy of smoothed predictions": Form(
        # exp(-L) = <q, p>. As p sums to 1, here and below, a constant would not be determined.
        mass=lambda p: np.empty((len(p), 0)),
        rest={},
        of=lambda z: -softmax(z),
        response=lambda loss: np.exp(-loss),
        gives=("logits", "probabilities"),
    ),
    "cross entropy of a second softmax": Form(mass=lse, rest={}, of=softmax),
    "binary cross entropy of a second sigmoid": Form(
        mass=_softplus, rest=CONSTANT, of=sigmoid, family="sigmoid"
    ),
    "cross entropy with penalties": Form(
        mass=lse,
        rest={
            **CONSTANT,
            "max z": lambda z: z.max(axis=-1),
            "<p, z>": lambda z: (softmax(z) * z).sum(axis=-1),
        },
    ),
}


@dataclass(frozen=True)
class Fit:
    """The coefficients of a form for one label, and how well they reproduce the loss.

    Attributes:
        form: key of :data:`FORMS`.
        mass: total mass (softmax family), or that of each class (sigmoid family).
        target: ``(K,)`` coefficients of the classes less what belongs to a penalty; the target
            itself where the mass is 1.
        penalties: weights of ``max z - mean z`` and of the negative entropy, as far as not 0.
        residual: root mean square of what is left over that of the loss around its mean.
        error: what the coefficients are certain to.
    """

    form: str
    mass: Array
    target: Array
    penalties: dict[str, float]
    residual: float
    error: float

    @property
    def fits(self) -> bool:
        """Whether the loss has the form."""
        plain = self.form in ("cross entropy", "binary cross entropy")
        return self.residual < (CLOSE if plain else EXACT)

    @property
    def share(self) -> Array:
        """The prediction for which the loss is least: the target, divided by its mass."""
        if FORMS[self.form].family == "sigmoid":
            return self.target / np.where(np.abs(self.mass) > self.error, self.mass, 1.0)
        total = self.target.sum()
        return self.target / total if abs(total) > 10 * self.error else self.target


def logits_for(num_classes: int) -> Array:
    """Random logits, enough of them for every form.

    They are small, so that an ``epsilon`` inside somebody's logarithm hardly shows, and shifted, to
    tell the mass from the sum of the target.
    """
    rng, rows = np.random.default_rng(0), 3 * num_classes + 40
    return rng.normal(size=(rows, num_classes)) + rng.normal(size=(rows, 1))


def fit(name: str, z: Array, losses: Array) -> list[Fit]:
    """Least squares of one form to the loss of each label, ``(N, number of labels)``."""
    form, k = FORMS[name], z.shape[1]
    with np.errstate(all="ignore"):
        response = form.response(losses)
    x = form.of(z)
    mass = form.mass(x).reshape(len(z), -1)
    columns = [mass, -x, *(column(x)[:, None] for column in form.rest.values())]
    design = np.concatenate(columns, axis=1)
    usable = np.isfinite(response).all() and np.abs(response).max() < 1e100
    if not usable:
        response = np.zeros_like(losses)
    # Random logits make a well-conditioned design, so the normal equations, with their error
    # corrected once, are as exact as an orthogonal solver and many times faster.
    normal = design.T @ design
    solution = np.linalg.solve(normal, design.T @ response)
    solution = solution + np.linalg.solve(normal, design.T @ (response - design @ solution))
    left = response - design @ solution
    found = []
    for j in range(losses.shape[1]):
        m, target = solution[: mass.shape[1], j], solution[mass.shape[1] : mass.shape[1] + k, j]
        rest = dict(zip(form.rest, solution[mass.shape[1] + k :, j].tolist(), strict=True))
        rms = float(np.sqrt(np.mean(left[:, j] ** 2))) if usable else math.inf
        spread = float(np.std(response[:, j])) if usable else 0.0
        error = max(ROUNDING, 40 * rms)
        top, negative_entropy = rest.get("max z", 0.0), rest.get("<p, z>", 0.0)
        if form.of is softmax:  # nor would the same amount in every class
            target = target + (m[0] - target.sum()) / k
        penalties = {"(max z - mean z)": top, "the negative entropy": negative_entropy}
        penalties = {what: weight for what, weight in penalties.items() if abs(weight) > error}
        target, m = target - top / k, m + negative_entropy
        # Without mass, what is left of a second softmax is a loss linear in the probabilities.
        void = spread < 1e-12 or (form.of in (softmax, sigmoid) and m.min() <= error)
        residual = math.inf if void else rms / spread
        found.append(Fit(name, m, target, penalties, residual, error))
    return found


def best_fit(z: Array, loss: Array, gives: str) -> Fit:
    """The simplest form that leaves nothing but rounding, else hardly more than the best one."""
    with np.errstate(over="ignore"):
        narrow = np.array_equal(loss, loss.astype(np.float32))
    found: list[Fit] = []
    for name, form in FORMS.items():
        if gives in form.gives:
            found += fit(name, z, loss[:, None])
            if found[-1].residual < (EXACT if narrow else 1e-9):
                return found[-1]
    least = min(each.residual for each in found)
    return next(each for each in found if each.residual <= 3 * least)


@dataclass(frozen=True)
class Reading:
    """What a target is called.

    Attributes:
        convention: key of :data:`softhot.CONVENTIONS`, or ``"none"`` (hard labels), ``"prior"``
            (mixed with a distribution that is not uniform), ``"by_class"`` (a distribution for
            each class), ``"mass_preserving"``, ``"unknown"``.
        alpha: its argument.
        uniform: the alpha of the uniform convention with the same target, if there is one.
        also: other conventions whose target is the same, and their arguments.
        slip: key of :data:`SLIPS`, if the target is one of those.
    """

    convention: str = "unknown"
    alpha: float | None = None
    uniform: float | None = None
    also: tuple[tuple[str, float], ...] = ()
    slip: str = ""


SOFTMAX = ("uniform", "others", "classy_vision", "kept")
SIGMOID = ("binary_half", "binary_full", "sigmoid_over_classes", "one_sided")
SLIPS: dict[str, Convention] = {
    "e for every other class": Convention(
        "1 - e; e", "np.where recipes", on=lambda e, k: 1 - e, off=lambda e, k: e
    ),
    "true class without its e/K": Convention(
        "1 - e; e/K", "fill-and-scatter recipes", on=lambda e, k: 1 - e, off=lambda e, k: e / k
    ),
    "1/K without e": Convention(
        "1 - e + 1/K; 1/K", "ConvE", on=lambda e, k: 1 - e + 1 / k, off=lambda e, k: 1 / k
    ),
    "e/(K - 1) for the true class too": Convention(
        formula="1 - e + e/(K - 1); e/(K - 1)",
        used_by="losses that add a sum over all K to one over the others",
        on=lambda e, k: 1 - e + e / (k - 1),
        off=lambda e, k: e / (k - 1),
    ),
}


def explaining(
    table: Mapping[str, Convention], on: float, off: float, k: int, tolerance: float
) -> dict[str, float]:
    """The formulas of ``table`` that give these two targets for K classes, and their arguments."""
    found = {}
    for name, formula in table.items():
        least = -math.inf if name == "uniform" else -tolerance  # only that one has a negative rule
        e, before = 0.5, 0.0  # ``on`` is linear in e, or nearly: the secant finds it at once
        for _ in range(40):
            rise = formula.on(e, k) - formula.on(before, k)
            if abs(rise) < 1e-15:
                break
            e, before = e + (on - formula.on(e, k)) * (e - before) / rise, e
        wrong = max(abs(formula.on(e, k) - on), abs(formula.off(e, k) - off))
        if wrong <= tolerance and e >= least:
            found[name] = shortest(e, tolerance / 2)
    return found


def shortest(value: float, tolerance: float) -> float:
    """The number with the fewest decimals within ``tolerance``."""
    rounded = (round(value, digits) + 0.0 for digits in range(13))
    return next((r for r in rounded if abs(r - value) <= tolerance), value)


def read(
    on: float,
    off: float,
    k: int,
    family: str,
    *,
    second: tuple[float, float, int] | None = None,
    argument: float | None = None,
    tolerance: float = 1e-9,
) -> Reading:
    """The convention with these targets of the true class and of each other.

    Several always explain one pair. Whoever states the ``argument`` decides; else those that also
    explain a ``second`` pair, at another K, stay; and of them the one with the roundest argument,
    not above 1/2 if it can be helped, in the order of :data:`softhot.CONVENTIONS`.
    """
    names = SOFTMAX if family == "softmax" else SIGMOID
    table = {name: CONVENTIONS[name] for name in names}
    found = explaining(table, on, off, k, tolerance)
    if not found:
        return Reading()
    near = max(1e-6, 10 * tolerance)
    matching = [n for n, e in found.items() if argument is not None and abs(e - argument) < near]
    if abs(on - 1) <= tolerance and abs(off) <= tolerance and "kept" not in matching:
        return Reading("none", 0.0, 0.0)
    if second is not None and not matching:
        there = explaining(table, *second, tolerance)
        matching = [n for n in found if n in there and abs(there[n] - found[n]) <= 4 * tolerance]
    choice = min(
        matching or found,
        key=lambda name: (found[name] > 0.5, len(repr(found[name])), names.index(name)),
    )
    to_uniform = CONVENTIONS[choice].to_uniform
    uniform = None if to_uniform is None else shortest(to_uniform(found[choice], k), 1e-12)
    also = tuple((name, alpha) for name, alpha in found.items() if name != choice)
    return Reading(choice, found[choice], uniform, also)


def two_values(rows: Mapping[int, Array], tolerance: float) -> tuple[float, float] | None:
    """The target of the true class and of the others, if all labels have the same two."""
    if not rows:
        return None
    on = np.array([row[label] for label, row in rows.items()])
    off = np.concatenate([np.delete(row, label) for label, row in rows.items()])
    if np.ptp(on) > tolerance or np.ptp(off) > tolerance:
        return None
    return float(on.mean()), float(off.mean())


def skipped_class(rows: Mapping[int, Array], tolerance: float) -> int | None:
    """The one class that has no mass for any other label, if exactly one has none."""
    if len(rows) < 2:
        return None
    others = np.array([np.where(np.arange(len(r)) == y, 0.0, np.abs(r)) for y, r in rows.items()])
    empty = np.flatnonzero(others.max(axis=0) <= tolerance)
    return int(empty[0]) if len(empty) == 1 else None


def shared_prior(rows: Mapping[int, Array], family: str, tolerance: float) -> float | None:
    """``alpha`` if every row is ``(1 - alpha) e_y + alpha u`` with one ``u``, else None."""
    if len(rows) < 2:
        return None
    mixed = np.array([np.where(np.arange(len(r)) == y, np.nan, r) for y, r in rows.items()])
    share = np.nanmean(mixed, axis=0)
    kept = np.array([row[label] - share[label] for label, row in rows.items()])
    alpha = 1 - float(kept.mean())
    one = max(np.nanmax(np.abs(mixed - share)), np.ptp(kept), -share.min()) <= tolerance
    whole = family == "sigmoid" or abs(share.sum() - alpha) <= len(share) * tolerance
    return shortest(alpha, tolerance) if one and whole else None


def class_weights(rows: Mapping[int, Array], tolerance: float) -> tuple[float, Array] | None:
    r"""Off over on, and K weights, if uniform targets were multiplied by class weights.

    Then :math:`q_j / q_y = r\, w_j / w_y`, and the product of a pair is :math:`r^2`.
    """
    labels = list(rows)
    if len(labels) < 2 or any(row[y] <= tolerance for y, row in rows.items()):
        return None
    odds = np.array([rows[y] / rows[y][y] for y in labels])
    square = odds[0, labels[1]] * odds[1, labels[0]]
    if square <= tolerance**2 or odds.min() <= 0:
        return None
    ratio = float(np.sqrt(square))
    weights = odds[0] / ratio
    weights[labels[0]] = 1.0
    expected = ratio * weights / weights[labels][:, None]
    expected[range(len(labels)), labels] = 1.0
    return (ratio, weights) if np.allclose(odds, expected, rtol=1e-4, atol=tolerance) else None


def round_most(found: Mapping[str, float], allowed: Iterable[float]) -> str | None:
    """The name with the roundest argument strictly between the two ``allowed``."""
    low, high = allowed
    inside = [name for name, e in found.items() if low < e < high]
    return min(inside, key=lambda name: len(repr(found[name])), default=None)
