"""Tables 3 and 4: rows of runs -> one row a run, and a summary with paired differences, one row a cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddrep.config import AccuracyTable, Stage
from ddrep.errors import UserError
from ddrep.evaluation.bootstrap import paired_difference
from ddrep.reporting.controls import ENDS, headline, versus
from ddrep.reporting.judges import section
from ddrep.reporting.markdown import as_markdown
from ddrep.reporting.paper import TABLE4, paper_top1
from ddrep.rows import Kind, gathered, in_order, read_rows, write_rows
from ddrep.sources import SOURCES

ROW: dict[str, Kind] = {
    "subset": "whole", "architecture": "text", "mix": "flag", "source": "text", "scale": "whole", "seed": "whole",
    "top1": "number", "n_real": "whole", "n_synthetic": "whole", "epochs": "whole", "steps": "whole",
}  # fmt: skip
"""A run's columns, and what they hold."""
PREDICTIONS: dict[str, Kind] = {"key": "text", "label": "whole", "prediction": "whole"}
CELL = ["architecture", "mix", "source", "scale"]
ARCHITECTURES = tuple(dict.fromkeys(architecture for architecture, _ in TABLE4))


def run(
    stage: Stage[AccuracyTable], *, rows: Sequence[Path], number: int, judges: Path | None, out: Path, summary: Path,
    markdown: Path,
) -> None:  # fmt: skip
    """Row files -> table, summary (.parquet) and Markdown, which is printed as well, with the table of the judges.
    Raises UserError."""
    table, correct = read_runs(rows, alone=number == 3)
    cells = summarise(table, correct, stage.config, stage.seed, number)
    document = as_markdown(table, cells, number, correct.shape[1], stage.config.confidence) + section(judges)
    write_rows({out: table, summary: cells, markdown: document})
    print(document)


def read_cells(path: Path) -> pd.DataFrame:
    """The summary of Table 3 or 4, as `summarise` makes it. Raises UserError."""
    columns: dict[str, Kind] = {name: ROW[name] for name in CELL} | {"mean": "number", "std": "number or nan"}
    columns |= {"n": "whole", "n_real": "whole", "n_synthetic": "whole", "steps": "whole", "control": "text"}
    ends: dict[str, Kind] = {end: "whole" if end == "_pairs" else "number or nan" for end in ENDS}
    columns |= {f"vs_control{end}": kind for end, kind in ends.items()}
    later = {f"{versus(source)}{end}": kind for source in SOURCES for end, kind in ends.items()}
    return read_rows(path, columns | later, "the summary of a table; make it with `ddrep table`", optional=[*later])


def read_runs(
    paths: Sequence[Path], cell: Sequence[str] = CELL, alone: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """Row files, each with its predictions beside it -> one row a run, sorted; bool (runs, images), right or wrong.

    cell: columns that runs apart from subset and seed are told apart by. alone: whether runs at a scale are on
    synthetic images alone, as in Table 3, and not on real ones too.

    Raises UserError: a file that is missing or not a run's; an unknown source; a run given twice, or of the other kind;
    predictions of other test images than the first run's; predictions that do not give the row's top-1.
    """
    table = gathered(paths, _read_row, [*cell, "subset", "seed"])
    for name in table["source"]:
        SOURCES[name]  # raises for one that is not declared here
    others = table[(table["n_real"] == 0) != (alone & (table["scale"] > 0))]
    for (path, _), row in zip(others.index, others.to_dict("records"), strict=True):
        trained = "synthetic images alone" if row["n_real"] == 0 else "real images too"
        expected = "on synthetic ones alone (cas/)" if alone else "on real ones (classifiers/)"
        raise UserError(f"{path}: a run of {row['source']} on {trained}; expected runs {expected}")
    other = sorted({*table["architecture"]} - {*ARCHITECTURES})
    table = in_order(table, [*CELL, "subset", "seed"], architecture=[*ARCHITECTURES, *other], source=list(SOURCES))
    return table.reset_index(drop=True), _read_correct([path for path, _ in table.index], table["top1"].tolist())


def _read_row(path: Path) -> pd.DataFrame:
    row = read_rows(path, ROW, "the row of a run; make it anew with the classifier it belongs to")
    if len(row) != 1:
        raise UserError(f"{path}: expected one row, the run's, got {len(row)}; make it anew")
    return row


def _read_correct(paths: Sequence[Path], top1: Sequence[float]) -> np.ndarray:
    correct: list[np.ndarray] = []
    images: pd.DataFrame | None = None
    first = paths[0].with_suffix(".predictions.parquet")
    for path, percent in zip(paths, top1, strict=True):
        file = path.with_suffix(".predictions.parquet")
        predictions = read_rows(file, PREDICTIONS, "the predictions of a run; run the classifier it belongs to")
        images = predictions[["key", "label"]] if images is None else images
        if not predictions[["key", "label"]].equals(images):
            raise UserError(
                f"{file}: other test images than {first}; expected the same keys and labels in the same order"
            )
        right = predictions["label"].to_numpy() == predictions["prediction"].to_numpy()
        if not np.isclose(100 * right.mean(), percent, atol=0.01):
            raise UserError(f"{file}: {100 * right.mean():.2f}% right, but {path} says {percent:.2f}; make both anew")
        correct.append(right)
    return np.stack(correct)


def summarise(table: pd.DataFrame, correct: np.ndarray, cfg: AccuracyTable, seed: int, number: int) -> pd.DataFrame:
    """One row a cell, in the order of `table`; table and correct as from `read_runs`.

    mean, std (over runs, ddof 1; NaN for one run) and all differences are in points of top-1. For each source but the
    last, at the cell's own scale if it has scales, as reference R, with - written _: vs_R (difference), vs_R_low,
    vs_R_high (interval), vs_R_pairs (runs that both have; 0 and NaN where there are none). Differences are of paired
    runs alone. control names the reference of the headline vs_control (_low, _high, _pairs): see `headline`.
    """
    groups = {cell: rows.index.to_numpy() for cell, rows in table.groupby(CELL, sort=False)}
    paper = number if cfg.paper else None
    cells = [_cell(table.loc[index], cell, paper) for cell, index in groups.items()]
    for cell, row in zip(groups, cells, strict=True):
        for reference in list(SOURCES)[:-1]:
            theirs = (*cell[:2], reference, cell[3] if SOURCES[reference].scaled else 0)
            other = groups.get(theirs, np.array([], int))
            pairs = pairs_of(table, groups[cell], other) if reference != cell[2] else []
            row |= difference(versus(reference), table, correct, pairs, cfg, seed)
        row |= headline(row)
    return pd.DataFrame(cells)


def _cell(rows: pd.DataFrame, cell: tuple[Any, ...], paper: int | None) -> dict[str, Any]:
    architecture, mix, source, scale = cell
    counts = {name: round(float(rows[name].mean())) for name in ("n_real", "n_synthetic", "steps")}
    top1 = {"mean": rows["top1"].mean(), "std": rows["top1"].std(ddof=1), "n": len(rows)}
    known = paper_top1(paper, architecture, bool(mix), source, int(scale)) if paper else np.nan
    return dict(zip(CELL, cell, strict=True)) | top1 | counts | {"paper_top1": known}


def pairs_of(table: pd.DataFrame, ours: np.ndarray, theirs: np.ndarray) -> list[tuple[int, int]]:
    """Rows of two cells with the same labelled subset and seed."""
    by_run = {(table["subset"][i], table["seed"][i]): i for i in theirs}
    keys = [(table["subset"][i], table["seed"][i]) for i in ours]
    return [(i, by_run[key]) for i, key in zip(ours, keys, strict=True) if key in by_run]


def difference(
    name: str, table: pd.DataFrame, correct: np.ndarray, pairs: list[tuple[int, int]], cfg: AccuracyTable, seed: int
) -> dict[str, float]:
    """Columns name (points of top-1), name_low, name_high (interval) and name_pairs, of pairs as from `pairs_of`."""
    value = low = high = np.nan
    if pairs:
        a, b = np.transpose(pairs)
        subsets = table["subset"].to_numpy()[a]
        found = paired_difference(correct[a], correct[b], subsets, cfg.resamples, cfg.confidence, seed)
        value, low, high = (100 * x for x in found)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_pairs": len(pairs)}
