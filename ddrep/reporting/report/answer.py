"""What was found, in a sentence a source, and whether it survives its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ddrep.reporting.controls import ends, known, sure
from ddrep.reporting.report.results import Results
from ddrep.sources import SOURCES, controls, headlines


def against(control: str) -> str:
    """What a control is called."""
    said = "the real images alone" + (", trained as long" if SOURCES[control].equal_steps else "")
    return said + (" and with the judge's labels" if SOURCES[control].labels == "soft" else "")


@dataclass(frozen=True)
class Answer:
    """Plain text, for people who did not run it."""

    sentence: str
    verdict: str
    tone: Literal["gain", "loss", "unsure", "open"]
    source: str = ""

    @property
    def about(self) -> str:
        """What the source is."""
        return f"{self.source}: {plain(self.source)}." if self.source else ""


NONE = Answer(
    "There is no answer yet.",
    "It is read from Table 4, which is made last, once all classifiers are trained. What is there so far stands below.",
    "open",
)
NOT_ASKED = Answer(
    "This experiment trains no classifiers.",
    "It draws images of attributes or masks, and the tables below say how well they show what was asked for.",
    "open",
)


def answers(results: Results) -> list[Answer]:
    """Of the cells that `main_cell` picks of the sources that are declared as headlines: no result has a say in it."""
    if "augmentation" not in results.experiment.parts:
        return [NOT_ASKED]
    cells, confidence = results.cells, results.experiment.tables.confidence
    found = [] if cells is None else [cell for name in headlines() if (cell := main_cell(cells, name))]
    return [Answer(sentence(cell, confidence), *_verdict(cell), cell["source"]) for cell in found] or [NONE]


def plain(source: str) -> str:
    """What a source is, without Markdown."""
    return SOURCES[source].about.replace("*", "")


def main_cell(cells: pd.DataFrame, source: str) -> Mapping[Any, Any] | None:
    """The cell of a source with the most controls, then the most runs, then without Mixup, then of the largest scale;
    None where it has none.

    By the design of the runs alone: to pick the largest gain would overstate it.
    """
    rows = [row for row in cells.to_dict("records") if row["source"] == source and row["n_synthetic"]]
    return max(rows, key=lambda row: (len(known(row)), row["n"], not row["mix"], row["scale"]), default=None)


def sentence(cell: Mapping[Any, Any], confidence: float) -> str:
    """`With 600 synthetic images (ours) added to 200 labelled ones, a resnet18 is right on 75.4% of ...`"""
    mixed = ", trained with Mixup and CutMix," if cell["mix"] else ""
    found = [_difference(cell, name) for name in known(cell)]
    runs = f"{cell['n']} paired runs" if cell["n"] > 1 else "one run"
    said = (
        f"With {cell['n_synthetic']:,} {SOURCES[cell['source']].images} added to {cell['n_real']:,} labelled ones, "
        f"a {cell['architecture']}{mixed} is right on {cell['mean']:.1f}% of the test images"
    )
    return f"{said}: {'; '.join(found)} ({100 * confidence:g}% intervals, {runs})." if found else f"{said}."


def _difference(cell: Mapping[Any, Any], control: str) -> str:
    value, low, high, _ = ends(cell, control)
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}] against {against(control)}"


def _verdict(cell: Mapping[Any, Any]) -> tuple[str, Literal["gain", "loss", "unsure", "open"]]:
    there = known(cell)
    if not there:
        return "It has been compared with no control yet, so this says nothing about a gain.", "open"
    lacking = [against(name) for name in controls(cell["source"]) if name not in there]
    if not sure(cell, cell["control"]):
        return "Zero lies inside an interval: this may be chance, a gain as well as a loss.", "unsure"
    if cell["vs_control"] < 0:
        return "Zero lies outside every interval: these images do harm here.", "loss"
    if lacking:
        return f"It was not compared with {lacking[0]}: the gain may be that of longer training.", "unsure"
    all_of = "both" if len(there) == 2 else "all"
    labels = " nor the judge's labels" if SOURCES[cell["source"]].labels == "soft" else ""
    return f"The gain survives {all_of} controls: it is neither chance nor longer training{labels}.", "gain"
