"""The page as a file: one, the same bytes for the same input, no network, no foreign markup."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from report_pages import (
    HOSTILE,
    LIMIT,
    Tree,
    attributes,
    study_page,
    without_scripts,
)
from softhot import report
from softhot.core.check import InputError
from softhot.report import charts

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


def test_the_same_results_give_the_same_bytes(page, hostile, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(charts, "VALIDATED", True)  # and they follow Vega-Lite's schema
        assert study_page() == page
    code = (
        "import hashlib, report_pages as t\n"
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
