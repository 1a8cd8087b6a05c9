"""What to mind before one believes a study: one function a danger, each a sentence or nothing.

The verdict's own sentences say already where alpha is the largest one tried, where seeds are not
finished, and where a temperature ended at its limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from softhot.core.check import InputError
from softhot.metrics import Predictions, ece, ece_debiased
from softhot.report import words
from softhot.studies.decision import ADVISED
from softhot.studies.spec import StudySpec

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Comparison

Test = Mapping[str, Sequence[Predictions]]
FEW = 5  # seeds
ROWS = 300  # validation rows that a temperature wants


def alerts(
    comparison: Comparison, arm: ArmSummary, test: Test, *, failed: int = 0, reused: int = 0
) -> list[str]:
    """All alerts of a study.

    Args:
        comparison: what was found.
        arm: the arm in focus.
        test: raw test predictions by arm.
        failed: trials that ended in an error.
        reused: how often these test rows were looked at before with other settings.
    """
    base = comparison.arms[0]
    found: list[str | None] = [
        _edge(comparison),
        _seeds(comparison),
        _noise(base, arm, test),
        _few(comparison),
        _failed(failed),
        _reused(reused),
        *_floored(test),
    ]
    return [sentence for sentence in found if sentence]


def _edge(comparison: Comparison) -> str | None:
    tried = [arm for arm in comparison.curve if arm.alpha]
    if len(tried) < 2 or comparison.chosen != tried[0].name:
        return None
    return (
        f"The chosen alpha, {tried[0].alpha}, is the smallest that was tried: the best may be "
        "smaller still."
    )


def _seeds(comparison: Comparison) -> str | None:
    seeds = len(comparison.seeds)
    if seeds >= FEW:
        return None
    return (
        f"{seeds} {'seed says' if seeds == 1 else 'seeds say'} little about luck in training; "
        f"{ADVISED} are a good number."
    )


def _noise(base: ArmSummary, arm: ArmSummary, test: Test) -> str | None:
    """ECE that is mostly what chance alone adds in so many rows."""
    quiet = []
    for one in (base, arm):
        raw = np.mean([ece(p) for p in test[one.name]])
        left = np.mean([ece_debiased(p) for p in test[one.name]])
        if left < raw / 2:
            quiet.append(f"{words.percent(float(raw), 1)} for {words.alpha(one)}")
    if not quiet:
        return None
    return (
        f"The ECE as trained, {words.joined(quiet)}, is below its own noise: more than half of it "
        "is what chance alone adds in so few rows."
    )


def _few(comparison: Comparison) -> str | None:
    rows = comparison.spec.validation
    if rows >= ROWS:
        return None
    return f"{rows} validation rows are few to choose alpha and to fit a temperature by."


def _failed(failed: int) -> str | None:
    if not failed:
        return None
    what = "1 trial failed and is" if failed == 1 else f"{failed} trials failed and are"
    return (
        f"{what} missing here: if training fails more often in one arm, the rest is not a fair "
        "sample."
    )


def _reused(reused: int) -> str | None:
    if not reused:
        return None
    times = "once" if reused == 1 else f"{reused} times"
    return (
        f"These test rows were looked at {times} before, with other settings: the more often, the "
        "less they say about new data."
    )


def _floored(test: Test) -> Iterable[str]:
    for name, predictions in test.items():
        if count := sum(one.floored for one in predictions):
            yield (
                f"{name}: in {count:,} rows the true class had probability exactly 0 and was "
                "raised to the smallest number of its type. Without that the NLL would be infinite."
            )


def reused(folder: str | Path, spec: StudySpec) -> int:
    """How many other studies beside the one in ``folder`` were scored on the same test rows."""
    same = ("dataset", "split_seed", "test", "label_noise", "imbalance", "subset")
    found = 0
    for path in Path(folder).resolve().parent.glob("*/study.toml"):
        with contextlib.suppress(InputError):  # a study of another version, or no study at all
            other = StudySpec.read(path)
            if other.digest != spec.digest:
                found += all(getattr(other, name) == getattr(spec, name) for name in same)
    return found
