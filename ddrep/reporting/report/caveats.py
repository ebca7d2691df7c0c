"""What a reader should know before believing the page, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ddrep.errors import some
from ddrep.reporting.markdown import LONGER, counted
from ddrep.reporting.report.results import Results
from ddrep.rows import Kind
from ddrep.sources import SOURCES, controls

FEW_RUNS = 3
"""Below it an interval says little about other seeds."""
UNCALIBRATED, FEW_HELD_OUT = 0.15, 50
"""Expected calibration error; and images, below which the error itself is known badly."""
ALMOST_ALL, ALMOST_NOTHING = 0.95, 0.05
"""Shares of candidates that are accepted."""
NAMED = 6
"""Classes that a sentence names."""


def caveats(results: Results) -> list[str]:
    """Sentences, the gravest first."""
    kinds = (_unfinished, _table4, _acceptance, _judges, _distances, _uneven)
    return [said for kind in kinds for said in kind(results)]


def _unfinished(results: Results) -> Iterator[str]:
    state = results.progress
    if state.finished:
        return
    missing = some(state.missing, NAMED)
    yield f"The run is not finished: {state.done} of {state.jobs} jobs are done. Not there yet: {missing}."
    if state.failed:
        (job, line), *others = state.failed.items()
        more = f"; {counted(len(others), 'other job')} failed as well" if others else ""
        yield f"Failed: {job}: {line}{more}."


def _table4(results: Results) -> Iterator[str]:
    cells = results.cells
    if cells is None:
        return
    few = int(cells["n"].min())
    if cells["n"].max() == 1:
        yield "Few seeds: one run a cell. The intervals speak of other test images, not of other runs."
    elif few < FEW_RUNS:
        yield f"Few seeds: some cells have {counted(few, 'run')} only. Their intervals speak little of other runs."
    there = set(cells["source"])
    if lacking := sorted({name for source in there for name in controls(source)} - there):
        yield f"No control {', '.join(lacking)} in Table 4: a gain may be that of longer training."
    gains = cells[(cells["source"] == LONGER) & (cells["vs_real_low"] > 1)]
    if len(gains):
        yield (
            f"The real images alone gain {gains['vs_real'].max():.1f} points from longer training: they were trained "
            "too briefly, and differences from them are too large. Go by the differences from equal steps."
        )


def filtering(table: pd.DataFrame) -> list[str]:
    """The sources among the attempts whose judge refuses some."""
    there = set(table["source"])
    return [name for name, source in SOURCES.items() if source.has_shards and source.filtered and name in there]


def _acceptance(results: Results) -> Iterator[str]:
    table = results.attempts
    budget = results.experiment.synthesis.max_attempts
    for name in filtering(table):
        rows = table[table["source"] == name]
        share = float(rows["accepted"].mean())
        if share > ALMOST_ALL:
            yield f"{name}: the threshold refuses almost nothing ({share:.0%} of candidates are kept)."
        elif share < ALMOST_NOTHING:
            yield f"{name}: the threshold refuses almost everything ({share:.1%} of candidates are kept)."
        of_class = rows.groupby("class")["accepted"].mean()
        hard = of_class[of_class < 2 / budget]
        if len(hard):
            named = ", ".join(f"{of} ({value:.1%} kept)" for of, value in list(hard.items())[:NAMED])
            yield f"{name}: hardly any images of {named}: they took more than half of their budget of attempts."


def _judges(results: Results) -> Iterator[str]:
    """Of each judge the worst over the labelled subsets."""
    errors: dict[str, float] = {}
    images: dict[str, int] = {}
    for path, report in results.reports.items():
        name = path.parent.name
        errors[name] = max(errors.get(name, 0.0), float(report.get("expected_calibration_error", 0)))
        images[name] = min(images.get(name, FEW_HELD_OUT), int(report.get("n", FEW_HELD_OUT)))
    off = [f"{name} ({100 * error:.0f} points on average)" for name, error in errors.items() if error > UNCALIBRATED]
    if off:
        names = " and ".join(off)
        yield f"Not calibrated: the probabilities of {names} are off. Go by acceptance, not by the threshold."
    few = [f"{name} ({n} images)" for name, n in images.items() if n < FEW_HELD_OUT]
    if few:
        yield f"Judges tested on few held-out images, whose accuracy is known roughly: {', '.join(few)}."


def _distances(results: Results) -> Iterator[str]:
    columns: dict[str, Kind] = {"distance_n": "whole", "minimum": "whole"}
    for name in ("table1", "table2"):
        cells = results.rows(results.folder / f"tables/{name}-summary.parquet", columns)
        if cells is not None and len(few := cells[cells["distance_n"] < cells["minimum"]]):
            yield (
                f"{name.capitalize()}: too few images for a Fréchet distance "
                f"({int(few['distance_n'].min()):,} in a cell, {int(few['minimum'].max()):,} wanted)."
            )


def _uneven(results: Results) -> Iterator[str]:
    images = results.labelled
    if images is None:
        return
    counts = np.bincount(images.labels, minlength=len(images.classes))
    if counts.max() > 2 * counts.min():
        least = images.classes[int(counts.argmin())]
        yield f"Uneven classes: {least} has {counts.min():,} labelled images, others up to {counts.max():,}."
