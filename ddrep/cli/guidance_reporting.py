"""The verbs that report guidance: Tables 1 and 2, Figure 2, and the guides on early estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Light
from ddrep.cli.outputs import OutputFile
from ddrep.cli.reporting import Figure, Gathered
from ddrep.config import Stage


class GuidanceTable(Light):
    """Write Table 1 or 2 (one row a run), its summary and its Markdown, and print it."""

    does = "reporting.guidance:run"
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


class RobustnessTable(Gathered):
    """Gather the guides' accuracy on estimates of the clean image, and print its means."""

    does = "reporting.guidance:robustness"


class RobustnessFigure(Figure):
    """Draw the guides' accuracy on estimates of the clean image."""

    does = "reporting.guidance_figures:robustness"
    stage: Stage[config.Section]
    table: Path
    """Table (.parquet) of `ddrep robustness-table`."""


class Figure2(Figure):
    """Draw Figure 2: target masks and the images drawn for them."""

    does = "reporting.guidance_figures:figure2"
    stage: Stage[config.Figure2]
    shards: CliPositionalArg[list[Path]]
    """Shards (.../METHOD/STEPS.tar) of images drawn for the masks."""
