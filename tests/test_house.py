"""The house: which floor may lean on which, and what importing softhot may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import softhot

ROOT = Path(softhot.__file__).parent
FLOORS = {
    "core": 0,
    **dict.fromkeys(
        ("kernels", "metrics", "calibration", "datasets", "files", "forecast", "advice"), 1
    ),
    **dict.fromkeys(("torch", "jax", "keras", "sklearn", "boosting"), 2),
    **dict.fromkeys(("huggingface", "lightning", "sklearn_keras"), 2),
    **dict.fromkeys(("studies", "judge", "reproduce"), 3),
    **dict.fromkeys(("plots", "mlflow"), 4),
    "report": 5,
    "cli": 6,
}
# Within a floor: what leans on what.
NEIGHBOURS = {
    *{("huggingface", "torch"), ("lightning", "torch")},
    *{("sklearn_keras", "sklearn"), ("sklearn_keras", "keras")},
    ("calibration", "metrics"),
    *{("files", "metrics"), ("datasets", "files")},
    *{("forecast", "metrics"), ("forecast", "calibration")},
    *{("advice", "metrics"), ("advice", "calibration")},
    ("reproduce", "studies"),
}
PARTS = {path.stem for path in ROOT.iterdir() if path.stem != "__init__"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part(module: str) -> str:
    return module.split(".")[1]


def softhot_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "softhot":
            found |= {f"softhot.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    names = {name for name in found if name.startswith("softhot.")}
    # What is no module of its own is a name of the package: all of those come from the core.
    return {part(name) if part(name) in PARTS else "core" for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert here in FLOORS, f"{here} stands on no floor: add it to FLOORS and CONTRIBUTING.md"
    for there in softhot_imports(path) - {here}:
        assert there in FLOORS, f"{path.name} imports softhot.{there}, which stands on no floor"
        downward = FLOORS[there] < FLOORS[here]
        assert downward or (here, there) in NEIGHBOURS, f"{here} must not import {there}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 500


def unsafe(path: Path) -> list[str]:
    """What in a file could run code that is hidden in data: pickles, under any of their names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        found += {name.split(".")[0] for name in names} & {
            "pickle",
            "cloudpickle",
            "dill",
            "shelve",
        }
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
                found.append(called)
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append(called)
            if called in ("joblib.load", "joblib.dump", "eval", "exec"):
                found.append(called)
            if given.get("allow_pickle") == "True":
                found.append("allow_pickle=True")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path):
    assert not unsafe(path)


def test_a_pickle_would_be_found(tmp_path):
    for text in (
        "import pickle",
        "from dill import load",
        "np.load(f)",
        "torch.load(f)",
        "eval(x)",
    ):
        (tmp_path / "m.py").write_text(text)
        assert unsafe(tmp_path / "m.py"), text


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_softhot_loads_no_framework():
    heavy = {"torch", "jax", "keras", "tensorflow", "sklearn", "scipy", "pandas", "pyarrow"}
    heavy |= {"matplotlib", "altair", "jinja2", "rich", "cyclopts", "joblib"}
    assert not loaded_after("import softhot") & heavy
    assert not loaded_after("import softhot.cli.commands") & (heavy - {"cyclopts", "rich"})


def test_the_page_s_parts_ship_with_the_package():
    shipped = {path.suffix for path in (ROOT / "report").iterdir()}
    assert {".j2", ".css", ".js"} <= shipped
    assert (ROOT / "py.typed").exists()


def test_everything_public_is_documented():
    for name in vars(softhot):
        thing = getattr(softhot, name)
        if not name.startswith("_") and getattr(thing, "__module__", "").startswith("softhot."):
            assert thing.__doc__, name
