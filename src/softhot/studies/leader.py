"""Which arm leads so far: a look at validation while a study runs, never at test rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from softhot.calibration import apply_temperature, cautious_temperature
from softhot.metrics import METRICS
from softhot.studies.store import Damage, Record


class Best(NamedTuple):
    """The arm with the lowest mean NLL on validation after temperature scaling, and that NLL.

    The mean is over the ``seeds`` seeds that all arms have.
    """

    arm: str
    nll: float
    seeds: int


class Leader:
    """Takes records one by one and knows the arm that leads.

    Arms are compared over the seeds that every arm with a record has, so a lucky first seed of
    one arm does not count against the second seed of another. Each model is taken at the
    temperature that fits it, as in the comparison; which arm to train with, that says
    (:func:`softhot.advice.choose`), with regard to luck.
    """

    def __init__(self) -> None:
        self.nll: dict[str, dict[int, float]] = {}

    def add(self, record: Record | Damage | None) -> None:
        """One more trial; one that is not whole counts for nothing."""
        if not isinstance(record, Record):
            return
        held = record.validation
        nll = METRICS["nll"].function(apply_temperature(held, cautious_temperature(held)))
        self.nll.setdefault(record.trial.arm.name, {})[record.trial.seed] = nll

    @property
    def best(self) -> Best | None:
        """None before any arm can be compared."""
        seeds = set.intersection(*map(set, self.nll.values())) if self.nll else set()
        if not seeds:
            return None
        means = {arm: np.mean([nll[seed] for seed in seeds]) for arm, nll in self.nll.items()}
        arm = min(means, key=lambda name: means[name])
        return Best(arm, float(means[arm]), len(seeds))
