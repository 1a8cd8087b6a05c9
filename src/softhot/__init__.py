"""Label smoothing: exact, named targets and losses, on any array library.

Importing softhot loads NumPy and no framework. Adapters are modules named by framework
(``softhot.torch``); the study, the metrics and the command are modules of their own.
"""

from softhot.core.binary import Bernoulli as Bernoulli
from softhot.core.binary import MassPreserving as MassPreserving
from softhot.core.binary import OneSided as OneSided
from softhot.core.binary import Platt as Platt
from softhot.core.binary import Prevalence as Prevalence
from softhot.core.binary import binary_cross_entropy as binary_cross_entropy
from softhot.core.binary import (
    binary_cross_entropy_and_gradient as binary_cross_entropy_and_gradient,
)
from softhot.core.binary import smooth_binary_labels as smooth_binary_labels
from softhot.core.check import InputError as InputError
from softhot.core.check import SofthotWarning as SofthotWarning
from softhot.core.conventions import CONVENTIONS as CONVENTIONS
from softhot.core.conventions import convert_alpha as convert_alpha
from softhot.core.diagnosis import Diagnosis as Diagnosis
from softhot.core.diagnosis import Mistake as Mistake
from softhot.core.diagnosis import diagnose as diagnose
from softhot.core.explain import Explanation as Explanation
from softhot.core.explain import explain as explain
from softhot.core.inverse import desmooth as desmooth
from softhot.core.online import OnlineMeans as OnlineMeans
from softhot.core.rule import Rule as Rule
from softhot.core.rule import Uniform as Uniform
from softhot.core.rule import rule_from_dict as rule_from_dict
from softhot.core.rules import RULES as RULES
from softhot.core.rules import ConfidencePenalty as ConfidencePenalty
from softhot.core.rules import Focal as Focal
from softhot.core.rules import Margin as Margin
from softhot.core.rules import MaxSup as MaxSup
from softhot.core.rules import NegativeUniform as NegativeUniform
from softhot.core.rules import Online as Online
from softhot.core.rules import Ordinal as Ordinal
from softhot.core.rules import Others as Others
from softhot.core.rules import Prior as Prior
from softhot.core.rules import Similarity as Similarity
from softhot.core.rules import Teacher as Teacher
from softhot.core.rules import ZLoss as ZLoss
from softhot.core.targets import Target as Target
from softhot.core.targets import smooth_labels as smooth_labels
from softhot.core.weights import PerClass as PerClass
from softhot.core.weights import PerSample as PerSample
from softhot.core.weights import Schedule as Schedule
from softhot.kernels.arrays import cross_entropy as cross_entropy
from softhot.kernels.arrays import cross_entropy_and_gradient as cross_entropy_and_gradient

__version__ = "0.1.0"
