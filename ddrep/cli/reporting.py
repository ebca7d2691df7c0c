"""The verbs that report: tables, figures, costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Light
from ddrep.cli.outputs import OutputFigure, OutputFile
from ddrep.config import Stage


class Table(Light):
    """Write Table 3 or 4 (one row a run), its summary and its Markdown, and print it."""

    stage: Stage[config.AccuracyTable]
    rows: CliPositionalArg[list[Path]]
    """Rows (.parquet) of the table's runs, their predictions beside them."""
    number: Annotated[int, Ge(3), Le(4)]
    """Which table: 3 or 4."""
    out: OutputFile
    """Table (.parquet) to write."""
    summary: OutputFile
    """Mean, spread and paired differences of each cell (.parquet) to write."""
    markdown: OutputFile
    """The same for reading (.md) to write."""

    def run(self) -> None:
        from ddrep.reporting.tables import run

        run(self.stage, self.number, self.rows, self.out, self.summary, self.markdown)


class Figure(Light):
    """Base of the verbs that draw a figure."""

    out: OutputFigure
    """PNG to write; a PDF is written beside it."""


class Figure1(Figure):
    """Draw Figure 1: one class by three sources from the same starting noise."""

    stage: Stage[config.Figure1]
    shards: CliPositionalArg[list[Path]]
    """First shards of improved-ddpm, classifier-free and ours."""

    def run(self) -> None:
        from ddrep.reporting.figures import figure1

        figure1(self.stage, self.shards, self.out)


class Figure3(Figure):
    """Draw Figure 3: accepted images of several classes."""

    stage: Stage[config.Figure3]
    shard: Path
    """First shard of ours."""

    def run(self) -> None:
        from ddrep.reporting.figures import figure3

        figure3(self.stage, self.shard, self.out)


class Figure4(Figure):
    """Draw Figure 4: top-1 against the scale of the synthetic images."""

    stage: Stage[config.Section]
    table: Path
    """Table 4 (.parquet)."""

    def run(self) -> None:
        from ddrep.reporting.figures import figure4

        figure4(self.table, self.out)


class Costs(Light):
    """Gather what the stages took: time and memory, images tried and kept."""

    stage: Stage[config.Section]
    files: CliPositionalArg[list[Path]]
    """Attempts (.parquet) of the drawn shards and benchmarks (.tsv) of the jobs, .../benchmarks/STAGE/JOB.tsv with the
    job's log at .../logs/STAGE/JOB.log."""
    out: OutputFile
    """Costs (.parquet) to write."""

    def run(self) -> None:
        from ddrep.reporting.costs import run

        benchmarks = [path for path in self.files if path.suffix == ".tsv"]
        run([path for path in self.files if path.suffix == ".parquet"], benchmarks, self.out)
