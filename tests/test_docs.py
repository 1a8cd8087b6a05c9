"""The documentation is true and whole: it builds without a warning, and its code runs."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

import softhot
from softhot import cli

HERE = Path(__file__).parent
ROOT = HERE.parent
DOCS = ROOT / "docs"


def python(folder, *arguments):
    """Run Python on this tree, with Keras on PyTorch and its settings in a folder of their own."""
    environment = dict(os.environ, KERAS_BACKEND="torch", KERAS_HOME=str(folder))
    paths = [str(ROOT / "src"), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "trees", DOCS]
    done = python(folder, *command, folder / "html")
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "html"


def test_every_public_name_and_command_is_documented(site):
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    known = {name for kind, names in inventory.items() if kind[:3] == "py:" for name in names}
    for name, thing in vars(softhot).items():
        if name[0] != "_" and not inspect.ismodule(thing):
            assert f"softhot.{name}" in known, name
    modules = {p.stem for p in Path(softhot.__file__).parent.iterdir() if p.stem[0] != "_"}
    for module in modules - {"core", "cli", "py"}:
        assert f"softhot.{module}" in known, module
    assert {"softhot.torch.CrossEntropyLoss", "softhot.metrics.ece"} <= known
    commands = (site / "reference" / "commands.html").read_text()
    for command in cli.app:
        assert command[0] == "-" or f"softhot {command}" in commands, command


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for line in page.read_text().splitlines():
            loads = "<script" in line or "<link" in line or "<img" in line
            assert not (loads and ('src="http' in line or 'href="http' in line)), (page, line)


def test_identities_are_cited_by_the_code_that_leans_on_them():
    there = re.findall(r"^### (\d+) ·", (DOCS / "mathematics.md").read_text(), re.M)
    assert [int(number) for number in there] == list(range(1, len(there) + 1))
    cited = set()
    for path in (ROOT / "src").rglob("*.py"):
        for numbers in re.findall(
            r"[Ii]dentit(?:y|ies) (\d+(?:(?:, | and )\d+)*)", path.read_text()
        ):
            cited |= set(re.findall(r"\d+", numbers))
    assert cited == set(there)


def test_code_on_every_page_runs_and_prints_what_it_says(tmp_path):
    done = python(tmp_path, HERE / "docs_checks.py")
    report = json.loads(done.stdout.splitlines()[-1])
    assert not report["failures"], "\n".join(report["failures"].values())
    assert sum(report["blocks"].values()) >= 15
