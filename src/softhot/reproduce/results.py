"""What came out: one finding a claim, data set and condition; kept in a file, claim by claim."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from softhot.core.check import InputError, Interval, OneOf
from softhot.reproduce.claims import CLAIMS, Claim, Experiment
from softhot.reproduce.settings import SETTINGS, Setting
from softhot.studies.compare import Estimate

SEEDS = Interval(3, 1000, integer=True)
FORMAT = 1
REPRODUCED, NULL, REVERSED = "reproduced", "not detectable", "reversed"


@dataclass(frozen=True)
class Finding:
    """What one claim came to in one condition.

    Attributes:
        claim: its number.
        dataset, condition: where; the name of a setting, and what else differs.
        estimate, low, high: mean over seeds of the paired differences, and its 95 % interval.
        word: "reproduced" if the interval lies on the claim's side of 0, "reversed" if on the
            other, "not detectable" if it holds 0.
        values: the difference of each seed.
    """

    claim: int
    dataset: str
    condition: str
    estimate: float
    low: float
    high: float
    word: str
    values: tuple[float, ...]


def word(low: float, high: float, direction: int) -> str:
    """The word for an interval, where the claim expects the sign ``direction``.

    >>> word(0.2, 0.9, +1), word(-0.1, 0.4, +1), word(0.2, 0.9, -1)
    ('reproduced', 'not detectable', 'reversed')
    """
    if low <= 0 <= high:
        return NULL
    return REPRODUCED if (low > 0) == (direction > 0) else REVERSED


def finding(claim: Claim, dataset: str, condition: str, values: np.ndarray) -> Finding:
    """A finding from one value a seed; the interval is Student's."""
    found = Estimate.of(values)
    assert found.low is not None  # three seeds or more
    assert found.high is not None
    mean, low, high = found.mean, found.low, found.high
    said = word(low, high, claim.direction)
    kept = tuple(round(float(value), 6) for value in values)
    mean, low, high = (round(x, 6) for x in (mean, low, high))
    return Finding(claim.number, dataset, condition, mean, low, high, said, kept)


@dataclass(frozen=True)
class Reproduction:
    """All findings, and how they were made.

    ``seeds`` and ``settings`` belong to the findings: a file made with others is not continued.
    """

    seeds: int
    settings: tuple[Setting, ...]
    findings: tuple[Finding, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def command(self) -> str:
        """The command that makes it again."""
        names = ",".join(setting.name for setting in self.settings)
        return f"softhot reproduce --datasets {names} --seeds {self.seeds}"

    def has(self, claim: Claim, dataset: str) -> bool:
        """Whether a claim has been measured on a data set."""
        return any(f.claim == claim.number and f.dataset == dataset for f in self.findings)

    def of(self, claim: Claim) -> tuple[Finding, ...]:
        """The findings of a claim."""
        return tuple(f for f in self.findings if f.claim == claim.number)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` is the inverse."""
        return {
            "format": FORMAT,
            "command": self.command,
            "versions": dict(self.versions),
            "seeds": self.seeds,
            "settings": [asdict(setting) for setting in self.settings],
            "findings": [asdict(finding) for finding in self.findings],
        }

    @classmethod
    def from_dict(cls, content: Any) -> Reproduction:
        """What :meth:`to_dict` wrote."""
        hint = "Give another file, or remove this one."
        try:
            if content["format"] != FORMAT:
                raise InputError("format", f"{FORMAT}", content["format"], hint)
            listed = ("hidden", "student")
            settings = tuple(
                Setting(**{**one, **{name: tuple(one[name]) for name in listed}})
                for one in content["settings"]
            )
            findings = tuple(
                Finding(**{**one, "values": tuple(one["values"])}) for one in content["findings"]
            )
            versions = tuple(content["versions"].items())
            return cls(SEEDS.check("seeds", content["seeds"]), settings, findings, versions)
        except (KeyError, TypeError, AttributeError) as error:
            what = "what softhot reproduce wrote"
            raise InputError("file of claims", what, f"no {error}", hint) from None

    @classmethod
    def read(cls, path: Path) -> Reproduction:
        """From a JSON file."""
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            hint = f"{error}. Give another file, or remove this one."
            raise InputError("file of claims", "JSON that can be read", str(path), hint) from None
        return cls.from_dict(content)

    def write(self, path: Path) -> None:
        """To a JSON file, whole or not at all; a finding is one line."""
        content = self.to_dict()
        lines = ",\n".join("  " + json.dumps(one) for one in content.pop("findings"))
        head = json.dumps(content, indent=1)[:-2]
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(f'{head},\n "findings": [\n{lines}\n ]\n}}\n', "utf-8")
            temporary.replace(path)
        except OSError as error:
            hint = f"{error.strerror or error}. Give a file in a folder that exists."
            raise InputError("out", "a file that can be written", str(path), hint) from None


def reproduce(
    datasets: Iterable[str] = tuple(SETTINGS),
    *,
    claims: Iterable[str] | None = None,
    seeds: int = 10,
    settings: Iterable[Setting] | None = None,
    out: Path | None = None,
    tick: Callable[[str, float], None] = lambda name, share: None,
) -> Reproduction:
    """Measure claims on data sets; with ``out``, keep each as it is finished, and continue there.

    Args:
        datasets: names from :data:`SETTINGS`.
        claims: names from :data:`CLAIMS`; all of them if not given.
        seeds: pairs of runs, at least 3.
        settings: instead of ``datasets``, settings of one's own.
        out: a JSON file. What it holds already is not measured again.
        tick: called while training, with a name and the share of it that is done.

    Raises:
        InputError: an unknown data set or claim, too few seeds, a file made with other settings.
    """
    SEEDS.check("seeds", seeds)
    names = list(datasets)
    if settings is None:
        settings = [SETTINGS[OneOf(*SETTINGS).check("datasets", name)] for name in names]
    known = {claim.name: claim for claim in CLAIMS}
    wanted = list(known) if claims is None else [OneOf(*known).check("claims", c) for c in claims]
    settings = tuple(settings)
    done = Reproduction(seeds, settings, versions=_versions())
    if out is not None and not os.path.isdir(out.parent):  # known before minutes of training
        hint = "Give a file in a folder that exists."
        raise InputError("out", "a file that can be written", str(out), hint)
    if out is not None and out.exists():
        done = _continued(Reproduction.read(out), done, out)
    for setting in settings:
        run = Experiment(setting, seeds, _named(tick, setting.name))
        for claim in map(known.__getitem__, wanted):
            if done.has(claim, setting.name):
                continue
            values = claim.measure(run)
            found = tuple(finding(claim, setting.name, c, v) for c, v in values.items())
            order = sorted((*done.findings, *found), key=lambda f: (f.claim, f.dataset))
            done = replace(done, findings=tuple(order))
            if out is not None:
                done.write(out)
    return done


def _named(tick: Callable[[str, float], None], dataset: str) -> Callable[[str, float], None]:
    return lambda name, share: tick(f"{dataset}: {name}", share)


def _continued(old: Reproduction, new: Reproduction, path: Path) -> Reproduction:
    """The old one, with the data sets of the new; what both say of themselves must agree."""
    hint = "Give another file, or remove this one."
    if old.versions != new.versions:
        made, here = (", ".join(map(" ".join, one.versions)) for one in (old, new))
        raise InputError("out", f"a file made with {here}", f"{path}, made with {made}", hint)
    mine = {setting.name: setting for setting in old.settings}
    for setting in new.settings:
        if old.seeds != new.seeds or mine.get(setting.name, setting) != setting:
            found = f"{path}, made with {old.command}"
            raise InputError("out", "a file of the same seeds and settings", found, hint)
        mine[setting.name] = setting
    return replace(old, settings=tuple(mine.values()))


def summarize(claim: Claim, findings: Iterable[Finding]) -> str:
    """One line on a claim: its word, and where words differ, which condition has which.

    >>> summarize(CLAIMS[0], [])
    'not measured'
    """
    groups: dict[str, list[Finding]] = {}
    for one in findings:
        groups.setdefault(one.word, []).append(one)
    if not groups:
        return "not measured"
    if len(groups) == 1:
        return next(iter(groups))
    parts = []
    for said in (REPRODUCED, NULL, REVERSED):
        where: dict[str, list[str]] = {}
        for one in groups.get(said, []):
            where.setdefault(one.dataset, []).append(one.condition)
        if where:
            places = "; ".join(f"{name} ({', '.join(each)})" for name, each in where.items())
            parts.append(f"{said}: {places}")
    return " · ".join(parts)


def _versions() -> tuple[tuple[str, str], ...]:
    from importlib.metadata import version

    import softhot

    packages = ("torch", "numpy", "scikit-learn")
    return (("softhot", softhot.__version__), *((name, version(name)) for name in packages))
