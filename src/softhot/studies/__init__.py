"""Studies: train with and without smoothing over paired seeds, and say whether to smooth.

>>> from softhot.studies import StudySpec
>>> spec = StudySpec(alphas=(0.1,), seeds=3)
>>> len(spec.trials())
6

``run(spec, folder)`` trains what the folder does not hold yet and returns its :class:`Store`;
``compare(store.records(), spec)`` turns the records into a :class:`Comparison` with its
:class:`Verdict`. Neither PyTorch nor SciPy is imported before it is needed.
"""

from softhot.studies.compare import (
    Advantage,
    ArmSummary,
    Comparison,
    Estimate,
    MethodSummary,
    compare,
)
from softhot.studies.methods import METHODS, Arm, Method, method
from softhot.studies.models import MODELS
from softhot.studies.run import Progress, run
from softhot.studies.spec import StudySpec, TrialSpec
from softhot.studies.status import Status, status
from softhot.studies.store import Damage, Failure, Record, Store, TrialResult
from softhot.studies.verdict import Verdict

__all__ = [
    "METHODS",
    "MODELS",
    "Advantage",
    "Arm",
    "ArmSummary",
    "Comparison",
    "Damage",
    "Estimate",
    "Failure",
    "Method",
    "MethodSummary",
    "Progress",
    "Record",
    "Status",
    "Store",
    "StudySpec",
    "TrialResult",
    "TrialSpec",
    "Verdict",
    "compare",
    "method",
    "run",
    "status",
]
