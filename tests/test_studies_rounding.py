"""Training together is training one by one: what is between them is rounding, and no more."""

import numpy as np
import pytest
import torch
from docs.together import differences

from softhot.studies import StudySpec

NOISY = {"label_noise": 0.4, "seeds": 1, "budget": 2}


@pytest.mark.parametrize("stopping", [0, 3], ids=["to the end", "early stopping"])
@pytest.mark.parametrize(
    "methods",
    [
        ("uniform", "similarity", "prior", "others", "l2"),
        ("maxsup", "margin", "focal", "confidence_penalty"),
        ("dropout", "uniform+dropout"),
        ("mixup", "mixup+l2+maxsup"),
        ("negative",),
    ],
    ids=["targets", "penalties", "dropout", "mixup", "warm-up"],
)
def test_in_float64_whole_trainings_agree(methods, stopping):
    spec = StudySpec("digits", methods=methods, epochs=5, early_stopping=stopping, **NOISY)
    found = list(differences(spec, torch.float64))
    assert len(found) > len(methods)
    for one in found:
        assert one.logit < 1e-9 * one.largest, one


def test_in_float32_they_differ_as_by_a_unit_in_the_last_place_of_the_weights():
    settings = {"similarity": ((0.02,), (0.1,), (0.4,)), "uniform": ((0.05,), (0.2,))}
    spec = StudySpec("digits", methods=tuple(settings), settings=settings, epochs=40, **NOISY)
    found = list(differences(spec, torch.float32, nudges=1))
    assert len(found) == 6
    together, nudged = (np.log([one.logit for one in found]), np.log([one.nudged for one in found]))
    assert together.mean() < nudged.mean() + np.log(30)
