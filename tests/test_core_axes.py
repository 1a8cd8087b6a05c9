"""Any number of axes, the classes along any of them: always what the rows give one by one."""

from dataclasses import replace

import numpy as np
import pytest

import laws
import softhot
from backends import Backend
from batches import K, N, run, smooth
from cases import BINARY, CASES, TARGET_CASES, make_batch
from softhot import PerSample, desmooth, smooth_binary_labels, smooth_labels

SHAPE = (2, 3, 4)
assert np.prod(SHAPE) == N
FLAT = np.random.default_rng(4).integers(0, 2, size=(N, K))


def grid(rows, axis):
    """``(N, K)`` as ``(2, 3, 4)`` with the class axis put at ``axis``; ``(N,)`` without."""
    return np.moveaxis(rows.reshape(*SHAPE, -1), -1, axis) if rows.ndim > 1 else rows.reshape(SHAPE)


def flat(result, axis):
    return np.moveaxis(result, axis, -1).reshape(N, -1)


def given(case, batch, axis):
    """What comes with the batch, laid out."""
    parts = {}
    if isinstance(case.rule.base.alpha, PerSample):
        parts["alpha"] = grid(batch.alpha, axis)
    if batch.prior is not None:
        parts["prior"] = grid(batch.prior, axis) if batch.by_row else batch.prior
    return parts


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -4])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_losses(case, axis):
    batch = make_batch(case)
    where = np.arange(N) % 5 > 0
    arrays = {"where": grid(where, axis), **given(case, batch, axis)}
    logits, labels = grid(batch.logits, axis), grid(batch.labels, axis)
    loss, gradient = softhot.cross_entropy_and_gradient(
        logits, labels, case.rule, axis=axis, weight=np.arange(1.0, K + 1), **arrays
    )

    wanted = run(case.rule, replace(batch, where=where, weight=np.arange(1.0, K + 1)))
    laws.same((loss.reshape(N), flat(gradient, axis)), wanted, 1e-13)
    if case.loss is None:  # one allowed class more than the label's, as a mask of every shape
        mask = np.eye(K, dtype=bool)[batch.labels] | (np.arange(K) < 3)
        masked = softhot.cross_entropy(
            logits,
            labels,
            case.rule,
            axis=axis,
            allowed=grid(mask, axis),
            **given(case, batch, axis),
        )
        laws.close(masked.reshape(N), run(case.rule, replace(batch, allowed=mask))[0], 1e-13)


@pytest.mark.parametrize("axis", [0, 1, 3, -1, -3])
@pytest.mark.parametrize("case", TARGET_CASES, ids=lambda case: case.name)
def test_targets_and_their_inverse(case, axis):
    batch = make_batch(case)
    wanted = smooth(case.rule, batch)
    arrays = given(case, batch, axis)
    target = smooth_labels(
        grid(batch.labels, axis), case.rule, num_classes=K, axis=axis, kind="ids", **arrays
    )
    laws.close(flat(target, axis), wanted, 1e-15)
    rows = grid(np.eye(K)[batch.labels], axis)
    target = smooth_labels(rows, case.rule, num_classes=K, axis=axis, **arrays)
    laws.close(flat(target, axis), wanted, 1e-15)
    mask = np.eye(K, dtype=bool)[batch.labels] | (np.arange(K) < 3)
    target = smooth_labels(
        rows, case.rule, num_classes=K, axis=axis, allowed=grid(mask, axis), **arrays
    )

    laws.close(flat(target, axis), smooth(case.rule, replace(batch, allowed=mask)), 1e-15)
    if case.name != "negative":
        back = desmooth(grid(wanted, axis), case.rule, axis=axis, **arrays)
        laws.close(flat(back, axis), np.eye(K)[batch.labels], 1e-12)


@pytest.mark.parametrize("axis", [0, 2, 3, -1, -2])
@pytest.mark.parametrize(("name", "rule", "rows"), BINARY, ids=[b[0] for b in BINARY])
def test_binary(name, rule, rows, axis):
    target = smooth_binary_labels(grid(FLAT, axis), rule, axis=axis)
    laws.close(flat(target, axis), smooth_binary_labels(FLAT, rule), 0)
    laws.close(smooth_binary_labels(FLAT[0], rule), smooth_binary_labels(FLAT, rule)[0], 0)
    several = {"num_classes": K, "axis": axis, "kind": "multi_hot"}
    laws.close(smooth_labels(grid(FLAT, axis), rule, **several), target, 0)
    z = np.random.default_rng(5).normal(size=(N, K))
    for weighting in ("sample", "class"):
        options = {"pos_weight": np.arange(1.0, K + 1), "weighting": weighting}
        wanted = softhot.binary_cross_entropy_and_gradient(z, FLAT, rule, **options)
        result = softhot.binary_cross_entropy_and_gradient(
            grid(z, axis), grid(FLAT, axis), rule, axis=axis, **options
        )
        laws.same([flat(part, axis) for part in result], wanted, 1e-15)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lists_beside_arrays_of_a_strict_library(case):
    """What is no array of the logits' library becomes one, of the dtype that is needed."""
    strict = Backend("strict", "float32")
    batch = make_batch(case).rounded(strict)
    where, mask = np.arange(N) % 5 > 0, np.ones((N, K), dtype=bool)
    options = {"where": where.tolist(), "allowed": mask.tolist(), "weight": [1, 2, 3, 4, 5]}
    for name in ("alpha", "prior"):
        if getattr(batch, name) is not None:
            options[name] = getattr(batch, name).tolist()
    loss, gradient = softhot.cross_entropy_and_gradient(
        strict.array(batch.logits), batch.labels.tolist(), case.rule, **options
    )
    weighted = replace(batch, where=where, weight=np.arange(1.0, 6.0))
    wanted = run(case.rule, weighted)
    laws.same((strict.numpy(loss), strict.numpy(gradient)), wanted, 1e-5)
    if case in TARGET_CASES:
        options = {n: v for n, v in options.items() if n in ("alpha", "prior", "allowed")}
        rows = strict.array(np.eye(K)[batch.labels])
        target = smooth_labels(rows, case.rule, num_classes=K, **options)
        laws.close(strict.numpy(target), smooth(case.rule, batch), 1e-6)
        del options["allowed"]
        if case.name == "negative":
            return  # its targets are no probabilities
        back = desmooth(strict.array(smooth(case.rule, batch)), case.rule, clip=False, **options)
        laws.close(strict.numpy(back), np.eye(K)[batch.labels], 1e-5)
