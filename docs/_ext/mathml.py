"""Formulas as MathML, which browsers draw themselves: no script, no font, no network.

Sphinx's own ways to show a formula need either MathJax from another server or LaTeX installed.
"""

from __future__ import annotations

import re
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

# log x wants the space that log(x) does not.
FUNCTION = re.compile(r"<mo>&ApplyFunction;</mo>(?=\s*<m(?!o))")
BEFORE = re.compile(r"(</m(?!o\b)\w+>\s*)(<mi>\w+</mi>\s*<mo>&ApplyFunction;</mo>)")
SPACE = '<mspace width="0.17em"/>'
# Angles and bars as high as what they enclose would be as high as a sum beside them.
STRETCHES = re.compile(r"<mo>([⟨⟩‖|])</mo>")

logger = logging.getLogger(__name__)


def mathml(node: Any, as_block: bool) -> str:
    """The formula of ``node``; one that cannot be read is a warning, and so an error."""
    try:
        text = tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return ""
    spaced = FUNCTION.sub(SPACE, BEFORE.sub(rf"\1{SPACE}\2", text))
    return STRETCHES.sub(r'<mo stretchy="false">\1</mo>', spaced)


def visit_inline(translator: Any, node: Any) -> None:
    """Write a formula in a line of text."""
    translator.body.append(mathml(node, as_block=False))
    raise SkipNode


def visit_block(translator: Any, node: Any) -> None:
    """Write a displayed formula, with its number if it has one."""
    translator.body.append(translator.starttag(node, "div", CLASS="math-block"))
    translator.body.append(mathml(node, as_block=True))
    if node["number"]:
        number = f"({node['number']})"
        translator.body.append(f'<span class="eqno">{number}')
        translator.add_permalink_ref(node, "Link to this formula")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; ``html_math_renderer = "mathml"`` chooses it."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
