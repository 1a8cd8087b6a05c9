"""What the core says, word for word: a page to be read, and no word changes unseen.

python tests/test_core_messages.py writes tests/messages.txt anew.
"""

import warnings
from pathlib import Path

import numpy as np

from bad_inputs import BINARY_LOSS, CALLS, ELSE, LOSS, NONE_IS_RIGHT, TARGETS, B, Y, Z
from softhot import (
    RULES,
    Bernoulli,
    ConfidencePenalty,
    Explanation,
    Focal,
    InputError,
    Margin,
    MaxSup,
    NegativeUniform,
    Online,
    Ordinal,
    Others,
    PerClass,
    Prior,
    Similarity,
    Uniform,
    ZLoss,
    binary_cross_entropy,
    cross_entropy,
    explain,
    smooth_labels,
)
from test_core_errors import WARNED

ALIKE = ((0.0, 0.75, 0.25), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0))
PRIORS = {Online: np.array(ALIKE)}
EXPLAINED = (
    0.0,
    Uniform(0.25),
    Uniform(PerClass((0.0, 0.1, 0.2))),
    Others(0.25),
    Prior(0.1, (1, 2, 5)),
    Similarity(0.5, ALIKE),
    Ordinal(),
    Online(0.25),
    NegativeUniform(-0.25),
    Focal(2.0),
    ConfidencePenalty(0.25),
    Uniform(0.1) + ConfidencePenalty(0.25, 0.5),
    MaxSup(0.25),
    Uniform(0.1) + Margin(0.125, 2.0),
    Ordinal() + MaxSup(0.125),
    NegativeUniform(-0.25) + ConfidencePenalty(0.25),
    Prior(0.1, (1, 2, 5)) + ZLoss(0.01),
)
PAGE = Path(__file__).parent / "messages.txt"
GROUPS = {
    "cross_entropy": (cross_entropy, {"logits": Z, "labels": Y, "rule": Uniform(0.1)}, LOSS),
    "smooth_labels": (smooth_labels, {"labels": Y, "rule": 0.1, "num_classes": 4}, TARGETS),
    "binary_cross_entropy": (
        binary_cross_entropy,
        {"logits": B * 1.5, "labels": B, "rule": Bernoulli(0.1)},
        BINARY_LOSS,
    ),
}


def calls():
    """A title and a call that raises or warns, of every kind of bad input."""
    for name, (function, right, table) in GROUPS.items():
        for bad in table:
            yield f"{name}: {bad.why}", lambda f=function, g=right | bad.given: f(**g)
    for why, call, *_ in ELSE:
        yield f"else: {why}", call
    for name, function, _, allowed in CALLS:
        value = next(v for v in allowed.bad_values() if v is not None or name not in NONE_IS_RIGHT)
        yield f"an argument: {name}", lambda f=function, v=value: f(v)
    for rule in RULES.values():
        for name, allowed in rule.RANGES.items():
            value = allowed.bad_values()[0]
            yield f"a rule: {rule.__name__}", lambda r=rule, n=name, v=value: r(**{n: v})
    for i, (call, _) in enumerate(WARNED):
        yield f"a warning: {i + 1}", call
    for rule in EXPLAINED:
        yield f"explain: {rule!r}"[:80], lambda r=rule: explain(r, 3, prior=PRIORS.get(type(r)))


def message(call) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call()
        except InputError as error:
            return str(error)
    if isinstance(result, Explanation):
        return str(result).replace("\n", "\n    ")
    return " / ".join(str(warning.message) for warning in caught)


def page() -> str:
    with np.printoptions(legacy=False):
        return "".join(f"{title}\n    {message(call)}\n" for title, call in calls())


def test_no_word_of_a_message_changes_unseen():
    assert page() == PAGE.read_text()


if __name__ == "__main__":
    PAGE.write_text(page())
