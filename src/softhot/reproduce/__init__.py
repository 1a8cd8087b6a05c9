"""The ten claims of the literature on label smoothing, measured again on data you can have.

>>> [claim.name for claim in CLAIMS][:3]
['confidence', 'accuracy', 'nll']

A claim is one row of :data:`CLAIMS`: what it says, who says it, in which direction, and the
function that measures it. All arms of a comparison start, seed by seed, from the same initial
weights and see the same batches; an estimate is the mean of paired differences, with Student's
95 % interval.

``softhot reproduce`` is the command. What it found with its defaults is in docs/claims.md.
"""

from softhot.reproduce.claims import CLAIMS, Claim
from softhot.reproduce.results import Finding, Reproduction, reproduce, summarize, word
from softhot.reproduce.settings import SETTINGS, Setting

__all__ = [
    "CLAIMS",
    "SETTINGS",
    "Claim",
    "Finding",
    "Reproduction",
    "Setting",
    "reproduce",
    "summarize",
    "word",
]
