"""The documentation site: `make docs`."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER / "_ext")]

project = "topn"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]

html_theme = "furo"
html_title = "topn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

# Quotes in help texts are those of a shell.
smartquotes = False

# GitHub's links to headings work here, too.
myst_heading_anchors = 4
# GitHub draws these; here they are tables, for which no script is needed.
myst_fence_as_directive = ["mermaid"]

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
# Types of others have no page here, since nothing is fetched to build this.
nitpick_ignore_regex = [("py:.*", r".*")]
