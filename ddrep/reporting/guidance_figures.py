"""Figure 2, and the guides' accuracy on estimates of the clean image, as PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ddrep.config import Figure2, Stage
from ddrep.data.masks import IGNORE, read_masked_shards
from ddrep.errors import UserError
from ddrep.reporting.figures import save, tile_grid
from ddrep.reporting.guidance import read_robustness
from ddrep.reporting.lettering import lettering
from ddrep.sources import SOURCES

READS = {"features": ("ours", "denoiser features (ours)"), "pixels": ("classifier-free", "the image (DDIM-I)")}
"""What a guide reads -> whose style it takes, and its name in the legend."""


@lettering()
def figure2(stage: Stage[Figure2], *, shards: Sequence[Path], out: Path) -> None:
    """A row of target masks, then a row for each shard (.../METHOD/STEPS.tar); a column for each of the first masks."""
    drawn = [read_masked_shards([path]) for path in shards]
    first = drawn[0]
    count = min(stage.config.figure2_images, len(first))
    rows, names = [dict(enumerate(coloured(first.masks[:count], len(first.classes))))], ["target"]
    for path, shard in zip(shards, drawn, strict=True):
        if shard.keys != first.keys:
            raise UserError(f"{path}: other masks than {shards[0]}; draw the images anew")
        rows.append(dict(enumerate(shard.images[:count])))
        names.append(f"{path.parent.name}, {path.stem} steps")
    save(tile_grid(names, rows, count, "Images drawn for target masks"), out)


def coloured(masks: np.ndarray, classes: int) -> np.ndarray:
    """Label maps (N, H, W) -> RGB uint8 (N, H, W, 3): class 0 black, those of no class grey."""
    palette = np.full((256, 3), 128, np.uint8)
    hues = matplotlib.colormaps["tab20"](np.arange(classes - 1) % 20)[:, :3]
    palette[:classes] = np.concatenate([np.zeros((1, 3)), 255 * hues]).round().astype(np.uint8)
    assert classes <= IGNORE
    return palette[masks]


@lettering()
def robustness(*, table: Path, out: Path) -> None:
    """A panel for each attribute: accuracy on x0hat(x_t) against t by guide; thin lines are the runs."""
    rows = read_robustness(table, "the table (.parquet) of `ddrep robustness-table`; make it anew")
    attributes = list(rows["attribute"].unique())
    figure = Figure(figsize=(max(5.0, 3.6 * len(attributes)), 3.4), layout="constrained")
    panels = figure.subplots(1, len(attributes), sharey=True, squeeze=False)[0]
    for axes, attribute in zip(panels, attributes, strict=True):
        for reads, (style, label) in READS.items():
            look = SOURCES[style].style
            mine = rows[(rows["attribute"] == attribute) & (rows["reads"] == reads)]
            for _, run in mine.groupby(["subset", "seed"]):
                axes.plot(run["t"], run["accuracy"], color=look.colour, alpha=0.35, linewidth=0.8)
            mean = mine.groupby("t")["accuracy"].mean()
            line = {"color": look.colour, "linestyle": look.dashes, "linewidth": look.width}
            axes.plot(mean.index, mean, **line, marker="o", label=label)
        axes.set(title=attribute, xlabel="t (noise; sampling goes from right to left)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on estimated clean images (%)")
    panels[0].legend(title="the guide reads", loc="lower left", fontsize=9)
    save(figure, out)
