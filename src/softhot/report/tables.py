"""Results as the rows of the page: tables, key figures, notes, provenance."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from softhot.metrics import METRICS, Predictions
from softhot.report import words
from softhot.studies.decision import WORTH

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Comparison, Estimate
    from softhot.studies.store import Failure, Record

ROWS = 60  # arms of a table, and trials that failed
DOWNLOAD = 100_000  # bytes of the page that its numbers may take
TITLES = {"raw": "As trained", "scaled": "After temperature scaling"}


def study_subtitle(comparison: Comparison) -> str:
    """How large the study is."""
    spec = comparison.spec
    return (
        f"{len(comparison.arms)} arms × {len(comparison.seeds)} paired seeds, judged on hard "
        f"labels; {spec.train:,} rows to train, {spec.validation:,} to choose and to fit "
        f"temperatures, {spec.test:,} to test"
    )


def key_figures(base: ArmSummary, arm: ArmSummary) -> list[dict[str, str]]:
    """The four comparisons that carry the verdict: the arm beside no smoothing."""
    figures = []
    for name, column in (("accuracy", "both"), ("nll", "scaled"), ("nll", "raw"), ("gap", "raw")):
        part = "raw" if column == "both" else column
        change: Estimate = getattr(arm, f"difference_{part}")[name]
        label = METRICS[name].label
        figures.append(
            {
                "label": label
                if column == "both"
                else f"{words.short(name)} {words.COLUMNS[column]}",
                "arm": words.alpha(arm),
                "before": _value(name, getattr(base, f"test_{part}")[name]),
                "after": _value(name, getattr(arm, f"test_{part}")[name]),
                "unit": words.unit(name),
                "change": words.number(name, change.mean, signed=True),
                "interval": words.interval(name, change.low, change.high, signed=True),
                "judged": words.judged(name, change),
            }
        )
    return figures


def marks(comparison: Comparison, arm: ArmSummary) -> list[tuple[str, str]]:
    """Labels of an arm, each with what it means."""
    found = []
    if arm.name == comparison.chosen:
        found.append(("chosen", f"what the policy takes, for {comparison.goal}"))
    if arm.name == comparison.lowest != comparison.chosen:
        label = METRICS[comparison.criterion].label
        found.append(("lowest", f"best {label} on validation, by less than its standard error"))
    return found


def study_table(
    comparison: Comparison, column: str, followed: Sequence[str] = ()
) -> dict[str, Any]:
    """All arms and all metrics of one column, with paired differences to "none".

    Of more than :data:`ROWS` arms those that the page lets ``followed``, then in their order.
    """
    ranked = sorted(comparison.arms, key=lambda arm: arm.name not in followed)
    kept = {arm.name for arm in ranked[:ROWS]}
    arms = [arm for arm in comparison.arms if arm.name in kept]
    rows = []
    for arm in arms:
        means: dict[str, Estimate] = getattr(arm, f"test_{column}")
        changes: dict[str, Estimate] = getattr(arm, f"difference_{column}")
        cells = []
        for name in METRICS:
            mean, change = means[name], changes[name]
            cell = {"metric": name, "value": _value(name, mean)}
            if arm.name == comparison.arms[0].name:
                cell["interval"] = words.interval(name, mean.low, mean.high, signed=name == "gap")
            else:
                cell["change"] = words.number(name, change.mean, signed=True)
                cell["interval"] = words.interval(name, change.low, change.high, signed=True)
                cell["judged"] = words.judged(name, change)
            cells.append(cell)
        temperature = arm.temperature.mean if column == "scaled" else None
        rows.append(
            {
                "name": arm.name,
                "marks": marks(comparison, arm),
                "chosen": arm.name == comparison.chosen,
                "number": followed.index(arm.name) if arm.name in followed else None,
                "temperature": temperature,
                "cells": cells,
            }
        )
    seeds = len(comparison.seeds)
    note = (
        f"Mean over {seeds} {'seed' if seeds == 1 else 'seeds'} on the test rows. Under it the "
        "paired difference to “none” and its 95 % interval; for “none” the interval of the mean "
        "itself. “Better” and “worse” stand where the interval excludes 0."
    )
    if len(arms) < len(comparison.arms):
        note += f" {len(arms)} of {len(comparison.arms)} arms: the others are in the run's folder."
    return _table(column, rows, note, first="Arm")


def league(comparison: Comparison) -> dict[str, Any] | None:
    """Every method at the setting that validation chose, the best first; None of a single one."""
    if len(comparison.methods) < 2:
        return None
    by_name = {arm.name: arm for arm in comparison.arms}
    rows = []
    for method in comparison.methods:
        arm = by_name[method.chosen]
        cells = []
        for name, column in (("accuracy", "raw"), ("nll", "scaled")):
            found = method.advantages[name]
            change = found.difference
            cells.append(
                {
                    "value": _value(name, getattr(arm, f"test_{column}")[name]),
                    "change": words.number(name, change.mean, signed=True),
                    "interval": words.interval(name, change.low, change.high, signed=True),
                    "judged": words.judged(name, change)
                    if found.p is not None and found.p < 0.05
                    else "",
                    "p": "–"
                    if found.p is None
                    else "< 0.001"
                    if found.p < 0.001
                    else f"{found.p:.3f}",
                    "practical": None if found.practical is None else found.practical,
                }
            )
        order = method.advantages["nll"].difference.mean
        rows.append(
            (
                order,
                {
                    "name": method.name,
                    "title": method.title,
                    "arm": method.chosen,
                    "budget": method.budget,
                    "best": method.chosen == comparison.best,
                    "cells": cells,
                },
            )
        )
    none = comparison.arms[0]
    return {
        "rows": [row for _, row in sorted(rows, key=lambda pair: pair[0])],
        "none": [
            _value("accuracy", none.test_raw["accuracy"]),
            _value("nll", none.test_scaled["nll"]),
        ],
        "worth": [words.quantity(name, WORTH[name], change=True).lstrip("+") for name in WORTH],
        "seeds": len(comparison.seeds),
    }


def judgement_subtitle(models: Mapping[str, Predictions]) -> str:
    """How many models and rows are judged."""
    sizes = sorted({(len(p), p.num_classes) for p in models.values()})
    count = f"{len(models)} {'model' if len(models) == 1 else 'models'}"
    return f"{count}; " + ", ".join(f"{n:,} rows of {k:,} classes" for n, k in sizes)


def judgement_table(
    scores: Mapping[str, Mapping[str, float]],
    column: str,
    temperatures: Mapping[str, float],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
) -> dict[str, Any]:
    """All models and all metrics of one column."""
    rows = []
    for model, values in scores.items():
        cells = []
        for name in METRICS:
            low, high = intervals.get(model, {}).get(name, (None, None))
            signed = name == "gap"
            cells.append(
                {
                    "metric": name,
                    "value": words.number(name, values[name], signed=signed),
                    "interval": words.interval(name, low, high, signed=signed),
                }
            )
        temperature = temperatures.get(model) if column == "scaled" else None
        rows.append(
            {
                "name": model,
                "marks": [],
                "chosen": False,
                "number": None,
                "temperature": temperature,
                "cells": cells,
            }
        )
    note = "Under a value its 95 % interval." if intervals else ""
    return _table(column, rows, note, first="Model")


def failed_trials(failed: Iterable[Failure]) -> list[dict[str, str]]:
    """A row for each trial that ended in an error, up to :data:`ROWS`."""
    return [
        {"name": one.trial.arm.name, "seed": str(one.trial.seed), "error": one.reason}
        for one in itertools.islice(failed, ROWS)
    ]


def study_provenance(
    comparison: Comparison,
    records: Sequence[Record],
    versions: Mapping[str, str],
    split_digest: str,
) -> list[tuple[str, list[str]]]:
    """Where every number comes from."""
    from softhot.datasets import DATASETS

    spec = comparison.spec
    trained: dict[str, list[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            if version not in trained.setdefault(name, []):
                trained[name].append(version)
    info = DATASETS.get(spec.dataset)
    data = [info.title, info.source, info.licence] if info else []
    seconds = float(np.nansum([record.seconds for record in records]))  # NaN: its log is lost
    criterion = words.short(comparison.criterion)
    return [
        ("Data", [spec.dataset, *data]),
        ("Split, SHA-256", [split_digest]),
        ("Settings, SHA-256", [spec.digest]),
        ("Seeds compared", [", ".join(map(str, comparison.seeds))]),
        ("Chosen for", [f"{comparison.goal}, by {criterion} on validation rows, hard labels"]),
        ("Trials", [f"{len(records):,} of {len(spec.trials()):,}, {seconds:,.0f} s of training"]),
        ("Trained with", version_list({n: ", ".join(sorted(v)) for n, v in trained.items()})),
        ("Page made with", version_list(versions)),
    ]


def download(comparison: Comparison) -> dict[str, str]:
    """All numbers as a file in the page: what of it fits, as plainly as it fits.

    As JSON, else compressed, else without those of single seeds, else nothing but the verdict.
    """
    plain = json.dumps(comparison.to_dict())
    content = json.loads(plain, parse_float=lambda digits: float(f"{float(digits):.7g}"))
    means = _without_seeds(content)
    short = {name: means[name] for name in ("spec", "chosen", "verdict", "advice")}
    whole, rest = "Download all numbers of this page", "`softhot report --json` gives the others"
    found: dict[str, str] = {}
    for label, what, packed in (
        (f"{whole} (JSON)", content, False),
        (f"{whole} (JSON, gzip)", content, True),
        (f"Download means and intervals of every arm (JSON, gzip); {rest}", means, True),
        (f"Download verdict and settings (JSON, gzip); {rest}", short, True),
    ):
        data = json.dumps(what, separators=(",", ":")).encode()
        data = base64.b64encode(gzip.compress(data, 9, mtime=0) if packed else data)
        found = {
            "name": "softhot-comparison.json" + (".gz" if packed else ""),
            "type": "application/gzip" if packed else "application/json",
            "data": data.decode(),
            "label": label,
        }
        if len(data) <= DOWNLOAD:
            break
    return found


def _without_seeds(value: Any) -> Any:
    """Estimates without what single seeds gave."""
    if isinstance(value, list):
        return [_without_seeds(part) for part in value]
    if not isinstance(value, dict):
        return value
    seeds = {"values"} if "mean" in value else set()
    return {name: _without_seeds(part) for name, part in value.items() if name not in seeds}


def version_list(versions: Mapping[str, str]) -> list[str]:
    """Names with versions, sorted."""
    return [f"{name} {version}" for name, version in sorted(versions.items())]


def _table(column: str, rows: list[dict[str, Any]], note: str, first: str) -> dict[str, Any]:
    columns = [
        {"name": name, "short": words.short(name), "label": metric.label, "unit": words.unit(name)}
        for name, metric in METRICS.items()
    ]
    has_temperature = any(row["temperature"] is not None for row in rows)
    return {
        "title": TITLES[column],
        "column": column,
        "first": first,
        "columns": columns,
        "temperature": has_temperature,
        "rows": rows,
        "note": note,
    }


def _value(name: str, estimate: Estimate) -> str:
    return words.number(name, estimate.mean, signed=name == "gap")


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
