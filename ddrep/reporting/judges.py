"""What the judges know by themselves, beside the classifiers that learn from what they keep or say."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ddrep.reporting.markdown import counted, grid, mean_and_spread, wrapped
from ddrep.rows import Kind, gathered, in_order, read_rows, write_rows
from ddrep.sources import judges

TITLE = "What the judges know"
ROW: dict[str, Kind] = {
    "judge": "text", "subset": "whole", "n": "whole", "top1": "number", "expected_calibration_error": "number",
    "cross_entropy": "number",
}  # fmt: skip


def run(*, rows: Sequence[Path], out: Path, markdown: Path) -> None:
    """Rows of judges (.parquet), one a labelled subset each -> one table, and its Markdown. Raises UserError."""
    table = read_judges(rows)
    write_rows({out: table, markdown: f"# {TITLE}\n\n{as_markdown(table)}\n"})


def read_judges(paths: Sequence[Path]) -> pd.DataFrame:
    """In the order of the judges, then of the subsets. Raises UserError."""
    read = partial(read_rows, columns=ROW, expected="the row of a judge; make it with `ddrep score-judge`")
    key = ["judge", "subset"]
    return in_order(gathered(paths, read, key), key, judge=judges()).reset_index(drop=True)


def section(judges: Path | None) -> str:
    """What a table's Markdown ends with, where the table of the judges is there."""
    return f"\n## {TITLE}\n\n{as_markdown(read_judges([judges]))}\n" if judges else ""


def as_markdown(table: pd.DataFrame) -> str:
    """A paragraph, and a row a judge."""
    subsets = counted(table["subset"].nunique(), "labelled subset")
    text = (
        f"On {int(table['n'].iloc[0]):,} of the test images; over {subsets}, mean ± standard deviation. Calibration: "
        "expected difference between stated probability and accuracy, in points; cross-entropy in nats. A "
        "classifier that learns from a judge's soft labels may come to know what it knows."
    )
    lines = [
        [
            str(name),
            mean_and_spread(rows["top1"]),
            mean_and_spread(100 * rows["expected_calibration_error"]),
            mean_and_spread(rows["cross_entropy"], 2),
        ]
        for name, rows in table.groupby("judge", sort=False)
    ]
    return wrapped(text) + "\n\n" + grid(["Judge", "Top-1", "Calibration", "Cross-entropy"], lines, 1)
