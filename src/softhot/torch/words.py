"""The core's messages in torch's words: ``input`` and ``target`` for logits and labels."""

from __future__ import annotations

from softhot.core.check import InputError

_NAMES = (("logits", "input"), ("labels", "target"))
_STEPS = (
    ("logits.astype", "input.astype"),
    ("labels.astype", "target.astype"),
    (".astype(int)", ".long()"),
    (".astype(float)", ".float()"),
    (".astype(bool)", ".bool()"),
    ("pass axis= if that is not meant", "input.movedim(-1, 1) moves the last axis there"),
)


def in_torch_words(error: InputError) -> InputError:
    """The same error about the arguments that the caller knows."""
    argument, hint = error.argument, error.hint
    for theirs, ours in _NAMES:
        if argument.startswith(theirs):
            argument = ours + argument.removeprefix(theirs)
    for theirs, ours in _STEPS:
        hint = hint.replace(theirs, ours)
    return InputError(argument, error.allowed, error.value, hint)
