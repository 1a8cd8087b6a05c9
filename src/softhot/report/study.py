"""The page of a study: which parts it has, and from what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from softhot import plots
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions
from softhot.report import charts, harm, tables, words
from softhot.report.alerts import alerts
from softhot.report.examples import medians, prepare_examples
from softhot.report.linked import ARMS, prepare_linked
from softhot.report.page import KEPT, Page, printable

ALPHAS, LINES = 12, 120  # of the curve: points, and those of all seeds together

if TYPE_CHECKING:
    from softhot.studies.compare import ArmSummary, Comparison
    from softhot.studies.store import Failure, Record

By = dict[str, Sequence[Predictions]]


def render(
    comparison: Comparison,
    records: Iterable[Record],
    *,
    command: str,
    versions: Mapping[str, str],
    split_digest: str,
    inputs: Any = None,
    class_names: Sequence[str] | None = None,
    failed: Sequence[Failure] = (),
    reused: int = 0,
) -> str:
    """The page of a study, as HTML.

    Args:
        comparison: What the study found, from :func:`softhot.studies.compare`.
        records: The trials that it was found in; others are ignored.
        command: The command line that makes the study again.
        versions: Name to version of what made this page.
        split_digest: Digest of the split of the data.
        inputs: Of the test rows, in their order: texts, images (N, C, H, W) or numbers (N, D);
            without them examples have no picture.
        class_names: Of all classes; without them their ids are shown.
        failed: Trials that ended in an error: each becomes a row of its own.
        reused: How often these test rows were looked at before, with other settings.

    Raises:
        InputError: A trial that the comparison counts is not among the records; inputs or class
            names that do not fit.
    """
    records = list(records)
    predictions = plots.prepare_predictions(comparison, records)
    raw: By = {name: columns["raw"] for name, columns in predictions.items()}
    first = next(iter(raw.values()))[0]
    if inputs is not None and len(inputs) != len(first):
        raise InputError("inputs", f"those of the {len(first)} test rows", f"{len(inputs)} rows")
    if class_names is not None and len(class_names) != first.num_classes:
        raise InputError("class_names", f"{first.num_classes} names", class_names)
    class_names = None if class_names is None else [printable(str(name)) for name in class_names]
    spec, base, arm = comparison.spec, comparison.arms[0], plots.focus(comparison)
    shown = _shown(comparison, base, arm)
    validation = _validation(comparison, records)
    page = Page(
        kind="study",
        title=f"Label smoothing on {spec.dataset}",
        subtitle=tables.study_subtitle(comparison),
        decision=comparison.verdict.decision,
        headline=comparison.verdict.headline,
        sentences=comparison.verdict.sentences,
        notes=alerts(comparison, arm, raw, failed=len(failed), reused=reused),
        figures=tables.key_figures(base, arm),
    )
    page.advice = [found.to_dict() for found in comparison.advice.values()]
    if arm.alpha is not None:
        _add_curves(page, comparison, base, arm, shown)
    _add_examples(page, base, arm, {name: raw[name] for name in shown}, inputs, class_names)
    linked = prepare_linked(
        {name: validation[name] for name in shown}, {name: raw[name] for name in shown}, class_names
    )
    page.add_linked(linked, shown.index(arm.name))
    page.reliability_finding = words.reliability_finding(base, arm)
    page.arms = len(comparison.arms)
    for one in (one for one in comparison.arms if one.name in shown):
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
    page.league = tables.league(comparison)
    by_name = {one.name: one for one in comparison.arms}
    _add_harm(page, [by_name[name] for name in shown], arm, raw, class_names)
    if first.num_classes >= 3:
        layers = {(record.trial.arm.name, record.trial.seed): record.layer for record in records}
        page.add_planes(
            {name: raw[name][0] for name in shown},
            {name: layers[name, comparison.seeds[0]] for name in shown},
            shown.index(arm.name),
            class_names,
        )
    page.tables = [tables.study_table(comparison, column, shown) for column in ("raw", "scaled")]
    page.failed = tables.failed_trials(failed)
    page.provenance = tables.study_provenance(comparison, records, versions, split_digest)
    page.command, page.settings = command, spec.to_toml()
    page.download = tables.download(comparison)
    return page.html()


def _shown(comparison: Comparison, base: ArmSummary, arm: ArmSummary) -> list[str]:
    """Arms that panels offer: of many the best methods' choices, then the curve."""
    names = [one.name for one in comparison.arms]
    if len(names) <= ARMS:
        return names
    best = sorted(comparison.methods, key=lambda one: one.advantages["nll"].difference.mean)
    wanted = [base.name, arm.name, *(method.chosen for method in best)]
    wanted += [one.name for one in comparison.curve]
    kept = set(list(dict.fromkeys(wanted))[:ARMS])
    return [name for name in names if name in kept]


def _validation(comparison: Comparison, records: Sequence[Record]) -> By:
    """Validation predictions by arm, in the order of the seeds compared."""
    found = {(record.trial.arm.name, record.trial.seed): record.validation for record in records}
    return {
        arm.name: [found[arm.name, seed] for seed in comparison.seeds] for arm in comparison.arms
    }


def _add_curves(
    page: Page,
    comparison: Comparison,
    base: ArmSummary,
    arm: ArmSummary,
    shown: Sequence[str],
) -> None:
    """Every metric against alpha."""
    data = charts.curve_data(plots.prepare_curves(comparison))
    alphas = [one.alpha for one in comparison.curve if one.alpha is not None]
    if len(alphas) > ALPHAS:
        step = (len(alphas) - 1) / (ALPHAS - 1)
        drawn = {alphas[round(i * step)] for i in range(ALPHAS)} | {base.alpha, arm.alpha}
        alphas = [alpha for alpha in alphas if alpha in drawn]
    seeds = comparison.seeds[: min(plots.SEED_LINES, max(1, LINES // len(alphas)))]
    data = {
        part: [
            row
            for row in rows
            if row.get("alpha", alphas[0]) in alphas and row.get("seed", seeds[0]) in seeds
        ]
        for part, rows in data.items()
    }
    places = {shown.index(a.name): a.alpha for a in comparison.curve if a.name in shown}
    marks = {number: alpha for number, alpha in places.items() if alpha is not None}
    first = shown.index(arm.name)
    for field in ("value", "change"):
        chart = charts.curve_chart(field, alphas, marks, first, comparison.criterion)
        page.add_chart(f"curve-{field}", chart, data)
    page.curves = {
        "selected": comparison.criterion,
        "seeds": len(comparison.seeds),
        "drawn": len(seeds),
        "band": words.alpha(arm),
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


def _add_examples(
    page: Page,
    base: ArmSummary,
    arm: ArmSummary,
    models: By,
    inputs: Any,
    class_names: Sequence[str] | None,
) -> None:
    before, after = medians(models[base.name], models[arm.name])
    page.examples_finding = (
        f"“{words.surely(before)} sure” becomes “{words.surely(after)} sure” at "
        f"{words.alpha(arm)}: the median confidence of a test row"
    )
    page.examples = prepare_examples(models, base.name, arm.name, inputs, class_names)


def _add_harm(
    page: Page,
    arms: Sequence[ArmSummary],
    arm: ArmSummary,
    raw: By,
    class_names: Sequence[str] | None,
) -> None:
    base, followed = arms[0], list(arms).index(arm)
    raw = {one.name: raw[one.name] for one in arms}
    styles = [(name, charts.OTHER, 1.0) for name in raw if name != base.name]
    styles.append((base.name, charts.NONE, 2.2))
    risks = page.add_risk(styles, plots.prepare_risk_coverage(raw, points=50), KEPT, followed)
    named = {base.name: words.alpha(base), arm.name: words.alpha(arm)}
    page.risk_finding = words.risk_finding(named, risks, words.percent(KEPT))
    label = words.alpha(arm)
    changes = [harm.prepare_classes(raw[base.name], raw[one.name], class_names) for one in arms]
    findings = [harm.UNCHANGED] + [
        harm.classes_finding(rows, words.alpha(one))
        for one, rows in zip(arms[1:], changes[1:], strict=True)
    ]
    page.add_classes([one.name for one in arms], changes, findings, followed)
    page.distillation = harm.distillation(raw[base.name], raw[arm.name], label)
