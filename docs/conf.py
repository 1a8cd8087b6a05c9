"""The documentation site: `make docs`. It needs no network, and warnings are errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "numpy")  # what autodoc imports; the lightest one
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

import softhot  # noqa: E402  from this tree

project = "softhot"
author = "the authors of softhot"
copyright = f"{author}. Apache-2.0"
version = release = softhot.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "reference",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_ext", "_static"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
math_number_all = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
add_module_names = False
nitpicky = False  # docstrings link freely to what other libraries document

pygments_style = "friendly"
html_theme = "furo"
html_title = "softhot"
html_static_path = ["_static"]
html_css_files = ["softhot.css"]
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []
html_theme_options = {
    "source_repository": "",
    "navigation_with_keys": True,
    "light_css_variables": {
        "color-brand-primary": "#2f5f8f",
        "color-brand-content": "#2f5f8f",
        "font-stack": "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, "
        "sans-serif",
        "font-stack--monospace": "ui-monospace, 'SFMono-Regular', Menlo, Consolas, "
        "'DejaVu Sans Mono', monospace",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8ab8e6",
        "color-brand-content": "#8ab8e6",
    },
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
