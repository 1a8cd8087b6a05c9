"""The page as an object: parts are added, then one template makes the HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from softhot import plots
from softhot.core.check import InputError
from softhot.metrics import METRICS, LastLayer, Predictions
from softhot.report import linked, panels, words
from softhot.report.charts import (
    bin_data,
    histogram_chart,
    javascript,
    reliability_chart,
    risk_chart,
    risk_data,
    static_svg,
)
from softhot.report.harm import worst_first

ROWS = 40  # of each class in the plane of templates
KEPT = 0.8  # the coverage at which the finding over the risk-coverage curve is stated

# The chart library is read by an HTML parser first; these three would end or confuse its script.
_MARKUP = re.compile(r"<(?=/script|script|!--)", re.IGNORECASE)


@dataclass
class Page:
    """What the template shows; a part left empty is left out."""

    kind: str
    title: str
    subtitle: str
    headline: str
    sentences: Sequence[str]
    decision: str = ""
    notes: Sequence[str] = ()
    figures: Sequence[Mapping[str, Any]] = ()
    advice: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, Any] | None = None
    examples_finding: str = ""
    examples: Sequence[Mapping[str, Any]] = ()
    linked: Mapping[str, Any] | None = None
    reliability_finding: str = ""
    arms: int = 0  # of the study, of which the page may offer fewer
    tiles: list[dict[str, Any]] = field(default_factory=list)
    risk_finding: str = ""
    risk_text: str = ""
    league: Mapping[str, Any] | None = None
    classes: Mapping[str, Any] | None = None
    distillation: str = ""
    planes: Mapping[str, Any] | None = None
    tables: Sequence[Mapping[str, Any]] = ()
    failed: Sequence[Mapping[str, str]] = ()
    command: str = ""
    settings: str = ""
    provenance: Sequence[tuple[str, Sequence[str]]] = ()
    download: Mapping[str, str] | None = None
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    specs: list[dict[str, Any]] = field(default_factory=list)
    datasets: list[dict[str, list]] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)

    def add_chart(self, name: str, spec: dict[str, Any], data: dict[str, plots.Rows]) -> None:
        """Add a chart. Specifications and data that occur again are written into the page once."""
        data = {part: [_printable_in(row) for row in rows] for part, rows in data.items()}
        self.pictures[name] = static_svg(spec, data)
        self.charts[name] = {
            "spec": _place(self.specs, spec),
            "data": {part: _place(self.datasets, _columns(rows)) for part, rows in data.items()},
        }

    def add_tiles(
        self,
        model: str,
        columns: Mapping[str, tuple[Sequence[Predictions], Mapping[str, float]]],
        *,
        temperature: float | None,
        marks: Sequence[tuple[str, str]] = (),
        chosen: bool = False,
    ) -> None:
        """Add a model's reliability diagrams: its predictions and scores by column."""
        figures = []
        for column, (predictions, scores) in columns.items():
            rows = plots.prepare_reliability(predictions)
            name = f"{len(self.tiles)}-{column}"
            bins = bin_data(rows)
            self.add_chart(f"reliability-{name}", reliability_chart(column), bins)
            self.add_chart(f"histogram-{name}", histogram_chart(column), bins)
            figures.append(
                {
                    "name": name,
                    "column": column,
                    "temperature": temperature if column == "scaled" else None,
                    "ece": words.quantity("ece", scores["ece"]),
                    "gap": words.quantity("gap", scores["gap"]),
                    "reliability": words.reliability_text(model, column, rows),
                    "histogram": words.histogram_text(model, column, rows),
                }
            )
        self.tiles.append({"model": model, "marks": marks, "chosen": chosen, "figures": figures})

    def add_risk(
        self,
        styles: Sequence[tuple[str, str, float]],
        data: dict[str, plots.Rows],
        kept: float,
        arm: int | None = None,
    ) -> dict[str, float]:
        """Add the risk-coverage curve; returns each model's error at coverage ``kept``."""
        self.add_chart("risk", risk_chart(arm), risk_data(data, styles))
        at = {(row["model"], row["coverage"]): row["risk"] for row in data["lines"]}
        models = list(dict.fromkeys(row["model"] for row in data["lines"]))
        self.risk_text = "Error among the rows kept, by share kept: " + "; ".join(
            f"{name} "
            + ", ".join(
                f"{words.percent(c)}: {words.percent(at[name, c], 2)}" for c in (0.5, 0.8, 0.9, 1.0)
            )
            for name in models
        )
        return {name: at[name, kept] for name in models}

    def add_linked(self, found: Mapping[str, Any], arm: int) -> None:
        """Add the reliability panels of :func:`softhot.report.linked.prepare_linked`."""
        columns = []
        for i, remedy in enumerate(found["remedies"]):
            colour = panels.REMEDY_COLOURS[i]
            for part, klass, bins in (("top", None, linked.BINS), ("each", 0, linked.CLASS_BINS)):
                data = panels.linked_data(found[part][remedy], bins)
                diagram = panels.linked_diagram(arm, klass, colour, bins)
                self.add_chart(f"linked-{part}-{i}", diagram, data)
                histogram = panels.linked_histogram(arm, klass, colour, bins)
                self.add_chart(f"linked-{part}-{i}-bars", histogram, data)
            texts = [
                words.reliability_text(
                    name, remedy, [row for row in found["top"][remedy] if row["arm"] == number]
                )
                for number, name in enumerate(found["arms"])
            ]
            columns.append(
                {
                    "number": i,
                    "remedy": remedy,
                    "colour": colour,
                    "scores": [scores[remedy] for scores in found["scores"]],
                    "texts": texts,
                }
            )
        self.linked = {
            "arms": found["arms"],
            "classes": found["classes"],
            "columns": columns,
            "arm": arm,
        }

    def add_classes(
        self,
        arms: Sequence[str],
        changes: Sequence[Sequence[Mapping[str, Any]]],
        findings: Sequence[str],
        arm: int,
    ) -> None:
        """Add the change of every class's recall in each arm, from the first one's."""
        shown = [worst_first(rows) for rows in changes]
        data = panels.classes_data(shown)
        self.add_chart("classes", panels.classes_chart(data["classes"], len(shown[0]), arm), data)
        texts = [words.classes_text(name, rows) for name, rows in zip(arms, shown, strict=True)]
        self.classes = {"findings": findings, "texts": texts, "arm": arm}

    def add_planes(
        self,
        models: Mapping[str, Predictions],
        layers: Mapping[str, LastLayer | None],
        arm: int,
        class_names: Sequence[str] | None,
    ) -> None:
        """Add the plane of three classes' templates: of the first model, and of the one followed.

        It is that of their logits unless the last layers of all models are known and have one.
        """
        if None in layers.values():
            layers = {}
        try:
            found = _planes(models, layers, class_names)
        except InputError:  # templates on one line have no plane
            layers = {}
            found = _planes(models, layers, class_names)
        names = [corner["name"] for corner in found[0]["corners"]]
        data: dict[str, plots.Rows] = {"points": [], "corners": []}
        for number, plane in enumerate(found):
            for part, rows in plane.items():
                data[part] += [
                    {"number": number, "name": row["name"]}
                    | {axis: round(row[axis], 3) for axis in ("x", "y")}
                    for row in rows
                ]
        reach = 1.05 * max(max(abs(row["x"]), abs(row["y"])) for row in data["points"])
        reach = min(reach, panels.REACH)
        own = {part: [row for row in rows if row["number"] == 0] for part, rows in data.items()}
        self.add_chart("plane-0", panels.plane_chart(names, reach, None), own)
        self.add_chart("plane-1", panels.plane_chart(names, reach, arm), data)
        self.planes = {
            "exact": bool(layers),
            "text": f"{'Penultimate activations' if layers else 'Logits'} of "
            f"{words.joined(names)}, one point a test row",
            "names": list(models),
            "arm": arm,
        }

    def html(self) -> str:
        """The finished page."""
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup

        environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=printable,
        )
        environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
        environment.filters["prose"] = _prose
        library = _MARKUP.sub(r"\\x3c", javascript())
        script = _read("page.js")
        return (
            environment.from_string(_read("page.html.j2")).render(
                page=self,
                pictures={name: Markup(svg) for name, svg in self.pictures.items()},
                data={"charts": self.charts, "specs": self.specs, "datasets": self.datasets},
                style=Markup(_read("style.css")),
                scripts=[Markup(library), Markup(script)],
                policy=_policy([library, script]),
                columns=words.COLUMNS,
                remedies=words.REMEDIES,
                actions=words.ACTIONS,
                verdict=_split(self.headline, self.decision),
                definitions=[
                    (words.short(name), METRICS[name].label, words.definition(name))
                    for name in METRICS
                ],
            )
            + "\n"
        )


def printable(value: Any) -> Any:
    r"""Text in which what cannot be seen is spelled out; anything else as it is.

    Control characters, marks that turn the direction of writing, halves of surrogate pairs: in a
    name they mislead the reader or break the file.

    >>> printable("a\x00b\u202ec")
    'a\\u0000b\\u202ec'
    """
    if type(value) is not str:  # Markup is the page's own
        return value
    return "".join(
        c if c.isprintable() or c in "\n\u00a0\u202f" else f"\\u{ord(c):04x}" for c in value
    )


def _split(headline: str, otherwise: str) -> tuple[str, str]:
    """A headline as its answer and its reason: "Do not smooth: ..." is one of each."""
    answer, colon, reason = headline.partition(": ")
    if not colon or len(answer) > 60:
        answer, reason = otherwise, headline
    return answer[:1].upper() + answer[1:], reason[:1].upper() + reason[1:]


def _prose(sentence: str) -> Any:
    """A sentence with what stands in `backticks` set as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(printable(sentence)))))


def _planes(
    models: Mapping[str, Predictions],
    layers: Mapping[str, LastLayer | None],
    class_names: Sequence[str] | None,
) -> list[dict[str, plots.Rows]]:
    """Every model's plane of the three classes that the first confuses most."""
    found: list[dict[str, plots.Rows]] = []
    for name, one in models.items():
        classes = [corner["class"] for corner in found[0]["corners"]] if found else None
        layer = layers.get(name)
        found.append(plots.prepare_logit_plane(one, classes, class_names, ROWS, layer))
    return found


def _columns(rows: plots.Rows) -> dict[str, list]:
    """Rows as columns, which name each field once; the page's script makes rows of them again."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _place(pool: list, item: Any) -> int:
    """Where ``item`` is in ``pool``, added if it was not."""
    if item not in pool:
        pool.append(item)
    return pool.index(item)


def _printable_in(row: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) for name, value in row.items()}


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy: these scripts, inline styles, and nothing from anywhere."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
