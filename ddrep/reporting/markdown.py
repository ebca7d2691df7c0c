"""Tables 3 and 4 as Markdown that reads well unrendered, in a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ddrep.reporting.controls import ends, known, sure, versus
from ddrep.sources import SOURCES, controls

WIDTH = 100
AT_ONCE = 4
"""Scales side by side, as in the paper: real, 1x, 2x, 3x; those beyond follow in a table of their own."""

LONGER = next(name for name, source in SOURCES.items() if source.equal_steps and source.labels == "hard")
"""The control of longer training."""

TITLES = {
    3: "Table 3: top-1 accuracy (%) of a classifier trained on one source alone",
    4: "Table 4: top-1 accuracy (%) with synthetic images added to the real ones",
}


def as_markdown(table: pd.DataFrame, cells: pd.DataFrame, number: int, test_images: int, confidence: float) -> str:
    """table (a row a run) and cells (a row a cell) as from ddrep.reporting.tables -> the document."""
    grids = [_sources(cells)] if number == 3 else _scales(cells)
    parts = [f"# {TITLES[number]}", _caption(table, cells, test_images), *grids, *_longer_training(cells)]
    if survived := survival(cells):
        parts += ["## What the gains survive", *survived]
    if differences := _differences(cells):
        parts += ["## Differences in top-1, in points", _explanation(cells, confidence), *differences]
    return "\n\n".join(parts) + "\n"


def _caption(table: pd.DataFrame, cells: pd.DataFrame, test_images: int) -> str:
    subsets, seeds = table["subset"].nunique(), table["seed"].nunique()
    design = f"{counted(subsets, 'labelled subset')} x {counted(seeds, 'seed')}"
    several = cells["n"].max() > 1
    spread = f"Mean ± standard deviation over {_range(cells['n'], 'run')} a cell" if several else "One run a cell"
    real, synthetic = cells.loc[cells["n_real"] > 0, "n_real"], cells[cells["n_synthetic"] > 0]
    sizes = [f"{test_images:,} test images"]
    sizes += [f"{_range(real, 'real image')} to train on"] if len(real) else []
    if len(synthetic):
        sizes.append(f"1x = {_range(synthetic['n_synthetic'] // synthetic['scale'], 'synthetic image')}")
    paper = " The paper's figures are those of Tiny ImageNet." if cells["paper_top1"].notna().any() else ""
    return wrapped(f"{spread} ({design}); {', '.join(sizes)}.{paper}")


def _longer_training(cells: pd.DataFrame) -> list[str]:
    """A paragraph for each architecture and mix where longer training explains more than half of a gain over real: of
    such cells that of the largest scale counts, and of these the one of the largest gain."""
    said = []
    for (architecture, mix), block in cells.groupby(["architecture", "mix"], sort=False):
        rows = block.to_dict("records")
        real = next((row for row in rows if row["source"] == "real"), None)
        longer = {row["scale"]: row for row in rows if row["source"] == LONGER and _gains(row)}
        gained = [row for row in rows if row["control"] and row["scale"] in longer]
        explained = [row for row in gained if 0 < row["vs_real"] < 2 * longer[row["scale"]]["vs_real"]]
        if real and explained:
            row = max(explained, key=lambda row: (row["scale"], row["vs_real"]))
            said.append(_warning(f"{architecture}{_mixed(mix)}", row, real["steps"], longer[row["scale"]]))
    return said


def _gains(longer: Mapping[Any, Any]) -> bool:
    """Whether real images alone gain from longer training: beyond noise, or a point, which few runs cannot tell."""
    return bool(longer["vs_real_low"] > 0 or longer["vs_real"] >= 1)


def _warning(block: str, row: Mapping[Any, Any], steps: int, longer: Mapping[Any, Any]) -> str:
    return wrapped(
        f"**{block}: most of the gain is longer training.** {row['source']} at {row['scale']}x is {row['vs_real']:.1f} "
        f"points above real, but real alone was trained for {counted(steps, 'step')} and gains "
        f"{longer['vs_real']:.1f} points from longer training alone: raise classifier.min_steps to at least "
        f"{longer['steps']} and run again."
    )


def _explanation(cells: pd.DataFrame, confidence: float) -> str:
    text = (
        "Between runs of the same labelled subset and seed, about the same test images. In brackets the "
        f"{100 * confidence:g}% paired bootstrap interval: for other test images and other labelled subsets; where a "
        "cell has one subset, for that subset and other seeds; where it has one run, for other test images alone. "
        "Bold: zero is outside."
    )
    there = set(cells["source"])
    if LONGER in there:
        text += (
            f" Of the two controls, real and {LONGER} (real images alone, trained as long), the better one counts: "
            "only the difference from it is bold, if zero is outside for both."
        )
    if soft := [name for name in SOURCES if name in there and SOURCES[name].labels == "soft"]:
        others = [name for name in soft if not SOURCES[name].has_shards]
        also = f", and {others[0]} (the same with the judge's labels) is a control of theirs likewise" if others else ""
        text += f" The labels of {_listed([n for n in soft if n not in others])} are the judge's probabilities{also}."
    return wrapped(text + _alone(cells))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1] if names else "no source"


def survival(cells: pd.DataFrame) -> list[str]:
    """For each architecture and mix, in words: of each source at the largest scale that has most of its controls,
    whether its gain holds against the strongest of them, or its loss against all, and which are missing."""
    parts = []
    for (architecture, mix), block in cells.groupby(["architecture", "mix"], sort=False):
        rows = block[block["control"] != ""].to_dict("records")
        rows.sort(key=lambda row: (len(known(row)), row["scale"]))
        largest = dict.fromkeys(block["source"]) | {row["source"]: row for row in rows}
        largest = {name: row for name, row in largest.items() if row}
        if largest:
            lines = [f"- {_survives(row)}" for row in largest.values()]
            parts.append("\n".join([f"{architecture}{_mixed(mix)}:", "", *lines]))
    return parts


def _survives(row: Mapping[Any, Any]) -> str:
    value, low, high, _ = ends(row, row["control"])
    there = known(row)
    missing = [name for name in controls(row["source"]) if name not in there]
    verdict = ("holds" if value > 0 else "a loss") if sure(row, row["control"]) else "may be chance"
    strongest = f", the strongest of {_listed(there)}" if len(there) > 1 else ""
    gain = f"{value:+z.1f} [{low:.1f}, {high:.1f}]"
    untried = f"; nothing is known of {_listed(missing)}" if missing else ""
    return f"{row['source']} {row['scale']}x: {gain} over {row['control']}{strongest}: {verdict}{untried}"


def _alone(cells: pd.DataFrame) -> str:
    """What to make of gains over real where a source was trained for more steps and nothing tells what these give."""
    rows = cells.to_dict("records")
    real = {(row["architecture"], row["mix"]): row["steps"] for row in rows if row["source"] == "real"}
    mine = [row for row in rows if row["control"] == "real" and math.isnan(row[versus(LONGER)])]
    if not any(row["steps"] > real[row["architecture"], row["mix"]] for row in mine):
        return ""
    return f" Where {LONGER} is not there, a gain over real may be that of longer training."


def _sources(cells: pd.DataFrame) -> str:
    """Table 3: a row a source."""
    rows = [[c["source"], _mean(c)] for c in cells.to_dict("records")]
    if cells["paper_top1"].isna().all():
        return grid(["Source", "Top-1"], rows, 1)
    paper = [shown(value, 2) for value in cells["paper_top1"]]
    return grid(["Source", "Top-1", "Paper (Tiny ImageNet)"], [[*r, p] for r, p in zip(rows, paper, strict=True)], 1)


def _scales(cells: pd.DataFrame) -> list[str]:
    """Table 4: a row for each architecture, mix and source, a column a scale; the paper's rows in brackets."""
    scales = sorted(cells["scale"].unique())
    return [_some_scales(cells, scales[i : i + AT_ONCE]) for i in range(0, len(scales), AT_ONCE)]


def _some_scales(cells: pd.DataFrame, scales: Sequence[int]) -> str:
    rows: list[list[str]] = []
    for (architecture, mix), block in cells[cells["scale"].isin(scales)].groupby(["architecture", "mix"], sort=False):
        means = {(cell["source"], cell["scale"]): _mean(cell) for cell in block.to_dict("records")}
        names = block["source"].unique()
        lines = [[name, *(means.get((name, scale), "") for scale in scales)] for name in names]
        paper = block.dropna(subset="paper_top1").drop_duplicates("scale").set_index("scale")["paper_top1"]
        if len(paper):
            figures = [f"({paper[scale]:.2f})" if scale in paper else "" for scale in scales]
            lines.append(["(paper, Tiny ImageNet)", *figures])
        heads = [[str(architecture), "yes" if mix else "no"]] + [["", ""]] * (len(lines) - 1)
        rows += [head + line for head, line in zip(heads, lines, strict=True)]
    titles = ["Real only" if scale == 0 else f"+{scale}x" for scale in scales]
    return grid(["Architecture", "Mixup+CutMix", "Source", *titles], rows, 3)


def _differences(cells: pd.DataFrame) -> list[str]:
    """A heading and a grid for each architecture and mix: each source, ours first, against those before it."""
    order = list(dict.fromkeys(cells["source"]))
    parts = []
    for (architecture, mix), block in cells.groupby(["architecture", "mix"], sort=False):
        rows = {
            (cell["source"], cell["scale"], cell["n"]): {
                other: _interval(cell, other) for other in order[: order.index(name)]
            }
            for name in reversed(order)
            for cell in block[block["source"] == name].to_dict("records")
        }
        names = [name for name in order if any(row.get(name) for row in rows.values())]
        lines = [
            [source, f"{scale}x", str(n), *(row.get(name, "") for name in names)]
            for (source, scale, n), row in rows.items()
            if any(row.values())
        ]
        if lines:
            parts.append(f"### {architecture}{_mixed(mix)}")
            parts.append(grid(["Source", "Scale", "Runs", *(f"vs {name}" for name in names)], lines, 1))
    return parts


def _mixed(mix: object) -> str:
    return ", Mixup+CutMix" if mix else ""


def _interval(cell: Mapping[Any, Any], reference: str) -> str:
    """`+1.2 [0.3, 2.1]`, the first in bold if it is sure; with the number of pairs if not all runs have one."""
    value, low, high, pairs = ends(cell, reference)
    if math.isnan(value):
        return ""
    text = f"**{value:+z.1f}**" if sure(cell, reference) else f"{value:+z.1f}"
    return f"{text} [{low:.1f}, {high:.1f}]" + ("" if pairs == cell["n"] else f" ({counted(int(pairs), 'run')})")


def _mean(cell: Mapping[Any, Any]) -> str:
    return with_spread(cell["mean"], cell["std"], 1)


def mean_and_spread(values: pd.Series, digits: int = 1) -> str:
    """Of one value without the standard deviation (ddof 1)."""
    return with_spread(values.mean(), values.std(ddof=1), digits)


def with_spread(mean: float, std: float, digits: int) -> str:
    """`81.2 ± 0.4`, without a standard deviation that is NaN."""
    return shown(mean, digits) + ("" if math.isnan(std) else f" ± {std:.{digits}f}")


def shown(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def _range(values: pd.Series, noun: str) -> str:
    low, high = int(values.min()), int(values.max())
    return counted(high, noun) if low == high else f"{low:,} to {counted(high, noun)}"


def wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH)


def grid(titles: Sequence[str], rows: Iterable[Sequence[str]], right: int) -> str:
    """A Markdown table padded to even columns; those from number `right` on are flush right."""
    lines = [list(titles), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < right else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def padded(i: int, text: str) -> str:
        return text.ljust(widths[i]) if i < right else text.rjust(widths[i])

    body = [[padded(i, text) for i, text in enumerate(line)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [body[0], rule, *body[1:]])
