"""What to do, by what one cares about: smooth or not, rescale or not, from validation rows alone.

One policy for the study's verdict, for judged files and for the page. How much it regrets, beside
"always 0.1", "never" and "tune on the smoothed validation loss", is in docs/advice.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from softhot.calibration import cross_fitted
from softhot.core.check import InputError, OneOf
from softhot.metrics import Predictions, accuracy, aurc, brier, check_predictions, nll, paired

GOALS = OneOf("accuracy", "probabilities", "ranking", "distillation")
CRITERIA = {"accuracy": "brier", "probabilities": "nll", "ranking": "aurc"}  # by which arms compete
Action = Literal["none", "smooth", "smooth and rescale", "rescale only"]
Fits = tuple[Predictions, float]
Arms = Mapping[str, "Predictions | Sequence[Predictions]"]


@dataclass(frozen=True)
class Advice:
    """What to do for one goal.

    Attributes:
        goal: what one cares about, of :data:`GOALS`.
        action: "none", "smooth", "smooth and rescale" or "rescale only".
        arm: which arm to train with; the first given for "none" and "rescale only".
        temperature: what to divide the logits by, fitted on validation, mean over seeds; None
            where the action does not rescale.
        metric: what was compared.
        value: of the advised arm on validation, as it would be used.
        baseline: of the first arm as trained.
        sentence: the same in words.
    """

    goal: str
    action: Action
    arm: str
    temperature: float | None
    metric: str
    value: float
    baseline: float
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """The advice as plain JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class Seen:
    """What validation says of one arm: means over seeds, and the losses row by row."""

    accuracy: float
    nll: float
    scaled_nll: float
    scaled_brier: float
    aurc: float
    temperature: float
    losses: np.ndarray
    scaled_losses: np.ndarray

    def score(self, goal: str) -> float:
        """What the goal goes by, lower is better: see :data:`CRITERIA`."""
        by = {"brier": self.scaled_brier, "nll": self.scaled_nll, "aurc": self.aurc}
        return by[CRITERIA[goal]]


def advise(
    validation: Arms,
    goals: Iterable[str] = GOALS.names,
    *,
    fits: Mapping[str, Sequence[Fits]] | None = None,
) -> dict[str, Advice]:
    r"""The advice for each goal, from validation predictions of every arm.

    ================ ============================================================================
    goal             policy
    ================ ============================================================================
    accuracy         the arm with the lowest Brier score after temperature scaling. Accuracy on
                     few rows is coarse: a handful decides it. The Brier score sees how near to
                     being right each row is, and no row outweighs the others.
    probabilities    the first arm whose NLL after temperature scaling is within one standard
                     error of the lowest, and rescaled, unless its NLL as trained is lower by
                     more than one standard error.
    ranking          the arm with the lowest AURC. Rescaling barely moves an order.
    distillation     no smoothing for a teacher, whatever the scores: smoothing erases what the
                     wrong classes say about the row (Müller, Kornblith and Hinton 2019, "When
                     does label smoothing help?"), and validation scores do not see it. This is
                     the literature's caution and not our finding: where we measured students,
                     none of a smoothed teacher was worse (docs/claims.md, claim 9).
    ================ ============================================================================

    Arms stand in the order given, from less to more smoothing. The standard error is that of the
    difference to the best arm, row by row, of means over seeds: the one-standard-error rule of
    Breiman et al. (1984), which keeps luck in few rows from choosing much smoothing. What is
    scaled is scored by cross-fitting: no row by a temperature that it helped to fit. Temperatures
    are cautious (:func:`softhot.calibration.cautious_temperature`): where all validation rows are
    right, the plain fit would sharpen without end.

    The arm is that of :func:`choose`, which also chooses for the verdict of a study.

    Whether a difference is more than luck is for paired seeds to say (:mod:`softhot.studies`).

    Args:
        validation: predictions of validation rows by arm, one or several seeds each, the arm
            without smoothing first. Rows and labels are the same in all, seed by seed.
        goals: which goals to advise on.
        fits: what :func:`softhot.calibration.cross_fitted` found for each arm and
            seed, if it is at hand.

    Raises:
        InputError: no arm, an unknown goal, arms of different rows or numbers of seeds.

    Pitfall: with one arm alone, it can only say whether to rescale.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(400, 3))
    >>> labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    >>> sharp = Predictions.from_logits(3 * z, labels)
    >>> advise({"none": sharp})["probabilities"].action
    'rescale only'
    >>> better = Predictions.from_logits(z + np.eye(3)[labels], labels)
    >>> found = advise({"none": sharp, "uniform 0.1": better})
    >>> found["accuracy"].action, found["probabilities"].arm
    ('smooth', 'uniform 0.1')
    """
    wanted = [GOALS.check("goals", goal) for goal in goals]
    return advised(see(validation, fits=fits), wanted)


def advised(seen: Mapping[str, Seen], goals: Iterable[str] = GOALS.names) -> dict[str, Advice]:
    """:func:`advise` from what :func:`see` found."""
    return {goal: _POLICIES[goal](seen) for goal in goals}


def see(validation: Arms, *, fits: Mapping[str, Sequence[Fits]] | None = None) -> dict[str, Seen]:
    """What :func:`choose` needs to know of every arm; the arguments are those of :func:`advise`."""
    at_hand = fits or {}
    return {
        name: _see(seeds, at_hand.get(name) or [cross_fitted(one) for one in seeds])
        for name, seeds in _checked(validation).items()
    }


def choose(goal: str, seen: Mapping[str, Seen]) -> str:
    """The arm for a goal: the policy of :func:`advise` in code, and that of a study's verdict.

    Of equals the first, so give arms in order, from less to more smoothing.
    """
    if goal == "distillation":
        return next(iter(seen))
    best = min(seen, key=lambda name: seen[name].score(goal))
    if goal != "probabilities":
        return best
    least = seen[best].scaled_losses
    return next(name for name, one in seen.items() if _close(one.scaled_losses - least))


def _checked(validation: Arms) -> dict[str, Sequence[Predictions]]:
    if not isinstance(validation, Mapping) or not validation:
        raise InputError("validation", "predictions of at least one arm, by name", validation)
    arms: dict[str, Sequence[Predictions]] = {
        name: [given] if isinstance(given, Predictions) else list(given)
        for name, given in validation.items()
    }
    first, *others = arms
    for name, seeds in arms.items():
        if not seeds:
            raise InputError(f"validation[{name!r}]", "at least one seed", seeds)
        for one in seeds:
            check_predictions(one)
        if len(seeds) != len(arms[first]):
            allowed = f"of {len(arms[first])} seeds, as {first!r}"
            raise InputError(f"validation[{name!r}]", allowed, len(seeds))
    for name in others:
        for base, other in zip(arms[first], arms[name], strict=True):
            paired(base, other)
    return arms


def _see(seeds: Sequence[Predictions], fits: Sequence[Fits]) -> Seen:
    scaled = [one for one, _ in fits]
    same = all(np.array_equal(one.labels, seeds[0].labels) for one in seeds)
    # Seeds on the same rows share their luck; on other rows (folds) each brings its own.
    together: Any = functools.partial(np.mean, axis=0) if same else np.concatenate

    def mean(metric: Any, of: Sequence[Predictions]) -> float:
        return float(np.mean([metric(one) for one in of]))

    return Seen(
        accuracy=mean(accuracy, seeds),
        nll=mean(nll, seeds),
        scaled_nll=mean(nll, scaled),
        scaled_brier=mean(brier, scaled),
        aurc=mean(aurc, seeds),
        temperature=float(np.mean([t for _, t in fits])),
        losses=together([-one.rows.log_likelihood for one in seeds]),
        scaled_losses=together([-one.rows.log_likelihood for one in scaled]),
    )


# --- Policies ----------------------------------------------------------------------------------


def _for_accuracy(seen: Mapping[str, Seen]) -> Advice:
    first = next(iter(seen))
    arm = choose("accuracy", seen)
    after, before = seen[arm].accuracy, seen[first].accuracy
    if len(seen) == 1:
        text = "Whether smoothing would change accuracy, only training can tell: softhot study."
    elif arm == first:
        text = f"For accuracy, do not smooth: {100 * before:.2f} % on validation."
    else:
        text = f"For accuracy, train with {arm}: {100 * after:.2f} % on validation, "
        text += f"{100 * before:.2f} % without."
    action: Action = "none" if arm == first else "smooth"
    return Advice("accuracy", action, arm, None, "accuracy", after, before, text)


def _for_probabilities(seen: Mapping[str, Seen]) -> Advice:
    first = next(iter(seen))
    arm = choose("probabilities", seen)
    found = seen[arm]
    rescale = _close(found.scaled_losses - found.losses)
    value = found.scaled_nll if rescale else found.nll
    before = seen[first].nll
    temperature = found.temperature if rescale else None
    scale = f"rescale with T = {found.temperature:.2f}" if rescale else "do not rescale"
    moves = f"NLL {value:.3f} nats on validation, {before:.3f} as trained without smoothing"
    if arm != first:
        text = f"For probabilities, train with {arm} and {scale}: {moves}."
    elif rescale:
        smooth = "" if len(seen) == 1 else "do not smooth, but "
        text = f"For probabilities, {smooth}{scale}: NLL {value:.3f} nats on validation, not "
        text += f"{before:.3f}."
    else:
        smooth = "" if len(seen) == 1 else "do not smooth and "
        text = f"For probabilities, {smooth}{scale}: NLL {before:.3f} nats on validation."
    action: Action = "smooth and rescale" if rescale else "smooth"
    if arm == first:
        action = "rescale only" if rescale else "none"
    return Advice("probabilities", action, arm, temperature, "nll", value, before, text)


def _close(behind: np.ndarray) -> bool:
    """Whether the mean of these differences of losses is at most its standard error."""
    error = float(behind.std(ddof=1)) / math.sqrt(len(behind)) if len(behind) > 1 else 0.0
    return float(behind.mean()) <= error + 1e-15


def _for_ranking(seen: Mapping[str, Seen]) -> Advice:
    first = next(iter(seen))
    arm = choose("ranking", seen)
    after, before = seen[arm].aurc, seen[first].aurc
    if len(seen) == 1:
        text = f"For setting uncertain rows aside, compare this AURC, {before:.4f}, with others'."
    elif arm == first:
        text = f"For setting uncertain rows aside, do not smooth: AURC {before:.4f} on validation."
    else:
        text = f"For setting uncertain rows aside, train with {arm}: AURC {after:.4f} on "
        text += f"validation, {before:.4f} without."
    action: Action = "none" if arm == first else "smooth"
    return Advice("ranking", action, arm, None, "aurc", after, before, text)


def _for_distillation(seen: Mapping[str, Seen]) -> Advice:
    first = next(iter(seen))
    value = seen[first].nll
    text = "For a model that teaches another, do not smooth unless your own student does better "
    text += "for it: no score of the teacher tells."
    return Advice("distillation", "none", first, None, "nll", value, value, text)


_POLICIES = {
    "accuracy": _for_accuracy,
    "probabilities": _for_probabilities,
    "ranking": _for_ranking,
    "distillation": _for_distillation,
}
