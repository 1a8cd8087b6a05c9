"""What a foreign loss or target recipe does, found by probing it.

``diagnose`` puts the parts together: ``probe`` finds out how the subject can be called,
``identify`` solves for the target a loss is trained on, ``case`` names it, and ``mistakes`` runs
the table of known mistakes (``checks``, on what ``examine`` measured).
"""

from softhot.core.diagnosis.diagnose import Diagnosis, diagnose
from softhot.core.diagnosis.mistakes import Mistake

__all__ = ["Diagnosis", "Mistake", "diagnose"]
