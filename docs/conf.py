"""Configuration of the documentation: `python -m sphinx -W -b html docs docs/_build/html`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "jaxdl"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "flag_tables",
    "plain_docstrings",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jaxdl"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # two hyphens begin a flag, and are no dash

myst_heading_anchors = 3  # links such as page.md#a-heading

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "none"  # signatures stay short; the text gives shapes and units
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_use_ivar = True  # attributes are a list of their class, not entries of their own
