"""The charts, as Vega-Lite specifications, and their pictures for readers without scripts.

A specification names its data and does not hold them, so that small multiples share one.

Colours are CSS variables of the page (``var(--raw)``), so that one drawing serves light, dark and
print. Every size is fixed, so that charts side by side align and nothing moves when another
metric is chosen. Names given by users appear as data only, never in an expression or a field name.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from softhot.metrics import METRICS
from softhot.report import words

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

INK, MUTED, RULE, PAPER = "var(--ink)", "var(--muted)", "var(--rule)", "var(--paper)"
ACCENT, NONE, OTHER = "var(--accent)", "var(--none)", "var(--other)"
COLUMN_COLOURS = {"raw": "var(--raw)", "scaled": "var(--scaled)", "both": INK}
FONT = "system-ui, sans-serif"
AXIS = {
    "domain": False,
    "ticks": False,
    "gridColor": RULE,
    "labelColor": MUTED,
    "titleColor": MUTED,
    "titleFontWeight": "normal",
    "labelPadding": 6,
}
CONFIG: Spec = {
    "aria": False,  # each chart is one image with one description; a list of marks helps nobody
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {**AXIS, "labelFontSize": 11, "titleFontSize": 11},
    "title": {"anchor": "start", "color": MUTED, "fontSize": 11, "fontWeight": "normal"},
}
SPACED = "replace(datum.label, '%', '\u202f%')"
VALIDATED = False  # by Vega-Lite's schema: a third of a page's time, so tests alone do
LABEL = 140  # pixels of the longest name at the end of a line
ARM = "datum.number === arm"  # the arm that the reader follows, a number of the page's list
# What a picture that is only looked at does not need: roles for readers, parts never painted.
_UNSEEN = re.compile(
    r'<g/>|<path class="(?:foreground|background)" aria-hidden="true" d="[^"]*"'
    r'(?: pointer-events="none")?(?: display="none")?/>'
)
_IDLE = re.compile(
    r" (?:class|role|aria-roledescription|aria-label|aria-hidden|pointer-events|font-family"
    r'|xmlns:xlink|version)="[^"]*"| opacity="1"'
)
_LONG = re.compile(r"\d+\.\d{3,}(?:e-?\d+)?")
LEFT = 44  # room for the labels of the y axis: panels align whatever the labels are


def curve_chart(
    field: str, alphas: Sequence[float], marks: Mapping[int, float], arm: int, metric: str
) -> Spec:
    """One metric against alpha: thin lines are seeds, the thick line is their mean.

    Args:
        field: "value", or "change" for the paired difference to no smoothing.
        alphas: The smoothing weights, for the ticks.
        marks: The alphas that can be pointed out, by the arm's number.
        arm: The one pointed out first; the page sets the parameter of that name.
        metric: Which metric is shown first; the page sets the parameter of that name.

    Its data are ``means``, ``seeds`` and ``labels`` of :func:`curve_data`.
    """
    import altair as alt

    change = field == "change"
    titles = {}
    for name, row in METRICS.items():
        unit = words.unit(name, change=change)
        better = {"high": "higher is better", "low": "lower is better", "zero": "best at 0"}
        what = "change from no smoothing" if change else words.short(name)
        hint = better.get(row.best, "") if not change else "same seeds paired"
        titles[name] = what + (f", {unit}" if unit else "") + (f" ({hint})" if hint else "")
    shown = alt.param(name="metric", value=metric)
    only, raw = "datum.metric === metric", "datum.column === 'raw'"
    x = alt.X(
        "alpha:Q",
        scale=alt.Scale(type="sqrt", nice=False, domain=[0, max(alphas)], padding=6),
        axis=alt.Axis(
            values=list(alphas),
            format="~g",
            grid=False,
            ticks=True,
            tickColor=RULE,
            title="smoothing weight alpha (square-root scale)",
            titleAnchor="start",
        ),
    )
    y = alt.Y(
        f"{field}:Q",
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(
            title=None,
            tickCount=6,
            labelExpr="datum.value > 0 ? '+' + datum.label : datum.label"
            if change
            else "datum.label",
        ),
    )
    colour = alt.Color("column:N", legend=None, scale=_scale(COLUMN_COLOURS))
    means = alt.Chart(alt.NamedData("means")).transform_filter(only)
    seeds = alt.Chart(alt.NamedData("seeds")).transform_filter(only)
    labels = alt.Chart(alt.NamedData("labels")).transform_filter(only)
    bands = alt.Chart(alt.NamedData("bands")).transform_filter(only)
    column = alt.Detail("column:N")
    interval = "change_low" if change else "low", "change_high" if change else "high"
    layers = [
        bands.mark_rect(opacity=0.14).encode(
            y=alt.Y(f"{interval[0]}:Q"), y2=f"{interval[1]}:Q", color=colour
        ),
        seeds.mark_line(strokeWidth=0.8, opacity=0.3).encode(
            x=x, y=y, color=colour, detail=["seed:N", "column:N"]
        ),
        means.transform_filter(f"isValid(datum.{interval[0]})")
        .mark_rule()
        .encode(
            x=x,
            y=alt.Y(f"{interval[0]}:Q"),
            y2=f"{interval[1]}:Q",
            color=colour,
            # Wide and pale under narrow and dark, so that both show where they overlap.
            strokeWidth=alt.when(raw).then(alt.value(5)).otherwise(alt.value(1.6)),
            opacity=alt.when(raw).then(alt.value(0.4)).otherwise(alt.value(1)),
        ),
        means.mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour, detail=column),
        means.mark_point(filled=True, opacity=1, size=46, stroke=PAPER, strokeWidth=1).encode(
            x=x,
            y=y,
            color=colour,
            shape=alt.Shape(
                "column:N",
                legend=None,
                scale=_scale({"raw": "circle", "scaled": "diamond", "both": "circle"}),
            ),
            tooltip=f"{field}_text:N",
        ),
        labels.mark_text(align="left", dx=10, fontSize=11, fontWeight="bold").encode(
            x=x, y=y, color=colour, text="text:N"
        ),
    ]
    if change:
        zero = alt.Chart(alt.InlineData([{"at": 0}]))
        layers.insert(0, zero.mark_rule(color=MUTED, strokeWidth=1).encode(y="at:Q"))
    places = [{"number": n, "alpha": a, "text": f"alpha = {a:g}"} for n, a in marks.items()]
    mark = alt.Chart(alt.InlineData(places)).transform_filter(ARM)
    line = mark.mark_rule(color=ACCENT, strokeWidth=1, strokeDash=[3, 3])
    text = mark.mark_text(color=ACCENT, fontSize=11, fontWeight="bold", dy=-7)
    layers[:0] = [line.encode(x=x), text.encode(x=x, y=alt.value(0), text="text:N")]
    title = title_of(alt.ExprRef(f"({json.dumps(titles)})[metric]"), offset=8)
    followed = alt.param(name="arm", value=arm)
    chart = (
        alt.layer(*layers)
        .add_params(shown, followed)
        .properties(width=370, height=270, title=title)
    )
    return finish(chart, left=LEFT, right=104, top=42, bottom=44)


@functools.cache
def reliability_chart(column: str) -> Spec:
    """One reliability diagram of ``bins``, see :func:`bin_data`.

    Stems show what the calibration error sums: the distance of each bin from the diagonal. Discs
    have the area of the bin's share of rows; bins of few rows, whose accuracy is mostly luck, fade.
    """
    import altair as alt

    colour = COLUMN_COLOURS[column]
    data = alt.Chart(alt.NamedData("bins"))
    ends = alt.Chart(alt.InlineData([{"at": 0}, {"at": 1}]))
    ideal = alt.Chart(alt.InlineData([{"at": 0.11, "text": "ideal"}]))
    x, y = share_axis(alt.X, "confidence", labels=False), share_axis(alt.Y, "accuracy")
    area = alt.Size("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[12, 190]))
    paler = alt.Scale(type="sqrt", domain=[0, 0.05], range=[0.2, 1], clamp=True)
    weight = alt.Opacity("share:Q", legend=None, scale=paler)
    layers = [
        ends.mark_line(color=MUTED, strokeWidth=1, strokeDash=[3, 3]).encode(
            x=share_axis(alt.X, "at", labels=False), y=share_axis(alt.Y, "at")
        ),
        ideal.mark_text(angle=315, dy=8, fontSize=9.5, color=MUTED).encode(
            x=share_axis(alt.X, "at", labels=False), y=share_axis(alt.Y, "at"), text="text:N"
        ),
        data.mark_rule(color=colour, strokeWidth=1.5).encode(
            x=x, y=share_axis(alt.Y, "confidence"), y2="accuracy:Q", opacity=weight
        ),
        data.mark_circle(color=colour, stroke=PAPER, strokeWidth=0.7).encode(
            x=x, y=y, size=area, opacity=weight, tooltip="text:N"
        ),
    ]
    title = title_of("accuracy", offset=8, dx=0, fontSize=9.5)
    chart = alt.layer(*layers).properties(width=124, height=124, title=title)
    return finish(chart, left=32, right=16, top=22, bottom=8)


@functools.cache
def histogram_chart(column: str) -> Spec:
    """The confidence histogram that stands under :func:`reliability_chart`; the same data."""
    import altair as alt

    bars = alt.Chart(alt.NamedData("bins")).mark_bar(color=COLUMN_COLOURS[column], opacity=0.75)
    title = title_of("share of rows", offset=6, dx=0, fontSize=9.5)
    chart = bars.encode(
        x=share_axis(alt.X, "from", title="confidence"),
        x2="to:Q",
        y=share_axis(alt.Y, "share"),
        y2=alt.Y2Datum(0),
        tooltip="text:N",
    ).properties(width=124, height=44, title=title)
    return finish(chart, left=32, right=16, top=20, bottom=30)


def risk_chart(arm: int | None = None) -> Spec:
    """Error among the rows kept, against the share kept, one line a model.

    The line of number ``arm`` lies over all others, in the accent's colour. Its data are ``lines``
    and ``labels`` of :func:`risk_data`.
    """
    import altair as alt

    def styled(field: str, type: str = "nominal") -> dict[str, Any]:
        return {"field": field, "type": type, "scale": None, "legend": None}

    x = alt.X(
        "coverage:Q",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(
            format=".0%",
            labelExpr=SPACED,
            tickCount=5,
            grid=False,
            title="share of test rows kept, most confident first",
            titleAnchor="start",
        ),
    )
    y = alt.Y(
        "risk:Q",
        scale=alt.Scale(zero=True, nice=True),
        axis=alt.Axis(title=None, format="~%", labelExpr=SPACED, tickCount=6),
    )
    lines = alt.Chart(alt.NamedData("lines"))
    labels = alt.Chart(alt.NamedData("labels"))
    layers = [
        lines.mark_line().encode(
            x=x,
            y=y,
            detail="model:N",
            order="coverage:Q",
            stroke=alt.Stroke(**styled("colour")),
            strokeWidth=alt.StrokeWidth(**styled("width", "quantitative")),
            tooltip="model:N",
        ),
        labels.transform_filter(f"!({ARM})")
        .mark_text(align="left", dx=8, fontSize=11, limit=LABEL)
        .encode(x=x, y=y, color=alt.Color(**styled("colour")), text="model:N"),
    ]
    if arm is not None:
        layers += [
            lines.transform_filter(ARM)
            .mark_line(color=ACCENT, strokeWidth=2.6)
            .encode(x=x, y=y, detail="model:N", order="coverage:Q", tooltip="model:N"),
            labels.transform_filter(ARM)
            .mark_text(
                align="left", dx=8, fontSize=11, limit=LABEL, color=ACCENT, fontWeight="bold"
            )
            .encode(x=x, y=y, text="model:N"),
        ]
    title = title_of("error among the rows kept, as trained", offset=12)
    chart = alt.layer(*layers).add_params(alt.param(name="arm", value=arm))
    chart = chart.properties(width=474 - LABEL, height=250, title=title)
    return finish(chart, left=LEFT, right=LABEL + 10, top=30, bottom=44)


def curve_data(curves: dict[str, Rows]) -> dict[str, Rows]:
    """Rows of :func:`softhot.plots.prepare_curves` in the units shown, with their texts."""

    def told(row: dict[str, Any], field: str, low: str, high: str) -> str:
        metric, signed = row["metric"], field == "change"
        amount = words.quantity(metric, row[field], change=signed)
        interval = words.interval(metric, row[low], row[high], signed=signed)
        return f"{row['arm']}, {words.COLUMNS[row['column']]}: {amount} {interval}".strip()

    numbers = ("value", "low", "high", "change", "change_low", "change_high")

    def shown(row: dict[str, Any]) -> dict[str, Any]:
        factor = words.factor(row["metric"])
        return {k: v * factor if k in numbers and v is not None else v for k, v in row.items()}

    texts = {
        "means": lambda row: {
            "value_text": told(row, *numbers[:3]),
            "change_text": told(row, *numbers[3:]),
        },
        "labels": lambda row: {"text": words.COLUMNS[row["column"]]},
        "seeds": lambda row: {},
        "bands": lambda row: {},
    }
    return {
        name: rounded([shown(row) | texts[name](row) for row in rows])
        for name, rows in curves.items()
    }


def bin_data(rows: Rows) -> dict[str, Rows]:
    """Rows of :func:`softhot.plots.prepare_reliability` with bars a hair apart, and their texts."""
    bins = [
        {
            "from": row["lower"] + 0.005,
            "to": row["upper"] - 0.005,
            "share": row["share"],
            "confidence": row["confidence"],
            "accuracy": row["accuracy"],
            "text": f"confidence {words.percent(row['confidence'], 1)}, accuracy "
            f"{words.percent(row['accuracy'], 1)}, {words.percent(row['share'], 1)} of rows",
        }
        for row in rows
    ]
    return {"bins": rounded(bins)}


def risk_data(curves: dict[str, Rows], styles: Sequence[tuple[str, str, float]]) -> dict[str, Rows]:
    """Rows of :func:`softhot.plots.prepare_risk_coverage` with the looks of their lines.

    ``styles`` gives each model's name, colour and line width; later ones lie on top. A model's
    number is its place in ``curves``.
    """
    numbers = {row["model"]: number for number, row in enumerate(curves["labels"])}
    looks = {
        name: {"number": numbers[name], "colour": colour, "width": width}
        for name, colour, width in styles
    }
    shown = {
        part: [row | looks[name] for name in looks for row in rows if row["model"] == name]
        for part, rows in curves.items()
    }
    for row in shown["labels"]:  # text must be darker than a line to be seen as well
        row["colour"] = MUTED if row["colour"] == OTHER else row["colour"]
    return {part: rounded(rows) for part, rows in shown.items()}


def static_svg(spec: Spec, data: dict[str, Rows]) -> str:
    """The chart as an SVG picture, drawn without a browser."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg({**spec, "datasets": data}, allowed_base_urls=[])
    svg = re.sub("<[^>]*>", lambda tag: _shorter(tag[0]), svg)  # names are text, never in a tag
    return svg.replace("<svg ", f'<svg aria-hidden="true" font-family="{FONT}" ', 1)


def _shorter(tag: str) -> str:
    """A tag of a picture, as short as it draws the same."""
    if _UNSEEN.fullmatch(tag):
        return ""
    return _LONG.sub(
        lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), _IDLE.sub("", tag)
    )


@functools.cache
def javascript() -> str:
    """Vega, Vega-Lite and vega-embed as one script that needs nothing else."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"(() => {{{bundle}}})();"


def _scale(mapping: dict[str, Any]) -> Any:
    import altair as alt

    return alt.Scale(domain=list(mapping), range=list(mapping.values()))


def share_axis(channel: Any, field: str, title: str | None = None, labels: bool = True) -> Any:
    """A small axis from 0 to 100 %, the same in all small multiples."""
    import altair as alt

    axis = alt.Axis(
        title=title,
        labels=labels,
        grid=channel is alt.Y,
        values=[0, 0.5, 1],
        format=".0%",
        labelExpr=SPACED,
        labelFlush=False,
        labelFontSize=9.5,
        titleFontSize=9.5,
        labelPadding=3,
        titlePadding=4,
    )
    return channel(f"{field}:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=axis)


def title_of(text: Any, offset: int, dx: int = -LEFT, **style: Any) -> Any:
    """What the y axis shows, level and at the left edge rather than on its side."""
    import altair as alt

    return alt.TitleParams(text=text, frame="group", offset=offset, dx=dx, **style)


def finish(chart: Any, **padding: int) -> Spec:
    """The chart with its padding, in the style of all, as a specification."""
    import altair as alt

    with alt.data_transformers.enable(consolidate_datasets=False):
        spec = (
            chart.properties(padding=padding, autosize=alt.AutoSizeParams(type="none"))
            .configure(**CONFIG)
            .to_dict(validate=VALIDATED)
        )
    del spec["$schema"]  # an address, and nothing reads it: the page says that it is Vega-Lite
    return spec


def rounded(rows: Rows) -> Rows:
    """Five digits draw the same picture and make a smaller page."""
    return [
        {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]
