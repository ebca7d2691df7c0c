"""Where in the denoiser its knowledge lies: accuracy of linear probes by block and timestep."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from annotated_types import MinLen
from matplotlib.figure import Figure
from pydantic import BaseModel, FiniteFloat

from ddrep.reporting.figures import save
from ddrep.reporting.lettering import lettering
from ddrep.saved import read_json


class Tried(BaseModel):
    """One probe, with what it was worth out of fold."""

    block: str
    timestep: FiniteFloat
    top1: FiniteFloat


class Report(BaseModel):
    """Of a judge of probes, as far as it is drawn here."""

    tried: Annotated[list[Tried], MinLen(1)]


@lettering()
def figure(*, reports: Sequence[Path], out: Path) -> None:
    """A heat map of top-1 out of fold, inside the labelled images: the mean over the reports, one a labelled subset."""
    expected = "the report of a judge of probes; make it with `ddrep probe`"
    tried = [each.model_dump() for path in reports for each in read_json(path, Report, expected).tried]
    grid = pd.DataFrame(tried).pivot_table("top1", "block", "timestep", aggfunc="mean", sort=False).sort_index(axis=1)
    drawn = Figure(
        figsize=(max(4.5, 1.6 + 0.85 * len(grid.columns)), max(2.6, 1.3 + 0.5 * len(grid))), layout="constrained"
    )
    axes = drawn.subplots()
    values = grid.to_numpy(float)
    shown = axes.imshow(values, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(grid.columns)), [f"{t:g}" for t in grid.columns])
    axes.set_yticks(range(len(grid)), list(grid.index))
    axes.set(xlabel="timestep to which the image is noised", ylabel="block")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if not isnan(value):
            colour = "black" if value > middle else "white"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9)
    drawn.colorbar(shown, label="top-1 out of fold (%)")
    save(drawn, out)
