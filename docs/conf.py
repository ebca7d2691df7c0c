"""The documentation as a site: `make docs`, of the Markdown that is read in the repository as well.

The folder of sources is the repository's, so that links between its pages are links of the site.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.generated import commands, settings

project, author = "ddrep", "the authors of ddrep"
html_title = "ddrep"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["*.md", "benchmarks/*.md", "docs/*.md", "docs/*/*.md"]
exclude_patterns = [".*", "build", "results", "**/__pycache__", "tests", "ddrep", "workflow", "tools"]
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3
myst_linkify_fuzzy_links = False
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

MADE = {"docs/settings": settings, "docs/commands": commands}
"""Pages with a part that is made: the comment `<!-- NAME -->` in them is replaced by it."""


def setup(app: Sphinx) -> None:
    app.connect("source-read", _complete)


def _complete(_: Sphinx, page: str, source: list[str]) -> None:
    if make := MADE.get(page):
        source[0] = source[0].replace(f"<!-- {page.rpartition('/')[2]} -->", make())
    if page == "docs/evidence/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*-summary\n```\n"
    if page in (root_doc, "docs/recipes/README"):
        source[0] = re.sub(r"^(?:## (.+)\n\n)?((?:- \[.*\n)+)", _with_contents, source[0], flags=re.MULTILINE)


def _with_contents(links: re.Match[str]) -> str:
    """A list of links below its heading, and the same as a part of the site's contents."""
    pages = re.findall(r"^- \[(.+)\]\((.+)\.md\)", links[2], re.MULTILINE)
    entries = "\n".join(f"{title} <{page}>" for title, page in pages)
    caption = f":caption: {links[1]}\n" if links[1] else ""
    return f"{links[0]}\n```{{toctree}}\n:hidden:\n{caption}\n{entries}\n```\n"
