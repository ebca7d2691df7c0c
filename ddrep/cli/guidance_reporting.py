"""The verbs that report guidance: Tables 1 and 2, Figure 2, and the guides on early estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Light
from ddrep.cli.outputs import OutputFile
from ddrep.cli.reporting import Figure
from ddrep.config import Stage


class GuidanceTable(Light):
    """Write Table 1 or 2 (one row a run), its summary and its Markdown, and print it."""

    stage: Stage[config.GuidanceTable]
    files: CliPositionalArg[list[Path]]
    """Scores (.parquet) of the table's runs, the features of their images beside them; features (.npz) of the real
    images, of Table 1 .../ATTRIBUTE/NAME.npz for each attribute."""
    number: Annotated[int, Ge(1), Le(2)]
    """Which table: 1 or 2."""
    out: OutputFile
    """Table (.parquet) to write."""
    summary: OutputFile
    """Mean, spread and distance of each cell (.parquet) to write."""
    markdown: OutputFile
    """The same for reading (.md) to write."""

    def run(self) -> None:
        from ddrep.reporting.guidance import run

        real = [path for path in self.files if path.suffix == ".npz"]
        rows = [path for path in self.files if path.suffix == ".parquet"]
        settings, outputs = self.stage.config, (self.out, self.summary, self.markdown)
        run(self.number, rows, real, settings.minimum, self.stage.seed, *outputs, settings.paper)


class RobustnessTable(Light):
    """Gather the guides' accuracy on estimates of the clean image, and print its means."""

    stage: Stage[config.Section]
    rows: CliPositionalArg[list[Path]]
    """Rows (.parquet) of `ddrep robustness`."""
    out: OutputFile
    """Table (.parquet) to write."""
    markdown: OutputFile
    """Its means for reading (.md) to write."""

    def run(self) -> None:
        from ddrep.reporting.guidance import robustness

        robustness(self.rows, self.out, self.markdown)


class RobustnessFigure(Figure):
    """Draw the guides' accuracy on estimates of the clean image."""

    stage: Stage[config.Section]
    table: Path
    """Table (.parquet) of `ddrep robustness-table`."""

    def run(self) -> None:
        from ddrep.reporting.guidance_figures import robustness

        robustness(self.table, self.out)


class Figure2(Figure):
    """Draw Figure 2: target masks and the images drawn for them."""

    stage: Stage[config.Figure2]
    shards: CliPositionalArg[list[Path]]
    """Shards (.../METHOD/STEPS.tar) of images drawn for the masks."""

    def run(self) -> None:
        from ddrep.reporting.guidance_figures import figure2

        figure2(self.stage, self.shards, self.out)
