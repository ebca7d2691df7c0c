"""Plots that a reader can hover, as Vega-Lite specifications, each with the figures behind it as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from ddrep.reporting.controls import known
from ddrep.sources import SOURCES, controls

INK = "#000000"
"""Drawn in the colour of the text, light or dark (style.css)."""
MOST_CLASSES = 60
"""In a plot with a row for each: those of the lowest values."""
ROW = 22
"""Pixels of a row."""
LINES = alt.Legend(symbolType="stroke", symbolStrokeWidth=2, symbolSize=600)
"""Of lines that differ in their dashes."""


@dataclass(frozen=True)
class Plot:
    """A title, what it shows in a sentence, the specification, and the figures as a table."""

    title: str
    text: str
    spec: dict[str, Any]
    data: pd.DataFrame


def plot(title: str, text: str, chart: Any, data: pd.DataFrame, height: int = 300) -> Plot:
    """As wide as its place in the page."""
    sized = chart.properties(width="container", height=height, description=f"{title}. {text}")
    legend = sized.configure_legend(
        orient="bottom", title=None, columns=2, labelLimit=260, symbolOpacity=1, labelFontSize=12
    )
    axes = legend.configure_axis(labelLimit=320, labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
    return Plot(title, text, axes.to_dict(), data)


def sources_scale(names: Sequence[str]) -> tuple[alt.Scale, alt.Scale]:
    """Colours and dashes of the sources, as Figure 4 has them, in the order of the tables."""
    known = [SOURCES[name] for name in SOURCES if name in set(names)]
    dashes = [[1, 0] if source.style.dashes == "-" else [3 * x for x in source.style.dashes[1]] for source in known]
    domain, colours = [source.name for source in known], [source.style.colour for source in known]
    return alt.Scale(domain=domain, range=colours), alt.Scale(domain=domain, range=dashes)


def accuracy(cells: pd.DataFrame) -> Iterator[Plot]:
    """Figure 4: top-1 against the scale, of each architecture, without and with Mixup and CutMix."""
    for (architecture, mix), block in cells.groupby(["architecture", "mix"], sort=False):
        names = [name for name in dict.fromkeys(block["source"]) if name != "real"] or ["real"]
        lines = [block[block["source"].isin(["real", name])].assign(line=name) for name in names]
        rows = pd.concat(lines, ignore_index=True)
        rows = rows.assign(low=rows["mean"] - rows["std"].fillna(0), high=rows["mean"] + rows["std"].fillna(0))
        mixed = "with" if mix else "without"
        yield plot(
            f"Figure 4: accuracy by scale, {architecture}, {mixed} Mixup+CutMix",
            "Top-1 accuracy on the test images against the number of synthetic images, in multiples of 1x; at 0 the "
            "real images alone. Bars: standard deviation over runs.",
            _lines(rows),
            block[["source", "scale", "n_real", "n_synthetic", "mean", "std", "n", "steps"]],
        )


def _lines(rows: pd.DataFrame) -> alt.LayerChart:
    (colour, dash), scales = sources_scale(rows["line"].tolist()), sorted(set(rows["scale"].tolist()))
    tips = ["source", "scale", alt.Tooltip("mean", format=".2f"), alt.Tooltip("std", format=".2f"), "n", "n_synthetic"]
    base = alt.Chart(rows[["line", "source", "scale", "mean", "std", "low", "high", "n", "n_synthetic"]]).encode(
        x=alt.X("scale:Q", title="synthetic images (multiples of 1x)", axis=alt.Axis(values=scales, format="d")),
        color=alt.Color("line:N", scale=colour, legend=LINES),
    )
    title = "top-1 accuracy (%)"
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=False))
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=alt.StrokeDash("line:N", scale=dash))
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(y=y, tooltip=tips)
    return line + bars + points


def differences(cells: pd.DataFrame, confidence: float) -> Iterator[Plot]:
    """Each source against the strongest of its controls, at the largest scale with the most of these."""
    rows = cells[cells["control"] != ""]
    if rows.empty:
        return
    rows = rows.assign(known=[len(known(cell)) for cell in rows.to_dict("records")])
    best = rows.sort_values(["known", "scale"]).groupby(["architecture", "mix", "source"], sort=False).tail(1)
    rows = best.sort_index()
    lacking = rows["known"] < rows["source"].map(lambda name: len(controls(name)))
    mixed, others = rows["mix"].map({True: ", mixed", False: ""}), lacking.map({True: " alone", False: ""})
    label = rows["source"] + " " + rows["scale"].astype(str) + "x, " + rows["architecture"] + mixed
    label += "\nagainst " + rows["control"] + others
    shown = rows.assign(label=label)[
        ["label", "source", "control", "vs_control", "vs_control_low", "vs_control_high", "n"]
    ]
    colour, _ = sources_scale(shown["source"].tolist())
    tips = ["label", "control", *(alt.Tooltip(f"vs_control{end}", format="+.2f") for end in ("", "_low", "_high")), "n"]
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelExpr="split(datum.label, '\\n')"))
    base = alt.Chart(shown).encode(y=y, color=alt.Color("source:N", scale=colour, legend=None))
    title = "points of top-1"
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("vs_control_low:Q", title=title, axis=alt.Axis(tickCount=7)), x2="vs_control_high:Q"
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(x=alt.X("vs_control:Q", title=title), tooltip=tips)
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(strokeDash=[4, 3], color=INK).encode(x="x:Q")
    yield plot(
        "Gain over the strongest control",
        "Each source at the largest scale with most of its controls, against the strongest of them: the real images "
        "alone, trained as long, or with the judge's labels. Where it says alone, other controls were not run, and the "
        f"gain may be theirs. Bars: {100 * confidence:g}% intervals; right of the dashed line is a gain.",
        zero + bars + points,
        shown,
        _height(2 * len(shown)),
    )


def _height(rows: int) -> int:
    return ROW * max(rows, 3) + 20


def acceptance(attempts: pd.DataFrame, names: Sequence[str]) -> Plot:
    """Which share of the candidates of each class a judge keeps."""
    rows = attempts[attempts["source"].isin(names)]
    kept = rows.groupby(["source", "class"], sort=False)["accepted"]
    share = kept.agg(share="mean", accepted="sum", attempts="size").reset_index()
    hardest = share.groupby("class")["share"].min().sort_values().index[:MOST_CLASSES]
    shown = share[share["class"].isin(hardest)]
    colour, _ = sources_scale(list(names))
    tips = ["source", "class", alt.Tooltip("share", format=".1%"), "accepted", "attempts"]
    chart = (
        alt.Chart(shown)
        .mark_point(filled=True, size=80, opacity=0.9)
        .encode(
            y=alt.Y("class:N", sort=list(hardest), title=None),
            x=alt.X("share:Q", title="kept of all candidates", axis=alt.Axis(format="%"), scale=alt.Scale(zero=True)),
            color=alt.Color("source:N", scale=colour),
            tooltip=tips,
        )
    )
    fewer = f" The {MOST_CLASSES} hardest classes." if len(hardest) == MOST_CLASSES else ""
    text = f"The share of a class's candidates that its judge keeps; the hardest class first.{fewer}"
    return plot("Acceptance by class", text, chart, share, _height(len(hardest)))


def certainty(attempts: pd.DataFrame, names: Sequence[str]) -> Plot:
    """How sure the judges are of the candidates: p of the class that was asked for."""
    rows = attempts[attempts["source"].isin(names)]
    bins = (rows["p"].clip(0, 1 - 1e-9) * 20).astype(int) / 20
    counts = rows.assign(p=bins).groupby(["source", "p"]).size().rename("candidates").reset_index()
    counts["share"] = counts["candidates"] / counts.groupby("source")["candidates"].transform("sum")
    colour, dash = sources_scale(list(names))
    chart = (
        alt.Chart(counts.assign(to=counts["p"] + 0.05))
        .mark_line(point=True, interpolate="step-after")
        .encode(
            x=alt.X("p:Q", title="p of the class that was asked for"),
            y=alt.Y("share:Q", title="share of candidates", axis=alt.Axis(format="%")),
            color=alt.Color("source:N", scale=colour, legend=LINES),
            strokeDash=alt.StrokeDash("source:N", scale=dash),
            tooltip=["source", "p", "to", "candidates", alt.Tooltip("share", format=".1%")],
        )
    )
    return plot(
        "What the judges say of candidates", "Candidates by the judge's p, in steps of 0.05.", chart, counts, 240
    )


def robustness(table: pd.DataFrame) -> Iterator[Plot]:
    """What the guides make of early estimates (paper, 4.1)."""
    means = table.groupby(["attribute", "reads", "t"], sort=False)["accuracy"].mean().reset_index()
    for attribute, rows in means.groupby("attribute", sort=False):
        chart = (
            alt.Chart(rows)
            .mark_line(point=True)
            .encode(
                x=alt.X("t:Q", title="t, large early in sampling"),
                y=alt.Y("accuracy:Q", title="accuracy (%)", scale=alt.Scale(zero=False)),
                color=alt.Color("reads:N", scale=alt.Scale(range=["#D55E00", "#0072B2"]), legend=LINES),
                strokeDash="reads:N",
                tooltip=["reads", "t", alt.Tooltip("accuracy", format=".1f")],
            )
        )
        text = "Accuracy of the guides, by what they read, on estimates of the clean image at timestep t."
        yield plot(f"Guides on early estimates: {attribute}", text, chart, rows, 240)


def costs(table: pd.DataFrame) -> Plot:
    """Time by stage."""
    rows = table.groupby("stage", sort=False).agg(
        jobs=("job", "size"), seconds=("seconds", "sum"), largest_memory_mb=("max_rss_mb", "max"),
        attempts=("attempts", "sum"), accepted=("accepted", "sum"),
    )  # fmt: skip
    shown = rows.astype(float).reset_index().sort_values("seconds", ascending=False)
    shown["minutes"] = (shown["seconds"] / 60).round(2)
    chart = (
        alt.Chart(shown)
        .mark_bar(color="#0072B2")
        .encode(
            y=alt.Y("stage:N", sort=None, title=None),
            x=alt.X("minutes:Q", title="minutes, all jobs together"),
            tooltip=["stage", "jobs", "minutes", alt.Tooltip("largest_memory_mb", format=".0f")],
        )
    )
    total = shown["seconds"].sum() / 3600
    text = f"All jobs took {total:.1f} hours of computing, some at the same time."
    return plot("Time by stage", text, chart, shown, _height(len(shown)))
