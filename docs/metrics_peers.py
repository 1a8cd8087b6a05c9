"""Write docs/metrics-peers.md: calibration errors of other libraries beside softhot's.

    pip install --no-deps netcal && python -m docs.metrics_peers

netcal is asked only here: it brings more packages than the tests should need.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from softhot.metrics import Predictions, ece

PAGE = Path(__file__).with_name("metrics-peers.md")
Case = tuple[str, np.ndarray, np.ndarray]

TEXT = """\
# Calibration errors of other libraries

The expected calibration error of the predicted class, 15 bins of equal width, by {versions}. Where
a number is another one, it is in bold, and the text says why. `python -m docs.metrics_peers` writes
this page.

{table}

- **A confidence of exactly 1.** torchmetrics opens a sixteenth bin for it. Networks trained without
  smoothing saturate there and those trained with it do not, so the two are not binned alike.
- **A confidence on an edge.** softhot's and MAPIE's bins are (l, u], netcal's and torchmetrics'
  [l, u): which side a row of confidence 9/15 falls on is a convention, and moves the number where
  many rows share one value, as those of a tree do.
- **Labels that happen to be all 0 or 1.** netcal infers the number of classes from the labels in
  hand, so a batch of three columns in which the third class does not occur is refused.
- **One column for two classes.** netcal takes one column as the probability of class 1 and bins
  that, as a calibration curve does; ECE as in the papers bins the confidence in the predicted
  class. Of two columns it takes the second.
- MAPIE counts edges, so it is asked for 16 to get 15 bins.
"""


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for k, sharp in ((10, 1.5), (3, 0.6), (100, 2.0)):
        z = 2 * rng.normal(size=(5000, k))
        labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
        e = np.exp(sharp * (z - z.max(axis=1, keepdims=True)))
        yield f"{k} classes, logits times {sharp}", e / e.sum(axis=1, keepdims=True), labels
    sure = np.eye(3)[[0, 1, 2, 0]]
    near = np.tile([0.97, 0.02, 0.01], (4, 1))
    yield (
        "confidence exactly 1, and 0.97",
        np.vstack([sure, near]),
        np.array([0, 1, 2, 1] + [0] * 4),
    )
    edge = np.tile([9 / 15, 4 / 15, 2 / 15], (10, 1))
    over = np.tile([0.65, 0.25, 0.10], (10, 1))
    labels = np.array([0] * 10 + [1] * 9 + [2])
    yield "confidence on an edge, 9/15, and 0.65", np.vstack([edge, over]), labels
    yield "the same, no row of the third class", np.vstack([edge, over]), np.minimum(labels, 1)
    two = np.tile([[0.38, 0.62], [0.62, 0.38]], (50, 1))
    yield "two classes, always 62 % sure, half right", two, np.ones(100, int)


def netcal(probs: np.ndarray, labels: np.ndarray) -> float:
    from netcal.metrics import ECE

    return float(ECE(15).measure(probs, labels))


def torchmetrics(probs: np.ndarray, labels: np.ndarray) -> float:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    given = torch.from_numpy(probs), torch.from_numpy(labels)
    return float(multiclass_calibration_error(*given, num_classes=probs.shape[1], n_bins=15))


def mapie(probs: np.ndarray, labels: np.ndarray) -> float:
    from mapie.metrics.calibration import expected_calibration_error

    right = (probs.argmax(axis=1) == labels).astype(int)
    return float(expected_calibration_error(right, probs.max(axis=1), num_bins=16))


PEERS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "netcal": netcal,
    "torchmetrics": torchmetrics,
    "mapie": mapie,
}


def asked(peer: Callable[[np.ndarray, np.ndarray], float], case: Case, ours: float) -> str:
    try:
        theirs = peer(*case[1:])
    except RuntimeError as error:
        return f"refused: {error}"
    return f"{theirs:.4f}" if abs(theirs - ours) < 5e-5 else f"**{theirs:.4f}**"


def main() -> None:
    argparse.ArgumentParser("python -m docs.metrics_peers", description="Write it.").parse_args()
    warnings.simplefilter("ignore")
    lines = [
        "| predictions | softhot | netcal | torchmetrics | MAPIE |",
        "|---|---:|---:|---:|---:|",
    ]
    for case in cases():
        ours = ece(Predictions.from_probs(*case[1:]))
        told = [asked(peer, case, ours) for peer in PEERS.values()]
        lines.append(f"| {' | '.join([case[0], f'{ours:.4f}', *told])} |")
    versions = ", ".join(f"{name} {version(name)}" for name in PEERS)
    text = TEXT.format(versions=versions, table="\n".join(lines))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
