"""Table 5 and Figure 5: how many labelled images a source is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ddrep.config import AccuracyTable, Stage
from ddrep.errors import UserError
from ddrep.evaluation.bootstrap import resampled_mean
from ddrep.reporting.figures import WIDTH, save
from ddrep.reporting.judges import section
from ddrep.reporting.lettering import lettering
from ddrep.reporting.markdown import counted, grid, with_spread, wrapped
from ddrep.reporting.tables import difference, pairs_of, read_runs
from ddrep.rows import Kind, read_rows, write_rows
from ddrep.sources import SOURCES

CELL = ["source", "scale", "n_real"]
GAIN = ("gain", "gain_low", "gain_high", "gain_pairs")
LINE: dict[str, Kind] = {
    "source": "text", "scale": "whole", "n_real": "whole", "mean": "number", "std": "number or nan",
}  # fmt: skip


def run(
    stage: Stage[AccuracyTable], *, rows: Sequence[Path], judges: Path | None, out: Path, summary: Path, markdown: Path
) -> None:
    """Row files of runs -> table, summary (.parquet) and Markdown, which is printed as well. Raises UserError."""
    table, correct = read_runs(rows, CELL)
    cells = summarise(table, correct, stage.config, stage.seed)
    document = as_markdown(table, cells, correct.shape[1], stage.config.confidence) + section(judges)
    write_rows({out: table, summary: cells, markdown: document})
    print(document)


def summarise(table: pd.DataFrame, correct: np.ndarray, cfg: AccuracyTable, seed: int) -> pd.DataFrame:
    """One row a cell of source, scale and number of labelled images; table and correct as from `read_runs`.

    mean, std (over runs, ddof 1), n: top-1 in percent; gain, gain_low, gain_high: in points over real alone with the
    same labelled images, of gain_pairs paired runs. worth: with how many labelled images real alone is as good, by its
    line between the numbers there are (straight in their logarithm), worth_low and worth_high its interval for other
    test images and subsets; infinite beyond the largest number, 0 below the smallest.
    """
    groups: dict[Any, np.ndarray] = {cell: rows.index.to_numpy() for cell, rows in table.groupby(CELL, sort=True)}
    drawn = {
        cell: resampled_mean(correct[rows].astype(np.float32), table["subset"].to_numpy()[rows], cfg.resamples, seed)
        for cell, rows in groups.items()
    }
    real = {cell[2]: cell for cell in groups if cell[0] == "real"}
    if not real:
        raise UserError("rows: no run of real images alone, with which others are compared")
    labels = sorted(real)
    curve = np.array([correct[groups[real[n]]].mean() for n in labels])
    curves = np.stack([drawn[real[n]] for n in labels], axis=1)
    tail, cells = (1 - cfg.confidence) / 2, []
    for cell, rows in groups.items():
        row: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        row |= {"mean": table["top1"][rows].mean(), "std": table["top1"][rows].std(ddof=1), "n": len(rows)}
        if cell[0] != "real":
            alone = groups.get(("real", 0, cell[2]), np.array([], int))
            row |= difference("gain", table, correct, pairs_of(table, rows, alone), cfg, seed)
            row["worth"] = worth(np.array(labels), curve[None], correct[rows].mean(keepdims=True).ravel())[0]
            said = worth(np.array(labels), curves, drawn[cell])
            # not by interpolation, which knows no infinity
            row["worth_low"], row["worth_high"] = np.quantile(said, [tail, 1 - tail], method="nearest")
        cells.append(row)
    return pd.DataFrame(cells, columns=[*LINE, "n", *GAIN, "worth", "worth_low", "worth_high"])


def worth(labels: np.ndarray, curves: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """With how many labels each of the curves (N, labels) first reaches its accuracy (N,): 0 below the first point,
    infinite above all."""
    found = np.full(len(reached), math.inf)
    found[reached < curves[:, 0]] = 0
    for i in range(len(labels) - 1):
        low, high = curves[:, i], curves[:, i + 1]
        here = np.isinf(found) & (reached >= low) & (reached <= high)
        share = np.where(high > low, (reached - low) / np.where(high > low, high - low, 1), 0)
        between = np.exp(np.log(labels[i]) + share * np.log(labels[i + 1] / labels[i]))
        found = np.where(here, between, found)
    return found


def as_markdown(table: pd.DataFrame, cells: pd.DataFrame, test_images: int, confidence: float) -> str:
    labels = sorted(cells["n_real"].unique())
    subsets, seeds = counted(table["subset"].nunique(), "labelled subset"), counted(table["seed"].nunique(), "seed")
    text = (
        f"Top-1 (%) of {table['architecture'].iloc[0]} with so many labelled images in all, mean ± standard "
        f"deviation over {subsets} x {seeds}; {test_images:,} test images. In the second "
        f"table the labelled images with which real alone would be as good, with {100 * confidence:g}% bootstrap "
        "intervals for other test images and subsets: read off real alone's line between the numbers there are."
    )
    head = ["Source", *(f"{n:,}" for n in labels)]
    of = {(row["source"], row["scale"], row["n_real"]): row for row in cells.to_dict("records")}
    order = list(SOURCES)
    names = sorted({cell[:2] for cell in of}, key=lambda name: (order.index(name[0]), name[1]))
    means = [[_name(*name), *(_mean(of.get((*name, n))) for n in labels)] for name in names]
    worths = [
        [_name(*name), *(_worth(of.get((*name, n)), labels) for n in labels)] for name in names if name[0] != "real"
    ]
    parts = ["# Table 5: what a source is worth in labelled images", wrapped(text), grid(head, means, 1)]
    return "\n\n".join([*parts, "## As good as real alone with", grid(head, worths, 1)]) + "\n"


def _name(source: str, scale: int) -> str:
    return f"{source} {scale}x" if scale else source


def _mean(cell: Mapping[Any, Any] | None) -> str:
    if cell is None:
        return ""
    text = with_spread(cell["mean"], cell["std"], 1)
    if math.isnan(cell["gain"]):
        return text
    return f"{text} ({cell['gain']:+z.1f} [{cell['gain_low']:.1f}, {cell['gain_high']:.1f}])"


def _worth(cell: Mapping[Any, Any] | None, labels: Sequence[int]) -> str:
    if cell is None or math.isnan(cell["worth"]):
        return ""
    value, low, high = (_count(cell[f"worth{end}"], labels) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _count(n: float, labels: Sequence[int]) -> str:
    return f"> {labels[-1]:,}" if math.isinf(n) else f"< {labels[0]:,}" if not n else f"{n:,.0f}"


@lettering()
def figure5(*, table: Path, out: Path) -> None:
    """Top-1 against the number of labelled images: a line a source, its standard deviation as bars."""
    cells = read_rows(
        table, LINE | {"gain": "number or nan"}, "the summary of Table 5; make it with `ddrep labels-table`"
    )
    figure = Figure(figsize=(WIDTH * 0.7, 4.6), layout="constrained")
    axes = figure.subplots()
    for (source, scale), rows in cells.groupby(["source", "scale"], sort=False):
        line, style = rows.sort_values("n_real"), SOURCES[str(source)].style
        look = {"color": style.colour, "linestyle": style.dashes, "linewidth": style.width}
        x, mean, name = line["n_real"], line["mean"], _name(str(source), int(str(scale)))
        axes.plot(x, mean, label=name, marker="o", markersize=5, **look)
        axes.errorbar(x, mean, line["std"].fillna(0), fmt="none", ecolor=style.colour, elinewidth=1, alpha=0.55)
    labels = sorted(cells["n_real"].unique())
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.set(xlabel="labelled images", ylabel="top-1 accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee", linewidth=0.8)
    axes.legend(frameon=False, fontsize=9.5, handlelength=2.8)
    save(figure, out)
