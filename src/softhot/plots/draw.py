"""The figures in matplotlib: labelled where they are, in colours that all readers tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from softhot.core.check import InputError, OneOf
from softhot.metrics import METRICS, Predictions
from softhot.plots import curves, prepare

if TYPE_CHECKING:
    from softhot.core.rule import Rule
    from softhot.studies.compare import Comparison

Axes = Any  # matplotlib.axes.Axes, whose hints want a cast at every other call

# Okabe and Ito's palette, its yellow left out, which no line in it can be seen by.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", "-.", ":")  # so that lines are told apart without colour, too
MARKERS = ("o", "D", "s", "^", "v", "P", "X")
MUTED, RULE, SHADE = "#59616b", "#dfe3e6", "#eceff1"
COLUMNS = {"raw": "as trained", "scaled": "after scaling", "both": "scaled or not"}
PERCENT = "\N{NARROW NO-BREAK SPACE}%"
SHARES = ("accuracy", "ece", "ece_mass", "gap", "confidence")  # read as per cent


def plot_confidence(models: prepare.Models, bins: int = 25, *, ax: Axes | None = None) -> Axes:
    """Draw :func:`prepare_confidence`: one outline a model, its wrong rows filled."""
    rows = prepare.prepare_confidence(models, bins)
    ax = _axes(ax)
    for i, name in enumerate(dict.fromkeys(row["model"] for row in rows)):
        own = [row for row in rows if row["model"] == name]
        edges = [row["lower"] for row in own] + [1.0]
        wrong = np.array([row["wrong"] for row in own])
        total = wrong + [row["right"] for row in own]
        style = {"color": COLOURS[i % len(COLOURS)], "label": _plain(name)}
        ax.stairs(wrong, edges, fill=True, alpha=0.45, color=style["color"])
        ax.stairs(total, edges, linewidth=1.8, linestyle=DASHES[i % len(DASHES)], **style)
    _percent(ax.xaxis)
    # A square root, or nearly all rows in one bin would hide the wrong ones.
    ax.set_yscale("function", functions=(_root, np.square))
    top = ax.get_ylim()[1]
    ticks = [t for t in (0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1) if t < 1.1 * top]
    ax.set_yticks(ticks, [f"{100 * t:g}{PERCENT}" for t in ticks])
    ax.set(xlim=(0, 1), ylim=(0, top), xlabel="confidence")
    ax.set_ylabel("share of rows (square-root scale)")
    _legend(ax, "filled: predicted wrong")
    return ax


def plot_softmax(
    models: prepare.Models,
    row: int,
    class_names: Sequence[str] | None = None,
    most: int = 6,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw :func:`prepare_softmax` of one row: a group of bars a class, the true one in bold."""
    rows = prepare.prepare_softmax(models, [row], class_names, most)
    names = list(dict.fromkeys(r["model"] for r in rows))
    classes = list(dict.fromkeys((r["class"], r["name"], r["true"]) for r in rows))
    ax = _axes(ax, height=1.1 + len(classes) * (0.12 + 0.14 * len(names)))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        heights = [r["probability"] for r in rows if r["model"] == name]
        at = np.arange(len(classes)) + (i - (len(names) - 1) / 2) * width
        bars = ax.barh(
            at, heights, width * 0.92, color=COLOURS[i % len(COLOURS)], label=_plain(name)
        )
        # Narrow bars are also told by a number, which no colour is needed for.
        texts = [f"{100 * h:.0f}{PERCENT}" if h >= 0.005 else "" for h in heights]
        ax.bar_label(bars, texts, padding=3, fontsize=8, color=MUTED)
    ax.set_yticks(range(len(classes)), [_plain(name) for _, name, _ in classes])
    for label, (_, _, true) in zip(ax.get_yticklabels(), classes, strict=True):
        label.set_fontweight("bold" if true else "normal")
    _percent(ax.xaxis)
    ax.set(xlim=(0, 1.1), xlabel="probability")
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    true = next((name for _, name, is_true in classes if is_true), "")
    ax.set_title(f"row {row}, truly {_plain(true)}", loc="left", fontsize=10, color=MUTED)
    _legend(ax)
    return ax


def plot_reliability(
    predictions: Predictions | Sequence[Predictions],
    bins: int = 15,
    *,
    class_id: int | None = None,
    draws: int = 200,
    label: str = "",
    colour: str = COLOURS[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw :func:`prepare_reliability`, with the histogram of confidence under it.

    The grey bars are where 95 of 100 calibrated models would lie: a disc outside of its bar is
    off by more than chance. Discs have the area of their bin's share of rows.
    """
    rows = prepare.prepare_reliability(predictions, bins, class_id=class_id, draws=draws)
    ax = _axes(ax, width=4.2, height=4.6)
    x, y = (np.array([row[k] for row in rows]) for k in ("confidence", "accuracy"))
    ax.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color=MUTED)
    if draws:
        width = 0.8 / bins
        low, high = (np.array([row[k] for row in rows]) for k in ("low", "high"))
        band = ax.bar(x, high - low, width, low, color="#c4cad0", linewidth=0, zorder=1.5)
        band.set_label("calibrated, 95 % of the time")
    ax.vlines(x, x, y, color=colour, linewidth=1.5)
    sizes = 14 + 220 * np.array([row["share"] for row in rows])
    ax.scatter(x, y, sizes, color=colour, edgecolor="white", linewidth=0.8, zorder=3)
    ax.plot([], [], "o", color=colour, label=_plain(label) or "bins of rows")
    what = "confidence" if class_id is None else f"probability of class {class_id}"
    ax.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    ax.set_ylabel("accuracy" if class_id is None else f"share of class {class_id}")
    ax.tick_params(labelbottom=False)
    _percent(ax.yaxis)
    _legend(ax, loc="lower left", above=True)
    below = ax.inset_axes((0, -0.3, 1, 0.24), sharex=ax)
    _style(below)
    lower = np.array([row["lower"] for row in rows])
    share = [row["share"] for row in rows]
    below.bar(lower, share, 1 / bins, align="edge", color=colour, alpha=0.75, edgecolor="white")
    below.set(xlabel=what, ylabel="rows")
    below.tick_params(labelbottom=True)
    _percent(below.xaxis)
    _percent(below.yaxis)
    return ax


def plot_curve(comparison: Comparison, metric: str = "nll", *, ax: Axes | None = None) -> Axes:
    """Draw one metric of :func:`prepare_curves` against alpha, as trained and after scaling.

    Thin lines are seeds, thick ones their mean, bars its 95 % interval. The axis of alpha is a
    square root, on which 0 has a place and small weights have room.
    """
    OneOf(*METRICS).check("metric", metric)
    found = curves.prepare_curves(comparison)
    factor = 100 if metric in SHARES else 1
    unit = ("points" if metric == "gap" else "%") if factor == 100 else METRICS[metric].unit
    ax = _axes(ax, width=6.4)
    columns = dict.fromkeys(r["column"] for r in found["means"] if r["metric"] == metric)
    for i, column in enumerate(columns):
        colour = {"raw": COLOURS[1], "scaled": COLOURS[0]}.get(column, "#16191d")
        means, seeds, ends = (
            [r for r in found[part] if (r["metric"], r["column"]) == (metric, column)]
            for part in ("means", "seeds", "labels")
        )
        for seed in dict.fromkeys(r["seed"] for r in seeds):
            line = [(r["alpha"], factor * r["value"]) for r in seeds if r["seed"] == seed]
            ax.plot(*zip(*line, strict=True), color=colour, linewidth=0.7, alpha=0.3)
        x, y = (np.array([r[k] for r in means]) for k in ("alpha", "value"))
        y = factor * y
        ax.plot(x, y, MARKERS[i] + "-", color=colour, linewidth=2, markeredgecolor="white")
        for r in means:
            if r["low"] is not None:
                ends_of = [factor * r["low"], factor * r["high"]]
                ax.plot([r["alpha"]] * 2, ends_of, color=colour, linewidth=4, alpha=0.35)
        for end in ends:
            text = ax.annotate(
                COLUMNS[column],
                (end["alpha"], factor * end["value"]),
                (10, 0),
                textcoords="offset points",
                color=colour,
                va="center",
                fontsize=9,
                fontweight="bold",
            )
            text.set_in_layout(True)
    ax.set_xscale("function", functions=(_root, np.square))
    alphas = [arm.alpha for arm in comparison.curve if arm.alpha is not None]
    ax.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
    ax.set_xlim(0, max(alphas) * 1.03)
    for line in ax.lines:
        line.set_clip_on(False)
    ax.set(xlabel="smoothing weight alpha (square-root scale)")
    ax.set_ylabel(METRICS[metric].label + (f", {unit}" if unit else ""))
    return ax


def plot_risk_coverage(
    models: prepare.Models, points: int = 100, start: float = 0.1, *, ax: Axes | None = None
) -> Axes:
    """Draw :func:`prepare_risk_coverage`: the lower a line, the better its confidence ranks."""
    found = prepare.prepare_risk_coverage(models, points, start)
    ax = _axes(ax, width=6.4)
    for i, end in enumerate(found["labels"]):
        line = [(r["coverage"], r["risk"]) for r in found["lines"] if r["model"] == end["model"]]
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        ax.plot(*zip(*line, strict=True), color=colour, linestyle=dash, linewidth=1.8)
        ax.annotate(
            _plain(end["model"]),
            (1, end["risk"]),
            (8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
            fontweight="bold",
        )
    _percent(ax.xaxis)
    _percent(ax.yaxis, digits=1)
    ax.set(xlim=(0, 1), ylim=(0, None))
    ax.set(xlabel="share of rows kept, most confident first", ylabel="error among the rows kept")
    return ax


def plot_plane(
    features: Any,
    labels: Any,
    weights: Any,
    classes: Sequence[int],
    bias: Any = None,
    class_names: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw :func:`prepare_plane`: rows as points, the three templates as a triangle."""
    found = prepare.prepare_plane(features, labels, weights, classes, bias, class_names)
    ax = _axes(ax, width=5, height=4.6)
    corners = [(c["x"], c["y"]) for c in found["corners"]]
    ax.plot(*zip(*corners, corners[0], strict=True), color=MUTED, linewidth=1, zorder=1)
    for i, corner in enumerate(found["corners"]):
        own = [(p["x"], p["y"]) for p in found["points"] if p["class"] == corner["class"]]
        style = {"color": COLOURS[i], "marker": MARKERS[i]}
        if own:
            points: Any = np.array(own).T
            ax.scatter(
                *points, s=14, alpha=0.55, linewidth=0, label=_plain(corner["name"]), **style
            )
        ax.scatter(corner["x"], corner["y"], s=90, edgecolor="black", zorder=3, **style)
    ax.set(aspect="equal", xlabel="in the plane of the templates; their first side is 1 long")
    _legend(ax, "large: template\nof the class", loc="upper left", beside=True)
    return ax


def plot_loss(
    rules: Mapping[str, Rule] | None = None, num_classes: int = 10, *, ax: Axes | None = None
) -> Axes:
    """Draw the loss of :func:`prepare_loss`; a dot marks where it is lowest."""
    return _loss(rules, num_classes, "loss", "loss, nats", ax)


def plot_gradient(
    rules: Mapping[str, Rule] | None = None, num_classes: int = 10, *, ax: Axes | None = None
) -> Axes:
    """Draw the gradient of :func:`prepare_loss`; where it crosses 0, training stops."""
    ax = _loss(rules, num_classes, "gradient", "gradient of the true class's logit", ax)
    ax.axhline(0, color=MUTED, linewidth=1, zorder=1)
    return ax


def _loss(
    rules: Mapping[str, Rule] | None, num_classes: int, field: str, label: str, ax: Axes | None
) -> Axes:
    rows = prepare.prepare_loss(rules, num_classes, points=999)
    ax = _axes(ax)
    for i, name in enumerate(dict.fromkeys(row["rule"] for row in rows)):
        own = [row for row in rows if row["rule"] == name]
        x, y = (np.array([row[k] for row in own]) for k in ("probability", field))
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        ax.plot(x, y, color=colour, linestyle=dash, linewidth=1.8, label=_plain(name))
        least = int(np.argmin([row["loss"] for row in own]))
        if 0 < least < len(own) - 1:
            ax.plot(x[least], y[least], "o", color=colour, markeredgecolor="white")
    _percent(ax.xaxis)
    ax.set(xlim=(0, 1), xlabel="predicted probability of the true class", ylabel=label)
    if field == "loss":
        ax.set_ylim(0, None)
    title = f"{num_classes} classes; dots: the optimum"
    _legend(ax, title)
    return ax


# --- What all of them share --------------------------------------------------------------------


def _axes(ax: Axes | None, width: float = 5.6, height: float = 3.8) -> Axes:
    if ax is None:
        pyplot = _matplotlib()
        _, ax = pyplot.subplots(figsize=(width, height), layout="constrained")
    elif not hasattr(ax, "plot"):
        raise InputError("ax", "matplotlib axes, or None for a figure of its own", ax)
    _style(ax)
    return ax


def _matplotlib() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        hint = "pip install 'softhot[plots]'"
        raise InputError("the package matplotlib", "installed to draw", "missing", hint) from error
    return pyplot


def _style(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(RULE)
    ax.tick_params(color=RULE, labelcolor=MUTED, labelsize=9)
    ax.xaxis.label.set(color=MUTED, fontsize=10)
    ax.yaxis.label.set(color=MUTED, fontsize=10)
    ax.grid(visible=True, color=RULE, linewidth=0.7)
    ax.set_axisbelow(True)


def _legend(
    ax: Axes, title: str = "", loc: str = "best", *, above: bool = False, beside: bool = False
) -> None:
    outside = {"bbox_to_anchor": (1.0, 1.0) if beside else (0.0, 1.0)} if above or beside else {}
    style = {"frameon": False, "fontsize": 9, "title": title or None, "title_fontsize": 9}
    legend = ax.legend(loc=loc, **style, **outside)
    legend.get_title().set_color(MUTED)
    legend.set_alignment("left")


def _percent(axis: Any, digits: int | None = 0) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=digits, symbol=PERCENT))


def _root(values: Any) -> Any:
    return np.sqrt(np.maximum(values, 0))


def _plain(name: Any) -> str:
    """A name as text: matplotlib would read what stands between two dollars as mathematics."""
    return str(name).replace("$", r"\$")
