"""Test examples that show what smoothing does to the answer a user is given."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from softhot import plots
from softhot.metrics import Predictions
from softhot.report import words

SHOWN = 3  # classes of each example
ARMS = 6  # arms of each example; of the others the one that the reader follows
LENGTH = 320  # characters of a text
ENLARGED = 96  # pixels that a picture is at least wide on the page


def chosen_rows(base: Sequence[Predictions], arm: Sequence[Predictions]) -> dict[str, int]:
    """Which test rows to show, by what they show; mean probabilities over seeds decide.

    ``base`` are the seeds without smoothing, ``arm`` those with. No chance is involved: of equals
    the first row.
    """
    before, after = (
        np.mean([np.exp(np.asarray(one.log_probs)) for one in s], 0) for s in (base, arm)
    )
    y = base[0].labels
    i = np.arange(len(y))
    right, still = before.argmax(1) == y, after.argmax(1) == y
    fall = before.max(1) - after[i, before.argmax(1)]
    found: dict[str, int] = {}

    def add(what: str, among: np.ndarray, value: np.ndarray) -> None:
        among = among & ~np.isin(i, list(found.values()))
        if among.any():
            found[what] = int(i[among][np.argmax(value[among])])

    both = right & still
    if both.any():
        # Both numbers of the headline are medians: the row that is closest to the two.
        far = np.abs(before.max(1) - np.median(before.max(1)[both]))
        far += np.abs(after.max(1) - np.median(after.max(1)[both]))
        add("A typical row", both, -far)
    add("Falls the furthest", both, fall)
    add("The surest mistake without smoothing", ~right, before.max(1))
    add("Right only with smoothing", ~right & still, after[i, y] - before[i, y])
    add("Right only without", right & ~still, before[i, y] - after[i, y])
    return found


def medians(base: Sequence[Predictions], arm: Sequence[Predictions]) -> tuple[float, float]:
    """Median confidence over the test rows and seeds, without and with smoothing."""
    first, second = (float(np.median([one.confidence for one in s])) for s in (base, arm))
    return first, second


def prepare_examples(
    models: Mapping[str, Sequence[Predictions]],
    base: str,
    arm: str,
    inputs: Any = None,
    class_names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The examples as the page shows them: what it is, its input, every arm's probabilities.

    Args:
        models: test predictions of every arm, by seed.
        base, arm: the two arms that choose the rows.
        inputs: of the test rows in their order: texts, images (N, C, H, W), or numbers (N, D),
            which are shown as a picture where D is a square.
        class_names: K names.
    """
    rows = chosen_rows(models[base], models[arm])
    numbers = inputs is not None and not isinstance(inputs[0], str)
    white = float(np.max(inputs)) if numbers else 1.0
    names = list(models)
    few = _arms(names, base, arm)
    shown = plots.prepare_softmax(
        {name: models[name] for name in few + [n for n in names if n not in few]},
        list(rows.values()),
        class_names,
        most=SHOWN,
    )
    examples = []
    for what, row in rows.items():
        own = [cell for cell in shown if cell["row"] == row]
        # The true class first, then those that some arm finds likeliest.
        most: dict[int, float] = {}
        for cell in own:
            most[cell["class"]] = max(cell["probability"], most.get(cell["class"], 0.0))
        own.sort(key=lambda c: (not c["true"], -most[c["class"]]))
        classes = [(c["name"], c["true"]) for c in own if c["model"] == names[0]]
        arms = [
            {
                "name": name,
                "number": number,
                "followed": name == arm,
                "extra": name not in few,
                "cells": [
                    {"share": c["probability"], "text": words.surely(c["probability"])}
                    for c in own
                    if c["model"] == name
                ],
            }
            for number, name in enumerate(names)
        ]
        true = next(name for name, is_true in classes if is_true)
        source = None if inputs is None else inputs[row]
        examples.append(
            {
                "what": what,
                "row": row,
                "true": true,
                "classes": classes,
                "arms": arms,
                "text": _text(source),
                "picture": _picture(source, white) if numbers else None,
            }
        )
    return examples


def _arms(names: list[str], base: str, arm: str) -> list[str]:
    """At most :data:`ARMS` of the names, spread evenly, those two among them."""
    if len(names) <= ARMS:
        return names
    step = np.linspace(0, len(names) - 1, ARMS - 1).round().astype(int)
    keep = {base, arm, *(names[i] for i in step)}
    return [name for name in names if name in keep]


def _text(source: Any) -> str | None:
    if not isinstance(source, str):
        return None
    return source if len(source) <= LENGTH else source[: LENGTH - 1].rstrip() + "…"


def _picture(source: Any, white: float) -> dict[str, Any] | None:
    """An image as a PNG inside the page, or None for what is no image; ``white`` is brightest."""
    array = np.asarray(source, dtype=np.float64)
    if array.ndim == 1 and (side := round(len(array) ** 0.5)) ** 2 == len(array) and side >= 8:
        array = array.reshape(1, side, side)
    if array.ndim != 3 or array.shape[0] not in (1, 3) or white <= 0:
        return None
    pixels = np.clip(array / white * 255, 0, 255).round().astype(np.uint8)
    times = max(1, -(-ENLARGED // pixels.shape[2]))
    return {
        "data": base64.b64encode(png(pixels.transpose(1, 2, 0))).decode(),
        "width": pixels.shape[2] * times,
        "height": pixels.shape[1] * times,
    }


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 1 or 3) uint8 as the bytes of a PNG file."""
    height, width, channels = pixels.shape
    lines = b"".join(b"\x00" + line.tobytes() for line in np.ascontiguousarray(pixels))

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines, 9)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
