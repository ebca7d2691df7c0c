"""Figures 1, 3 and 4 of the paper, as PNG and PDF of equal bytes for equal inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ddrep.config import Figure1, Figure3, Stage
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.errors import UserError
from ddrep.files import written_whole
from ddrep.reporting.lettering import columns, legible, lettering
from ddrep.reporting.tables import ARCHITECTURES, ROW
from ddrep.rows import Kind, read_rows
from ddrep.sources import SOURCES, Source, Style

FIRST = 4
"""Classes of Figure 3 where none are named."""
WIDTH = 10.0
"""Inches: at 150 dots an inch, about twice the width of a README."""

ATTEMPTS: dict[str, Kind] = {
    "key": "text", "class": "whole", "attempt": "whole", "seed": "whole", "p": "number", "accepted": "flag"
}  # fmt: skip
TABLE4 = "Table 4 (.parquet); make it with `ddrep table`"
UNDATED = {"Software": None}, {"CreationDate": None, "Creator": None, "Producer": None}
"""Metadata that a PNG and a PDF are to be without."""
MARKERS = dict(zip(ARCHITECTURES, "os^", strict=True))


@lettering()
def figure1(stage: Stage[Figure1], *, shards: Sequence[Path], out: Path) -> None:
    """A row for each shard (its folder names the source), a column for each of one class's first attempts.

    The images of a column have one starting noise. Where a source refused its candidate, a hatched tile says p.
    """
    cfg = stage.config
    images = [read_shards([path]) for path in shards]
    rows = [
        _attempts(path, cfg.figure1_class, "figures.figure1_class", s) for path, s in zip(shards, images, strict=True)
    ]
    rows = [row[row.index < cfg.figure1_images] for row in rows]
    for path, row in zip(shards, rows, strict=True):
        both = row.index.intersection(rows[0].index)
        if (row["seed"][both] != rows[0]["seed"][both]).any():
            raise UserError(f"{path}: other seeds than {shards[0]}; expected shards of one experiment and number")
    tiles = [_tiles(path, row, s) for path, row, s in zip(shards, rows, images, strict=True)]
    (name,) = _class_names(images[0], [cfg.figure1_class])
    heading = f"{name}: the first {cfg.figure1_images} attempts, one starting noise a column"
    names = [path.parent.name for path in shards]
    save(tile_grid(names, tiles, cfg.figure1_images, heading, _note(names, tiles)), out)


def _note(names: Sequence[str], rows: Sequence[dict[int, np.ndarray | float]]) -> str:
    """What hatched tiles are and, seen by the images that are kept, whose candidates were refused: which source a judge
    chooses from follows from the settings of guidance."""
    said = []
    for name, row in zip(names, rows, strict=True):
        if any(isinstance(tile, float) for tile in row.values()):
            others = (other for other, theirs in zip(names, rows, strict=True) if other != name and _alike(row, theirs))
            said += [f"{name} draws {other}'s candidates; " for other in others][:1] or [""]
    return f"{''.join(said)}hatched: refused, with the probability p of its class" if said else ""


def _alike(row: dict[int, np.ndarray | float], other: dict[int, np.ndarray | float]) -> bool:
    """Whether all attempts of which both have an image have one image, up to how one level is rounded."""
    pairs = [(row[n], other[n]) for n in row.keys() & other.keys()]
    both = [(a.astype(int), b) for a, b in pairs if isinstance(a, np.ndarray) and isinstance(b, np.ndarray)]
    return bool(both) and all(np.abs(a - b).max() <= 1 for a, b in both)


@lettering()
def figure3(stage: Stage[Figure3], *, shard: Path, out: Path) -> None:
    """A row for each class: its first accepted images."""
    cfg = stage.config
    images = read_shards([shard])
    tiles: list[dict[int, np.ndarray | float]] = []
    labels = cfg.figure3_classes or range(len(images.classes))[:FIRST]
    for label in labels:
        row = _attempts(shard, label, "figures.figure3_classes", images)
        tiles.append(dict(enumerate(_tiles(shard, row[row["accepted"]].head(cfg.figure3_images), images).values())))
    heading = f"Accepted images: {shard.parent.name}"
    save(tile_grid(_class_names(images, labels), tiles, cfg.figure3_images, heading), out)


def _class_names(images: LabelledImages, labels: Sequence[int]) -> list[str]:
    return legible([images.classes[label] for label in labels], [f"class {label}" for label in labels])


def _attempts(path: Path, label: int, key: str, images: LabelledImages) -> pd.DataFrame:
    """The rows beside shard `path` that are of class `label`, by attempt. Raises UserError naming config key `key`."""
    if label >= len(images.classes):
        there = ", ".join(f"{i} ({name})" for i, name in enumerate(images.classes[:10]))
        more = ", ..." if len(images.classes) > 10 else ""
        raise UserError(f"{key}: no class {label}; expected 0..{len(images.classes) - 1}: {there}{more}")
    file = path.with_suffix(".parquet")
    table = read_rows(file, ATTEMPTS, f"the attempts of {path}; make the shard anew")
    return table[table["class"] == label].set_index("attempt").sort_index()


def _tiles(path: Path, attempts: pd.DataFrame, images: LabelledImages) -> dict[int, np.ndarray | float]:
    """Attempt -> its image (H, W, C), or p if it was refused."""
    place = {key: i for i, key in enumerate(images.keys)}
    missing = [key for key in attempts["key"][attempts["accepted"]] if key not in place]
    if missing:
        raise UserError(f"{path}: no image {missing[0]}, accepted by its attempts; make the shard anew")
    rows = zip(attempts.index, attempts["key"], attempts["p"], attempts["accepted"], strict=True)
    return {int(n): images.images[place[key]] if accepted else float(p) for n, key, p, accepted in rows}


def tile_grid(
    names: Sequence[str], rows: Sequence[dict[int, np.ndarray | float]], count: int, heading: str, note: str = ""
) -> Figure:
    """Rows of `count` tiles under a heading, row names at the left; column -> image, or p of what was refused, or
    nothing."""
    left = 0.15 + 0.085 * max(map(columns, names))
    tile = min(1.2, (WIDTH - left - 0.1) / count)  # inches
    width, head = max(left + tile * count + 0.1, left + 0.098 * columns(heading), 6.5), 0.58 if note else 0.36
    height = head + tile * len(rows) + 0.08
    figure = Figure(figsize=(width, height))
    extent = (left / width, 0.08 / height, tile * count / width, tile * len(rows) / height)
    axes = figure.add_axes(extent, xlim=(0, count), ylim=(len(rows), 0))
    axes.axis("off")
    size = min(8.0, 12 * tile)
    for r, (name, row) in enumerate(zip(names, rows, strict=True)):
        axes.text(-0.06 / tile, r + 0.5, name, ha="right", va="center", fontsize=10)
        for c, content in row.items():
            _tile(axes, r, c, content, size)
    figure.text(extent[0], 1 - 0.08 / height, heading, va="top", fontsize=11, weight="bold")
    figure.text(extent[0], 1 - 0.32 / height, note, va="top", fontsize=9, color="#444444")
    return figure


def _tile(axes: Axes, r: int, c: int, content: np.ndarray | float, size: float, gap: float = 0.03) -> None:
    if isinstance(content, float):
        box = (c + gap, r + gap), 1 - 2 * gap, 1 - 2 * gap
        axes.add_patch(Rectangle(*box, facecolor="#f7f7f7", edgecolor="#dddddd", hatch="////", linewidth=0))
        plate = {"facecolor": "#f7f7f7", "edgecolor": "none", "pad": 1.2}
        axes.text(
            c + 0.5, r + 0.5, f"p = {content:.2f}", ha="center", va="center", fontsize=size, color="#444444", bbox=plate
        )
        return
    picture = content.repeat(3, -1) if content.shape[-1] == 1 else content
    extent = (c + gap, c + 1 - gap, r + 1 - gap, r + gap)
    axes.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())


@lettering()
def figure4(*, table: Path, out: Path) -> None:
    """Top-1 against scale: a panel for each mix, a line for each source and architecture, from the real-only runs on.

    Lines: means over runs; the band and the bars: their standard deviation (ddof 1); points: the runs.
    """
    runs = read_rows(table, ROW, TABLE4)
    if not len(runs):
        raise UserError(f"{table}: has no rows; expected {TABLE4}")
    if not runs["n_real"].all():
        raise UserError(f"{table}: has runs on synthetic images alone, as Table 3; expected {TABLE4}")
    mixes = [mix for mix in (False, True) if (runs["mix"] == mix).any()]
    spans = [max(2, int(runs.loc[runs["mix"] == mix, "scale"].max())) + 1 for mix in mixes]
    figure = Figure(figsize=(WIDTH, 4.9), layout="constrained")
    panels = figure.subplots(1, len(mixes), sharey=True, squeeze=False, width_ratios=spans)[0]
    for axes, mix in zip(panels, mixes, strict=True):
        _panel(axes, runs[runs["mix"] == mix])
        axes.set_title(f"{'with' if mix else 'without'} Mixup+CutMix", loc="left", fontsize=11, weight="bold")
    panels[0].set_ylabel("top-1 accuracy (%)")
    handles, size = _handles(runs), {"handlelength": 2.8, "fontsize": 9.5}
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, **size)
    save(figure, out)


def _panel(axes: Axes, runs: pd.DataFrame) -> None:
    for architecture in dict.fromkeys(runs["architecture"]):
        of_it = runs[runs["architecture"] == architecture]
        real = of_it[of_it["source"] == "real"]
        axes.plot(real["scale"], real["top1"], ".", color="black", alpha=0.5, markersize=4, markeredgewidth=0, zorder=4)
        for source in _lines(of_it):
            line = pd.concat([real, of_it[of_it["source"] == source.name]])
            _line(axes, line, source.style, MARKERS.get(architecture, "D"))
        if set(of_it["source"]) == {"real"}:
            axes.plot(real["scale"], real["top1"], MARKERS.get(architecture, "D"), color="black", markersize=4)
    unit = _images_in_1x(runs)
    what = f" (1x = {unit:,.0f} images)" if unit else " (multiples of 1x)" if runs["scale"].any() else ""
    axes.set_xlabel(f"synthetic images{what}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda scale, _: f"{scale:.0f}x" if scale else "real only"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    if unit:
        _count_axis(axes, runs, unit)


def _lines(runs: pd.DataFrame) -> list[Source]:
    """The sources that have lines, in the order of the tables: the last lies on top."""
    return [source for source in SOURCES.values() if source.scaled and (runs["source"] == source.name).any()]


def _line(axes: Axes, runs: pd.DataFrame, style: Style, marker: str) -> None:
    top1 = runs.groupby("scale")["top1"]
    mean, std = top1.mean(), top1.std(ddof=1)
    x = mean.index + np.where(mean.index > 0, style.shift, 0.0)
    colour = style.colour
    axes.plot(x, mean, color=colour, linestyle=style.dashes, linewidth=style.width, marker=marker, markersize=5)
    if style.band:
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0, zorder=1)
    else:
        bars = mean.index > 0  # that of the real images is the band's
        axes.errorbar(x[bars], mean[bars], std[bars].fillna(0), fmt="none", ecolor=colour, elinewidth=1, alpha=0.55)
    several = runs[(runs["scale"].map(top1.size()) > 1) & (runs["scale"] > 0)]
    beside = several["scale"] + style.shift
    axes.plot(beside, several["top1"], ".", color=colour, alpha=0.5, markersize=4, markeredgewidth=0)


def _images_in_1x(runs: pd.DataFrame) -> float | None:
    """None where no run has synthetic images, or runs do not agree."""
    synthetic = runs[runs["n_synthetic"] > 0]
    sizes = np.unique(synthetic["n_synthetic"].to_numpy(float) / synthetic["scale"].to_numpy(float))
    return float(sizes[0]) if len(sizes) == 1 else None


def _count_axis(axes: Axes, runs: pd.DataFrame, unit: float) -> None:
    """The number of images along the top."""
    top = axes.secondary_xaxis("top", functions=(lambda x: np.multiply(x, unit), lambda n: np.divide(n, unit)))
    top.set_ticks([unit * scale for scale in sorted(set(runs.loc[runs["n_synthetic"] > 0, "scale"]))])
    top.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n / 1000:g}k" if n >= 10_000 else f"{n:,.0f}"))
    top.tick_params(length=2, labelsize=8, colors="#888888")
    top.spines["top"].set_visible(False)


def _handles(runs: pd.DataFrame) -> list[Artist]:
    lines = [
        Line2D([], [], color=s.style.colour, linestyle=s.style.dashes, linewidth=s.style.width, label=s.name)
        for s in reversed(_lines(runs))
    ]
    names = list(dict.fromkeys(runs["architecture"]))
    marks = [
        Line2D([], [], color="#444444", linestyle="", marker=MARKERS.get(n, "D"), markersize=5, label=n) for n in names
    ]
    spread = Rectangle((0, 0), 1, 1, facecolor="#cccccc", label="band, bars: ± standard deviation")
    several = runs.groupby(["architecture", "mix", "source", "scale"]).size().max() > 1
    return [*lines, *marks, *([spread] if several else [])]


def save(figure: Figure, out: Path) -> None:
    """PNG at `out` and a PDF beside it, without dates and version in their metadata."""
    with written_whole(out, out.with_suffix(".pdf")) as drafts:
        for draft, metadata in zip(drafts, UNDATED, strict=True):
            figure.savefig(draft, dpi=150, metadata=metadata)
