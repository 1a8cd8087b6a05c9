"""A model of the user's own: a Python file with a function ``train(trial) -> Predictions``.

::

    def train(trial):
        model = ...                    # of any framework, seeded with trial.seed
        loss = trial.loss("torch")     # the arm's rule as a loss of that framework
        ...                            # fit to trial.train, stop by trial.validation
        return trial.predictions(logits_of(model, trial.held_out.features))

``trial.held_out`` are the validation rows and behind them the test rows, without labels: what is
chosen on labels of the test rows cannot be fair, so they are not handed out.
"""

from __future__ import annotations

import hashlib
import importlib
import runpy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softhot.core.check import InputError, OneOf
from softhot.core.rule import Rule
from softhot.metrics import Predictions
from softhot.studies.methods import Arm, TrainingRows
from softhot.studies.spec import TrialSpec
from softhot.studies.train import Trained

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split

# How each framework is given a rule.
LOSSES = {
    "torch": lambda module, rule: module.CrossEntropyLoss(rule=rule),
    "keras": lambda module, rule: module.SparseCategoricalCrossentropy(from_logits=True, rule=rule),
    "jax": lambda module, rule: lambda z, y: module.cross_entropy(z, y, rule).mean(),
    "huggingface": lambda module, rule: module.SmoothLoss(rule),
}
NEXT = "Return trial.predictions(logits) for the rows of trial.held_out."


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of the data: ``features`` as in :class:`softhot.datasets.Dataset`, ``labels`` (N,).

    ``labels`` is None for held-out rows; ``soft_labels`` (N, K) where several people labelled.
    """

    features: Any
    labels: np.ndarray | None = None
    soft_labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, eq=False)
class Trial:
    """What the user's ``train`` is given.

    Attributes:
        arm: the setting of the method; ``arm.recipe`` has its weight decay, dropout and mixup.
        rule: the arm's softhot rule.
        seed: fixes weights, order and noise: the same in every arm, so that arms pair.
        train, validation: rows with labels.
        held_out: features of the validation rows and, behind them, of the test rows.
        classes: their names.
        epochs, batch_size, learning_rate: of the study; use them or not.
        folder: for checkpoints; after a crash the same trial finds what it left there. It is
            removed when the trial is finished.
    """

    arm: Arm
    rule: Rule
    seed: int
    train: Rows
    validation: Rows
    held_out: Rows
    classes: tuple[str, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    folder: Path
    _labels: np.ndarray

    def loss(self, framework: str) -> Any:
        """The rule as a loss: of "torch", "keras", "jax" or "huggingface".

        Raises:
            InputError: another framework.
        """
        OneOf(*LOSSES).check("framework", framework)
        return LOSSES[framework](importlib.import_module(f"softhot.{framework}"), self.rule)

    def predictions(self, logits: Any) -> Predictions:
        """What ``train`` returns: ``logits`` (rows of ``held_out``, classes).

        Raises:
            InputError: another shape, or numbers that are not finite.
        """
        shape, wanted = tuple(np.shape(logits)), (len(self._labels), len(self.classes))
        if shape != wanted:
            raise InputError("logits", f"of shape {wanted}", shape, NEXT)
        return Predictions.from_logits(logits, self._labels)


def train(trial: TrialSpec, dataset: Dataset, split: Split, folder: Path | None = None) -> Trained:
    """Have the user's function train a model."""
    function = load(trial.model)
    held = np.concatenate([split.validation, split.test])
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) if folder is None else folder
        place.mkdir(parents=True, exist_ok=True)
        rows = {name: _rows(dataset, getattr(split, name)) for name in ("train", "validation")}
        given = Trial(
            arm=trial.arm,
            rule=trial.arm.recipe.fit(TrainingRows.of(dataset.take(split.train))),
            seed=trial.seed,
            held_out=Rows(_rows(dataset, held).features),
            classes=dataset.class_names,
            epochs=trial.epochs,
            batch_size=trial.batch_size,
            learning_rate=trial.learning_rate,
            folder=place,
            _labels=dataset.labels[held],
            **rows,
        )
        try:
            found = function(given)
        except SystemExit as error:  # it would end the study
            raise RuntimeError(f"it called sys.exit({error.code!r})") from error
    if not isinstance(found, Predictions):
        raise InputError(f"train() of {trial.model}", "softhot Predictions", found, NEXT)
    shape = found.log_probs.shape
    if shape != (len(held), dataset.classes) or (found.labels != dataset.labels[held]).any():
        allowed = f"({len(held)}, {dataset.classes}), for the held-out rows in their order"
        raise InputError(f"predictions of {trial.model}", f"of shape {allowed}", shape, NEXT)
    logits = np.asarray(found.log_probs).astype(np.float32)
    return Trained(logits[: len(split.validation)], logits[len(split.validation) :])


def load(path: str) -> Any:
    """The function ``train`` in the file.

    Raises:
        InputError: no such file, one that cannot be run, or without ``train``.
    """
    if not Path(path).is_file():
        raise InputError("model", "an existing Python file", path, "Check the path.")
    try:
        content = runpy.run_path(path)
    except (Exception, SystemExit) as error:
        hint = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError("model", "a Python file that can be run", path, hint) from error
    if not callable(content.get("train")):
        raise InputError("model", "a file with a function train(trial)", path, NEXT)
    return content["train"]


def digest(path: str) -> str:
    """First 12 hexadecimal digits of the file's SHA-256: it tells two versions of it apart."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def _rows(dataset: Dataset, rows: np.ndarray) -> Rows:
    found = dataset.take(rows)
    return Rows(found.features, found.labels, found.soft_labels)
