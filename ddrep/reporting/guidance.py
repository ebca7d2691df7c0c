"""Tables 1 and 2, and the guides' accuracy on estimates of the clean image: one row a run, and summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddrep.config import GuidanceTable, Stage
from ddrep.errors import UserError
from ddrep.evaluation.frechet import floor, frechet_distance
from ddrep.evaluation.inception import LAYER
from ddrep.evaluation.scores import read_features
from ddrep.methods import METHODS
from ddrep.networks.metadata import WIDEST
from ddrep.reporting import paper
from ddrep.reporting.markdown import grid, shown, with_spread, wrapped
from ddrep.rows import Kind, gathered, in_order, read_rows, write_rows

KEYS = {1: ["attribute", "present", "method", "steps"], 2: ["method", "steps"]}
MEASURE = {1: "share", 2: "miou"}
_RUN: dict[str, Kind] = {"method": "text", "steps": "whole", "subset": "whole", "seed": "whole"}
SCORES: dict[int, dict[str, Kind]] = {
    1: {"attribute": "text", "present": "flag", **_RUN, "share": "number", "n": "whole", "attempts": "whole"},
    2: {**_RUN, "miou": "number or nan", "n": "whole"},
}
"""Columns of the scores of ddrep.evaluation.scores."""
ROBUSTNESS: dict[str, Kind] = {
    "reads": "text", "t": "number", "accuracy": "number", "n": "whole", "attribute": "text", "subset": "whole",
    "seed": "whole",
}  # fmt: skip
GUIDES = {"features": "features (ours)", "pixels": "pixels (DDIM-I)"}
"""What a guide reads -> its name in tables."""


def run(
    stage: Stage[GuidanceTable], *, files: Sequence[Path], number: int, out: Path, summary: Path, markdown: Path
) -> None:
    """Score files (.parquet), each with its images' features beside it, and the real images' features (.npz) -> Table 1
    or 2.

    Real images' are of Table 1 a file for each attribute, .../ATTRIBUTE/NAME.npz; of Table 2 one. Raises UserError.
    """
    real = [path for path in files if path.suffix == ".npz"]
    rows = [path for path in files if path.suffix == ".parquet"]
    if not rows:
        raise UserError("files: expected at least one run's .score.parquet")
    scores = {path: _read(path, number) for path in rows}
    key = [*KEYS[number], "subset", "seed"]
    table = in_order(gathered(rows, scores.__getitem__, key), key, present=[True, False], method=list(METHODS))
    table = table.reset_index(drop=True)
    cells = summarise(table, number, stage.config.paper)
    distances = _distances(cells, number, scores, real, stage.config.minimum, stage.seed)
    cells = cells.merge(distances, on=KEYS[number], how="left")
    document = as_markdown(cells, number, stage.config.paper)
    write_rows({out: table, summary: cells, markdown: document})
    print(document)


def _read(path: Path, number: int) -> pd.DataFrame:
    expected = "the scores of guided images; score them anew"
    table = read_rows(path, SCORES[number], expected)
    if not len(table) or not table["n"].all():
        raise UserError(f"{path}: scores of no images; expected {expected}")
    return table


def summarise(table: pd.DataFrame, number: int, beside_paper: bool = False) -> pd.DataFrame:
    """One row a cell, in the table's order: mean, std (over runs, ddof 1; NaN for one run), runs, images (of all
    runs), attempts_per_image where there are any, and the paper's figures, NaN where they do not belong."""
    cells = []
    for key, rows in table.groupby(KEYS[number], sort=False):
        values = rows[MEASURE[number]]
        cell: dict[str, Any] = dict(zip(KEYS[number], key, strict=True))
        cell |= {MEASURE[number]: values.mean(), "std": values.std(ddof=1), "runs": len(rows)}
        cell["images"] = int(rows["n"].sum())
        if number == 1:
            cell["attempts_per_image"] = rows["attempts"].sum() / cell["images"]
            cell["paper_fid"] = paper_fid(cell["attribute"], cell["present"], cell["method"])
        else:
            cell["paper_miou"], cell["paper_fid"] = paper_masks(cell["method"], cell["steps"])
        cells.append(cell)
    known = pd.DataFrame(cells)
    return known if beside_paper else known.assign(**{c: math.nan for c in known.columns if c.startswith("paper_")})


def paper_fid(attribute: str, present: bool, method: str) -> float:
    """The paper's FID of a cell of Table 1; NaN where it has none."""
    name = paper.ATTRIBUTES.get((attribute, bool(present)))
    return paper.TABLE1[name].get(method, math.nan) if name else math.nan


def paper_masks(method: str, steps: int) -> tuple[float, float]:
    """The paper's mIoU and FID of a cell of Table 2; NaN where it has none."""
    return paper.TABLE2.get(method, (math.nan, math.nan)) if steps == paper.TABLE2_STEPS else (math.nan, math.nan)


def _distances(
    cells: pd.DataFrame, number: int, scores: dict[Path, pd.DataFrame], real: Sequence[Path], minimum: int, seed: int
) -> pd.DataFrame:
    """For each cell: metric (name), distance, distance_n (images of each set), floor and its standard deviation
    floor_std over splits of the real images; NaN below `minimum` images, and without a floor."""
    references = {path.parent.name if number == 1 else None: read_features(path) for path in real}
    found = []
    for cell in cells.to_dict("records"):
        if (attribute := cell.get("attribute")) not in references:
            raise UserError(f"no features of real images of {attribute}; give .../{attribute}/NAME.npz")
        metric, features, labels = references[attribute]
        target = int(cell.get("present", 0))
        theirs = features[labels == target]
        drawn = _drawn(cell, scores, metric, target)
        n = min(len(theirs), len(drawn))
        row = {name: cell[name] for name in KEYS[number]} | {"metric": metric, "distance": math.nan}
        row |= {"distance_n": n, "floor": math.nan, "floor_std": math.nan, "minimum": minimum}
        if n >= minimum and theirs.shape[1]:
            row["distance"] = frechet_distance(theirs, drawn, seed, minimum)
            if known := floor(theirs, n, seed):
                row["floor"], row["floor_std"] = known
        found.append(row)
    return pd.DataFrame(found)


def _drawn(cell: dict[Any, Any], scores: dict[Path, pd.DataFrame], metric: str, target: int) -> np.ndarray:
    """Features of a cell's images of all runs, NAME.npz beside NAME.score.parquet."""
    parts = []
    of_run = [name for name in ("attribute", "method", "steps") if name in cell]
    for path, rows in scores.items():
        if (rows[of_run] == [cell[name] for name in of_run]).all(axis=1).any():
            file = path.with_name(path.name.replace(".score.parquet", ".npz"))
            theirs, features, labels = read_features(file)
            if theirs != metric:
                raise UserError(f"{file}: features for {theirs}, the real images' are for {metric}; make them anew")
            parts.append(features[labels == target])
    return np.concatenate(parts)


PAPERS_DATA = {1: "CelebA-64", 2: "CelebA-Mask"}
TITLES = {1: "Table 1: guidance by an attribute", 2: "Table 2: guidance by a segmentation mask"}
EXPLAINED = {
    1: "Share: percent of the images that show the attribute, or where it is to be absent do not, by a classifier that "
    "took no part in making them. Attempts: images drawn for each one kept.",
    2: "mIoU: mean intersection over union of the target masks with what a segmenter that took no part in making the "
    "images sees in them.",
}


def as_markdown(cells: pd.DataFrame, number: int, beside_paper: bool = False) -> str:
    """The summary of Table 1 or 2 as a document that reads well unrendered."""
    metric = str(cells["metric"].iloc[0])
    most = cells["runs"].max()
    runs = "One run a cell" if most == 1 else f"Mean ± standard deviation over {most} runs"
    notes = [f"{EXPLAINED[number]} {runs}.", _about_distances(cells, metric)]
    if generated := [name for name in cells["method"].unique() if name in METHODS and METHODS[name].generator]:
        names = ", ".join(generated)
        notes.append(
            {
                1: f"Attempts of {names} are latents, of which those kept alone are made images.",
                2: f"{names} draws latents for each mask, of which the one that fits it best is made an image.",
            }[number]
        )
    if cells["paper_fid"].notna().any():
        notes.append("The paper's figures are of its own images and networks, as said below.")
    parts = [f"# {TITLES[number]}", *map(wrapped, notes), _measured(cells, number, metric)]
    parts += _reported(number) if beside_paper else []
    return "\n\n".join(parts) + "\n"


def _about_distances(cells: pd.DataFrame, metric: str) -> str:
    minimum = int(cells["minimum"].iloc[0])
    if not metric:
        return "No Fréchet distances: they want Inception's weights (evaluation.inception) or an evaluator."
    if cells["distance"].isna().all():
        return (
            f"No {metric}: it wants {minimum:,} images of each set, and at most {cells['distance_n'].max():,} are here."
        )
    counts = f"{cells['distance_n'].min():,} to {cells['distance_n'].max():,}"
    unknown = (
        " Where no floor is shown there are too few images for one: it wants more in each set, and in half of the real "
        f"images, than there are features ({int(LAYER):,} of Inception, at most {WIDEST} of an evaluator)."
    )
    return (
        f"{metric}: Fréchet distance to the real test images, at equal numbers ({counts}) of each; floor: the "
        "distance of real images to real images at that number, ± its standard deviation over random halves of the "
        "real images, which says what a difference is worth. Lower is better."
    ) + (unknown if (cells["distance"].notna() & cells["floor"].isna()).any() else "")


def _measured(cells: pd.DataFrame, number: int, metric: str) -> str:
    digits = {1: 1, 2: 3}[number]
    columns: dict[str, list[str]] = {}
    if number == 1:
        named = zip(cells["attribute"], cells["present"], strict=True)
        columns["Attribute"] = [name if present else f"not {name}" for name, present in named]
    columns |= {"Method": list(cells["method"]), "Steps": [str(steps) for steps in cells["steps"]]}
    columns[{1: "Share", 2: "mIoU"}[number]] = _spread(cells[MEASURE[number]], cells["std"], digits)
    if number == 1:
        columns["Attempts"] = [f"{attempts:.1f}" for attempts in cells["attempts_per_image"]]
    if cells["distance"].notna().any():
        columns[metric] = [shown(distance, 2) for distance in cells["distance"]]
        columns["Floor"] = _spread(cells["floor"], cells["floor_std"], 2)
    for title, name in (("mIoU", "paper_miou"), ("FID", "paper_fid")):
        if name in cells and cells[name].notna().any():
            columns[f"Paper's {title} ({PAPERS_DATA[number]})"] = [shown(value, 2) for value in cells[name]]
    return grid(list(columns), zip(*columns.values(), strict=True), {1: 2, 2: 1}[number])


def _spread(values: pd.Series, stds: pd.Series, digits: int) -> list[str]:
    return [with_spread(value, std, digits) for value, std in zip(values, stds, strict=True)]


def _reported(number: int) -> list[str]:
    """The paper's own table, with methods that are not run here."""
    if number == 1:
        methods = list(paper.TABLE1["male"])
        lines = [[name, *(shown(row[m], 2) for m in methods)] for name, row in paper.TABLE1.items()]
        heads = [paper.NAMES.get(name, name) for name in methods]
        return ["## Reported by the paper: FID on CelebA-64", grid(["Class", *heads], lines, 1)]
    lines = [[paper.NAMES.get(name, name), shown(miou, 2), shown(fid, 2)] for name, (miou, fid) in paper.TABLE2.items()]
    return ["## Reported by the paper: 500 images of CelebA-Mask, 10 steps", grid(["Method", "mIoU", "FID"], lines, 1)]


def robustness(*, rows: Sequence[Path], out: Path, markdown: Path) -> None:
    """Rows of ddrep.evaluation.robustness -> one table, and its means by attribute, guide and timestep, printed."""
    read = partial(read_robustness, expected="rows of `ddrep robustness`; make them anew")
    key = ["attribute", "reads", "subset", "seed", "t"]
    table = gathered(rows, read, key).sort_values(key).reset_index(drop=True)
    means = table.pivot_table(index=["attribute", "reads"], columns="t", values="accuracy", aggfunc="mean")
    lines = [
        [attribute, GUIDES[reads], *(shown(v, 1) for v in row)]
        for (attribute, reads), row in zip(means.index, means.to_numpy(), strict=True)
    ]
    note = (
        "Accuracy (%) of the guides on x0hat(x_t), the denoiser's one-step estimate of test images noised to t: the "
        "claim of the paper's section 4.1. Large t is early in sampling."
    )
    titles = ["Attribute", "The guide reads", *(f"t={t:g}" for t in means.columns)]
    document = "\n\n".join(["# Who understands early estimates", wrapped(note), grid(titles, lines, 2)]) + "\n"
    write_rows({out: table, markdown: document})
    print(document)


def read_robustness(path: Path, expected: str) -> pd.DataFrame:
    """Raises UserError; see `read_rows`."""
    table = read_rows(path, ROBUSTNESS, expected)
    if not len(table) or not set(table["reads"]) <= set(GUIDES):
        raise UserError(f"{path}: no guides, or others than of {', '.join(GUIDES)}; expected {expected}")
    return table
