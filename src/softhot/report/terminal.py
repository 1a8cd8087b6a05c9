"""The report's tables and verdict in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from softhot.metrics import METRICS
from softhot.report import words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softhot.datasets import DatasetInfo
    from softhot.judge import Judgement, SideBySide
    from softhot.studies import Comparison

WIDTH = 100  # columns where the terminal does not say, as in a pipe
COLUMNS = (
    ("accuracy", "raw"),
    ("nll", "raw"),
    ("nll", "scaled"),
    ("brier", "scaled"),
    ("ece", "raw"),
    ("ece", "scaled"),
    ("gap", "raw"),
    ("aurc", "raw"),
)
SHORT = {"raw": "", "scaled": " at T"}
MARK = {"better": "+", "worse": "−"}


def show(content: Any) -> None:
    """Print text or a table to standard output."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(content)


def study_table(comparison: Comparison) -> Table:
    """Every arm on the test rows; "+" and "−" mark a detectable change from "none"."""
    seeds = len(comparison.seeds)
    table = Table(
        title=f"Test rows, mean over {seeds} {'seed' if seeds == 1 else 'seeds'}",
        caption="+ better, − worse than “none” with 95 % confidence, paired over seeds. "
        "“at T”: after temperature scaling.",
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("arm")
    table.add_column("T", justify="right")
    for name, column in COLUMNS:
        measure = words.unit(name)
        header = words.short(name) + SHORT[column]
        table.add_column(f"{header}\n{measure or ' '}", justify="right")
    for arm in comparison.arms:
        cells = []
        for name, column in COLUMNS:
            mean = getattr(arm, f"test_{column}")[name].mean
            change = getattr(arm, f"difference_{column}")[name]
            mark = MARK.get(words.judged(name, change), " ") if arm.method != "none" else " "
            cells.append(words.number(name, mean, signed=name == "gap") + mark)
        chosen = arm.name == comparison.chosen
        note = " ◂ chosen" if chosen else " (lowest)" if arm.name == comparison.lowest else ""
        style = "bold" if chosen else ""
        table.add_row(arm.name + note, f"{arm.temperature.mean:.2f}", *cells, style=style)
    return table


def verdict(comparison: Comparison) -> Any:
    """The verdict: headline and sentences."""
    text = Text()
    text.append(f"\n{comparison.verdict.headline}\n", style="bold")
    for sentence in comparison.verdict.sentences:
        text.append(f"• {sentence}\n")
    text.append("\nWhat to do, by what you care about\n")
    for one in comparison.advice.values():
        text.append(f"• {one.sentence}\n")
    return Padding(text, (0, 0))


def judgement_table(judgement: Judgement, model: str = "") -> Table:
    """Every metric of saved predictions, before and after temperature scaling."""
    rows = len(judgement.predictions)
    size = f"{rows:,} rows of {judgement.predictions.num_classes:,} classes"
    table = Table(
        title=f"\n{model}: {size}" if model else size,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("metric")
    table.add_column("as saved", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column(f"at T = {judgement.temperature:.2f}", justify="right")
    for name in METRICS:
        signed = name == "gap"
        low, high = judgement.intervals.get(name, (None, None))
        table.add_row(
            f"{METRICS[name].label} ({words.unit(name)})".replace(" ()", ""),
            words.number(name, judgement.scores[name], signed=signed),
            words.interval(name, low, high, signed=signed),
            words.number(name, judgement.scaled_scores[name], signed=signed),
        )
    return table


def forecast_table(judgement: Judgement) -> Table:
    """What smoothing would do, at several alphas."""
    table = Table(
        title="\nForecast of smoothing",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    shown = ("confidence", "gap", "ece")
    for header in ("alpha", *(f"{words.short(name)}\n{words.unit(name)}" for name in shown)):
        table.add_column(header, justify="right")
    for outlook in (judgement.forecast.baseline, *judgement.forecast.smoothed):
        cells = [words.number(n, getattr(outlook, n), signed=n == "gap") for n in shown]
        table.add_row(f"{outlook.alpha:g}", *cells)
    return table


def differences_table(together: SideBySide) -> Table:
    """Every model against the first, raw and scaled, with paired intervals."""
    first = next(iter(together.judgements))
    table = Table(
        title=f"\nDifference to {first} on the same rows, 95 % interval",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for header in ("metric", "model", "as saved", "", "at T", ""):
        table.add_column(header, justify="left" if header in ("metric", "model") else "right")
    for metric in METRICS:
        for model, raw in together.differences.items():
            cells = []
            for found in (raw[metric], together.scaled_differences[model][metric]):
                cells.append(words.number(metric, found.value, signed=True))
                cells.append(words.interval(metric, found.low, found.high, signed=True))
            unit = words.unit(metric, change=True)
            table.add_row(f"{METRICS[metric].label} ({unit})".replace(" ()", ""), model, *cells)
    return table


def conventions_table(alpha: float, classes: int, rows: list[dict[str, Any]]) -> Table:
    """What one number means in every convention."""
    table = Table(
        title=f"\nWhat {alpha:g} means elsewhere, for {classes} classes",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for header, justify in (
        ("convention", "left"),
        ("true class", "right"),
        ("each other", "right"),
        ("as uniform", "right"),
        ("used by", "left"),
    ):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        numbers = ("–" if row[k] is None else f"{row[k]:.6g}" for k in ("on", "off", "uniform"))
        table.add_row(row["convention"], *numbers, row["used_by"])
    return table


def datasets_table(table: Mapping[str, DatasetInfo]) -> Table:
    """Every data set: what it is, whether it is here, where it comes from."""
    shown = Table(
        caption="Your own: the path of an .npz, .csv or .parquet, or of a folder with a subfolder "
        "of images for each class.",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for header in ("data set", "rows", "classes", "here", "what it is, licence, where from"):
        shown.add_column(header, justify="right" if header in ("rows", "classes") else "left")
    for name, info in table.items():
        here = "yes" if info.origin.present else "no"
        about = f"{info.title}. {info.licence}; {info.origin.origin}"
        shown.add_row(name, f"{info.size:,}", str(info.classes), here, about)
    return shown
