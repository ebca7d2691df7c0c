"""The verbs that report: tables, figures, costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Light, Verb
from ddrep.cli.outputs import OutputFigure, OutputFile
from ddrep.config import Stage


class Runs(Light):
    """Base of the verbs that make a table of classifier runs."""

    stage: Stage[config.AccuracyTable]
    rows: CliPositionalArg[list[Path]]
    """Rows (.parquet) of the table's runs, their predictions beside them."""
    judges: Path | None = None
    """Table of the judges (.parquet), which the Markdown then shows as well."""
    out: OutputFile
    """Table (.parquet) to write."""
    summary: OutputFile
    """Mean, spread and paired differences of each cell (.parquet) to write."""
    markdown: OutputFile
    """The same for reading (.md) to write."""


class Table(Runs):
    """Write Table 3 or 4 (one row a run), its summary and its Markdown, and print it."""

    does = "reporting.tables:run"
    number: Annotated[int, Ge(3), Le(4)]
    """Which table: 3 or 4."""


class LabelsTable(Runs):
    """Write Table 5: real images alone, and with a source, at several numbers of labelled images."""

    does = "reporting.labels:run"


class Gathered(Light):
    """Base of the verbs that make a table of rows as they are."""

    stage: Stage[config.Section]
    rows: CliPositionalArg[list[Path]]
    """Rows (.parquet) of labelled subsets."""
    out: OutputFile
    """Table (.parquet) to write."""
    markdown: OutputFile
    """The same for reading (.md) to write."""


class JudgesTable(Gathered):
    """Gather what the judges know by themselves."""

    does = "reporting.judges:run"


class CopiesTable(Gathered):
    """Gather the near copies of labelled images by source."""

    does = "reporting.copies:run"


class Figure(Light):
    """Base of the verbs that draw a figure."""

    out: OutputFigure
    """PNG to write; a PDF is written beside it."""


class Figure1(Figure):
    """Draw Figure 1: one class by three sources from the same starting noise."""

    does = "reporting.figures:figure1"
    stage: Stage[config.Figure1]
    shards: CliPositionalArg[list[Path]]
    """First shards of improved-ddpm, classifier-free and ours."""


class Figure3(Figure):
    """Draw Figure 3: accepted images of several classes."""

    does = "reporting.figures:figure3"
    stage: Stage[config.Figure3]
    shard: Path
    """First shard of ours."""


class Figure4(Figure):
    """Draw Figure 4: top-1 against the scale of the synthetic images."""

    does = "reporting.figures:figure4"
    stage: Stage[config.Section]
    table: Path
    """Table 4 (.parquet)."""


class Figure5(Figure):
    """Draw Figure 5: top-1 against the number of labelled images."""

    does = "reporting.labels:figure5"
    stage: Stage[config.Section]
    table: Path
    """Summary of Table 5 (.parquet)."""


class ProbeFigure(Figure):
    """Draw the accuracy of linear probes by block and timestep."""

    does = "reporting.probes:figure"
    stage: Stage[config.Section]
    reports: CliPositionalArg[list[Path]]
    """Reports (.json) of judges of probes."""


class Costs(Light):
    """Gather what the stages took: time and memory, images tried and kept."""

    does = "reporting.costs:run"
    stage: Stage[config.Section]
    files: CliPositionalArg[list[Path]]
    """Attempts (.parquet) of the drawn shards and benchmarks (.tsv) of the jobs, .../benchmarks/STAGE/JOB.tsv with the
    job's log at .../logs/STAGE/JOB.log."""
    out: OutputFile
    """Costs (.parquet) to write."""


class Report(Verb):
    """Write report.html: what an experiment found, on one page; of an unfinished one what there is so far."""

    stage: Stage[config.Experiment]
    configfile: list[Path] = []
    """Overlays on config.yaml, in their order, as for snakemake: --configfile a.yaml b.yaml."""
    out: OutputFile | None = None
    """Page (.html) to write; the default is results/NAME/report.html."""

    @classmethod
    def by_hand(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The experiment of config.yaml and its overlays."""
        if "stage" in options:
            return {}
        overlays = [Path(path) for path in options.get("configfile", [])]
        return {"config": config.load(Path("config.yaml"), *overlays).model_dump()}

    def run(self) -> None:
        from ddrep.reporting.report.page import run

        experiment = self.stage.config
        run(experiment, self.out or Path("results", experiment.experiment, "report.html"))
