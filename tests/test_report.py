"""The page: right numbers, one file, no network, no foreign markup; seen by a real browser."""

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot

from softhot import plots, report
from softhot.advice import advise
from softhot.calibration import Desmoothing, Temperature, VectorScaling, apply_temperature
from softhot.core.check import InputError
from softhot.metrics import METRICS, Predictions, nll, score
from softhot.report import examples, harm, words
from softhot.report.alerts import alerts
from test_plots import study

BROWSER = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LIMIT = 2_000_000  # bytes
HOSTILE = (
    '</script><script>window.pwned = 1</script><!--<img src="//evil.example/x" onerror="pwned=2">'
    "'\"&amp;{{7*7}}{% raw %}${pwned}`\x00\u202e\ud800𝛼"
)
VOID = {"meta", "link", "br", "input", "img"}


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
        failed=2,
        reused=3,
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


@pytest.fixture(scope="module")
def comparison():
    return study()[0]


@pytest.fixture(scope="module")
def page():
    return study_page()


@pytest.fixture(scope="module")
def hostile():
    return judgement_page()


@pytest.fixture(scope="module")
def hostile_methods():
    return hostile_study()


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


# --- Numbers -----------------------------------------------------------------------------------

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


def test_tables_hold_every_arm_and_metric_with_the_right_numbers(page, comparison):
    assert set(ROUNDED) == set(METRICS)
    tables = metric_tables(page)
    assert len(tables) == 2
    for rows, column in zip(tables, ("raw", "scaled"), strict=True):
        lead = 1 + (column == "scaled")  # the arm, and T
        assert len(rows[0]) == lead + len(METRICS)
        assert [row[0].split("  ")[0].strip() for row in rows[1:]] == [
            arm.name + (f" {'chosen'}" if arm.name == comparison.chosen else "")
            for arm in comparison.arms
        ]
        for row, arm in zip(rows[1:], comparison.arms, strict=True):
            if column == "scaled":
                assert row[1] == f"{arm.temperature.mean:.2f}"
            for cell, name in zip(row[lead:], METRICS, strict=True):
                mean = getattr(arm, f"test_{column}")[name]
                change = getattr(arm, f"difference_{column}")[name]
                expected = [as_read(name, mean.mean, signed=name == "gap")]
                ends = mean
                if arm.alpha:
                    expected.append(as_read(name, change.mean, signed=True))
                    ends = change
                signed = bool(arm.alpha) or name == "gap"
                low, high = (as_read(name, end, signed) for end in (ends.low, ends.high))
                expected += [f"[{low},", f"{high}]"]
                found = [word for word in cell.split() if word not in ("better", "worse")]
                assert found == expected, (arm.name, column, name)


def test_better_and_worse_stand_where_the_interval_excludes_0(page, comparison):
    rows = metric_tables(page)[0]
    for row, arm in zip(rows[1:], comparison.arms, strict=True):
        for cell, (name, metric) in zip(row[1:], METRICS.items(), strict=True):
            change = arm.difference_raw[name]
            good = {"high": change.low > 0, "low": change.high < 0}.get(metric.best, False)
            bad = {"high": change.high < 0, "low": change.low > 0}.get(metric.best, False)
            assert ("better" in cell, "worse" in cell) == (good, bad)


def test_verdict_provenance_and_every_curve_are_told(page, comparison):
    text = " ".join(" ".join(Tree(page).text).split())
    answer, _, reason = comparison.verdict.headline.partition(": ")
    assert answer[1:] in text
    assert reason[1:] in text
    for sentence in comparison.verdict.sentences:
        assert sentence in text
    for fact in ("ab" * 32, comparison.spec.digest, "--alphas 0.1,0.3", "torch 2", "altair 6"):
        assert fact in text
    assert "0, 1, 2, 3" in text
    for line in comparison.spec.to_toml().splitlines():
        assert line in text
    for name in METRICS:
        finding = words.curve_finding(name, comparison.arms[0], plots.focus(comparison))
        assert " ".join(finding.split()) in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_study_of_few_seeds_has_a_page_without_intervals(seeds):
    found, records = study(seeds=seeds)
    html = report.render(found, records, command="c", versions={}, split_digest="d")
    rows = metric_tables(html)[0]
    assert not any("[" in cell or "better" in cell for row in rows for cell in row)
    assert "nan" not in " ".join(Tree(html).text).lower().split()


# --- The parts of a study ----------------------------------------------------------------------


def plain(text):
    return " ".join(text.split())


def texts(html):
    return plain(" ".join(Tree(html).text))


def test_the_advice_stands_in_the_verdict(page, comparison):
    _, records = study()
    arms = {}
    for record in records:
        arms.setdefault(record.trial.arm.name, []).append(record.validation)
    found = advise({arm.name: arms[arm.name] for arm in comparison.curve})
    told = texts(page)
    for goal, one in found.items():
        assert f"If you care about {goal} {words.ACTIONS[one.action]}" in told
        assert one.temperature is None or f"T = {one.temperature:.2f}" in told


def test_examples_show_measured_probabilities_with_their_input(page, comparison):
    _, records = study()
    chosen = plots.focus(comparison).name
    by_arm = {
        name: [r.test for r in records if r.trial.arm.name == name]
        for name in (arm.name for arm in comparison.arms)
    }
    rows = examples.chosen_rows(by_arm["none"], by_arm[chosen])
    assert "A typical row" in rows
    tables = [rows for rows in Tree(page).tables if rows[0][0] == "Arm" and len(rows[0]) == 4]
    assert len(tables) == len(rows)
    for table, row in zip(tables, rows.values(), strict=True):
        assert table[0][1] == ("zero", "one", "two")[records[0].test.labels[row]]
        for line in table[1:]:
            mean = np.mean([p.probs[row] for p in by_arm[line[0]]], axis=0)
            shown = dict(zip(table[0][1:], line[1:], strict=True))
            for name, value in zip(("zero", "one", "two"), mean, strict=True):
                assert shown[name] == words.surely(value)
    before, after = (np.median([p.confidence for p in by_arm[n]]) for n in ("none", chosen))
    said = f"“{words.surely(before)} sure” becomes “{words.surely(after)} sure”"
    assert plain(said) in texts(page)
    for source, row in zip(attributes(Tree(page), "src"), rows.values(), strict=True):
        picture = pyplot.imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert np.round(255 * picture) == pytest.approx(
            np.round(255 * IMAGES[row, 0] / IMAGES.max())
        )


def test_linked_panels_hold_every_arm_before_and_after_every_remedy(page, comparison):
    _, records = study()
    data = json.loads(Tree(page).scripts[0])
    held = {(r.trial.arm.name, r.trial.seed): r for r in records}
    told = texts(page)
    for number, arm in enumerate(comparison.arms):
        own = [held[arm.name, seed] for seed in comparison.seeds]
        for i, remedy in enumerate((None, Temperature, VectorScaling, Desmoothing)):
            after = [
                r.test if remedy is None else remedy.fit(r.validation).apply(r.test) for r in own
            ]
            columns = data["datasets"][data["charts"][f"linked-top-{i}"]["data"]["bins"]]
            mine = np.array(columns["arm"]) == number
            share, stated, true = (
                np.array(columns[k])[mine] for k in ("share", "confidence", "accuracy")
            )
            assert share @ stated == pytest.approx(np.mean([p.confidence for p in after]), abs=2e-4)
            assert share @ true == pytest.approx(np.mean([p.correct for p in after]), abs=2e-4)
            said = f"NLL {words.quantity('nll', np.mean([nll(p) for p in after]))}"
            assert plain(said) in told
            each = data["datasets"][data["charts"][f"linked-each-{i}"]["data"]["bins"]]
            mine = (np.array(each["arm"]) == number) & (np.array(each["class"]) == 1)
            stated = np.array(each["share"])[mine] @ np.array(each["confidence"])[mine]
            assert stated == pytest.approx(np.mean([p.probs[:, 1] for p in after]), abs=2e-4)


def test_every_number_can_be_downloaded(page, comparison):
    (link,) = [a for t, a in Tree(page).tags if t == "a"]
    assert link["download"].endswith(".json")
    content = json.loads(base64.b64decode(link["href"].partition("base64,")[2]))
    assert content["chosen"] == comparison.chosen
    for told, arm in zip(content["arms"], comparison.arms, strict=True):
        assert told["test_scaled"]["nll"]["values"] == pytest.approx(
            arm.test_scaled["nll"].values, rel=1e-6
        )


def test_methods_are_ranked_with_corrected_p_values(hostile_methods):
    comparison, _ = study(methods=("uniform", "dropout"), settings={"dropout": [0.2, 0.5]})
    (league,) = [rows for rows in Tree(hostile_methods).tables if "Method" in rows[0][0]]
    by_nll = sorted(comparison.methods, key=lambda m: m.advantages["nll"].difference.mean)
    for row, method in zip(league[2:], by_nll, strict=True):
        assert row[0].startswith(method.name)
        assert method.chosen in row[1]
        for at, name in ((2, "accuracy"), (5, "nll")):
            found = method.advantages[name]
            assert words.number(name, found.difference.mean, signed=True) in row[at]
            assert row[at + 1] == ("< 0.001" if found.p < 0.001 else f"{found.p:.3f}")
            assert row[at + 2].strip().startswith(f"{100 * found.practical:.0f}")


def test_dangers_are_named(page, hostile_methods):
    told = texts(hostile_methods)
    assert "2 trials failed and are missing here" in told
    assert "looked at 3 times before" in told
    assert "4 seeds say little" in told
    assert "60 validation rows are few" in told
    assert "failed and" not in texts(page)
    few, records = study(seeds=1)
    html = report.render(few, records, command="c", versions={}, split_digest="d")
    assert "1 seed says little" in texts(html)


def test_an_ece_below_its_noise_is_named():
    comparison, _ = study()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 3))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    calibrated = {arm.name: [Predictions.from_logits(z, y)] for arm in comparison.arms}
    found = alerts(comparison, plots.focus(comparison), calibrated)
    assert any("below its own noise" in sentence for sentence in found)


def test_classes_that_lose_are_named():
    y = np.arange(40) % 2
    z = 3.0 * np.eye(2)[y]
    base = [Predictions.from_logits(z + 0.01 * s, y) for s in range(4)]
    hurt = z.copy()
    hurt[:20:2] *= -1  # ten of the twenty rows of class 0
    arm = [Predictions.from_logits(hurt, y)] * 4
    rows = harm.prepare_classes(base, arm, ("cat", "dog"))
    assert [(r["name"], r["change"]) for r in rows] == [("cat", -0.5), ("dog", 0.0)]
    assert harm.classes_finding(rows, "alpha = 0.1") == "Class cat loses at alpha = 0.1"
    same = harm.prepare_classes(base, base)
    assert "No single class" in harm.classes_finding(same, "alpha = 0.1")


@pytest.mark.parametrize(
    ("given", "said"),
    [({"inputs": ["a"]}, "those of the 60 test rows"), ({"class_names": "ab"}, "3 names")],
)
def test_inputs_and_names_must_fit(given, said):
    comparison, records = study(seeds=1)
    with pytest.raises(InputError, match=said):
        report.render(comparison, records, command="c", versions={}, split_digest="d", **given)


def test_findings_say_rises_falls_or_neither():
    found, _ = study()
    base, arm = found.arms[0], found.arms[2]
    told = words.curve_finding("confidence", base, arm)
    assert re.match(r"At alpha = 0\.3, confidence falls from \d+\.\d to \d+\.\d\u00a0% as tr", told)
    assert arm.difference_raw["confidence"].high < 0
    wide = study(seeds=2)[0]
    told = words.curve_finding("accuracy", wide.arms[0], wide.arms[1])
    assert "does not clearly move, from" in told
    assert "as trained" not in told  # scaling cannot change it


def test_numbers_of_other_metrics_are_shown_in_their_own_unit():
    assert words.number("nll", -0.00001, signed=True) == "0.000"
    assert words.quantity("gap", 0.0123) == "+1.2\u00a0points"
    assert words.quantity("accuracy", -0.01, change=True) == "−1.00\u00a0points"
    assert words.interval("nll", None, None) == words.interval("nll", float("nan"), 1.0) == ""
    assert words.joined(["a"]) == "a"
    assert words.joined(["a", "b", "c"]) == "a, b and c"


def test_a_judgement_shows_scores_temperatures_and_intervals(hostile):
    _, records = study(seeds=2)
    raw, scaled = Tree(hostile).tables
    assert [row[0].strip() for row in raw[1:]][1] == "field.with[brackets]"
    assert len(scaled) == 2  # one model was rescaled
    first = score(records[0].test)
    assert raw[1][1].split() == [as_read("accuracy", first["accuracy"]), "[20.00,", "31.00]"]
    assert raw[1][2].split() == [as_read("nll", first["nll"])]
    after = score(apply_temperature(records[0].test, 0.5))
    assert scaled[1][1] == "0.50"
    assert scaled[1][3].split() == [as_read("nll", after["nll"])]


def test_a_judgement_of_one_model_without_scaling():
    html = report.render_judgement(
        "t", {"m": study(seeds=1)[1][0].test}, [], command="c", versions={}
    )
    assert len(Tree(html).tables) == 1
    assert "After scaling" not in html


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": {}}, "models must be at least one"),
        ({"models": {"m": [1]}}, "must be a softhot.metrics.Predictions"),
        ({"scaled": {"x": None}}, "must be a softhot.metrics.Predictions"),
        ({"temperatures": {"x": 1.0}}, r"each name in temperatures must be one of \['m'\]"),
    ],
)
def test_a_judgement_refuses_what_it_cannot_show(change, said):
    test = Predictions.from_logits(np.eye(3), [0, 1, 2])
    given = {"models": {"m": test}, "sentences": (), "command": "c", "versions": {}} | change
    with pytest.raises(InputError, match=said):
        report.render_judgement("t", **given)


# --- One file, same bytes, no foreign markup ---------------------------------------------------


def test_the_page_nests_and_every_reference_has_its_target(page, hostile, hostile_methods):
    for html in (page, hostile, hostile_methods):
        tree = Tree(html)
        ids = attributes(tree, "id")
        assert len(ids) == len(set(ids))
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attributes(tree, name)) <= set(ids)
        tags = [tag for tag, _ in tree.tags]
        assert tags.count("h1") == tags.count("main") == 1
        assert dict(tree.tags[[t for t, _ in tree.tags].index("html")][1]) == {"lang": "en"}


def test_every_chart_has_a_description_and_a_picture(page, hostile, hostile_methods):
    for html in (page, hostile, hostile_methods):
        charts = json.loads(Tree(html).scripts[0])["charts"]
        places = [attrs for _, attrs in Tree(html).tags if "data-chart" in attrs]
        assert sorted(p["data-chart"] for p in places) == sorted(charts)
        assert all(p["role"] == "img" and len(p["aria-label"]) > 20 for p in places)
        pictures = re.findall(r"<svg .*?</svg>", without_scripts(html), re.S)
        assert len(pictures) == len(charts)
        for picture in pictures:
            root = ET.fromstring(picture)
            assert root.get("aria-hidden") == "true"
            assert not [e for e in root.iter() if e.get("id")]  # ids would clash between pictures


def test_the_page_is_small_and_asks_for_nothing(page, hostile, hostile_methods):
    for html in (page, hostile, hostile_methods):
        assert len(html.encode()) < LIMIT
        tree = Tree(html)
        assert [a for t, a in tree.tags if t == "link"] == [{"rel": "icon", "href": "data:,"}]
        assert all(src.startswith("data:image/png;base64,") for src in attributes(tree, "src"))
        assert not {t for t, _ in tree.tags} & {"iframe", "object", "embed", "base", "form"}
        markup = without_scripts(html)
        addresses = set(
            re.findall(r"(?:https?:)?//[\w.-]+", re.sub(re.escape("//evil"), "", markup))
        )
        assert addresses <= {"http://www.w3.org"}  # a namespace of SVG
        assert not re.search(r"@import|url\(", markup)
        assert "$schema" not in tree.scripts[0]


def test_only_the_page_s_own_scripts_may_run(page, hostile, hostile_methods):
    for html in (page, hostile, hostile_methods):
        tree = Tree(html)
        policy = next(a["content"] for t, a in tree.tags if a.get("http-equiv"))
        data, *code = tree.scripts
        assert len(code) == 2
        json.loads(data)
        for script in code:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe-eval" not in policy
        assert "script-src 'unsafe-inline'" not in policy
        assert not [name for _, attrs in tree.tags for name in attrs if name.startswith("on")]


def test_whatever_is_given_stays_text(hostile, hostile_methods):
    tree = Tree(hostile)
    assert "pwned" not in "".join(tree.scripts[1:])
    shown = HOSTILE.replace("\x00", r"\u0000").replace("\u202e", r"\u202e")
    shown = shown.replace("\ud800", r"\ud800")
    assert shown in tree.text  # as the title, the heading, a row, a note, the command
    assert "".join(tree.text).count(shown) >= 6
    data = json.loads(tree.scripts[0])
    assert "".join(Tree(hostile_methods).text).count(shown[:40]) >= 10
    lines = data["datasets"][data["charts"]["risk"]["data"]["lines"]]
    assert set(lines["model"]) == {shown, "field.with[brackets]"}
    hostile.encode()


def test_the_same_results_give_the_same_bytes(page, hostile):
    assert study_page() == page
    code = (
        "import hashlib, test_report as t\n"
        "for page in (t.judgement_page(), t.study_page()):\n"
        "    print(hashlib.sha256(page.encode()).hexdigest())"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [hashlib.sha256(html.encode()).hexdigest() for html in (hostile, page)]
    assert done.stdout.split() == expected


def test_importing_the_report_loads_no_drawing_library():
    code = "import sys, softhot.plots, softhot.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"altair", "vl_convert", "jinja2", "pandas", "torch", "scipy"}


def test_text_reads_on_its_paper():
    """WCAG 2: 4.5 to 1 for text; 3 to 1 for what is drawn but never written."""
    style = (Path(report.__file__).parent / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    assert len(blocks) == 2

    def luminance(colour):
        full = colour if len(colour) == 6 else "".join(2 * c for c in colour)
        parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): #([0-9a-f]{3,6});", block))
        for name in set(colours) - {"paper", "panel", "rule", "other", "band", "tint"}:
            for under in ("paper", "panel"):
                pair = sorted((luminance(colours[name]), luminance(colours[under])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, under)
        for under in ("band", "tint"):  # bars of examples lie under their numbers
            pair = sorted((luminance(colours["ink"]), luminance(colours[under])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, under


# --- Writing -----------------------------------------------------------------------------------


def test_write_replaces_the_file_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    before = os.umask(0o022)
    try:
        report.write(path, "old ä\n")
    finally:
        os.umask(before)
    assert path.read_bytes() == "old ä\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644  # others may read it, unlike a temporary file

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        report.write(path, "new")
    assert path.read_text("utf-8") == "old ä\n"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_write_names_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="path must be a file that can be written"):
        report.write(tmp_path / "no" / "page.html", "")
    with pytest.raises(InputError, match="path must be"):
        report.write(tmp_path, "")


# --- In a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    if not Path(BROWSER).exists():
        pytest.fail(f"{BROWSER} is missing: install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield browser
        browser.close()


class Visit:
    """A page in a browser, with all that it asked for and all that it complained of."""

    def __init__(self, browser, path, **settings):
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        if settings.get("java_script_enabled", True):
            self.page.wait_for_function(
                "document.querySelectorAll('[data-chart]:not([data-ready])').length === 0"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory, page, hostile, hostile_methods):
    folder = tmp_path_factory.mktemp("pages")
    report.write(folder / "study.html", page)
    report.write(folder / "hostile.html", hostile)
    report.write(folder / "methods.html", hostile_methods)
    return folder


@pytest.mark.parametrize("name", ["study.html", "hostile.html", "methods.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_draws_everything_and_asks_for_nothing(chromium, files, name, scheme, width):
    size = {"width": width, "height": 900}
    with Visit(chromium, files / name, viewport=size, color_scheme=scheme) as visit:
        assert visit.requests == [(files / name).as_uri()]
        assert visit.complaints == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.evaluate("typeof window.pwned") == "undefined"
        empty = "[...document.querySelectorAll('[data-chart] svg')].filter(s => !s.getBBox().width)"
        assert visit.page.evaluate(f"{empty}.length") == 0
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_switch_changes_both_panels_and_the_words(chromium, files, comparison):
    with Visit(chromium, files / "study.html") as visit:
        panels = [visit.page.locator(f"[data-chart=curve-{f}]") for f in ("value", "change")]
        assert "NLL, nats" in panels[0].inner_text()
        visit.page.locator("input[value=accuracy]").check(force=True)
        visit.page.wait_for_function(
            "document.querySelector('[data-chart=curve-change]').textContent.includes('points')"
        )
        assert "Accuracy, %" in panels[0].inner_text()
        heading = visit.page.locator("#curves").inner_text()
        assert "accuracy" in heading
        assert "NLL" not in heading
        assert visit.complaints == []


def test_choosing_an_arm_updates_every_panel(chromium, files):
    def drawn(visit):
        names = [
            f"linked-{part}-{i}{end}"
            for part in ("top", "each")
            for i in range(4)
            for end in ("", "-bars")
        ]
        return [visit.page.locator(f"[data-chart={name}] svg").inner_html() for name in names]

    with Visit(chromium, files / "study.html") as visit:
        before = drawn(visit)
        numbers = visit.page.locator(".linked figcaption").first.inner_text()
        visit.page.locator("input[name=arm][value='0']").check(force=True)
        visit.page.wait_for_timeout(300)
        after = drawn(visit)
        assert all(a != b for a, b in zip(before, after, strict=True))
        assert visit.page.locator(".linked figcaption").first.inner_text() != numbers
        visit.page.locator("input[name=klass][value='2']").focus()
        visit.page.keyboard.press("Space")  # by keyboard as by mouse
        visit.page.wait_for_timeout(300)
        third = drawn(visit)
        assert third[:8] == after[:8]
        assert all(a != b for a, b in zip(after[8:], third[8:], strict=True))
        assert visit.complaints == []


def test_a_point_tells_its_numbers(chromium, files, comparison):
    with Visit(chromium, files / "study.html") as visit:
        visit.page.locator("[data-chart=curve-value] .mark-symbol path").first.hover()
        tip = visit.page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        mean = comparison.arms[0].test_raw["nll"].mean
        assert f"none, as trained: {as_read('nll', mean)}" in tip.inner_text()


def test_without_scripts_the_pictures_are_there(chromium, files):
    with Visit(chromium, files / "study.html", java_script_enabled=False) as visit:
        assert visit.requests == [(files / "study.html").as_uri()]
        pictures = visit.page.locator("[data-chart] svg")
        # Tiles, curves, four remedies by top class and by class, risk, classes, two planes.
        assert pictures.count() == 3 * 4 + 2 + 4 * 4 + 1 + 1 + 2
        assert all(pictures.nth(i).bounding_box()["width"] > 100 for i in range(pictures.count()))
        assert not any(one.is_visible() for one in visit.page.locator(".switch").all())
        assert visit.page.locator(".printed").first.is_visible()  # and it says what is shown


def test_on_paper_it_is_light_and_the_tables_are_whole(chromium, files):
    with Visit(chromium, files / "study.html", color_scheme="dark") as visit:
        visit.page.set_viewport_size({"width": 690, "height": 980})  # A4 less its margins
        visit.page.emulate_media(media="print")
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert not any(one.is_visible() for one in visit.page.locator(".switch").all())
        wide = "[...document.querySelectorAll('table')].filter(t => t.scrollWidth > 690)"
        assert visit.page.evaluate(f"{wide}.length") == 0
        assert len(visit.page.pdf(format="A4")) > 10_000
