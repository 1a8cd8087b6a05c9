"""The documentation is true and whole: it builds without a warning, and its code runs."""

import ast
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
from softhot.cli.commands import app

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
        for name in public(module):
            assert f"softhot.{module}.{name}" in known, f"{module}.{name}"
    assert {"softhot.torch.CrossEntropyLoss", "softhot.metrics.ece"} <= known
    commands = (site / "reference" / "commands.html").read_text()
    for command in app:
        assert command[0] == "-" or f"softhot {command}" in commands, command


def public(module):
    """What a module offers, read and not imported: its ``__all__``, or what it defines."""
    path = Path(softhot.__file__).parent / module
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    nodes = ast.parse(path.read_text()).body
    for node in nodes:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    defined = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in defined if name[0] != "_"]


def commands():
    """Every command that a page or the README shows, in a block or within a line."""
    for path in [ROOT / "README.md", *DOCS.glob("*.md"), *(DOCS / "guide").glob("*.md")]:
        text = path.read_text()
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
        lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
        for command in [*lines, *re.findall(r"`((?:softhot|make|python) [^`]+)`", text)]:
            if command and "..." not in command:
                yield path.name, command


def test_every_command_on_a_page_is_one():
    seen = {}
    for page, command in commands():
        first, *rest = command.split(" && ")[0].split()
        seen[first] = seen.get(first, 0) + 1
        if first == "softhot":
            app.parse_args(rest, exit_on_error=False, print_error=False)
        elif first == "make":
            assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M), (page, rest)
        elif first == "python" and rest[0] == "-m":
            tree = ROOT / rest[1].replace(".", "/")
            assert tree.is_dir() or tree.with_suffix(".py").exists(), (page, command)
        elif first == "python":
            assert (ROOT / rest[0]).exists(), (page, command)
    assert min(seen.get(name, 0) for name in ("softhot", "make", "python")) > 3, seen


def test_the_first_table_says_what_was_measured():
    """The page people link quotes two lines of an example's output."""
    printed = (DOCS / "guide" / "_results" / "fashion_mnist.txt").read_text()
    measured = re.findall(r"^alpha .*accuracy ([\d.]+),.*confidence ([\d.]+)$", printed, re.M)
    page = (DOCS / "what-it-does.md").read_text()
    for row, values in zip(
        ("test accuracy", "confidence"), zip(*measured, strict=True), strict=True
    ):
        (line,) = (line for line in page.splitlines() if "measured" in line and row in line)
        assert re.findall(r"([\d.]+) %", line) == [f"{100 * float(v):.1f}" for v in values]


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
