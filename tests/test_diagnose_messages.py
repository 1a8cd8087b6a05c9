"""What diagnose says, word for word: of every known mistake, and of what it cannot take.

python tests/test_diagnose_messages.py writes tests/diagnoses.txt anew.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import softhot
from foreign import log_softmax, targets_of, uniform
from softhot import InputError, diagnose
from test_diagnose import HOSTILE
from test_diagnose_mistakes import BY_MISTAKE, SNIPPETS

PAGE = Path(__file__).parent / "diagnoses.txt"
ROWS = targets_of("uniform", 0.1, 3, np.arange(3))
BAD = {
    "labels of text": (ROWS, {"labels": ["a", "b", "c"]}),
    "labels of another length": (ROWS, {"labels": [0, 1]}),
    "a label beyond the classes": (ROWS, {"labels": [0, 1, 3]}),
    "labels beside a loss": (uniform, {"labels": [0, 1]}),
    "a loss called targets": (uniform, {"kind": "targets"}),
    "targets called a function": (ROWS, {"kind": "target function"}),
    "a kind": (uniform, {"kind": "model"}),
    "inputs": (uniform, {"inputs": "tensorflow"}),
    "an order": (uniform, {"order": "labels"}),
    "a form of labels": (uniform, {"takes": "soft"}),
    "an argument": (uniform, {"argument": 1.5}),
    "one class": (uniform, {"num_classes": 1}),
    "half an id to ignore": (uniform, {"ignore_index": 0.5}),
}
IDS = np.arange(8) % 4
HOT = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])


def smooth(rule, labels=IDS, **options):
    return softhot.smooth_labels(labels, rule, num_classes=4, **options)


def loss(rule, **options):
    return lambda z, y: softhot.cross_entropy(z, y, rule, **options)


def softmax(z):
    return np.exp(log_softmax(z))


PRIOR = softhot.Prior(0.1, (1, 2, 3, 4))
PERCLASS = softhot.Uniform(softhot.PerClass((0.1, 0.2, 0.3, 0.0)))
TAUGHT = np.random.default_rng(0).dirichlet(np.ones(4), size=8)
MORE = {
    "uniform targets": (smooth(0.1), {}),
    "uniform targets in float32": (smooth(0.1).astype("float32"), {"labels": IDS}),
    "uniform targets in float16": (smooth(0.1).astype("float16"), {"labels": IDS}),
    "targets of one label": (smooth(0.1)[:1], {"argument": 0.075}),
    "targets of classes by frequency": (smooth(PRIOR), {"labels": IDS}),
    "targets of classes by frequency, without labels": (smooth(PRIOR), {}),
    "targets with a weight a class": (smooth(PERCLASS), {"labels": np.eye(4)[IDS]}),
    "targets of a teacher": (smooth(softhot.Teacher(0.5), prior=TAUGHT), {"labels": IDS}),
    "uniform targets, one-hot labels": (smooth(0.1), {"labels": np.eye(4, dtype=int)[IDS]}),
    "sigmoids with one label a row": (0.9 * np.eye(4) + 0.05, {"labels": np.eye(4)}),
    "hard targets": (np.eye(4)[IDS], {"labels": IDS}),
    "negative smoothing": (smooth(softhot.NegativeUniform(-0.25)), {"labels": IDS}),
    "targets that skip padding": (targets_of("skip_pad", 0.1, 5, np.arange(1, 5)), {}),
    "multi-hot targets": (softhot.smooth_binary_labels(HOT, 0.1), {"labels": HOT}),
    "multi-hot targets, without labels": (softhot.smooth_binary_labels(HOT, 0.1), {}),
    "multi-hot targets that keep their mass": (
        softhot.smooth_binary_labels(HOT, softhot.MassPreserving(0.1)),
        {"labels": HOT},
    ),
    "multi-hot targets of nothing known": (HOT * 0.7 + HOT[:, ::-1] * 0.1, {"labels": HOT}),
    "one-sided targets of one label": (np.array([0.9, 0.0, 0.0]), {"labels": [1, 0, 0]}),
    "a function of labels and K": (lambda y, k: np.eye(k)[y] * 0.9 + 0.1 / k, {}),
    "a function of classes by frequency": (lambda y: smooth(PRIOR, y), {"num_classes": 4}),
    "ids as numbers, K from the batch": (lambda y: 0.9 * y + 0.1 / len(np.unique(y)), {}),
    "a function of any argument": (
        lambda y: 0.9 * y + 0.01,
        {"make": lambda e: lambda y: (1 - e) * y + e / 10, "takes": "one_hot"},
    ),
    "a function of padding": (lambda y: targets_of("skip_pad", 0.1, 10, y), {}),
    "a loss of classes by frequency": (loss(PRIOR), {"num_classes": 4}),
    "a loss with a weight a class": (loss(PERCLASS), {"num_classes": 4}),
    "a loss with penalties": (
        loss(softhot.Uniform(0.1) + softhot.MaxSup(0.125) + softhot.ConfidencePenalty(0.25)),
        {},
    ),
    "a loss with a margin": (loss(softhot.Margin(0.125, 1.0)), {}),
    "a sum": (loss(softhot.Others(0.1), reduction="sum"), {"argument": 0.1}),
    "a mean in float32": (
        lambda z, y: np.float32(softhot.cross_entropy(z, y, softhot.Uniform(0.1)).mean()),
        {},
    ),
    "class weights inside the target": (
        lambda z, y: softhot.cross_entropy(
            z, y, softhot.Uniform(0.1), weight=[1, 2, 4], weighting="class", validate=False
        ),
        {"num_classes": 3},
    ),
    "class weights of samples": (
        loss(softhot.Uniform(0.1), weight=[1, 2, 4], reduction="mean"),
        {"num_classes": 3},
    ),
    "sigmoids towards how common labels are": (
        lambda z, y: softhot.binary_cross_entropy(z, y, softhot.Prevalence(0.1, (0.1, 0.2, 0.3))),
        {"num_classes": 3},
    ),
    "two classes": (loss(softhot.Uniform(0.1)), {"num_classes": 2}),
    "many classes": (loss(softhot.Uniform(0.1)), {"num_classes": 40}),
    "an id to ignore": (loss(softhot.Uniform(0.1), ignore_index=1), {"ignore_index": 1}),
    "hard targets of integers": (np.eye(4, dtype=int)[IDS], {"labels": IDS}),
    "targets of one label that differ": (
        np.array([[0.9, 0.1, 0.0], [0.9, 0.4, 0.1]]),
        {"labels": [0, 0]},
    ),
    "a function whose rows have a weight a class": (
        lambda y: smooth(0.1, y) * np.array([0.5, 2.5, 1.0, 1.0])[y, None],
        {"num_classes": 4},
    ),
    "a function of labels and K, the others": (lambda y, k: targets_of("others", 0.09, k, y), {}),
    "a function that takes any label": (lambda y: 0.9 * np.eye(10)[y % 10] + 0.01, {}),
    "a loss of log-probabilities and one-hot rows": (
        lambda p, y: -((0.9 * y + 0.025) * p).sum(axis=1),
        {"num_classes": 4, "takes": "one_hot"},
    ),
    "predictions smoothed by very little": (
        lambda z, y: -np.log((0.999 * softmax(z) + 0.00025)[np.arange(len(y)), y]),
        {"num_classes": 4},
    ),
    "a loss that refuses bad arguments": (
        loss(softhot.Uniform(0.1)),
        {"make": lambda e: loss(softhot.Uniform(e)), "argument": 0.1},
    ),
    "a loss that rounds soft labels": (
        lambda z, y: loss(softhot.Uniform(0.1))(z, y if y.ndim == 1 else y.argmax(axis=1)),
        {},
    ),
    "sigmoids of 0/1 rows": (
        lambda z, y: softhot.binary_cross_entropy(z, y, softhot.Bernoulli(0.1)),
        {"num_classes": 3, "takes": "multi_hot"},
    ),
    "a loss of logits alone": (lambda z, y: (z**2).sum(axis=1), {}),
    "a loss of any other form, soft labels or not": (
        lambda z, y: ((softmax(z) - (np.eye(10)[y] if y.ndim == 1 else y)) ** 2).sum(axis=1),
        {},
    ),
}
CALLS = {
    **{f"more: {n}": (lambda s=s: s, given) for n, (s, given) in MORE.items()},
    **{
        f"mistake: {name}": (lambda m=make: m(), given)
        for name, (make, given) in BY_MISTAKE.items()
    },
    **{f"snippet: {n}": (lambda s=s: s, given) for n, (s, given, _) in SNIPPETS.items()},
    # With one kind of array, since the reasons name every kind that is loaded.
    **{f"cannot be: {n}": (lambda s=s: s, {"inputs": "numpy"}) for n, s in HOSTILE.items()},
    **{f"bad: {n}": (lambda s=s: s, given) for n, (s, given) in BAD.items()},
}


def told(name: str) -> str:
    """The report, without what rounding decides; or the error, without what was given."""
    make, options = CALLS[name]
    try:
        lines = str(diagnose(make(), **options)).splitlines()
        return "\n".join(line for line in lines if "  residual " not in line)
    except InputError as error:
        text = f"{error.argument} must be {error.allowed}. {error.hint}"
        return re.sub(r"0x[0-9a-f]+", "0x", text).strip()


def pages() -> dict[str, str]:
    parts = PAGE.read_text().split("\n# ")[1:]
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


@pytest.mark.parametrize("name", CALLS)
def test_no_word_of_a_diagnosis_changes_unseen(name):
    assert told(name) == pages()[name]


if __name__ == "__main__":
    PAGE.write_text("".join(f"\n# {name}\n{told(name)}\n" for name in CALLS))
