"""Python blocks in Markdown, run: a comment below a statement is what it must print."""

import ast
import contextlib
import io
import re
from collections.abc import Iterator

SPEAKS = (ast.Expr, ast.For, ast.With)  # below other statements a comment is a comment


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


def run_blocks(text: str, given: str = "") -> int:
    """Run all blocks of a page in one namespace; returns how many outputs were compared."""
    names: dict = {"__name__": "__page__"}
    exec(given, names)
    compared = 0
    for block in python_blocks(text):
        printed = io.StringIO()  # since the last comment that was compared
        for statement, said in statements(block):
            with contextlib.redirect_stdout(printed):
                node = ast.parse(statement).body[0]
                if isinstance(node, ast.Expr):
                    value = eval(compile(ast.Expression(node.value), "page", "eval"), names)
                    if value is not None and said:
                        printed.write(repr(value))
                else:
                    exec(compile(statement, "page", "exec"), names)
            if said:
                assert stripped(printed.getvalue()) == said, f"{statement}\n{printed.getvalue()}"
                compared += 1
                printed = io.StringIO()
    return compared


def stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def statements(block: str) -> Iterator[tuple[str, str]]:
    """Each statement with the comment that follows it: what it prints."""
    lines = block.splitlines()
    nodes = ast.parse(block).body
    starts = [
        min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))]) - 1 for n in nodes
    ]
    ends = [node.end_lineno or 0 for node in nodes]
    for node, start, end, following in zip(
        nodes, starts, ends, [*starts[1:], len(lines)], strict=True
    ):
        comments = [line.removeprefix("#")[1:] for line in lines[end:following] if line[:1] == "#"]
        said = "\n".join(comments).strip() if isinstance(node, SPEAKS) else ""
        yield "\n".join(lines[start:end]), said
