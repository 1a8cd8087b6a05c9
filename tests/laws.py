"""The laws every loss and every target must obey, as functions that raise when it does not.

A loss here is ``run(batch) -> (loss, gradient)`` on canonical batches (:mod:`batches`). The laws
know no rule: the same ones prove the library and kill the wrong formulas people have shipped.
"""

from dataclasses import replace

import numpy as np


def close(a, b, tolerance):
    """Equal up to ``tolerance`` of the size of what is compared."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    assert np.isfinite(a).all(), "not finite"
    assert np.isfinite(b).all(), "not finite"
    size = 1 + max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    worst = np.abs(a - b).max(initial=0)
    assert worst <= tolerance * size, f"differ by {worst:.3g}, allowed {tolerance * size:.3g}"


def within(error, allowed, what=""):
    """No error is larger than its own bound."""
    excess = np.abs(error) - allowed
    worst = np.unravel_index(np.argmax(excess), excess.shape) if excess.size else ()
    assert not (~(excess <= 0)).any(), f"{what} at {worst}: {np.asarray(error)[worst]:.3g} off"


def same(first, second, tolerance):
    """Loss and gradient of two calls agree."""
    close(first[0], second[0], tolerance)
    close(first[1], second[1], tolerance)


def shift_changes_nothing(run, batch, tolerance=1e-12):
    shift = np.linspace(-30, 30, len(batch.logits))[:, None]
    moved = replace(batch, logits=batch.logits + shift)
    same(run(moved), run(batch), tolerance)


def gradient_is_slope(run, batch, tolerance=1e-7, step=1e-5):
    """Central differences, for all rows at once: no row's loss depends on another's logits."""
    batch = replace(batch, reduction="none")
    gradient = run(batch)[1]
    for k in range(batch.logits.shape[1]):
        nudge = np.zeros(batch.logits.shape[1])
        nudge[k] = step
        above, below = (run(replace(batch, logits=batch.logits + s * nudge))[0] for s in (1, -1))
        slope = (above - below) / (2 * step)
        use = batch.counted & batch.support[:, k]
        worst = np.abs(np.where(use, slope, 0) - gradient[:, k]).max()
        assert worst <= tolerance, f"gradient is off the slope by {worst:.3g}"


def reduction_sums_the_rows(run, batch, tolerance=1e-12):
    """Sum is the sum of rows; mean is divided by what the rows that count weigh; gradients too."""
    rows, slopes = run(replace(batch, reduction="none"))
    total = batch.row_weights.sum() or 1.0
    same(run(replace(batch, reduction="sum")), (rows.sum(), slopes), tolerance)
    same(run(replace(batch, reduction="mean")), (rows.sum() / total, slopes / total), tolerance)


def ignoring_is_deleting(run, batch, tolerance=1e-12):
    """Rows left out are as if they had never been there, and get exactly nothing."""
    kept = np.flatnonzero(batch.counted)
    assert 0 < len(kept) < len(batch.logits)
    rest = replace(batch.rows(kept), where=None, ignore_index=None)
    for reduction in ("none", "sum", "mean"):
        loss, gradient = run(replace(batch, reduction=reduction))
        assert not gradient[~batch.counted].any(), "a row left out has a gradient"
        if reduction == "none":
            assert not loss[~batch.counted].any(), "a row left out has a loss"
            loss = loss[kept]
        same((loss, gradient[kept]), run(replace(rest, reduction=reduction)), tolerance)


def weight_is_repetition(run, batch, tolerance=1e-12):
    """A class of weight k is every sample of it k times."""
    copies = np.array([1, 3, 0, 2, 1])[: batch.logits.shape[1]]
    often = np.where(batch.counted, copies[np.clip(batch.labels, 0, len(copies) - 1)], 1)
    repeated = replace(batch.rows(np.repeat(np.arange(len(often)), often)), weight=None)
    weighted = replace(batch, weight=copies.astype(float))
    for reduction in ("sum", "mean"):
        loss, gradient = run(replace(weighted, reduction=reduction))
        expected, parts = run(replace(repeated, reduction=reduction))
        summed = np.zeros_like(gradient)
        np.add.at(summed, np.repeat(np.arange(len(often)), often), parts)
        same((loss, gradient), (expected, summed), tolerance)


def micro_batches_are_the_batch(run, batch, tolerance=1e-12):
    """Sums of parts add up; means of parts do, weighted by what their rows weigh."""
    whole = np.arange(len(batch.logits))
    parts = [batch.rows(part) for part in np.array_split(whole, [5, 6, 13])]
    for reduction in ("sum", "mean"):
        loss, gradient = run(replace(batch, reduction=reduction))
        results = [run(replace(part, reduction=reduction)) for part in parts]
        weights = np.array([part.row_weights.sum() for part in parts])
        share = weights / weights.sum() if reduction == "mean" else np.ones(len(parts))
        total = sum(w * part[0] for w, part in zip(share, results, strict=True))
        slopes = np.concatenate([w * part[1] for w, part in zip(share, results, strict=True)])
        same((loss, gradient), (total, slopes), tolerance)


def axis_changes_nothing(run, batch, tolerance=1e-12):
    same(run(replace(batch, middle=True)), run(replace(batch, middle=False)), tolerance)


def rows_do_not_meet(run, batch, tolerance=1e-12):
    """The loss of a row does not depend on which other rows are there, or in what order."""
    order = np.random.default_rng(3).permutation(len(batch.logits))[:-1]
    loss, gradient = run(replace(batch, reduction="none"))
    moved = run(replace(batch.rows(order), reduction="none"))
    same(moved, (loss[order], gradient[order]), tolerance)


def classes_have_no_names(run, permuted_run, batch, tolerance=1e-12):
    """Renaming the classes, in the batch and in the rule, renames them in the gradient."""
    order = np.array([3, 0, 4, 1, 2])[np.argsort(np.argsort(np.arange(batch.logits.shape[1])))]
    loss, gradient = run(batch)
    same(permuted_run(batch.classes(order)), (loss, gradient[:, order]), tolerance)


def labels_mix_linearly(run, batch, tolerance=1e-12):
    """The loss of a mixture of labels is the mixture of the losses: mixup commutes."""
    k = batch.logits.shape[1]
    batch = replace(batch, reduction="none")
    eye = np.eye(k)
    share = np.linspace(0, 1, len(batch.logits))
    one, two = batch.labels % k, (batch.labels + 2) % k
    mixture = share[:, None] * eye[one] + (1 - share[:, None]) * eye[two]
    first, second = run(replace(batch, labels=one)), run(replace(batch, labels=two))
    mixed = (
        share * first[0] + (1 - share) * second[0],
        share[:, None] * first[1] + (1 - share[:, None]) * second[1],
    )
    same(run(replace(batch, labels=mixture)), mixed, tolerance)
    same(run(replace(batch, labels=eye[one])), first, tolerance)


def least_at_target(run, batch, target, tolerance=1e-12):
    """Properness: with ``p = q`` the gradient is 0 and every other prediction costs more."""
    logits = np.log(np.maximum(target, 1e-40))
    best = replace(batch, logits=logits, reduction="none")
    loss, gradient = run(best)
    assert np.abs(gradient).max() <= tolerance, "the gradient at p = q is not 0"
    random = np.random.default_rng(5)
    for size in (0.01, 0.3, 3.0):
        elsewhere = logits + size * random.normal(size=logits.shape)
        excess = run(replace(best, logits=elsewhere))[0] - loss
        assert (excess >= -tolerance).all(), "less loss elsewhere"


def option_matters(run, batch, changed):
    """Changing the option changes the result."""
    one, two = run(batch), run(changed)
    different = [
        a.shape != b.shape or not np.allclose(a, b, rtol=1e-6)
        for a, b in zip(one, two, strict=True)
    ]
    assert any(different), "the option has no effect"


# Laws of targets: ``smooth(labels, alpha, num_classes) -> (N, K)``.


def rows_sum_to_one(target, tolerance=1e-12):
    target = np.asarray(target, dtype=np.float64)
    worst = np.abs(target.sum(axis=-1) - 1).max()
    assert worst <= tolerance, f"a row sums to 1 {worst:+.3g}"


def same_targets(target, expected, tolerance=1e-12):
    close(target, expected, tolerance)
