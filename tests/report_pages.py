"""Pages for the tests of the report, and how a test reads them."""

import re
from html.parser import HTMLParser

import numpy as np

from softhot import report
from softhot.calibration import apply_temperature
from softhot.metrics import METRICS
from softhot.studies.store import Failure
from test_plots import study

LIMIT = 2_000_000  # bytes
HOSTILE = (
    '</script><script>window.pwned = 1</script><!--<img src="//evil.example/x" onerror="pwned=2">'
    "'\"&amp;{{7*7}}{% raw %}${pwned}`\x00\u202e\ud800𝛼"
)
VOID = {"meta", "link", "br", "input", "img", "wbr"}
IMAGES = np.arange(60 * 64, dtype=np.float32).reshape(60, 1, 8, 8)


def study_page():
    comparison, records = study()
    return report.render(
        comparison,
        records,
        command="softhot study digits --alphas 0.1,0.3 --seeds 4",
        versions={"softhot": "0.1.0", "altair": "6"},
        split_digest=records[0].split,
        inputs=IMAGES,
        class_names=("zero", "one", "two"),
    )


def hostile_study():
    """Methods, texts and class names that want to be markup, and everything that can go wrong."""
    comparison, records = study(methods=("uniform", "dropout"), settings={"dropout": [0.2, 0.5]})
    return report.render(
        comparison,
        records,
        command="c",
        versions={},
        split_digest=HOSTILE,
        inputs=[HOSTILE * 5] * 60,
        class_names=(HOSTILE, "a{b}", "$c$"),
        failed=[Failure(trial, f"ValueError: {HOSTILE}") for trial in comparison.spec.trials()[:2]],
        reused=3,
    )


def large_page():
    """A study of more arms than any part of the page may grow with."""
    alphas = tuple(round(0.49 * i / 70, 4) for i in range(1, 71))
    comparison, records = study(alphas, seeds=4)
    failed = [Failure(trial, "ValueError: no") for trial in comparison.spec.trials()]
    return report.render(
        comparison,
        records,
        command="c",
        versions={},
        split_digest="d",
        inputs=IMAGES,
        class_names=("zero", "one", "two"),
        failed=failed,
    )


def judgement_page():
    _, records = study(seeds=2)
    return report.render_judgement(
        HOSTILE,
        {HOSTILE: records[0].test, "field.with[brackets]": records[1].test},
        [f"Overconfident: {HOSTILE}", HOSTILE],
        scaled={HOSTILE: apply_temperature(records[0].test, 0.5)},
        temperatures={HOSTILE: 0.5},
        intervals={HOSTILE: {"accuracy": (0.2, 0.31)}},
        notes=[HOSTILE],
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
    )


class Tree(HTMLParser):
    """Reads a page as a browser does and refuses tags that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.tables, self.scripts, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] != ["style"]:
            self.text.append(data)
            if {"td", "th"} & set(self.open):
                self.tables[-1][-1][-1] += data


def metric_tables(html):
    """The tables of every arm and metric."""
    return [rows for rows in Tree(html).tables if len(rows[0]) > len(METRICS)]


def without_scripts(html):
    return re.sub(r"<script.*?</script>", "", html, flags=re.S)


def attributes(tree, name):
    return [attrs[name] for _, attrs in tree.tags if name in attrs]


def plain(text):
    return " ".join(text.split())


def texts(html):
    return plain(" ".join(Tree(html).text))


ROUNDED = {  # as a reader expects them: factor, decimals
    "accuracy": (100, 2),
    "nll": (1, 3),
    "brier": (1, 3),
    "ece": (100, 1),
    "ece_mass": (100, 1),
    "gap": (100, 1),
    "confidence": (100, 1),
    "aurc": (1, 4),
}


def as_read(name, value, signed=False):
    factor, digits = ROUNDED[name]
    rounded = round(factor * value, digits) + 0.0
    sign = "+" if signed and rounded else ""
    return f"{rounded:{sign}.{digits}f}".replace("-", "−")
