"""Dense NumPy targets, which are written once instead of computed entry by entry."""

import tracemalloc

import numpy as np
import pytest

from softhot import NegativeUniform, Others, Prior, Uniform, smooth_labels
from softhot.core.targets import Target

RULES = (Uniform(0.1), Uniform(0.0), Others(0.1), NegativeUniform(-0.3), Prior(0.2, (1, 5, 2)))


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("dtype", [None, np.float64, np.float32, np.float16])
def test_written_at_once_a_target_has_the_same_bits(rule, dtype, monkeypatch):
    random = np.random.default_rng(0)
    for shape in ((), (0,), (9,), (3, 4)):
        for ids in (np.int64, np.uint8, np.uint64, np.int8):
            labels = np.asarray(random.integers(3, size=shape), dtype=ids)
            at_once = smooth_labels(labels, rule, num_classes=3, kind="ids", dtype=dtype)
            with monkeypatch.context() as patch:
                patch.setattr(Target, "_is_row_by_row_alike", False)
                computed = smooth_labels(labels, rule, num_classes=3, kind="ids", dtype=dtype)
            assert at_once.dtype == computed.dtype
            assert at_once.shape == computed.shape
            np.testing.assert_array_equal(at_once, computed)


def test_it_takes_no_more_memory_than_the_target():
    labels = np.arange(1000)
    tracemalloc.start()
    target = smooth_labels(labels, 0.1, num_classes=1000, dtype=np.float32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * target.nbytes
