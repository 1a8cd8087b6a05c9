"""What every remedy can do, and how it is kept: as JSON that a person can read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from softhot.core.check import InputError, OneOf
from softhot.metrics import Predictions, check_predictions

FORMAT = 1  # of the dictionary and the file


@dataclass(frozen=True)
class Remedy:
    """A change of predictions after training: fitted on validation rows, applied to others.

    A remedy is one frozen dataclass with ``fit`` and ``apply``, and one row of
    :data:`softhot.calibration.REMEDIES`. Its fields are plain numbers, checked when it is made.

    Pitfall of all: fitted on training rows, or on the rows that are reported, it flatters.
    """

    name: ClassVar[str]

    @classmethod
    def fit(cls, predictions: Predictions) -> Self:
        """The remedy that suits these validation rows best."""
        raise NotImplementedError

    def apply(self, predictions: Predictions) -> Predictions:
        """``predictions`` with other probabilities, or with another order of certainty."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the name, the format and the fields."""
        fields = {name: _listed(value) for name, value in dataclasses.asdict(self).items()}
        return {"remedy": self.name, "format": FORMAT, **fields}

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """The remedy that :meth:`to_dict` described; anything else raises :class:`InputError`.

        On :class:`Remedy` itself any remedy is read, on a subclass only its own.
        """
        if not isinstance(content, dict):
            raise InputError("remedy", "a JSON object, as to_dict gives", content)
        known = {kind.name: kind for kind in _subclasses(cls)}
        kind = known[OneOf(*known).check("remedy", content.get("remedy"))]
        if content.get("format") != FORMAT:
            raise InputError("format", f"{FORMAT}", content.get("format"), "Update softhot.")
        given = {name: v for name, v in content.items() if name not in ("remedy", "format")}
        expected = {field.name for field in dataclasses.fields(kind)}
        if set(given) != expected:
            raise InputError("fields", f"exactly {sorted(expected)}", sorted(given))
        return kind(**given)

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_dict` as JSON."""
        try:
            Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            hint = f"{error.strerror}. Give a file in a folder that exists."
            raise InputError("path", "a file that can be written", str(path), hint) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote. JSON only, so a file can do nothing but be read."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            hint = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError("path", "a JSON file of a remedy", str(path), hint) from error
        return cls.from_dict(content)


def check_classes(remedy: Remedy, classes: int, predictions: Predictions) -> None:
    """Refuse predictions of another number of classes than the remedy was fitted to."""
    if check_predictions(predictions).num_classes != classes:
        allowed = f"of {classes} classes, as {type(remedy).__name__} was fitted to"
        raise InputError("predictions", allowed, f"{predictions.num_classes} classes")


def _subclasses(kind: type) -> list[Any]:
    children: list[type] = kind.__subclasses__()
    own = [kind] if hasattr(kind, "name") else []
    return own + [one for child in children for one in _subclasses(child)]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
