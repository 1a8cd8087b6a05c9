"""On what the claims are measured: data, sizes, the network and how long it is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """Data and training that all claims on a data set share.

    Attributes:
        dataset: a name from :data:`softhot.datasets.DATASETS`; tabular, or images (flattened).
        train, validation, test: rows.
        hidden: widths of the perceptron; of a student, ``student``.
        epochs: passes over the training rows.
        batch_size, learning_rate: of Adam.
    """

    dataset: str
    train: int
    validation: int
    test: int
    epochs: int
    hidden: tuple[int, ...] = (128, 64)
    student: tuple[int, ...] = (32,)
    batch_size: int = 64
    learning_rate: float = 1e-3


SETTINGS: dict[str, Setting] = {
    setting.dataset: setting
    for setting in (
        Setting("digits", train=600, validation=300, test=897, epochs=150),
        Setting("fashion_mnist", train=3000, validation=1000, test=5000, epochs=40),
    )
}
"""The settings of ``softhot reproduce``, by data set."""
