"""Plots of what was trained: curves of the fine-tune and the judges, and how far judges are to be believed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ddrep.reporting.report.plots import INK, Plot, plot
from ddrep.reporting.report.results import EXPECTED, Results
from ddrep.rows import Kind, read_rows

BEST = re.compile(r"epoch (\d+): held-out cross-entropy ([\d.]+)")
"""What ddrep.training.judges says in the log of a judge whenever it got better."""
HISTORY: dict[str, Kind] = {"step": "whole", "loss": "number or nan", "label_margin": "number or nan"}
"""Of a fine-tune."""
MOST_CLASSES = 30
"""Of a confusion that can be read."""


def trained(results: Results) -> Iterator[Plot]:
    """All that is there."""
    yield from _finetunes(results)
    yield from _judges(results)
    yield from _calibration(results)
    for name in dict.fromkeys(path.parent.name for path in results.reports):
        mine = [report for path, report in results.reports.items() if path.parent.name == name]
        yield from _confusion(results, [report["confusion"] for report in mine if "confusion" in report], name)
        yield from _probes([probe for report in mine for probe in report.get("tried", [])], name)


def _finetunes(results: Results) -> Iterator[Plot]:
    paths = results.files("subset*/finetuned.parquet")
    parts = [read_rows(path, HISTORY, EXPECTED, [*HISTORY][1:]).assign(subset=path.parent.name) for path in paths]
    if not parts:
        return
    rows = pd.concat(parts, ignore_index=True)
    of_loss = "Mean squared error of the noise, on the labelled images."
    of_margin = "Share of unseen images on which an image's own label helps more than another: 0.5 means no help."
    for column, title, name, text in (
        ("loss", "loss", "Fine-tune: loss", of_loss),
        ("label_margin", "share", "Fine-tune: does the label help?", of_margin),
    ):
        if column in rows:
            y = alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False))
            yield plot(name, text, _curve(rows, "step", y), rows[["subset", "step", column]], 220)


def _curve(rows: pd.DataFrame, x: str, y: alt.Y) -> alt.Chart:
    group = "judge" if "judge" in rows else "subset"
    return (
        alt.Chart(rows)
        .mark_line(point=True)
        .encode(x=alt.X(f"{x}:Q", title=x), y=y, color=alt.Color(f"{group}:N"), tooltip=list(rows.columns))
    )


def _judges(results: Results) -> Iterator[Plot]:
    rows = [
        {"judge": f"{path.parent.name}, {path.stem}", "epoch": int(epoch), "cross_entropy": float(loss)}
        for stage in ("rejection", "pixel-rejection")
        for path in results.files(f"logs/{stage}/*.log")
        for epoch, loss in BEST.findall(path.read_text(encoding="utf-8", errors="replace"))
    ]
    if rows:
        table = pd.DataFrame(rows)
        y = alt.Y("cross_entropy:Q", title="held-out cross-entropy", scale=alt.Scale(zero=False))
        text = "Cross-entropy on the held-out images, at each epoch that was better than all before it."
        yield plot("Training of the judges", text, _curve(table, "epoch", y), table, 240)


def _calibration(results: Results) -> Iterator[Plot]:
    rows = [
        {"judge": f"{path.parent.name}, {path.parts[-3]}", **bin_}
        for path, report in results.reports.items()
        for bin_ in report.get("calibration", [])
    ]
    if not rows:
        return
    table = pd.DataFrame(rows)
    ends = pd.DataFrame({"confidence": [0.0, 1.0], "accuracy": [0.0, 1.0]})
    axes = {"x": alt.X("confidence:Q", title="what the judge says"), "y": alt.Y("accuracy:Q", title="share right")}
    diagonal = alt.Chart(ends).mark_line(strokeDash=[4, 3], strokeWidth=1, color=INK).encode(**axes)
    tips = ["judge", "n", alt.Tooltip("confidence", format=".2f"), alt.Tooltip("accuracy", format=".2f")]
    size = alt.Size("n:Q", legend=None, scale=alt.Scale(range=[30, 300]))
    points = alt.Chart(table).mark_point(filled=True, opacity=0.8).encode(
        **axes, color=alt.Color("judge:N"), size=size, tooltip=tips
    )  # fmt: skip
    text = "On held-out images; points on the dashed line are right as often as they say. Large points: many images."
    yield plot("Are the judges calibrated?", text, diagonal + points, table, 320)


def _confusion(results: Results, confusions: list[list[list[int]]], name: str) -> Iterator[Plot]:
    """Of all labelled subsets together."""
    if len({len(confusion) for confusion in confusions}) != 1 or len(confusions[0]) > MOST_CLASSES:
        return
    confusion = np.sum(confusions, axis=0).tolist()
    classes = [results.class_name(number) for number in range(len(confusion))]
    cells = [
        {"is": classes[i], "taken for": classes[j], "images": n}
        for i, row in enumerate(confusion)
        for j, n in enumerate(row)
    ]
    table = pd.DataFrame(cells)
    chart = _heat(table, "taken for:N", "is:N", alt.Color("images:Q", scale=alt.Scale(scheme="blues")), classes)
    matrix = table.pivot(index="is", columns="taken for", values="images").loc[classes, classes].reset_index()
    yield plot(
        f"What the judge takes for what: {name}", "Held-out images by class; right ones on the diagonal.",
        chart, matrix, 24 * len(classes) + 30,
    )  # fmt: skip


def _heat(table: pd.DataFrame, x: str, y: str, colour: alt.Color, order: list[str] | None = None) -> alt.Chart:
    sort: Any = order or "ascending"
    axes = {"x": alt.X(x, sort=sort, axis=alt.Axis(labelAngle=-45, grid=False)), "y": alt.Y(y, sort=sort)}
    return alt.Chart(table).mark_rect().encode(**axes, color=colour, tooltip=list(table.columns))


def _probes(probes: list[dict[str, Any]], name: str) -> Iterator[Plot]:
    """The heat map of blocks and timesteps: cross-entropy out of fold, in the mean over labelled subsets."""
    rows = [
        {"block": probe["block"], "timestep": probe["timestep"], "cross_entropy": min(probe["cross_entropy"].values())}
        for probe in probes
    ]
    if rows:
        table = pd.DataFrame(rows).groupby(["block", "timestep"])["cross_entropy"].mean().reset_index()
        colour = alt.Color("cross_entropy:Q", scale=alt.Scale(scheme="viridis", reverse=True))
        text = "Cross-entropy out of fold of the probes, by block of the denoiser and timestep; low is good."
        height = 30 * table["block"].nunique() + 40
        yield plot(
            f"Where classes can be read: {name}", text, _heat(table, "timestep:O", "block:N", colour), table, height
        )
