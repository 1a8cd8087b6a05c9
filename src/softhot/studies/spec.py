"""What a study is: frozen settings that make their own list of trials, and read and write TOML."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhot.core.check import InputError, Interval, OneOf
from softhot.datasets import DATASETS

VERSION = 1  # raised whenever the same settings would train to other numbers

ALPHA = Interval(0, 1, "[)")
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
    "version": Interval(VERSION, VERSION, integer=True),
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
class TrialSpec:
    """One arm trained with one seed: everything that can change its numbers, and nothing else.

    ``key`` names the trial in the store; ``arm`` names its way of training in tables.

    >>> [trial.arm for trial in StudySpec(alphas=(0.1,), seeds=1).trials()]
    ['none', 'uniform 0.1']
    """

    alpha: float
    seed: int
    dataset: str
    train: int
    validation: int
    test: int
    split_seed: int
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    version: int = VERSION

    @property
    def arm(self) -> str:
        """The arm's name, ``"none"`` without smoothing."""
        return arm_name(self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain JSON, the rule spelled out: ``{"rule": "Uniform", "alpha": 0.1}``."""
        content = dataclasses.asdict(self)
        content["hidden"] = list(self.hidden)
        content["rule"] = {"rule": "Uniform", "alpha": content.pop("alpha")}
        return content

    @functools.cached_property
    def key(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the trial's canonical JSON."""
        return hashlib.sha256(canonical(self.to_dict())).hexdigest()[:16]


def arm_name(alpha: float) -> str:
    """``"none"`` for 0, else ``"uniform <alpha>"``, with every digit that tells two arms apart."""
    return f"uniform {alpha!r}" if alpha else "none"


@dataclass(frozen=True)
class StudySpec:
    """Settings of a study: which data, which smoothing weights, how often, how trained.

    Defaults are the embedded study: scikit-learn's digits and a small PyTorch perceptron.

    Args:
        dataset: A name from ``softhot.datasets.DATASETS``.
        alphas: Smoothing weights in [0, 1). They are sorted, and 0, the arm that every other is
            compared with, is always among them.
        seeds: How many seeds; seed s fixes initial weights and batch order in every arm.
        train, validation, test: Rows of each part of the one split that all trials share; 0 is
            the data set's own number (digits: 600, 300 and 897).
        split_seed: Which split.
        hidden: Widths of the hidden layers.
        epochs: Passes over the training rows.
        batch_size: Rows of a step; the last step of a pass takes what is left.
        learning_rate: Adam's step size, held constant.
        version: Version of the training recipe.

    Raises:
        InputError: A value is out of its range.

    >>> spec = StudySpec(alphas=(0.1,), seeds=2)
    >>> spec.alphas, [(trial.arm, trial.seed) for trial in spec.trials()]
    ((0.0, 0.1), [('none', 0), ('uniform 0.1', 0), ('none', 1), ('uniform 0.1', 1)])
    """

    dataset: str = "digits"
    alphas: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
    seeds: int = 10
    train: int = 0
    validation: int = 0
    test: int = 0
    split_seed: int = 0
    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 150
    batch_size: int = 64
    learning_rate: float = 1e-3
    version: int = VERSION

    def __post_init__(self) -> None:
        dataset = OneOf(*DATASETS).check("dataset", self.dataset)
        for part in ("train", "validation", "test"):
            if getattr(self, part) == 0 and not isinstance(getattr(self, part), bool):
                object.__setattr__(self, part, getattr(DATASETS[dataset], part))
        hint = "This version of softhot trains by another recipe; use the one that wrote it."
        for name, allowed in RANGES.items():
            value = allowed.check(name, getattr(self, name), hint if name == "version" else "")
            object.__setattr__(self, name, value)
        hidden = tuple(WIDTH.check("hidden", width) for width in _items("hidden", self.hidden))
        object.__setattr__(self, "hidden", hidden)
        object.__setattr__(self, "alphas", _alphas(self.alphas))

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms in order of alpha, ``"none"`` first."""
        return tuple(map(arm_name, self.alphas))

    def trials(self) -> tuple[TrialSpec, ...]:
        """Every trial, seed by seed, so that an interrupted study holds whole seeds."""
        shared = self.to_dict()
        for name in ("alphas", "seeds"):
            del shared[name]
        shared["hidden"] = self.hidden
        return tuple(
            TrialSpec(alpha=alpha, seed=seed, **shared)
            for seed in range(self.seeds)
            for alpha in self.alphas
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        content = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the settings."""
        return hashlib.sha256(canonical(self.to_dict())).hexdigest()

    def to_toml(self) -> str:
        """The settings as TOML, with their digest as the last line."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.to_dict().items()]
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
        raise InputError(argument, "a list of numbers", value, f"For one number: [{value!r}].")
    return tuple(value)


def _alphas(value: Any) -> tuple[float, ...]:
    alphas = [ALPHA.check("alphas", alpha) for alpha in _items("alphas", value)]
    if len(set(alphas)) < len(alphas):
        raise InputError("alphas", "different numbers", value, "Each names one arm of the study.")
    if not any(alphas):
        raise InputError("alphas", "at least one number above 0", value, "For instance 0.1.")
    return tuple(sorted({0.0, *alphas}))  # 0.0 comes first, so that -0.0 is not added
