"""What a new rule costs: a dataclass and a line of the case table, and every law runs on it.

Two rules that are not built in, each with its line: docs/adding-a-rule.md shows this file.
"""

import inspect
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
import torch

import laws
import softhot.jax
import softhot.torch
import test_core_laws
from backends import NUMPY, Backend
from batches import K, run
from cases import HARD_ROW, Case, flat, make_batch, mixed
from softhot.core.check import Interval
from softhot.core.rule import Base, Rule

# The rules


@dataclass(frozen=True)
class Binomial(Base):
    """Ordered classes share like binomial draws with mean at the label (unimodal labels)."""

    alpha: float = 1.0
    PRIOR = "by_class"
    RANGES = {"alpha": Interval(0, 1, "[]")}

    def prior(self, num_classes: int) -> np.ndarray:
        n = num_classes - 1
        choose = np.array([math.comb(n, k) for k in range(num_classes)])
        p = (np.arange(num_classes)[:, None] + 0.5) / num_classes
        return choose * p ** np.arange(num_classes) * (1 - p) ** (n - np.arange(num_classes))


@dataclass(frozen=True)
class Poly(Base):
    """Poly-1 (Leng et al., ICLR 2022): cross entropy plus ``epsilon (1 - p_y)``."""

    epsilon: float = 1.0
    alpha: ClassVar[float] = 0.0
    TARGET = False
    RANGES = {"epsilon": Interval(0, math.inf, "[)")}

    def terms(self, row: Any) -> tuple[Any, dict[Any, Any]]:
        nll = row.lse - row.true
        p = row.xp.exp(-nll)
        slope = row.mass * (1 + self.epsilon * p)
        return row.mass * (nll + self.epsilon * (1 - p)), {"lse": slope, "true": -slope}


# Their lines


def binomial(y, given):
    p = (y + 0.5) / K
    return [math.comb(K - 1, k) * p**k * (1 - p) ** (K - 1 - k) for k in range(K)]


NEW = (
    Case("binomial", Binomial(0.5), 0.5, binomial, mixed(0.5, binomial(1, None)), ordered=True),
    Case("poly", Poly(2.0), 0, flat, HARD_ROW, loss=lambda p, m: 2 * (1 - p) - m.log(p)),
)

# The proof that this is all: nothing of the library or the laws knows them.

for _rule in (Binomial, Poly):
    del Rule.known[_rule.__name__]  # other tests list what there is
TORCH = Backend("torch", "float32")
WITH = {
    "backend": [NUMPY, TORCH, Backend("numpy", "float16")],
    "eager": [NUMPY, TORCH],
    "double": [NUMPY, Backend("torch", "float64")],
    "left_out": ["ignored", "where"],
    "name": test_core_laws.ROW_OPTIONS,
}
LAWS = {
    name: law
    for name, law in vars(test_core_laws).items()
    if name.startswith("test_") and "case" in inspect.signature(law).parameters
}
OF_TARGETS = {
    law.__name__
    for law in LAWS.values()
    if any(mark.args[1] is test_core_laws.TARGET_CASES for mark in getattr(law, "pytestmark", ()))
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", NEW, ids=lambda case: case.name)
def test_every_law_holds(case, law, monkeypatch):
    for rule in (Binomial, Poly):
        monkeypatch.setitem(Rule.known, rule.__name__, rule)
        monkeypatch.setattr(softhot, rule.__name__, rule, raising=False)
    if law in OF_TARGETS and case.loss is not None:
        return
    monkeypatch.setattr(test_core_laws, "CASES", (*test_core_laws.CASES[:1], case))
    names = [n for n in inspect.signature(LAWS[law]).parameters if n != "case"]
    for values in itertools.product(*(WITH[n] for n in names)):
        LAWS[law](case, **dict(zip(names, values, strict=True)))


def test_there_are_many_laws():
    assert len(LAWS) > 20
    assert {"test_least_at_target", "test_labels_mix_linearly"} <= OF_TARGETS


@pytest.mark.parametrize("case", NEW, ids=lambda case: case.name)
def test_adapters_take_it(case):
    batch = make_batch(case)
    loss, slope = run(case.rule, batch)
    z = torch.tensor(batch.logits, requires_grad=True)
    theirs = softhot.torch.cross_entropy(z, torch.tensor(batch.labels), case.rule, reduction="sum")
    (gradient,) = torch.autograd.grad(theirs, z)
    laws.same((theirs.detach().numpy(), gradient.numpy()), (loss.sum(), slope), 1e-12)
    with jax.enable_x64(True):

        def total(z):
            return softhot.jax.cross_entropy(z, jax.numpy.asarray(batch.labels), case.rule).sum()

        value, slopes = jax.value_and_grad(total)(jax.numpy.asarray(batch.logits))
        laws.same((float(value), np.asarray(slopes)), (loss.sum(), slope), 1e-12)


def test_explain_and_diagnose_take_it():
    found = softhot.explain(Poly(2.0), 10)
    assert found.logit_gap == math.inf
    binomial = softhot.explain(Binomial(), K)
    assert binomial.on == pytest.approx([mixed(1, NEW[0].u(y, None), y)[y] for y in range(K)])
    with pytest.raises(softhot.InputError, match="cross_entropy"):
        softhot.smooth_labels([0], Poly(2.0), num_classes=3)


def test_the_page_shows_this_file():
    page = (Path(__file__).parent.parent / "docs" / "adding-a-rule.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```py\n")[1:]]
    source = Path(__file__).read_text()
    assert len(blocks) == 3
    assert all(block.strip().rstrip(",") in source for block in blocks)
    assert f"in {len(blocks[0].splitlines())} lines" in page
    assert f"in {len(blocks[1].splitlines())}: it" in page
    assert f"{len(LAWS)} of them" in page
