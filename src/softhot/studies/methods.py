"""Methods: what is compared. A method has a few settings to try; one setting of it is an arm.

>>> [arm.name for arm in method("dropout").arms()]
['dropout 0.1', 'dropout 0.2', 'dropout 0.3', 'dropout 0.4', 'dropout 0.5']
>>> method("uniform+dropout").arms()[0].name
'uniform 0.05 + dropout 0.2'

A new method is one row of :data:`METHODS`. Names joined by ``+`` are combinations, of any two or
more. Every method comes with :data:`SETTINGS` settings, so that none is tuned harder than another;
what has nothing to tune ("none", "human") has one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.core.rule import HARD, Rule
from softhot.core.rules import (
    ConfidencePenalty,
    Focal,
    Margin,
    MaxSup,
    NegativeUniform,
    Online,
    Ordinal,
    Others,
    Prior,
    Teacher,
    Uniform,
)

if TYPE_CHECKING:
    from softhot.datasets import Dataset

SETTINGS = 5  # of every method, unless the study says otherwise
SHARE = Interval(0, 1, "()")


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """What a rule may take from the training rows: ``labels`` (N,), ``features`` (N, D), K."""

    labels: np.ndarray
    features: np.ndarray | None
    classes: int

    @classmethod
    def of(cls, data: Dataset, embedded: np.ndarray | None = None) -> TrainingRows:
        """The rows of ``data``; an image is a row of pixels, a text what the model ``embedded``."""
        found = embedded if data.kind == "texts" else data.features.reshape(len(data), -1)
        return cls(data.labels, found, data.classes)


@dataclass(frozen=True)
class Fitted:
    """A rule that lacks numbers until it sees the training rows; ``kind`` is a key of FITTED."""

    kind: str
    value: float

    def fit(self, rows: TrainingRows) -> Rule:
        """The rule."""
        return FITTED[self.kind](self.value, rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, like those of a rule."""
        return {"rule": self.kind, "value": self.value, "from": "training rows"}


def _similarity(alpha: float, rows: TrainingRows) -> Rule:
    """Classes are alike as far as the mean features of their training rows are."""
    from softhot.core.similarity import from_embeddings

    if rows.features is None:
        hint = "It takes class means of features, and this model reads texts word by word."
        raise InputError("methods", "without 'similarity' here", None, hint)
    known = rows.features.astype(np.float64)
    spread = known.std(axis=0)
    scaled = (known - known.mean(axis=0)) / np.where(spread > 0, spread, 1)
    means = np.stack([scaled[rows.labels == k].mean(axis=0) for k in range(rows.classes)])
    return from_embeddings(means, alpha=alpha)


FITTED: dict[str, Callable[[float, TrainingRows], Rule]] = {
    "prior": lambda alpha, rows: Prior(
        alpha, tuple(np.bincount(rows.labels, minlength=rows.classes).astype(float))
    ),
    "similarity": _similarity,
    "margin": lambda margin, rows: Margin(0.1 / rows.classes, margin),  # the paper's weight
}


@dataclass(frozen=True, repr=False)
class Recipe:
    """What an arm changes about training; each default is "nothing".

    Attributes:
        rule: the loss, or what becomes one on the training rows.
        weight_decay: decoupled, per step ``learning_rate * weight_decay`` of every weight (AdamW).
        dropout: share of hidden units set to 0 in training.
        mixup: a > 0 mixes the rows of a batch in pairs, with a share from Beta(a, a).
        human: whether to train on the data set's distributions of human labels.
        warm_up: share of the passes, the first ones, in which the rule is plain cross entropy.
    """

    rule: Rule | Fitted = HARD
    weight_decay: float = 0.0
    dropout: float = 0.0
    mixup: float = 0.0
    human: bool = False
    warm_up: float = 0.0

    @property
    def from_batch(self) -> bool:
        """Whether the rule's targets come with each batch, from a model's predictions."""
        return isinstance(self.rule, Rule) and self.rule.base.FROM_BATCH

    def fit(self, rows: TrainingRows) -> Rule:
        """The rule, with what it takes from the training rows."""
        return self.rule.fit(rows) if isinstance(self.rule, Fitted) else self.rule

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self._changed().items())
        return f"Recipe(rule={self.rule!r}{changed and ', '}{changed})"

    def to_dict(self) -> dict[str, Any]:
        """The rule, and whatever else is not left at its default."""
        return {"rule": self.rule.to_dict(), **self._changed()}

    def _changed(self) -> dict[str, Any]:
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if field.name != "rule" and (value := getattr(self, field.name)) != field.default
        }

    def __add__(self, other: Recipe) -> Recipe:
        """Both at once; what both would set is given twice, an :class:`InputError`."""
        changed = {}
        for field in dataclasses.fields(self):
            one, two = getattr(self, field.name), getattr(other, field.name)
            if field.default not in (one, two) and field.name == "rule":
                if isinstance(one, Fitted) or isinstance(two, Fitted):
                    raise InputError("rule", "given once", f"{one}, {two}")
                changed["rule"] = one + two
            elif field.default not in (one, two):
                raise InputError(field.name, "given once", [one, two])
            else:
                changed[field.name] = two if one == field.default else one
        return Recipe(**changed)


@dataclass(frozen=True)
class Parameter:
    """A number that a method tunes: its name, its range, and where a search looks for it."""

    name: str
    allowed: Interval
    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class Method:
    """A way of training with a few numbers to tune.

    Attributes:
        name: its name; that of a combination is ``"a+b"``.
        title: for people, one line.
        make: from the numbers to the recipe.
        parameters: the numbers, in the order in which ``make`` takes them.
        grid: the settings tried unless others are given.
    """

    name: str
    title: str
    make: Callable[..., Recipe]
    parameters: tuple[Parameter, ...] = ()
    grid: tuple[tuple[float, ...], ...] = ((),)

    def arms(self, settings: Iterable[Sequence[float]] | None = None) -> tuple[Arm, ...]:
        """One arm for each of ``settings``; those of :attr:`grid` if None."""
        return tuple(
            Arm(self.name, tuple(values))
            for values in (self.grid if settings is None else settings)
        )

    def spread(self, most: int) -> tuple[tuple[float, ...], ...]:
        """``most`` settings of the grid, evenly spread over it; of one, the middle.

        >>> method("uniform").spread(3)
        ((0.02,), (0.1,), (0.4,))
        """
        last = len(self.grid) - 1
        if most > last:
            return self.grid
        steps = [last / 2] if most == 1 else [i * last / (most - 1) for i in range(most)]
        return tuple(self.grid[round(step)] for step in steps)

    def recipe(self, values: Sequence[float]) -> Recipe:
        """The recipe of one setting."""
        return self.make(*values)


@dataclass(frozen=True)
class Arm:
    """One setting of one method; it names itself.

    >>> Arm("uniform", (0.1,)).name, Arm("none").name
    ('uniform 0.1', 'none')
    >>> Arm("uniform+l2", (0.1, 1.0)).recipe
    Recipe(rule=Uniform(alpha=0.1), weight_decay=1.0)
    """

    method: str
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        known = method(self.method)
        values = self.values
        if not isinstance(values, tuple) or len(values) != len(known.parameters):
            names = ", ".join(p.name for p in known.parameters) or "no numbers"
            raise InputError(f"setting of {self.method}", f"a list of: {names}", values)
        checked = tuple(
            parameter.allowed.check(f"{parameter.name} of {self.method}", value)
            for parameter, value in zip(known.parameters, values, strict=True)
        )
        object.__setattr__(self, "values", tuple(value + 0.0 for value in checked))

    @property
    def name(self) -> str:
        """The method's parts with their numbers, all digits that tell two arms apart."""
        left = list(self.values)
        parts = []
        for part in self.method.split("+"):
            numbers = [left.pop(0) for _ in method(part).parameters]
            parts.append(" ".join([part, *map(repr, numbers)]))
        return " + ".join(parts)

    @functools.cached_property
    def recipe(self) -> Recipe:
        """What the arm changes about training."""
        return method(self.method).recipe(self.values)

    @property
    def alpha(self) -> float | None:
        """The weight of plain uniform smoothing, 0 for "none", None for any other method."""
        if self.method in ("none", "uniform"):
            return self.values[0] if self.values else 0.0
        return None

    def to_dict(self) -> dict[str, Any]:
        """Name, numbers and recipe as plain JSON."""
        return {"method": self.method, "values": list(self.values), **self.recipe.to_dict()}


def _one(
    name: str,
    title: str,
    make: Callable[[float], Recipe],
    parameter: Parameter,
    grid: Sequence[float],
) -> Method:
    settings = tuple((float(value),) for value in grid)
    return Method(name, title, make, (parameter,), settings)


ALPHAS = (0.02, 0.05, 0.1, 0.2, 0.4)
TEMPERATURE = 4.0  # of a teacher, which is all but certain of the rows that it was trained on
WARM_UP = 0.5  # of the passes, before a loss without a lower bound
_POSITIVE = Interval(0, math.inf, "()")
_ALPHA = Parameter("alpha", SHARE, 0.005, 0.5)
_HEAVY = Parameter("alpha", SHARE, 0.02, 0.9)  # a model's own forecasts bear more
METHODS: dict[str, Method] = {
    made.name: made
    for made in (
        Method("none", "plain cross entropy", Recipe),
        _one(
            "uniform",
            "uniform label smoothing",
            lambda alpha: Recipe(Uniform(alpha)),
            *(_ALPHA, ALPHAS),
        ),
        _one(
            "others",
            "smoothing over the wrong classes alone",
            lambda alpha: Recipe(Others(alpha)),
            *(Parameter("alpha", Interval(0, 0.5, "()"), 0.005, 0.45), ALPHAS),
        ),
        _one(
            "prior",
            "smoothing towards the classes' frequencies",
            lambda alpha: Recipe(Fitted("prior", alpha)),
            *(_ALPHA, ALPHAS),
        ),
        _one(
            "similarity",
            "smoothing towards classes whose mean features are alike",
            lambda alpha: Recipe(Fitted("similarity", alpha)),
            *(_ALPHA, ALPHAS),
        ),
        _one(
            "ordinal",
            "soft targets for ordered classes (SORD), by the scale of the distance",
            lambda scale: Recipe(Ordinal(scale=scale)),
            *(Parameter("scale", _POSITIVE, 0.5, 8), (1, 1.5, 2, 3, 5)),
        ),
        _one(
            "online",
            "smoothing towards what the model said an epoch ago",
            lambda alpha: Recipe(Online(alpha)),
            *(_HEAVY, (0.1, 0.2, 0.3, 0.5, 0.7)),
        ),
        _one(
            "self_distillation",
            "smoothing towards the same network, trained before without",
            lambda alpha: Recipe(Teacher(alpha, TEMPERATURE)),
            *(_HEAVY, (0.1, 0.2, 0.3, 0.5, 0.7)),
        ),
        _one(
            "negative",
            "a negative share for all classes, after half of the passes without",
            lambda share: Recipe(NegativeUniform(-share), warm_up=WARM_UP),
            *(Parameter("share", _POSITIVE, 0.005, 1), ALPHAS),
        ),
        _one(
            "confidence_penalty",
            "a penalty on predictions of low entropy",
            lambda beta: Recipe(ConfidencePenalty(beta)),
            *(Parameter("beta", _POSITIVE, 0.005, 1), ALPHAS),
        ),
        _one(
            "maxsup",
            "a penalty on the largest logit",
            lambda alpha: Recipe(MaxSup(alpha)),
            *(_ALPHA, ALPHAS),
        ),
        _one(
            "margin",
            "a penalty on logit gaps beyond a margin",
            lambda margin: Recipe(Fitted("margin", margin)),
            *(Parameter("margin", _POSITIVE, 1, 20), (2, 4, 6, 8, 10)),
        ),
        _one(
            "focal",
            "focal loss",
            lambda gamma: Recipe(Focal(gamma)),
            *(Parameter("gamma", _POSITIVE, 0.1, 6), (0.5, 1, 2, 3, 5)),
        ),
        _one(
            "l2",
            "weight decay, decoupled as in AdamW",
            lambda decay: Recipe(weight_decay=decay),
            *(Parameter("weight_decay", Interval(0, 1000, "(]"), 0.01, 10), (0.03, 0.1, 0.3, 1, 3)),
        ),
        _one(
            "dropout",
            "dropout of hidden units",
            lambda share: Recipe(dropout=share),
            *(Parameter("dropout", SHARE, 0.02, 0.8, log=False), (0.1, 0.2, 0.3, 0.4, 0.5)),
        ),
        _one(
            "mixup",
            "mixtures of pairs of training rows",
            lambda a: Recipe(mixup=a),
            *(Parameter("mixup", Interval(0, 100, "(]"), 0.05, 4), (0.1, 0.2, 0.4, 1, 2)),
        ),
        Method("human", "the distribution of human labels", lambda: Recipe(human=True)),
    )
}
# Of an n-by-n grid of two methods, as many points as a single method has: the middle and corners.
_DESIGN = (1 / 4, 1 / 4), (1 / 4, 3 / 4), (1 / 2, 1 / 2), (3 / 4, 1 / 4), (3 / 4, 3 / 4)


@functools.lru_cache(maxsize=256)
def method(name: Any) -> Method:
    """The method of that name, or the combination of those joined by ``+``.

    A combination of methods that each have a grid tries :data:`SETTINGS` points of the product:
    the middle of both grids, and the four corners half way out.

    Raises:
        InputError: an unknown name, or methods that cannot be combined.
    """
    if not isinstance(name, str):
        OneOf(*METHODS).check("methods", name)
    parts = [METHODS[OneOf(*METHODS).check("methods", part)] for part in name.split("+")]
    if len(parts) == 1:
        return parts[0]
    if "none" in name.split("+") or len(set(name.split("+"))) < len(parts):
        raise InputError("methods", "combinations of different methods, none left out", name)
    sizes = [len(part.parameters) for part in parts]
    cuts = [0, *itertools.accumulate(sizes)]

    def make(*values: float) -> Recipe:
        recipes = [
            part.recipe(values[a:b])
            for part, (a, b) in zip(parts, itertools.pairwise(cuts), strict=True)
        ]
        return functools.reduce(lambda one, two: one + two, recipes)

    grids = [part.grid for part in parts]
    tuned = [i for i, grid in enumerate(grids) if len(grid) > 1]
    settings = []
    for point in _DESIGN if len(tuned) > 1 else [(q / 4, 0) for q in range(5)]:
        at = {i: point[n % 2] for n, i in enumerate(tuned)}
        chosen = [grid[round(at.get(i, 0) * (len(grid) - 1))] for i, grid in enumerate(grids)]
        settings.append(tuple(itertools.chain.from_iterable(chosen)))
    found = Method(
        name,
        " and ".join(part.title for part in parts),
        make,
        tuple(itertools.chain.from_iterable(part.parameters for part in parts)),
        tuple(dict.fromkeys(settings)),
    )
    try:
        found.recipe(found.grid[0])
    except InputError as error:
        hint = f"They both set {error.argument}."
        raise InputError("methods", "combinations that can be had at once", name, hint) from None
    return found


NONE = Arm("none")
