"""The README is true: its code runs, its numbers come out, its commands and rules exist."""

import re
from pathlib import Path

import pytest

import softhot
from blocks import run_blocks
from softhot.cli.commands import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_code_runs_and_prints_what_it_says():
    assert run_blocks(README) >= 3


def test_every_rule_is_listed():
    for name in softhot.RULES:
        assert f"`{name}(" in README or f"{name}(" in README, name


@pytest.mark.parametrize("command", [name for name in app if not name.startswith("-")])
def test_every_command_is_listed(command):
    assert f"`softhot {command}" in README


def test_every_local_link_leads_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_rule_table_s_examples_are_rules():
    rows = [
        line for line in README.splitlines() if line.startswith("| `") and "softhot" not in line
    ]
    found = 0
    for row in rows:
        for code in re.findall(r"`\+? ?([A-Z]\w+\([^`]*\))`", row.split("|")[1]):
            known = {"counts": (1, 2), "matrix": ((0.0, 1.0), (1.0, 0.0))}
            assert isinstance(eval(code, vars(softhot) | known), softhot.Rule), code
            found += 1
    assert found >= 10
