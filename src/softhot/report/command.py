"""The command line that makes a study again."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softhot.studies import StudySpec

# Settings that `softhot study` has an option for; with any other a study needs its file.
OPTIONS = (
    *("alphas", "methods", "model", "seeds", "epochs", "hidden", "batch_size", "learning_rate"),
    *("early_stopping", "label_noise", "imbalance", "subset", "image_size", "folds"),
    *("search", "budget"),
)


def study_command(spec: StudySpec, goal: str) -> str:
    """The command line that makes the study again.

    >>> from softhot.studies import StudySpec
    >>> study_command(StudySpec(seeds=3, label_noise=0.2), "probabilities")
    'softhot study digits --label-noise 0.2 --seeds 3'
    """
    # Without image_size, sizes could not be counted where images differ in theirs.
    default = type(spec)(dataset=spec.dataset, image_size=spec.image_size)
    changed = [f.name for f in fields(spec) if getattr(spec, f.name) != getattr(default, f.name)]
    changed += ["image_size"] if spec.image_size is not None else []
    words = ["softhot", "study", spec.dataset]
    for name in changed:
        if name not in OPTIONS:
            words = ["softhot", "study", "study.toml"]
            break
        value = getattr(spec, name)
        listed = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", ",".join(map(_word, listed))]
    return shlex.join(words + (["--goal", goal] if goal != "probabilities" else []))


def _word(value: Any) -> str:
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if short == str(value) or float(short) == value else repr(value)
