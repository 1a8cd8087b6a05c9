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
