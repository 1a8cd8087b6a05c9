"""Every known mistake is seen, on something that makes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foreign import TorchSmoothed, log_softmax, loss_of, names, targets_of, torch_uniform, uniform
from softhot.core.diagnosis.case import Case
from softhot.core.diagnosis.checks import from_batch
from softhot.core.diagnosis.diagnose import diagnose
from softhot.core.diagnosis.mistakes import CHECKS


def masked_loss(mask_smooth_term=True, inverted=False, divide=True):
    def loss(z, y):
        log_p = z.log_softmax(1)
        keep = (y != -100) ^ inverted
        nll = -log_p.gather(1, y.clamp(min=0)[:, None])[:, 0] * keep
        rest = -log_p.mean(1) * (keep if mask_smooth_term else 1)
        count = keep.sum() if divide else len(y)
        return (
            (0.9 * nll.sum() + 0.1 * rest.sum()) / count.clip(1)
            if divide
            else (0.9 * nll + 0.1 * rest).mean()
        )

    return loss


def k_from_batch(z, y):
    k = len(np.unique(y))
    return uniform(z, y, 0.1) + 0 * k if k > 1 else uniform(z, y, 0.0)


def first_label_only(z, y):
    value = uniform(z, y)
    value[y == 3] = np.nan
    return value


def in_place(z, y):
    z -= z.max(axis=1, keepdims=True)
    return uniform(z, y)


def full_like_integers(rows):
    out = rows.copy()
    out[rows == 1] = 0.9
    out[rows == 0] = 0.1
    return out


def uniform_targets(ids, alpha):
    return targets_of("uniform", alpha, 10, ids)


def slip_loss(on, off):
    def loss(z, y):
        k = z.shape[1]
        q = np.full(z.shape, off(k))
        q[np.arange(len(y)), y] = on(k)
        return -(q * log_softmax(z)).sum(axis=1).mean()

    return loss


BY_MISTAKE = {
    "rows do not sum to 1": (lambda: np.array([[0.9, 0.5, 0.5]]), {}),
    "e for every other class": (lambda: slip_loss(lambda k: 0.9, lambda k: 0.1), {}),
    "true class without its e/K": (lambda: slip_loss(lambda k: 0.9, lambda k: 0.1 / k), {}),
    "1/K without e": (lambda: slip_loss(lambda k: 0.9 + 1 / k, lambda k: 1 / k), {}),
    "e/(K - 1) for the true class too": (
        lambda: slip_loss(lambda k: 0.9 + 0.1 / (k - 1), lambda k: 0.1 / (k - 1)),
        {},
    ),
    "mean over classes": (
        lambda: lambda z, y: F.kl_div(z.log_softmax(1), 0.9 * F.one_hot(y, z.shape[1]) + 0.01),
        {},
    ),
    "e/K on sigmoids": (lambda: loss_of("sigmoid_over_classes", 0.1), {}),
    "wrong class on top": (lambda: loss_of("others", 0.95), {}),
    "negative target": (lambda: np.array([[1.2, -0.3, 0.1]]), {}),
    "labels read from 1": (lambda: lambda z, y: uniform(z, y - 1), {}),
    "class weights inside the target": (
        lambda: torch.nn.CrossEntropyLoss(torch.tensor([1.0, 20.0]), label_smoothing=0.1),
        {"num_classes": 2, "argument": 0.1},
    ),
    "a label fails": (lambda: first_label_only, {}),
    "arithmetic on class ids": (lambda: lambda y: 0.9 * y + 0.1 / 10, {}),
    "integer targets": (lambda: full_like_integers, {}),
    "writes to its input": (lambda: in_place, {}),
    "K from the batch": (lambda: k_from_batch, {}),
    "label -1 accepted": (lambda: uniform, {}),
    "label K accepted": (
        lambda: lambda y: 0.9 * (y[:, None] == np.arange(10)) + 0.01,
        {},
    ),
    "soft labels change": (
        lambda: lambda z, y: -(np.where(y > 0, 0.91, 0.01) * log_softmax(z)).sum(1),
        {},
    ),
    "ids and one-hot rows differ": (
        lambda: (
            lambda z, y: (
                torch_uniform(z, y) if y.ndim == 1 else F.cross_entropy(z, y, label_smoothing=0.0)
            )
        ),
        {},
    ),
    "argument without effect": (lambda: torch.nn.CrossEntropyLoss(), {"argument": 0.1}),
    "argument is the share kept": (lambda: loss_of("kept", 0.9), {"argument": 0.9}),
    "smoothed twice": (
        lambda: lambda z, y: torch_uniform(z, 0.9 * F.one_hot(y, z.shape[1]) + 0.1 / z.shape[1]),
        {"argument": 0.1},
    ),
    "bad argument accepted": (
        lambda: torch.nn.CrossEntropyLoss(label_smoothing=0.1),
        {"make": lambda e: torch.nn.CrossEntropyLoss(label_smoothing=e)},
    ),
    "smooths predictions": (
        lambda: (
            lambda z, y: (
                -np.log(
                    np.take_along_axis(
                        0.9 * np.exp(log_softmax(z)) + 0.1 / z.shape[1], y[:, None], 1
                    )
                )
            )
        ),
        {},
    ),
    "softmax twice": (lambda: lambda z, y: torch_uniform(z.softmax(1), y), {}),
    "sigmoid twice": (
        lambda: lambda z, y: F.binary_cross_entropy_with_logits(z.sigmoid(), 0.9 * y + 0.05),
        {},
    ),
    "a shift changes the loss": (
        lambda: (
            lambda z, y: np.log(np.exp(z).sum(1)) - 0.9 * np.take_along_axis(z, y[:, None], 1)[:, 0]
        ),
        {},
    ),
    "masked class gives inf": (lambda: torch_uniform, {}),
    "float16 overflows": (lambda: torch_uniform, {}),
    "smooths in evaluation": (TorchSmoothed, {}),
    "ignored rows count": (lambda: masked_loss(mask_smooth_term=False), {}),
    "mask inverted": (lambda: masked_loss(inverted=True), {}),
    "mean over ignored rows": (lambda: masked_loss(divide=False), {}),
    "no row left gives NaN": (lambda: torch.nn.CrossEntropyLoss(), {}),
    "class axis": (
        lambda: (
            lambda z, y: (
                -(
                    0.9 * z.log_softmax(-1).gather(-1, y.unsqueeze(1)).squeeze(1)
                    + 0.1 * z.log_softmax(-1).mean(-1)
                ).mean()
            )
        ),
        {},
    ),
}


def test_every_mistake_of_the_table_has_an_example():
    assert set(BY_MISTAKE) == set(CHECKS)


@pytest.mark.parametrize("name", BY_MISTAKE)
def test_sees_the_mistake(name):
    make, options = BY_MISTAKE[name]
    found = diagnose(make(), **options)
    assert name in names(found)
    mistake = next(mistake for mistake in found.mistakes if mistake.name == name)
    assert mistake.evidence.endswith(".")
    assert mistake.remedy in str(found)
    assert name in str(found)


SNIPPETS = {
    "ids as numbers, an array": (np.array([0.93, 0.03, 1.83]), {}, {"arithmetic on class ids"}),
    "ids as numbers, all the function takes": (
        lambda ids: 0.9 * ids[np.arange(len(ids))] + 0.1 * (ids.dtype.kind == "i"),
        {"takes": "ids"},
        {"arithmetic on class ids"},
    ),
    "K, and the shape, from the batch": (
        lambda ids: (
            0.9 * np.eye(len(set(ids.tolist())))[np.unique(ids, return_inverse=True)[1]]
            + 0.1 / len(set(ids.tolist()))
        ),
        {"takes": "ids"},
        {"K from the batch"},
    ),
    "in place, integers refused": (
        lambda rows: np.add(np.multiply(rows, 0.9, out=rows), 0.01, out=rows),
        {},
        {"writes to its input", "arithmetic on class ids"},
    ),
    "zeros instead of fractions": (
        np.zeros((3, 4), dtype=int),
        {"labels": [0, 1, 2]},
        {"integer targets", "rows do not sum to 1"},
    ),
    "rows from 1": (
        targets_of("uniform", 0.1, 4, np.arange(4)),
        {"labels": (np.arange(4) + 1) % 4},
        {"labels read from 1"},
    ),
    "labels from 1, of two classes": (
        lambda z, y: uniform(z, 1 - y),
        {"num_classes": 2},
        {"labels read from 1"},
    ),
    "soft labels made hard": (
        lambda rows: np.where(rows > 0, 0.9, 0.1 / 9),
        {},
        {"soft labels change"},
    ),
    "off value of a fill, forgotten on top": (
        lambda ids: np.where(ids[:, None] == np.arange(10), 0.9, 0.01),
        {},
        {"true class without its e/K", "rows do not sum to 1", "label -1 accepted"},
    ),
    "one-hot rows of any height": (
        lambda rows: rows * 0.9 + 0.1,
        {"argument": 0.1},
        {"rows do not sum to 1", "arithmetic on class ids"},
    ),
    "the share that stays, called smoothing": (
        lambda z, y: F.cross_entropy(z, y, label_smoothing=1 - 0.9),
        {"argument": 0.9},
        {"argument is the share kept"},
    ),
    "rows made of ids by themselves": (
        lambda rows: 0.9 * (rows if rows.ndim > 1 else np.eye(10)[rows.astype(int)]) + 0.01,
        {"takes": "one_hot"},
        set(),
    ),
    "NaN for what is ignored": (
        lambda z, y: np.where(y < 0, np.nan, uniform(z, np.maximum(y, 0))),
        {},
        {"label -1 accepted"},
    ),
    "an unbounded label": (uniform, {"ignore_index": -1}, {"masked class gives inf"}),
    "binary labels towards zero and one": (np.array([0.9, 0.1, 0.1]), {}, set()),
}


def test_sees_what_a_batch_of_all_classes_makes_of_a_row_in_every_reduction():
    rows, mean, total = (
        diagnose(lambda z, y, reduce=reduce: reduce(k_from_batch(z, y)))
        for reduce in (np.asarray, np.mean, np.sum)
    )
    assert (rows.convention, rows.alpha) == ("uniform", pytest.approx(0.1))
    evidence = "label 0 alone in its batch gives 1 and 0, 0.91 and 0.01 beside others."
    assert {m.name: m.evidence for m in rows.mistakes}["K from the batch"] == evidence
    assert replace(mean, residual=0) == replace(total, residual=0) == replace(rows, residual=0)


def test_a_batch_of_either_label_alone_is_tried():
    for label in (0, 1):
        other = diagnose(lambda y, y0=label: uniform_targets(y, 0.1 if (y != y0).any() else 0.0))
        evidence = {m.name: m.evidence for m in other.mistakes}["K from the batch"]
        assert evidence.startswith(f"label {label} alone in its batch gives 1 and 0, 0.91 and 0.01")


@pytest.mark.parametrize("label", [0, 20, 38, 39])
def test_of_many_classes_the_ends_and_the_middle_are_looked_at(label):
    found = diagnose(lambda z, y: np.where(y == label, np.nan, uniform(z, y)), num_classes=40)
    evidence = {m.name: m.evidence for m in found.mistakes}["a label fails"]
    assert evidence.startswith(f"label {label}: ")


def test_a_target_that_rounds_to_zero_has_no_sign():
    case = Case("loss", 2, lonely={0: np.array([1.0, -1e-12])})
    assert from_batch(case) == "label 0 alone in its batch gives 1 and 0."


@pytest.mark.parametrize("name", SNIPPETS)
def test_sees_what_is_wrong_with_a_snippet(name):
    subject, options, expected = SNIPPETS[name]
    assert names(diagnose(subject, **options)) >= expected
