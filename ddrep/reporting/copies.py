"""Near copies of labelled images by source, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ddrep.reporting.markdown import grid, mean_and_spread, wrapped
from ddrep.rows import Kind, gathered, read_rows, write_rows
from ddrep.sources import SOURCES

ROW: dict[str, Kind] = {
    "subset": "whole", "source": "text", "n": "whole", "median": "number", "near_copies": "number", "least": "number",
    "image": "text", "labelled_image": "text",
}  # fmt: skip
TEXT = (
    "Distance of an image to the nearest labelled one, in features of a decoder block, in units of what real "
    "validation images have in the median. A near copy is nearer than all but 1% of the validation images are: so "
    "much chance gives real test images, and a source that repeats its training images has more."
)


def run(*, rows: Sequence[Path], out: Path, markdown: Path) -> None:
    """Rows (.parquet) of labelled subsets -> one table, and its Markdown. Raises UserError."""
    read = partial(read_rows, columns=ROW, expected="near copies by source; make them with `ddrep copies`")
    table = gathered(rows, read, ("source", "subset"))
    order = {name: i for i, name in enumerate(SOURCES)}
    table = table.sort_values(["source", "subset"], key=lambda c: c.map(order).fillna(-1) if c.name == "source" else c)
    lines = [
        [
            str(source),
            f"{of['n'].sum():,}",
            mean_and_spread(of["median"], 2),
            mean_and_spread(100 * of["near_copies"]),
            f"{of['least'].min():.2f}",
        ]
        for source, of in table.groupby("source", sort=False)
    ]
    head = ["Source", "Images", "Median distance", "Near copies (%)", "Least distance"]
    text = "\n\n".join(["# Memorisation: near copies of labelled images", wrapped(TEXT), grid(head, lines, 1)]) + "\n"
    write_rows({out: table, markdown: text})
