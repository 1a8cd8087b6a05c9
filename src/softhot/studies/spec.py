"""What a study is: frozen settings that make their own list of trials, and read and write TOML."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhot.core.check import InputError, Interval, OneOf
from softhot.datasets import DATASETS, load
from softhot.datasets.sources.own import SIZE
from softhot.studies.methods import ALPHAS, NONE, SETTINGS, Arm, method
from softhot.studies.models import model

VERSION = 2  # raised whenever the same settings would train to other numbers

ALPHA = Interval(0, 1, "[)")
PARTS = ("train", "validation", "test")
SEARCH = OneOf("grid", "optuna")
WIDTH = Interval(1, 65_536, integer=True)
RANGES = {
    "seeds": Interval(1, 10_000, integer=True),
    "train": Interval(1, math.inf, "[)", integer=True),
    "validation": Interval(1, math.inf, "[)", integer=True),
    "test": Interval(1, math.inf, "[)", integer=True),
    "split_seed": Interval(0, 2**32 - 1, integer=True),
    "epochs": Interval(1, 1_000_000, integer=True),
    "batch_size": Interval(1, math.inf, "[)", integer=True),
    "learning_rate": Interval(0, 1, "(]"),
    "label_noise": Interval(0, 1, "[)"),
    "imbalance": Interval(1, math.inf, "[)"),
    "subset": Interval(0, math.inf, "[)", integer=True),
    "folds": Interval(1, 1000, integer=True),
    "early_stopping": Interval(0, 1_000_000, integer=True),
    "budget": Interval(1, 10_000, integer=True),
    "version": Interval(VERSION, VERSION, integer=True),
}
HINTS = {
    "version": "This version of softhot trains by another recipe; use the one that wrote it.",
    "label_noise": "It is a share of the training rows: 0.2 for 20 %.",
    "imbalance": "It is a ratio: 10 leaves the last class a tenth of its rows.",
}

HEADER = """\
# A softhot study. Together with the version of softhot these lines fix every number in it.
# The digest guards the settings above it; leave it out of a file you write or change by hand.
"""


def canonical(content: Any) -> bytes:
    """``content`` as the one JSON text that stands for it: sorted keys, no spaces, ASCII, no NaN.

    >>> canonical({"b": 0.1, "a": (1, 2)})
    b'{"a":[1,2],"b":0.1}'
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


@dataclass(frozen=True)
class Settings:
    """What all trials of a study share; see :class:`StudySpec` for the meaning of each."""

    dataset: str = "digits"
    image_size: int | None = None
    label_noise: float = 0.0
    imbalance: float = 1.0
    subset: int = 0
    train: int = 0
    validation: int = 0
    test: int = 0
    split_seed: int = 0
    folds: int = 1
    model: str = "mlp"
    hidden: tuple[int, ...] | None = None
    epochs: int = 150
    batch_size: int = 64
    learning_rate: float = 1e-3
    early_stopping: int = 0
    version: int = VERSION


@dataclass(frozen=True, kw_only=True)
class TrialSpec(Settings):
    """One arm trained with one seed: everything that can change its numbers, and nothing else.

    ``key`` names the trial in the store; ``arm.name`` its way of training in tables. ``train`` and
    ``validation`` are the rows of its own fold.

    >>> [trial.arm.name for trial in StudySpec(alphas=(0.1,), seeds=1).trials()]
    ['none', 'uniform 0.1']
    """

    arm: Arm
    seed: int

    @property
    def alpha(self) -> float | None:
        """The weight of plain uniform smoothing, 0 without any, None for another method."""
        return self.arm.alpha

    @property
    def fold(self) -> int:
        """Which fold is held out for validation: seeds take turns."""
        return self.seed % self.folds

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain JSON, its method and rule spelled out.

        What is left at a default that means "nothing" is left out, so that options added later
        move no key.
        """
        content = dataclasses.asdict(self)
        for name in OPTIONS:
            if content[name] == getattr(Settings, name):
                del content[name]
        return {**content, "hidden": list(self.hidden or ()), "arm": self.arm.to_dict()}

    @functools.cached_property
    def key(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the trial's canonical JSON."""
        return hashlib.sha256(canonical(self.to_dict())).hexdigest()[:16]


# What is nothing unless asked for.
OPTIONS = ("image_size", "label_noise", "imbalance", "subset", "folds", "early_stopping")


@dataclass(frozen=True)
class StudySpec(Settings):
    """Settings of a study: which data, which methods, how often, how trained.

    Defaults are the embedded study: scikit-learn's digits, a small PyTorch perceptron, and uniform
    smoothing of five strengths.

    Args:
        dataset: A name from ``softhot.datasets.DATASETS``, or the path of your own data.
        image_size: Bring the images of a folder to so many pixels square; without it they must be
            of one size.
        label_noise: Share of training labels made wrong on purpose, in [0, 1).
        imbalance: How much rarer the last class is made than the first, >= 1; 1 leaves all rows.
        subset: Training rows kept; 0 keeps all.
        train, validation, test: Rows of each part of the one split that all trials share; 0 is
            the data set's own number (digits: 600, 300 and 897).
        split_seed: Which split, which rows kept, which labels wrong.
        folds: 1 holds out the same validation rows always. k > 1 cuts training and validation rows
            together into k folds; seed s validates on fold s mod k and trains on the others.
        model: A name from ``softhot.studies.MODELS``, or the path of a Python file with a function
            ``train(trial) -> Predictions``.
        hidden: Widths of the model's layers; its own if not given (mlp: 128 and 64).
        epochs: Passes over the training rows.
        batch_size: Rows of a step; the last step of a pass takes what is left.
        learning_rate: AdamW's step size, held constant.
        early_stopping: Passes without a better hard-label NLL on validation after which training
            stops and the best weights count; 0 never stops.
        version: Version of the training recipe.
        alphas: Strengths of uniform smoothing, in [0, 1): short for the method "uniform" with these
            settings. 0 stands for the arm "none".
        methods: Names from ``softhot.studies.METHODS``, or combinations such as
            ``"uniform+dropout"``. "none", which every other is compared with, is always there.
        settings: Settings of a method to try, by its name, where they are not its own five:
            numbers, or lists of them for a method with several. Of a search, those found so far.
        search: "grid" tries the settings. "optuna" lets validation scores decide which to try
            next.
        budget: How many settings of each method are tried. Fewer than its own five are spread
            evenly over them; those that you give in ``alphas`` or ``settings`` are all tried.
        seeds: How many seeds; seed s fixes initial weights and batch order in every arm.

    Raises:
        InputError: A value is out of its range.

    >>> spec = StudySpec(alphas=(0.1,), seeds=2)
    >>> [(trial.arm.name, trial.seed) for trial in spec.trials()]
    [('none', 0), ('uniform 0.1', 0), ('none', 1), ('uniform 0.1', 1)]
    >>> StudySpec(methods=("uniform", "dropout")).budgets
    {'uniform': 5, 'dropout': 5}
    """

    alphas: tuple[float, ...] | None = None
    methods: tuple[str, ...] | None = None
    settings: Mapping[str, tuple[tuple[float, ...], ...]] = dataclasses.field(default_factory=dict)
    search: str = "grid"
    budget: int = SETTINGS
    seeds: int = 10

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        known = isinstance(self.dataset, str) and self.dataset in DATASETS
        sizes = [getattr(self, part) for part in PARTS]
        if self.image_size is not None:
            put("image_size", SIZE.check("image_size", self.image_size))
            if known:
                hint = "Only a folder of images is resized."
                raise InputError("image_size", "left out here", self.image_size, hint)
        if not known or any(size == 0 and not isinstance(size, bool) for size in sizes):
            own = _sizes(self.dataset, 0 in sizes, self.image_size)
            for part, size, default in zip(PARTS, sizes, own, strict=True):
                put(part, default if size == 0 and not isinstance(size, bool) else size)
        for name, allowed in RANGES.items():
            put(name, allowed.check(name, getattr(self, name), HINTS.get(name, "")))
        SEARCH.check("search", self.search)
        if self.search == "grid" and self.budget > SETTINGS:
            hint = "A grid has no more; search = optuna tries as many as you like, and "
            hint += "a study file may list more settings of a method."
            raise InputError("budget", f"at most {SETTINGS}, for a grid", self.budget, hint)
        if self.hidden is not None:
            widths = _items("hidden", self.hidden)
            put("hidden", tuple(WIDTH.check("hidden", width) for width in widths))
        model(self.model).widths(self.hidden)
        if self.seeds < self.folds:
            hint = "Seed s validates on fold s mod folds: give at least one seed for each."
            raise InputError("seeds", f"at least {self.folds}, the folds", self.seeds, hint)
        if self.folds > self.train + self.validation:
            raise InputError("folds", "at most the rows to train and to validate", self.folds)
        self._resolve_methods()

    def _resolve_methods(self) -> None:
        put = functools.partial(object.__setattr__, self)
        settings = self.settings
        if not isinstance(settings, Mapping):
            raise InputError("settings", "lists of settings by method", settings)
        names = ("uniform",) if self.methods is None else _items("methods", self.methods)
        names = tuple(dict.fromkeys(method(name).name for name in names if name != "none"))
        parts = [frozenset(name.split("+")) for name in names]
        if len(set(parts)) < len(parts):
            raise InputError("methods", "different combinations", list(names))
        if not names:
            hint = "For instance uniform."
            raise InputError("methods", "at least one method but 'none'", self.methods, hint)
        found: dict[str, tuple[tuple[float, ...], ...]] = {}
        for name, values in settings.items():
            if name not in names:
                raise InputError("settings", f"those of the methods {', '.join(names)}", name)
            found[name] = _settings(name, values)
        if "uniform" in found:
            if self.alphas is not None:
                raise InputError("alphas", "left out beside settings of uniform", self.alphas)
            put("alphas", [alpha for (alpha,) in found.pop("uniform")])
        if self.alphas is not None:
            if "uniform" not in names:
                hint = "They are the strengths of the method 'uniform': add it."
                raise InputError("alphas", f"left out with methods {names}", self.alphas, hint)
            alphas = _alphas(self.alphas)
            usual = self.search == "grid" and self.budget == SETTINGS
            put("alphas", None if usual and alphas == (0.0, *ALPHAS) else alphas)
        put("methods", names)
        put("settings", dict(sorted(found.items())))

    @property
    def grids(self) -> dict[str, tuple[Arm, ...]]:
        """The arms of each method, in the order in which they are shown."""
        given = {**self.settings}
        if self.alphas is not None:
            given["uniform"] = tuple((alpha,) for alpha in self.alphas if alpha)
        found = {}
        for name in self.methods or ():
            known = method(name)
            own = known.spread(self.budget) if self.search == "grid" else ()  # none found at first
            found[name] = known.arms(given.get(name, own))
        return found

    @property
    def budgets(self) -> dict[str, int]:
        """How many settings each method may try."""
        if self.search != "grid":
            tunes = {name: bool(method(name).parameters) for name in self.methods or ()}
            return {name: self.budget if tuned else 1 for name, tuned in tunes.items()}
        return {name: len(arms) for name, arms in self.grids.items()}

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms of a grid, "none" first, then method by method."""
        return (NONE, *(arm for arms in self.grids.values() for arm in arms))

    def trials(self, arms: Iterable[Arm] | None = None) -> tuple[TrialSpec, ...]:
        """Every trial of ``arms`` (default: the grid's), seed by seed."""
        chosen = self.arms if arms is None else tuple(arms)
        return tuple(self.trial(arm, seed) for seed in range(self.seeds) for arm in chosen)

    def trial(self, arm: Arm, seed: int) -> TrialSpec:
        """The trial of one arm and seed."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}
        shared["hidden"] = model(self.model).widths(self.hidden)
        if self.folds > 1:
            rows = self.train + self.validation
            shared["validation"] = rows // self.folds + (seed % self.folds < rows % self.folds)
            shared["train"] = rows - shared["validation"]
        return TrialSpec(arm=arm, seed=seed, **shared)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON; what is None is left out."""
        content = dataclasses.asdict(self)
        return {name: _listed(value) for name, value in content.items() if value is not None}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the settings."""
        return hashlib.sha256(canonical(self.to_dict())).hexdigest()

    def to_toml(self) -> str:
        """The settings as TOML, with their digest as the last line."""
        lines = [f"{name} = {_toml(value)}" for name, value in self.to_dict().items()]
        return HEADER + "\n".join([*lines, f'digest = "{self.digest}"', ""])

    @classmethod
    def from_toml(cls, text: str, *, source: str = "study file") -> StudySpec:
        """Settings from TOML; what is left out takes its default.

        Args:
            text: The TOML text.
            source: What error messages call it.

        Raises:
            InputError: Not TOML, an unknown name, a value out of range, or settings that differ
                from their ``digest``.

        >>> StudySpec.from_toml("seeds = 3").seeds
        3
        """
        try:
            content = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(source, "valid TOML", text, f"{error}.") from None
        digest = content.pop("digest", None)
        names = [field.name for field in dataclasses.fields(cls)]
        for name in content:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"each name in {source}", f"one of {', '.join(names)}", name, hint)
        spec = cls(**content)
        if digest is not None and digest != spec.digest:
            raise InputError(
                f"digest in {source}",
                f"{spec.digest[:16]}..., that of the settings beside it",
                digest,
                "The file was cut short or edited. Restore it; or, if you meant to change it, "
                "delete the digest line and use it for a new study.",
            )
        return spec

    @classmethod
    def read(cls, path: str | Path) -> StudySpec:
        """Settings from a TOML file.

        Raises:
            InputError: The file cannot be read, or :meth:`from_toml` refuses what is in it.
        """
        return cls.from_toml(_text(path), source=str(path))


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError("study file", "a readable TOML file", str(path), f"{reason}.") from None


def _items(argument: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        what = "name" if argument == "methods" else "number"
        raise InputError(argument, f"a list of {what}s", value, f"For one {what}: [{value!r}].")
    return tuple(value)


def _sizes(dataset: Any, needed: bool, image_size: int | None) -> tuple[int, ...]:
    """Rows of each part that the data has by itself; own data is read for it, if need be."""
    if isinstance(dataset, str) and dataset in DATASETS:
        return tuple(getattr(DATASETS[dataset], part) for part in PARTS)
    if not needed and isinstance(dataset, str) and ("/" in dataset or Path(dataset).suffix):
        return (0, 0, 0)
    found = load(dataset, image_size=image_size).sizes
    assert found is not None, "a data set has sizes"
    return found


def _settings(name: str, values: Any) -> tuple[tuple[float, ...], ...]:
    """Settings of a method, each a tuple of its numbers; one number may stand without brackets."""
    tuples = [
        tuple(value) if isinstance(value, list | tuple) else (value,)
        for value in _items(f"settings of {name}", values)
    ]
    arms = [Arm(name, value) for value in tuples]
    if not arms or len(set(arms)) < len(arms):
        hint = "Each names one arm of the study."
        raise InputError(f"settings of {name}", "different ones, at least one", values, hint)
    return tuple(arm.values for arm in arms)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _toml(value: Any) -> str:
    """``value`` as TOML: JSON, but for inline tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def _alphas(value: Any) -> tuple[float, ...]:
    alphas = [ALPHA.check("alphas", alpha) for alpha in _items("alphas", value)]
    if len(set(alphas)) < len(alphas):
        raise InputError("alphas", "different numbers", value, "Each names one arm of the study.")
    if not any(alphas):
        raise InputError("alphas", "at least one number above 0", value, "For instance 0.1.")
    return tuple(sorted({0.0, *alphas}))  # 0.0 comes first, so that -0.0 is not added
