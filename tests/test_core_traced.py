"""Frameworks that trace have no values to look at: the reference still gives the right ones."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import laws
import softhot
from backends import Backend
from batches import run
from cases import CASES, batch_with, make_batch
from softhot.core.losses import _valid

JAX = Backend("jax", "float32")


@pytest.mark.parametrize("case", CASES[1:10:4], ids=lambda case: case.name)
def test_distributions_under_jit(case):
    batch = batch_with(case, {"soft", "allowed", "where", "mean"}).rounded(JAX)
    laws.same(run(case.rule, batch, JAX, jit=True), run(case.rule, batch), 1e-5)


@pytest.mark.parametrize("case", CASES[1:10:4], ids=lambda case: case.name)
def test_distributions_under_jit_that_would_raise_are_nan(case):
    batch = batch_with(case, {"soft"}).rounded(JAX)
    bad = batch.labels.copy()
    bad[0] *= 1.5  # sums to more than 1
    bad[1] -= 0.25  # below 0
    loss, gradient = run(case.rule, replace(batch, labels=bad), JAX, jit=True)
    assert np.isnan(loss).tolist() == [True, True] + [False] * (len(loss) - 2)
    assert np.isnan(gradient).all(axis=1).tolist() == np.isnan(loss).tolist()
    allowed = np.ones_like(batch.labels, dtype=bool)
    allowed[2] = batch.labels[2] == 0  # mass where none is allowed
    loss, _ = run(case.rule, replace(batch, allowed=allowed), JAX, jit=True)
    assert np.flatnonzero(np.isnan(loss)).tolist() == [2]


def test_the_gradient_is_what_torch_func_finds():
    """Under ``torch.func`` the values are those of many calls at once."""
    for case in CASES:
        batch = make_batch(case)
        if batch.prior is None and batch.alpha is None:
            logits, labels = torch.tensor(batch.logits), torch.tensor(batch.labels)
            loss = partial(softhot.cross_entropy, rule=case.rule)
            slopes = torch.func.vmap(torch.func.grad(loss))(logits, labels)
            laws.close(slopes.numpy(), run(case.rule, batch)[1], 1e-12)


def test_rows_are_valid_where_the_checks_would_pass():
    """What stands for the checks where nobody can raise; here it is given values to look at."""
    logits = np.zeros((4, 3))
    logits[3, 2] = -np.inf
    allowed = np.array([[True, True, True]] * 3 + [[False, True, True]])

    def valid(labels, allowed=None):
        labels = np.array(labels)
        return _valid(np, labels, labels.ndim == 2, logits, allowed).tolist()

    assert valid([0, 2, 1, 0]) == [True] * 4
    assert valid([-1, 3, 1, 2]) == [False, False, True, False]
    assert valid([0, 1, 2, 0], allowed) == [True, True, True, False]
    assert valid([0, 1, 2, 1], allowed) == [True] * 4
    third = 1 / 3
    rows = [[1, 0, 0], [third, third, third], [0.5, 0.5, 1e-3], [0.5, 0.5, 0.0]]
    assert valid(rows) == [True, True, False, True]
    assert valid(rows, allowed) == [True, True, False, False]
    rows = [[1.5, -0.5, 0], [np.nan, 1, 0], [0, 1 + 1e-6, 0], [0.0, 0.9, 0.1]]
    assert valid(rows) == [False, False, True, False]
    assert valid([[0, 1 + 3e-6, 0], [0.0, 1.0, 0], [1.0, 0, 0], [0, 1, 0]])[0] is False
