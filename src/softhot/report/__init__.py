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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from softhot import plots
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions, check_predictions, score
from softhot.report import charts, tables, words
from softhot.report.page import Page

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Comparison
    from softhot.studies.store import Record

__all__ = ["render", "render_judgement", "write"]

MODEL_COLOURS = 7  # --model-0 ... in the style sheet
KEPT = 0.8  # the coverage at which the finding over the risk-coverage curve is stated


def render(
    comparison: Comparison,
    records: Iterable[Record],
    *,
    command: str,
    versions: Mapping[str, str],
    split_digest: str,
) -> str:
    """The page of a study, as HTML.

    Args:
        comparison: What the study found, from :func:`softhot.studies.compare`.
        records: The trials that it was found in; others are ignored.
        command: The command line that makes the study again.
        versions: Name to version of what made this page.
        split_digest: Digest of the split of the data.

    Raises:
        InputError: A trial that the comparison counts is not among the records.
    """
    records = list(records)
    predictions = plots.prepare_predictions(comparison, records)
    spec, base, arm = comparison.spec, comparison.arms[0], plots.focus(comparison)
    page = Page(
        kind="study",
        title=f"Label smoothing on {spec.dataset}",
        subtitle=tables.study_subtitle(comparison),
        decision=comparison.verdict.decision,
        headline=comparison.verdict.headline,
        sentences=comparison.verdict.sentences,
        notes=tables.floored_notes({name: both["raw"] for name, both in predictions.items()}),
        figures=tables.key_figures(base, arm),
    )

    if arm.alpha is not None:
        _add_curves(page, comparison, base, arm)

    page.reliability_finding = words.reliability_finding(base, arm)
    for one in comparison.arms:
        scores = {"raw": one.test_raw, "scaled": one.test_scaled}
        page.add_tiles(
            one.name,
            {
                column: (rows, {name: scores[column][name].mean for name in METRICS})
                for column, rows in predictions[one.name].items()
            },
            temperature=one.temperature.mean,
            marks=tables.marks(comparison, one),
            chosen=one.name == comparison.chosen,
        )

    raw = {name: columns["raw"] for name, columns in predictions.items()}
    lines = {base.name: (charts.NONE, 2.2), arm.name: (charts.ACCENT, 2.4)}
    others = [(name, charts.OTHER, 1.0) for name in raw if name not in lines]
    styles = others + [(name, *style) for name, style in lines.items()]
    risks = page.add_risk(styles, plots.prepare_risk_coverage(raw), KEPT)
    named = {base.name: words.alpha(base), arm.name: words.alpha(arm)}
    page.risk_finding = words.risk_finding(named, risks, words.percent(KEPT))

    page.tables = [tables.study_table(comparison, column) for column in ("raw", "scaled")]
    page.provenance = tables.study_provenance(comparison, records, versions, split_digest)
    page.command, page.settings = command, spec.to_toml()
    return page.html()


def _add_curves(page: Page, comparison: Comparison, base: ArmSummary, arm: ArmSummary) -> None:
    """Every metric against alpha."""
    data = charts.curve_data(plots.prepare_curves(comparison))
    alphas = [one.alpha for one in comparison.curve if one.alpha is not None]
    for field in ("value", "change"):
        chart = charts.curve_chart(field, alphas, arm.alpha, comparison.select)
        page.add_chart(f"curve-{field}", chart, data)
    page.curves = {
        "selected": comparison.select,
        "seeds": len(comparison.seeds),
        "drawn": min(len(comparison.seeds), plots.SEED_LINES),
        "metrics": [
            {
                "name": name,
                "short": words.short(name),
                "finding": words.curve_finding(name, base, arm),
                "text": words.curve_text(comparison, name),
            }
            for name in METRICS
        ],
    }


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
