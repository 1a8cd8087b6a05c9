"""Small studies for the tests, and trials that nobody had to train."""

import numpy as np

from softhot.datasets import load, split
from softhot.metrics import LastLayer
from softhot.studies import StudySpec, TrialResult

TINY = StudySpec(dataset="wine", alphas=(0.1, 0.3), seeds=2, hidden=(4,), epochs=3)


def fabricate(trial, *, sharpness=2.0, noise=1.0, seconds=0.25):
    """A result of the right shapes; its logits depend on the trial's seed and setting alone."""
    dataset = load(trial.dataset)
    parts = split(dataset, trial.train, trial.validation, trial.test, trial.split_seed)
    classes = len(dataset.class_names)
    random = np.random.default_rng([trial.seed, *(int(v * 1e6) for v in trial.arm.values)])

    def logits(rows):
        right = np.eye(classes)[dataset.labels[rows]]
        drawn = sharpness * right + noise * random.standard_normal(right.shape)
        return drawn.astype(np.float32)

    return TrialResult(
        validation_logits=logits(parts.validation),
        validation_labels=dataset.labels[parts.validation],
        test_logits=logits(parts.test),
        test_labels=dataset.labels[parts.test],
        seconds=seconds,
        versions={"made": "up"},
        split=parts.digest,
        layer=LastLayer(np.eye(classes, dtype=np.float32), np.ones(classes, np.float32)),
    )


def contents(folder):
    """Every file below ``folder`` with its bytes and what changes when it is written again."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes(),
            path.stat().st_mtime_ns,
            path.stat().st_ino,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
