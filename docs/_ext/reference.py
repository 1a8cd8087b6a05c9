"""The reference, written from the package when the site is built, so that nothing is missing.

One page for ``import softhot``, its names grouped by the module that defines them; one for every
other module; one with the help of every command. A public name without a docstring is a warning,
and so an error. The pages go to ``docs/reference`` and are in no commit.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

import softhot

logger = logging.getLogger(__name__)

# Where users import from besides the first floor of modules, and what they never import.
ALSO = ("softhot.core.similarity",)
NOT = ("softhot.cli", "softhot.core")

# Headings of the page of ``import softhot``, by the module that defines a name; others: "More".
GROUPS = {
    "Rules": ("rule", "rules"),
    "Rules for yes-or-no labels": ("binary",),
    "What alpha may be": ("weights",),
    "Labels, targets, alphas": ("targets", "conventions", "inverse", "online"),
    "Losses": ("losses",),
    "Understanding a loss": ("explain", "diagnosis", "diagnose"),
    "Errors": ("check",),
}


def public_modules() -> list[str]:
    """What users import from: the package, its modules one level down, and :data:`ALSO`."""
    found = [f"softhot.{module.name}" for module in pkgutil.iter_modules(softhot.__path__)]
    return ["softhot", *(m for m in found if m not in NOT and "._" not in m), *ALSO]


def public_names(module: ModuleType) -> list[str]:
    """Names a user may import from ``module``: its ``__all__``, or what it defines or hands on.

    A package hands on what its ``__init__`` imports from its own modules.
    """
    if listed := getattr(module, "__all__", None):
        return list(listed)
    inside = module.__name__ + "." if hasattr(module, "__path__") else module.__name__ + " only"
    names = []
    for name, thing in vars(module).items():
        home = str(getattr(thing, "__module__", ""))
        ours = home == module.__name__ or home.startswith(inside)
        if name[0] != "_" and ours and (inspect.isclass(thing) or inspect.isfunction(thing)):
            names.append(name)
    return names


def entry(module: ModuleType, name: str) -> str:
    """The directive that documents one name from its docstring."""
    thing = getattr(module, name)
    full = f"{module.__name__}.{name}"
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        doc = constant_doc(name, thing)
        return f".. py:data:: {name}\n   :module: {module.__name__}\n\n   {doc}\n\n"
    if not inspect.getdoc(thing):
        logger.warning("%s is public and has no docstring", full)
    if inspect.isclass(thing):
        return f".. autoclass:: {full}\n   :members:\n\n"
    return f".. autofunction:: {full}\n\n"


def constant_doc(name: str, constant: Any) -> str:
    """The string below the assignment of a constant, wherever that is."""
    for home, module in sorted(sys.modules.items()):
        if home.startswith("softhot") and vars(module).get(name) is constant:
            found = ModuleAnalyzer.for_module(home).find_attr_docs().get(("", name))
            if found:
                return " ".join(found).strip()
    return ""


def page(title: str, *parts: str) -> str:
    """A page of one title and reStructuredText, which is what docstrings are written in."""
    return f"# {title}\n\n" + "\n".join(f"```{{eval-rst}}\n{part}\n```" for part in parts) + "\n"


def module_page(name: str) -> str:
    """The page of a module: its docstring, then its names."""
    module = importlib.import_module(name)
    entries = [entry(module, public) for public in public_names(module)]
    head = f".. automodule:: {name}\n   :no-members:\n"
    return page(f"`{name}`", head, "".join(entries))


def core_page() -> str:
    """The page of ``import softhot``, grouped by subject."""
    text = "# `softhot`\n\n```{eval-rst}\n.. automodule:: softhot\n   :no-members:\n```\n"
    left = {
        name: getattr(softhot, name).__module__.split(".")[2]
        if hasattr(getattr(softhot, name), "__module__")
        else "rules"
        for name in core_names()
    }
    groups = {**GROUPS, "More": tuple(set(left.values()) - {m for g in GROUPS.values() for m in g})}
    for title, homes in groups.items():
        names = [name for name, home in left.items() if home in homes]
        if names:
            body = "".join(entry(softhot, name) for name in names)
            text += f"\n## {title}\n\n```{{eval-rst}}\n{body}\n```\n"
    return text


def core_names() -> list[str]:
    """Names of ``softhot`` itself that are no modules."""
    return [n for n, v in vars(softhot).items() if n[0] != "_" and not inspect.ismodule(v)]


def commands_page() -> str:
    """What each command says under ``--help``."""
    from rich.console import Console

    from softhot.cli.commands import app

    text = "# Commands\n\nWhat each says under `--help`. Exit codes: 0 done, 1 a trial failed, "
    text += "2 something given cannot be used, 130 interrupted.\n"
    for command in sorted(name for name in app if not name.startswith("-")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            app.help_print([command], console=Console(file=out, width=88, color_system=None))
        help = "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())
        text += f"\n## `softhot {command}`\n\n```text\n{help}\n```\n"
    return text


def write(app: Sphinx, config: Any) -> None:
    """Write the pages that changed, so that a second build reads only those again."""
    folder = Path(app.srcdir) / "reference"
    pages = {"softhot": core_page(), "commands": commands_page()}
    pages |= {name: module_page(name) for name in public_modules() if name != "softhot"}
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def tidy(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write tables as Markdown does, and absolute values with bars."""
    text: list[str] = []
    for line in lines:
        if re.fullmatch(r"\s*\|.*\|\s*", line):
            if re.fullmatch(r"[\s|:-]+", line):
                continue
            indent = line[: len(line) - len(line.lstrip())]
            if not (text and text[-1].startswith(f"{indent}     - ")):
                text += ["", f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
            cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
            text += [f"{indent}   * - {cells[0]}", *(f"{indent}     - {c}" for c in cells[1:])]
            continue
        if text and re.match(r"\s+     - ", text[-1]) and line.strip():
            text.append("")
        pieces = re.split(r"(`+[^`]*`+)", line)
        text.append("".join(p if p[:1] == "`" else p.replace("|", r"\|") for p in pieces))
    lines[:] = text


def skip(app: Any, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn writes into every estimator."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def fill_tables_of_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """On the front page a pattern may match no page yet, and ``*`` means those left over."""
    if name != "index":
        return
    folder = Path(app.srcdir)
    entry = re.compile(r"[\w/-]*\*?")
    lines = source[0].splitlines()
    found = {
        line: sorted(folder.glob(f"{line}.md")) for line in lines if line and entry.fullmatch(line)
    }
    listed = {path for line, paths in found.items() if line != "*" for path in paths}
    left = [path.stem for path in found.pop("*") if path not in listed and path.stem != "index"]
    kept = [line for line in lines if "*" not in line or line not in found or found[line]]
    at = kept.index("*")
    source[0] = "\n".join([*kept[:at], *left, *kept[at + 1 :]]) + "\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for pages."""
    app.connect("config-inited", write)
    app.connect("autodoc-process-docstring", tidy, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    app.connect("source-read", fill_tables_of_contents)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
