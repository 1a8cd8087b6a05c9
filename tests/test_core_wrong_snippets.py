"""Thirty formulas that people have shipped and that are wrong: each law must kill what it should.

The formulas are written anew, as small as they go. For every law there is a control: the library
passes it. What is tested here is the laws; a law that lets its mutant live proves nothing.
"""

# ruff: noqa: E501 (tables, a row a line)

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import laws
import softhot
from batches import K, run
from cases import CASES, batch_with, make_batch
from softhot import Bernoulli, OneSided, Uniform, smooth_binary_labels, smooth_labels

E = 0.1
EYE = np.eye(K)
BATCH = make_batch(CASES[1])
Y = BATCH.labels
ROWS = (1 - E) * EYE[Y] + E / K  # the paper's target, by hand
LABELS = np.array([[1, 0, 0, 1], [0, 0, 1, 0]])


class Killed(AssertionError):
    """The law does not hold, because the code does not even run."""


def survives(code, *arguments):
    try:
        return code(*arguments)
    except (SyntaxError, IndexError, ZeroDivisionError, TypeError) as error:
        raise Killed(str(error)) from error


# ---- laws of targets: smooth(labels, alpha, k) -> rows --------------------------------------


def gives_the_paper_s_rows(smooth):
    laws.same_targets(survives(smooth, Y.copy(), E, K), ROWS)


def rows_sum_to_one(smooth):
    laws.rows_sum_to_one(survives(smooth, Y.copy(), E, K))


def does_not_ask_the_batch_for_k(smooth):
    few = survives(smooth, np.array([3, 3]), E, K)
    laws.same_targets(few, np.tile((1 - E) * EYE[3] + E / K, (2, 1)))


def takes_two_classes(smooth):
    with np.errstate(divide="ignore", invalid="ignore"):
        laws.same_targets(survives(smooth, np.array([0, 1]), E, 2), [[0.95, 0.05], [0.05, 0.95]])


def smooths_one_hot_integers_and_leaves_them_alone(smooth):
    one_hot = np.eye(K, dtype=int)[Y]
    laws.same_targets(survives(smooth, one_hot, E, K), ROWS)
    assert (one_hot == np.eye(K, dtype=int)[Y]).all(), "the caller's labels changed"


def refuses(call):
    try:
        call()
    except softhot.InputError:
        return
    raise AssertionError("accepted in silence")


def refuses_labels_out_of_range(smooth):
    for label in (-1, K):
        refuses(lambda y=label: smooth(np.array([y, 0]), E, K))


def refuses_to_smooth_twice(smooth):
    refuses(lambda: smooth(ROWS, E, K))


def keeps_mixed_labels_mixed(smooth):
    mixed = 0.7 * EYE[Y] + 0.3 * EYE[(Y + 1) % K]
    laws.same_targets(smooth(mixed, E, K), (1 - E) * mixed + E / K)


def zero_is_hard(smooth):
    laws.same_targets(smooth(Y, 0.0, K), EYE[Y])


def right(labels, alpha, k):
    kind = "ids" if labels.ndim == 1 else "soft" if labels.dtype.kind == "f" else "one_hot"
    return smooth_labels(labels, alpha, num_classes=k, kind=kind)


# ---- laws of binary targets: smooth(labels, alpha) -> targets -------------------------------


def goes_towards_a_half(smooth):
    laws.close(smooth(LABELS, E), (1 - E) * LABELS + E / 2, 1e-12)


def labels_are_alone(smooth):
    """A label's target does not depend on how many other labels there are."""
    laws.close(smooth(LABELS, E)[:, :1], smooth(LABELS[:, :1], E), 1e-12)


def leaves_negatives_alone(smooth):
    laws.close(smooth(LABELS, E), (1 - E) * LABELS, 1e-12)


# ---- laws of losses: loss(batch) -> (loss, gradient) ----------------------------------------


def differentiated(loss):
    """A loss of torch tensors as the laws want it: (loss, gradient), canonical NumPy."""

    def call(batch):
        z = torch.tensor(batch.logits, requires_grad=True)
        value = loss(z, torch.tensor(batch.labels), batch)
        value.sum().backward()
        return value.detach().numpy(), z.grad.numpy()

    return call


def library(batch):
    return run(Uniform(E), batch)


def ignoring_finite_rows_is_deleting(loss):
    batch = batch_with(CASES[1], {"ignored"})
    laws.ignoring_is_deleting(loss, replace(batch, logits=BATCH.logits))


def axis_changes_nothing(loss):
    laws.axis_changes_nothing(loss, BATCH)


def least_at_target(loss):
    laws.least_at_target(loss, BATCH, ROWS)


def weights_keep_the_optimum(loss):
    weight = np.array([1.0, 2.0, 50.0, 1.0, 100.0])
    laws.least_at_target(loss, replace(BATCH, weight=weight), ROWS)


def smoothing_matters(loss):
    smoothing = {id(BATCH): 0.0}
    laws.option_matters(lambda b: loss(b, smoothing.get(id(b), E)), BATCH, replace(BATCH))


def a_mask_stays_finite(loss):
    batch = batch_with(CASES[1], {"masked"})
    value, gradient = loss(batch)
    assert np.isfinite(value).all(), "not finite"
    assert np.isfinite(gradient).all(), "not finite"


def half_precision_stays_finite(loss):
    value = loss(np.zeros((1, 9000), np.float16), np.array([0]))
    assert np.isfinite(value).all(), "not finite"


def refuses_rows_that_sum_to_more(loss):
    refuses(lambda: loss(replace(BATCH, labels=EYE[Y] * 0.4 + 0.5)))


def is_plain_in_eval(module):
    z, y = torch.tensor(BATCH.logits), torch.tensor(Y)
    laws.close(module.eval()(z, y).item(), F.cross_entropy(z, y).item(), 1e-12)


# ---- the formulas ---------------------------------------------------------------------------


def ids_as_numbers(labels, e, k):
    return (1 - e) * labels + e / k


def classes_of_the_batch(labels, e, k):
    seen = len(np.unique(labels))
    return (1 - e) * np.eye(k)[labels] + e / seen


def overwritten(labels, e, k):
    labels[np.where(labels == 0)] = e / k
    labels[np.where(labels == 1)] = 1 - e + e / k
    return labels


def scaled_in_place(labels, e, k):
    labels *= 1 - e
    labels += e / k
    return labels


def filled_like_the_labels(labels, e, k):
    rows = np.full_like(labels, e / k)
    rows[np.arange(len(labels)), labels] = 1 - e
    return rows


def scattered(on, off):
    def smooth(labels, e, k):
        rows = np.full((len(labels), k), np.float64(off(e, k)))
        rows[np.arange(len(labels)), labels] = on(e, k)
        return rows

    return smooth


def one_offset_for_all(labels, e, k):
    return (1 - e) * np.eye(k)[labels] + 1 / k


def one_based(labels, e, k):
    return (1 - e) * np.eye(k)[labels - 1] + e / k


def clamped(labels, e, k):
    return (1 - e) * np.eye(k)[np.clip(labels, 0, k - 1)] + e / k


def always_again(labels, e, k):
    return (1 - e) * labels + e / k


def hardened(labels, e, k):
    return np.where(labels > 0, 1 - e + e / k, e / k)


def of_predictions(z, y, batch):
    """H(y, (1 - e) p + e u): what is smoothed is what the model says."""
    p = (1 - E) * z.softmax(1) + E / z.shape[1]
    return F.nll_loss(p.log(), y, reduction="none")


def parts(z, y, batch, ignore=-100):
    log_p = z.log_softmax(-1)
    kept = y != ignore
    nll = -log_p.gather(-1, torch.where(kept, y, 0).unsqueeze(-1)).squeeze(-1)
    return nll, -log_p.mean(-1), kept


def reduced(rows, batch, count):
    if batch.reduction == "none":
        return rows
    return rows.sum() / count if batch.reduction == "mean" else rows.sum()


def smooth_term_of_padding(z, y, batch):
    nll, smooth, kept = parts(z, y, batch)
    return reduced((1 - E) * nll * kept + E * smooth, batch, kept.sum())


def mask_upside_down(z, y, batch):
    nll, smooth, kept = parts(z, y, batch)
    return reduced(((1 - E) * nll + E * smooth) * ~kept, batch, (~kept).sum())


def mean_over_padding(z, y, batch):
    nll, smooth, kept = parts(z, y, batch)
    return reduced(((1 - E) * nll + E * smooth) * kept, batch, len(y))


def last_axis(z, y, batch):
    """Class axis assumed last: with C == W nothing complains."""
    if batch.middle:
        square = z.reshape(4, 6, K)[:, :K].moveaxis(-1, 1)  # (4, K, K)
        nll, smooth, _ = parts(square, y.reshape(4, 6)[:, :K], batch)
        return ((1 - E) * nll + E * smooth).mean()
    nll, smooth, _ = parts(z, y, batch)
    return ((1 - E) * nll + E * smooth).reshape(4, 6)[:, :K].mean()


def right_axis(z, y, batch):
    nll, smooth, _ = parts(z, y, batch)
    return ((1 - E) * nll + E * smooth).reshape(4, 6)[:, :K].mean()


def weighted_log_probabilities(z, y, batch):
    log_p = z.log_softmax(1) * torch.tensor(batch.weight)
    return -(torch.tensor(ROWS) * log_p).sum(1)


def never_used(batch, smoothing):
    return differentiated(lambda z, y, batch: F.cross_entropy(z, y, reduction="none"))(batch)


def softmax_twice(z, y, batch):
    return F.cross_entropy(z.softmax(1), y, label_smoothing=E, reduction="none")


def torch_masked(z, y, batch):
    return F.cross_entropy(z, y, label_smoothing=E)


def summed_in_half(z, y):
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True, dtype=np.float32)).astype(z.dtype)
    with np.errstate(over="ignore"):
        return -(1 - E) * log_p[0, y] - E * log_p.sum(-1, dtype=z.dtype) / z.shape[-1]


def where_outside_the_mask(labels, e, k):
    """Smoothing with a mask that fills masked classes too: rows sum to more than 1."""
    masked = np.arange(k) == k - 1
    rows = (1 - e) * np.eye(k)[labels] + e / (k - 1)
    return np.where(masked, e / k, rows)


WRONG = [
    (1, "arithmetic on class ids", gives_the_paper_s_rows, ids_as_numbers),
    (2, "K counted in the batch", does_not_ask_the_batch_for_k, classes_of_the_batch),
    (3, "in-place on an integer array", smooths_one_hot_integers_and_leaves_them_alone, overwritten),
    (4, "in-place arithmetic on integers", smooths_one_hot_integers_and_leaves_them_alone, scaled_in_place),
    (5, "full_like of integer labels", gives_the_paper_s_rows, filled_like_the_labels),
    (6, "fill e/K, scatter 1 - e", rows_sum_to_one, scattered(lambda e, k: 1 - e, lambda e, k: e / k)),
    (7, "off value e", rows_sum_to_one, scattered(lambda e, k: 1 - e, lambda e, k: e)),
    (8, "offset 1/K", rows_sum_to_one, one_offset_for_all),
    (9, "rows that sum to more", refuses_rows_that_sum_to_more, differentiated(lambda z, y, batch: F.cross_entropy(z, y))),
    (10, "e/(K - 1) called the paper's", gives_the_paper_s_rows, scattered(lambda e, k: 1 - e, lambda e, k: e / (k - 1))),
    (11, "the row that docs claim", gives_the_paper_s_rows, scattered(lambda e, k: 0.9, lambda e, k: 0.1 / (k - 1))),
    (12, "e/(V - 2)", takes_two_classes, scattered(lambda e, k: 1 - e, lambda e, k: e / (k - 2))),
    (13, "[e, 1 - e] called the paper's", goes_towards_a_half, lambda y, e: np.where(y == 1, 1 - e, e)),
    (14, "e/L on L sigmoids", goes_towards_a_half, lambda y, e: (1 - e) * y + e / y.shape[1]),
    (14, "e/L on L sigmoids", labels_are_alone, lambda y, e: (1 - e) * y + e / y.shape[1]),
    (15, "smoothed predictions", least_at_target, differentiated(of_predictions)),
    (16, "the smooth term of padding", ignoring_finite_rows_is_deleting, differentiated(smooth_term_of_padding)),
    (17, "the mask upside down", ignoring_finite_rows_is_deleting, differentiated(mask_upside_down)),
    (18, "a mean over padding", ignoring_finite_rows_is_deleting, differentiated(mean_over_padding)),
    (19, "smoothed in eval", is_plain_in_eval, torch.nn.CrossEntropyLoss(label_smoothing=E)),
    (20, "smoothed twice", refuses_to_smooth_twice, always_again),
    (21, "mixed labels made hard", keeps_mixed_labels_mixed, hardened),
    (22, "the class axis assumed", axis_changes_nothing, differentiated(last_axis)),
    (23, "1-based ids", refuses_labels_out_of_range, one_based),
    (24, "clamped ids", refuses_labels_out_of_range, clamped),
    (25, "weighted log-probabilities", weights_keep_the_optimum, differentiated(weighted_log_probabilities)),
    (26, "an option nobody reads", smoothing_matters, never_used),
    (27, "softmax twice", least_at_target, differentiated(softmax_twice)),
    (28, "both sides of a GAN", leaves_negatives_alone, lambda y, e: (1 - e) * y + e * (1 - y)),
    (29, "the share that is kept", zero_is_hard, lambda labels, e, k: e * np.eye(k)[labels] + (1 - e) / k),
    (30, "a syntax error", gives_the_paper_s_rows, lambda labels, e, k: eval("labels.() * (1 - e) + e / k")),
    ("B3", "-inf times 0", a_mask_stays_finite, differentiated(torch_masked)),
    ("B4", "a sum in half precision", half_precision_stays_finite, summed_in_half),
    ("B5", "mass on masked classes", rows_sum_to_one, where_outside_the_mask),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: f"{w[0]} {w[1]}")
def test_the_law_kills_it(wrong):
    _, _, law, formula = wrong
    with pytest.raises(AssertionError):
        law(formula)


def binary(labels, alpha):
    return smooth_binary_labels(labels, Bernoulli(alpha))


def any_rule(batch, alpha):
    return run(Uniform(alpha), batch)


def mixed_axis(batch):
    """The library on the square that the wrong formula takes, both ways round."""
    rows = np.arange(24).reshape(4, 6)[:, :K].ravel()
    loss, gradient = run(Uniform(E), replace(BATCH.rows(rows), reduction="mean"))
    full = np.zeros_like(BATCH.logits)
    full[rows] = gradient
    return loss, full


CONTROLS = {
    gives_the_paper_s_rows: right,
    rows_sum_to_one: right,
    does_not_ask_the_batch_for_k: right,
    takes_two_classes: right,
    smooths_one_hot_integers_and_leaves_them_alone: right,
    refuses_labels_out_of_range: right,
    refuses_to_smooth_twice: right,
    keeps_mixed_labels_mixed: right,
    zero_is_hard: right,
    goes_towards_a_half: binary,
    labels_are_alone: binary,
    leaves_negatives_alone: lambda y, e: smooth_binary_labels(y, OneSided(e)),
    ignoring_finite_rows_is_deleting: library,
    axis_changes_nothing: library,
    least_at_target: library,
    weights_keep_the_optimum: library,
    smoothing_matters: any_rule,
    a_mask_stays_finite: library,
    half_precision_stays_finite: lambda z, y: softhot.cross_entropy(z, y, Uniform(E)),
    refuses_rows_that_sum_to_more: library,
}


@pytest.mark.parametrize("law", CONTROLS, ids=lambda law: law.__name__)
def test_the_library_passes_the_law(law):
    law(CONTROLS[law])


def test_the_library_is_plain_in_eval():
    import softhot.torch

    is_plain_in_eval(softhot.torch.CrossEntropyLoss(label_smoothing=E))


def test_the_formula_with_the_axis_right_passes():
    axis_changes_nothing(differentiated(right_axis))
    laws.close(differentiated(right_axis)(BATCH)[0], mixed_axis(BATCH)[0], 1e-12)


def test_every_pattern_and_every_law_is_there():
    assert {number for number, *_ in WRONG if isinstance(number, int)} == set(range(1, 31))
    assert {law for _, _, law, _ in WRONG} <= {*CONTROLS, is_plain_in_eval}
