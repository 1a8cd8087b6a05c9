"""One self-contained page from finished results: verdict, figures, tables, provenance.

:func:`render` shows a study and :func:`render_judgement` shows models that were trained
elsewhere. Both are pure: no clock, no random numbers, nothing read but the arguments and this
package, so the same results give the same bytes. The page asks nothing of any network, shows its
pictures without JavaScript and on paper, and forbids scripts other than its own. Whatever text is
given (names, titles, commands) stays text.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from softhot import plots
from softhot.core.check import InputError
from softhot.metrics import Predictions, check_predictions, score
from softhot.report import tables, words
from softhot.report.page import KEPT, Page
from softhot.report.study import render

__all__ = ["render", "render_judgement", "write"]

MODEL_COLOURS = 7  # --model-0 ... in the style sheet


def render_judgement(
    title: str,
    models: Mapping[str, Predictions],
    sentences: Sequence[str],
    *,
    scaled: Mapping[str, Predictions] | None = None,
    temperatures: Mapping[str, float] | None = None,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    notes: Sequence[str] = (),
    command: str,
    versions: Mapping[str, str],
) -> str:
    """The page of predictions that exist already, without any training, as HTML.

    Args:
        title: What is judged.
        models: Predictions by name of the model.
        sentences: The judgement in words; the first is the headline.
        scaled: Predictions after temperature scaling, of all models or of some.
        temperatures: The temperature of each of those.
        intervals: 95 % intervals of raw metrics, by model and metric.
        notes: What to mind when reading, e.g. rows that were floored.
        command: The command line that makes the page again.
        versions: Name to version of what made this page.

    Raises:
        InputError: No model, or something that is not :class:`softhot.metrics.Predictions`.
    """
    scaled, temperatures, intervals = scaled or {}, temperatures or {}, intervals or {}
    if not models:
        raise InputError("models", "at least one model's predictions by name", models)
    for predictions in (*models.values(), *scaled.values()):
        check_predictions(predictions)
    for argument, mapping in (("scaled", scaled), ("temperatures", temperatures)):
        for name in mapping:
            if name not in models:
                raise InputError(f"each name in {argument}", f"one of {list(models)}", name)
    page = Page(
        kind="judgement",
        title=title,
        subtitle=tables.judgement_subtitle(models),
        headline=sentences[0] if sentences else "",
        sentences=tuple(sentences[1:]),
        notes=tuple(notes),
    )
    scores = {
        "raw": {name: score(predictions) for name, predictions in models.items()},
        "scaled": {name: score(predictions) for name, predictions in scaled.items()},
    }
    gaps = [f"{name} is {words.bias(row['gap'])}" for name, row in scores["raw"].items()]
    page.reliability_finding = words.joined(gaps[:3])
    for name, predictions in models.items():
        columns = {"raw": ([predictions], scores["raw"][name])}
        if name in scaled:
            columns["scaled"] = ([scaled[name]], scores["scaled"][name])
        page.add_tiles(name, columns, temperature=temperatures.get(name))
    styles = [
        (name, f"var(--model-{i % MODEL_COLOURS})", 2.2 if i < MODEL_COLOURS else 1.1)
        for i, name in enumerate(models)
    ]
    curves = plots.prepare_risk_coverage({name: [p] for name, p in models.items()})
    risks = page.add_risk(styles, curves, KEPT)
    first = {name: name for name in list(models)[:3]}
    page.risk_finding = words.risk_finding(first, risks, words.percent(KEPT))
    page.tables = [
        tables.judgement_table(rows, column, temperatures, intervals if column == "raw" else {})
        for column, rows in scores.items()
        if rows
    ]
    page.provenance = [("Made with", tables.version_list(versions))]
    page.command = command
    return page.html()


def write(path: str | os.PathLike[str], html: str) -> None:
    """Write ``html`` to ``path`` as UTF-8, whole or not at all.

    Raises:
        InputError: The file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(html.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        hint = f"{error.strerror or error}. Give a file in a folder that exists."
        raise InputError("path", "a file that can be written", str(path), hint) from error
