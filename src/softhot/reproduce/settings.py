"""On what the claims are measured: data, sizes, the network and how long it is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """Data and training that all claims on a data set share.

    >>> [setting.name for setting in SETTINGS.values()]
    ['digits', 'fashion_mnist', 'fashion_mnist_3000']

    Attributes:
        dataset: a name from :data:`softhot.datasets.DATASETS`; tabular, or images (flattened).
        train, validation, test: rows.
        hidden: widths of the perceptron; of a student, ``student``.
        epochs: passes over the training rows.
        batch_size, learning_rate: of Adam.
        name: of the setting; the data set's if it is left out.
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
    name: str = ""

    def __post_init__(self) -> None:
        """Name it."""
        object.__setattr__(self, "name", self.name or self.dataset)


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("digits", train=600, validation=300, test=897, epochs=150),
        Setting(
            "fashion_mnist",
            train=50_000,
            validation=10_000,
            test=10_000,
            epochs=20,
            batch_size=128,
        ),
        # Few rows, many passes: the same data and network, far more overconfident.
        Setting(
            "fashion_mnist",
            train=3_000,
            validation=1_000,
            test=5_000,
            epochs=40,
            name="fashion_mnist_3000",
        ),
    )
}
"""The settings of ``softhot reproduce``, by name."""
