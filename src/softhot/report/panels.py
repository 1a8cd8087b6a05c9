"""The charts that are chosen by arm and by class, and those of harm, as Vega-Lite specifications.

They follow :mod:`softhot.report.charts`: data by name, colours by CSS variable, sizes fixed. What
is chosen on the page reaches them as the parameters ``arm`` and ``klass``, numbers of a list.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from softhot import plots
from softhot.report import words
from softhot.report.charts import (
    ACCENT,
    ARM,
    MUTED,
    PAPER,
    Spec,
    finish,
    rounded,
    share_axis,
    title_of,
)

SIDE = 190  # of a diagram
# The page's script writes these texts when they are wanted: they would be a third of its data.
TOLD = (
    "'stated ' + format(datum.confidence, '.1%') + ', true ' + format(datum.accuracy, '.1%') + "
    "(isValid(datum.low) ? '; if calibrated, ' + format(datum.low, '.0%') + ' to ' + "
    "format(datum.high, '.0%') : '') + '; ' + format(datum.share, '.1%') + ' of rows'"
)
REACH = 2.5  # of the plane of templates, in distances between classes; further rows are cut off
REMEDY_COLOURS = ("var(--raw)", "var(--scaled)", "var(--model-2)", "var(--model-3)")
COLOURS = ("var(--model-0)", "var(--model-1)", "var(--model-2)")


@functools.cache
def linked_diagram(arm: int, klass: int | None, colour: str, bins: int) -> Spec:
    """Reliability of the chosen arm: of its predicted class, or of one class if ``klass``.

    Grey bars are where 95 of 100 calibrated models would lie. Its data are ``bins``.
    """
    import altair as alt

    params = [alt.param(name="arm", value=arm)]
    chosen = "datum.arm === arm"
    if klass is not None:
        params.append(alt.param(name="klass", value=klass))
        chosen += " && datum['class'] === klass"
    data = alt.Chart(alt.NamedData("bins")).transform_filter(chosen)
    data = data.transform_calculate(text=TOLD)
    ends = alt.Chart(alt.InlineData([{"at": 0}, {"at": 1}]))
    x, y = share_axis(alt.X, "confidence", labels=False), share_axis(alt.Y, "accuracy")
    area = alt.Size("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[14, 260]))
    layers = [
        data.transform_filter("isValid(datum.low)")
        .mark_bar(color="var(--band)", width=0.75 * SIDE / bins)
        .encode(x=x, y=share_axis(alt.Y, "low"), y2="high:Q"),
        ends.mark_line(color=MUTED, strokeWidth=1, strokeDash=[3, 3]).encode(
            x=share_axis(alt.X, "at", labels=False), y=share_axis(alt.Y, "at")
        ),
        data.mark_rule(color=colour, strokeWidth=1.5).encode(
            x=x, y=share_axis(alt.Y, "confidence"), y2="accuracy:Q"
        ),
        data.mark_circle(color=colour, stroke=PAPER, strokeWidth=0.7, opacity=1).encode(
            x=x, y=y, size=area, tooltip="text:N"
        ),
    ]
    # A mark and no title, which large discs at the top would push away.
    name = "accuracy" if klass is None else "share of the class"
    label = alt.Chart(alt.InlineData([{"text": name}])).mark_text(
        align="left", baseline="bottom", color=MUTED, fontSize=10
    )
    layers.append(label.encode(x=alt.value(0), y=alt.value(-9), text="text:N"))
    chart = alt.layer(*layers).add_params(*params).properties(width=SIDE, height=SIDE)
    return finish(chart, left=34, right=16, top=22, bottom=8)


@functools.cache
def linked_histogram(arm: int, klass: int | None, colour: str, bins: int) -> Spec:
    """The histogram that stands under :func:`linked_diagram`; the same data."""
    import altair as alt

    params = [alt.param(name="arm", value=arm)]
    chosen = "datum.arm === arm"
    if klass is not None:
        params.append(alt.param(name="klass", value=klass))
        chosen += " && datum['class'] === klass"
    bars = alt.Chart(alt.NamedData("bins")).transform_filter(chosen)
    edges = f"datum.bin / {bins} + 0.005", f"(datum.bin + 1) / {bins} - 0.005"  # a hair apart
    bars = bars.transform_calculate(text=TOLD, **dict(zip(("from", "to"), edges, strict=True)))
    title = title_of("share of rows", offset=6, dx=0, fontSize=10)
    name = "confidence" if klass is None else "stated probability"
    chart = (
        bars.mark_bar(color=colour, opacity=0.75)
        .encode(
            x=share_axis(alt.X, "from", title=name),
            x2="to:Q",
            y=share_axis(alt.Y, "share"),
            y2=alt.Y2Datum(0),
            tooltip="text:N",
        )
        .add_params(*params)
        .properties(width=SIDE, height=46, title=title)
    )
    return finish(chart, left=34, right=16, top=20, bottom=30)


def linked_data(rows: plots.Rows, bins: int) -> dict[str, plots.Rows]:
    """Rows of :func:`softhot.report.linked.prepare_linked`, short."""
    numbers = ("share", "confidence", "accuracy", "low", "high")
    kept = [
        {name: row[name] for name in ("arm", "class") if name in row}
        | {"bin": round(row["lower"] * bins)}
        | {name: None if row[name] is None else round(row[name], 3) for name in numbers}
        for row in rows
    ]
    for name in ("low", "high"):  # most classwise diagrams have none
        if all(row[name] is None for row in kept):
            kept = [{k: v for k, v in row.items() if k != name} for row in kept]
    return {"bins": kept}


def classes_chart(rows: plots.Rows, count: int, arm: int) -> Spec:
    """Change of each class's recall, with its interval; data ``classes``, ``count`` of each arm.

    All arms have one scale, and each its own order.
    """
    import altair as alt

    data = alt.Chart(alt.NamedData("classes")).transform_filter(ARM)
    ends = [row[k] for row in rows for k in ("low", "change", "high") if row[k] is not None]
    y = alt.Y(
        "name:N",
        sort=None,
        axis=alt.Axis(title=None, labelLimit=130, labelFontSize=11),
    )
    x = alt.X(
        "change:Q",
        scale=alt.Scale(domain=[min(ends), max(ends)], nice=True),
        axis=alt.Axis(
            title="change of recall, points",
            titleAnchor="start",
            labelExpr="datum.value > 0 ? '+' + datum.label : datum.label",
            tickCount=6,
        ),
    )
    look = alt.Color("colour:N", scale=None, legend=None)
    layers = [
        alt.Chart(alt.InlineData([{"at": 0}]))
        .mark_rule(color=MUTED, strokeWidth=1)
        .encode(x="at:Q"),
        data.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=4, opacity=0.4)
        .encode(y=y, x=alt.X("low:Q"), x2="high:Q", color=look),
        data.mark_point(filled=True, size=60, opacity=1).encode(
            y=y,
            x=x,
            color=look,
            shape=alt.Shape("shape:N", scale=None, legend=None),
            tooltip="text:N",
        ),
    ]
    chart = alt.layer(*layers).add_params(alt.param(name="arm", value=arm))
    left = min(140, 20 + 7 * max(len(row["name"]) for row in rows))
    chart = chart.properties(width=460 - left, height=max(90, 22 * count))
    return finish(chart, left=left, right=24, top=12, bottom=44)


def classes_data(arms: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, plots.Rows]:
    """Rows of :func:`softhot.report.harm.worst_first` by arm, in points, with their looks."""
    told = []
    for number, row in ((number, row) for number, rows in enumerate(arms) for row in rows):
        low, high = row["low"], row["high"]
        side = 0 if low is None else int(low > 0) - int(high < 0)
        told.append(
            {
                "number": number,
                "name": row["name"],
                **{k: None if row[k] is None else 100 * row[k] for k in ("change", "low", "high")},
                "colour": {1: ACCENT, -1: "var(--worse)", 0: MUTED}[side],
                "shape": {1: "triangle-up", -1: "triangle-down", 0: "circle"}[side],
                "text": f"{row['name']}: {words.percent(row['before'], 1)} to "
                f"{words.percent(row['after'], 1)} of {row['rows']} rows",
            }
        )
    return {"classes": rounded(told)}


def plane_chart(names: Sequence[str], reach: float, arm: int | None) -> Spec:
    """Rows of three classes in the plane of their templates; data ``points`` and ``corners``.

    Those of number ``arm`` are shown; all if it is None.
    """
    import altair as alt

    def axis(channel: Any, field: str) -> Any:
        hidden = alt.Axis(labels=False, title=None, grid=False, domain=False, ticks=False)
        return channel(f"{field}:Q", scale=alt.Scale(domain=[-reach, reach]), axis=hidden)

    which = alt.Color(
        "name:N", legend=None, scale=alt.Scale(domain=list(names), range=list(COLOURS))
    )
    shape = alt.Shape(
        "name:N",
        legend=None,
        scale=alt.Scale(domain=list(names), range=["circle", "triangle-up", "square"]),
    )
    points, corners = alt.Chart(alt.NamedData("points")), alt.Chart(alt.NamedData("corners"))
    if arm is not None:
        points, corners = points.transform_filter(ARM), corners.transform_filter(ARM)
    x, y = axis(alt.X, "x"), axis(alt.Y, "y")
    layers = [
        points.mark_point(filled=True, size=26, opacity=0.55).encode(
            x=x, y=y, color=which, shape=shape, tooltip="name:N"
        ),
        corners.mark_text(fontSize=12, fontWeight="bold", stroke=PAPER, strokeWidth=4).encode(
            x=x, y=y, text="name:N"
        ),
        corners.mark_text(fontSize=12, fontWeight="bold", color="var(--ink)").encode(
            x=x, y=y, text="name:N"
        ),
    ]
    chart = alt.layer(*layers).properties(width=300, height=300)
    if arm is not None:
        chart = chart.add_params(alt.param(name="arm", value=arm))
    return finish(chart, left=4, right=4, top=4, bottom=4)
