"""What diagnose says, word for word: of every known mistake, and of what it cannot take.

python tests/test_diagnose_messages.py writes tests/diagnoses.txt anew.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from foreign import targets_of, uniform
from softhot import InputError, diagnose
from test_diagnose import HOSTILE
from test_diagnose_mistakes import BY_MISTAKE, SNIPPETS

PAGE = Path(__file__).parent / "diagnoses.txt"
ROWS = targets_of("uniform", 0.1, 3, np.arange(3))
BAD = {
    "labels of text": (ROWS, {"labels": ["a", "b", "c"]}),
    "labels of another length": (ROWS, {"labels": [0, 1]}),
    "a label beyond the classes": (ROWS, {"labels": [0, 1, 3]}),
    "labels beside a loss": (uniform, {"labels": [0, 1]}),
    "a loss called targets": (uniform, {"kind": "targets"}),
    "targets called a function": (ROWS, {"kind": "target function"}),
    "a kind": (uniform, {"kind": "model"}),
    "inputs": (uniform, {"inputs": "tensorflow"}),
    "an order": (uniform, {"order": "labels"}),
    "a form of labels": (uniform, {"takes": "soft"}),
    "an argument": (uniform, {"argument": 1.5}),
    "one class": (uniform, {"num_classes": 1}),
    "half an id to ignore": (uniform, {"ignore_index": 0.5}),
}
CALLS = {
    **{
        f"mistake: {name}": (lambda m=make: m(), given)
        for name, (make, given) in BY_MISTAKE.items()
    },
    **{f"snippet: {n}": (lambda s=s: s, given) for n, (s, given, _) in SNIPPETS.items()},
    # With one kind of array, since the reasons name every kind that is loaded.
    **{f"cannot be: {n}": (lambda s=s: s, {"inputs": "numpy"}) for n, s in HOSTILE.items()},
    **{f"bad: {n}": (lambda s=s: s, given) for n, (s, given) in BAD.items()},
}


def told(name: str) -> str:
    """The report, without what rounding decides; or the error, without what was given."""
    make, options = CALLS[name]
    try:
        lines = str(diagnose(make(), **options)).splitlines()
        return "\n".join(line for line in lines if "  residual " not in line)
    except InputError as error:
        text = f"{error.argument} must be {error.allowed}. {error.hint}"
        return re.sub(r"0x[0-9a-f]+", "0x", text).strip()


def pages() -> dict[str, str]:
    parts = PAGE.read_text().split("\n# ")[1:]
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


@pytest.mark.parametrize("name", CALLS)
def test_no_word_of_a_diagnosis_changes_unseen(name):
    assert told(name) == pages()[name]


if __name__ == "__main__":
    PAGE.write_text("".join(f"\n# {name}\n{told(name)}\n" for name in CALLS))
