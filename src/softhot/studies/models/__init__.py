"""Models: what is trained. A new one is a small file here and one row of :data:`MODELS`.

A row names the module that trains it; the module is imported when it is needed, so that a model
whose library is missing disturbs no other.

>>> list(MODELS)
['linear', 'mlp', 'cnn', 'lstm', 'head', 'forest', 'boosting']
>>> model("mlp").widths(None), model("linear").widths(None)
((128, 64), ())
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhot.core.check import InputError, OneOf

OWN = "Or give a Python file with a function train(trial) -> Predictions, such as my.py."
FILE = ".py"  # how the name of a model ends that is a file of the user's own


@dataclass(frozen=True)
class Model:
    """What is known about a model before its library is imported.

    Attributes:
        title: for people, one line.
        module: the module of this package that has ``inputs`` and ``build``, of a network, or a
            ``train`` of its own.
        kinds: kinds of data that it takes, of :data:`softhot.datasets.KINDS`.
        hidden: the widths that it has unless others are given.
        least, most: how many widths it takes.
        alone: why its trials train one by one; empty if many train as one program.
        targets: whether it knows no methods but rules for targets, and no early stopping.
    """

    title: str
    module: str
    kinds: tuple[str, ...] = ("tabular", "images")
    hidden: tuple[int, ...] = ()
    least: int = 0
    most: int = 0
    alone: str = ""
    targets: bool = False

    def widths(self, hidden: Sequence[int] | None) -> tuple[int, ...]:
        """``hidden`` if the model takes so many widths, its own if None."""
        if hidden is None:
            return self.hidden
        if not self.least <= len(hidden) <= self.most:
            some = f"{self.least} to {self.most} widths" if self.most else "left out"
            hint = f"The model is {self.title}."
            raise InputError("hidden", f"{some}, for this model", list(hidden), hint)
        return tuple(hidden)


ONE_BY_ONE = "convolutions of many networks at once are slower than one after another on a CPU"
MODELS: dict[str, Model] = {
    "linear": Model("a linear classifier", "mlp"),
    "mlp": Model("a perceptron with ReLU", "mlp", hidden=(128, 64), most=100),
    "cnn": Model(
        "convolutions with stride 2, and a linear layer",
        "cnn",
        ("images",),
        hidden=(16, 32),
        least=1,
        most=10,
        alone=ONE_BY_ONE,
    ),
    "lstm": Model(
        "word embeddings and an LSTM",
        "lstm",
        ("texts",),
        hidden=(64, 64),
        least=2,
        most=2,
        alone="PyTorch has no LSTM of many networks at once",
    ),
    "head": Model(
        "a perceptron on features of a frozen pretrained network",
        "head",
        ("images", "texts"),
        hidden=(128,),
        most=100,
    ),
    "forest": Model(
        "a random forest of scikit-learn", "trees", alone="it is no network", targets=True
    ),
    "boosting": Model(
        "gradient boosting by LightGBM", "trees", alone="it is no network", targets=True
    ),
}


def model(name: Any) -> Model:
    """The row of a model's name; of a Python file, that of models of the user's own."""
    if isinstance(name, str) and Path(name).suffix == FILE:
        kinds, why = ("tabular", "images", "texts"), "its own train() takes one trial"
        return Model(f"that of {Path(name).name}", "own", kinds, most=100, alone=why)
    near = difflib.get_close_matches(str(name), MODELS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else OWN
    return MODELS[OneOf(*MODELS).check("model", name, hint)]
