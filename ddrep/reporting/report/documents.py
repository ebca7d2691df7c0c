"""The tables that an experiment wrote, whichever they are: Markdown and Parquet as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markdown_it import MarkdownIt

from ddrep.data.disk import raw, read_text
from ddrep.reporting.report.results import Results
from ddrep.rows import read_table

MOST_ROWS = 200
"""Of a table that has no summary."""


@dataclass(frozen=True)
class Document:
    """A table with its title and, as HTML, what is said of it; one without a summary is folded."""

    name: str
    title: str
    html: str
    folded: bool = False


def documents(results: Results) -> list[Document]:
    """Every summary under tables/, then the tables without one."""
    found = [_summary(path) for path in results.files("tables/*.md")]
    found.sort(key=lambda document: not document.name.startswith("table"))
    told = {document.name for document in found}
    for path in results.files("tables/*.parquet"):
        name = path.stem.removesuffix("-summary")
        if name not in told and not path.stem.endswith("-summary"):
            found.append(Document(name, f"{name.capitalize()}: all rows", table_html(read_table(path)), folded=True))
    return found


def _summary(path: Path) -> Document:
    text = read_text(raw(path))
    first, _, rest = text.partition("\n")
    title = first.removeprefix("# ") if first.startswith("# ") else path.stem
    body = rest if first.startswith("# ") else text
    return Document(path.stem.removesuffix("-summary"), title, markdown_html(body))


def markdown_html(text: str) -> str:
    """Markdown with tables -> HTML whose headings stand below those of the page; HTML in it is text."""
    tokens = (parser := MarkdownIt("commonmark", {"html": False}).enable("table")).parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
    html = str(parser.renderer.render(tokens, parser.options, {}))
    return html.replace("<table>", f"{SCROLLED}<table>").replace("</table>", "</table></div>")


SCROLLED = '<div class="scrolled" tabindex="0" role="group" aria-label="Table">'
"""What is wider than a phone is moved sideways, by keys as well."""


def table_html(table: pd.DataFrame) -> str:
    """Its first rows."""
    shown = table.head(MOST_ROWS).astype(object).where(table.head(MOST_ROWS).notna(), "")
    more = f"<p>The first {MOST_ROWS} of {len(table):,} rows.</p>" if len(table) > MOST_ROWS else ""
    html = shown.to_html(index=False, border=0, float_format=lambda x: f"{x:.4g}")
    return f"{more}{SCROLLED}{html}</div>"
