"""The page itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from ddrep.config import Experiment
from ddrep.files import written_whole
from ddrep.reporting.guidance import ROBUSTNESS
from ddrep.reporting.report import answer, caveats, documents, judging, made_with, neighbours, plots, walls
from ddrep.reporting.report.results import TABLE4, Results
from ddrep.rows import Kind

log = logging.getLogger("ddrep")

HERE = Path(__file__).parent
CAPTIONS = {
    "figure1": "Figure 1: one class by several sources, from the same starting noises",
    "figure2": "Figure 2: images drawn for segmentation masks",
    "figure3": "Figure 3: accepted images of several classes",
    "probe": "Where classes can be read: accuracy of linear probes by block of the denoiser and timestep",
    "denoiser": "What the unconditional denoiser draws after its training",
    "finetuned": "What the fine-tuned denoiser draws, a row for each class",
}
PLOTTED = {"figure4": TABLE4, "robustness": "tables/robustness.parquet"}
"""Figures that the page draws itself, and the tables that it draws them of."""
COSTS: dict[str, Kind] = {"stage": "text", "job": "text"}
COSTS |= dict.fromkeys(("seconds", "max_rss_mb", "attempts", "accepted"), "number or nan")


def run(experiment: Experiment, out: Path) -> None:
    """Write the page of an experiment, finished or not: what is there, and what is missing.

    It holds all that it shows and asks nothing of a network. Equal results give equal bytes. Raises UserError.
    """
    results = Results(experiment, Path("results", experiment.experiment))
    text = render(results)
    with written_whole(out) as (draft,):
        draft.write_text(text, encoding="utf-8")
    log.info("%s: %.1f MB", out, len(text.encode()) / 1e6)


def render(results: Results) -> str:
    """The page as HTML."""
    loader = jinja2.FileSystemLoader(HERE)
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    env.filters["embedded"] = embedded
    env.filters["table"] = documents.table_html
    found = walls.walls(results)
    near = neighbours.neighbours(results)
    changed, whole = made_with.settings(results.experiment)
    made = {"results": _of_results(results), "judged": _kept(results), "trained": judging.trained(results)}
    return env.get_template("page.html").render(
        name=results.experiment.experiment, answers=answer.answers(results), progress=results.progress,
        caveats=[*caveats.caveats(results), *_copies(near)], plots={key: list(each) for key, each in made.items()},
        pictures=list(_pictures(results)), walls=walls.as_json(found) if found else None,
        left_out=found.left_out if found else 0, neighbours=neighbours.as_json(near),
        documents=documents.documents(results), costs=list(_costs(results)), facts=made_with.facts(results.experiment),
        changed=changed, whole=whole, style=_own("style.css"), script=_own("script.js"),
        vega=_vega(),
    )  # fmt: skip


def embedded(content: Any) -> str:
    """JSON that cannot end the script that it stands in."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _vega() -> str:
    """The script that draws plots, which takes seconds to put together."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _of_results(results: Results) -> Iterator[plots.Plot]:
    cells = results.cells
    if cells is not None:
        yield from plots.differences(cells, results.experiment.tables.confidence)
        yield from plots.accuracy(cells)
    robustness = results.rows(results.folder / "tables/robustness.parquet", ROBUSTNESS)
    if robustness is not None:
        yield from plots.robustness(robustness)


def _kept(results: Results) -> Iterator[plots.Plot]:
    names = caveats.filtering(results.attempts)
    if names:
        yield plots.acceptance(results.attempts, names)
        yield plots.certainty(results.attempts, names)


def _costs(results: Results) -> Iterator[plots.Plot]:
    table = results.rows(results.folder / "tables/costs.parquet", COSTS)
    if table is not None and len(table):
        yield plots.costs(table)


def _copies(found: list[neighbours.Neighbours]) -> list[str]:
    near = {each.name: each.copies for each in found if each.copies}
    if not near:
        return []
    shown = sum(len(each.distances) for each in found)
    return [
        f"Near the labelled images: of {shown} generated images looked at, {sum(near.values())} are less than half as "
        f"far from a labelled image as from any unseen one ({', '.join(near)}). Some may be copies: see them below."
    ]


def _pictures(results: Results) -> Iterator[dict[str, str]]:
    """Each as an address that holds it, and what it shows."""
    drawn = {name for name, table in PLOTTED.items() if (results.folder / table).is_file()}
    figures = [path for path in results.files("figures/*.png") if path.stem not in drawn]
    for path in [*figures, *results.files("denoiser.png"), *results.files("subset*/finetuned.png")]:
        of = f" ({path.parent.name})" if path.parent.name.startswith("subset") else ""
        caption = f"{CAPTIONS.get(path.stem, path.stem)}{of}."
        yield {"source": walls.data_uri(path.read_bytes(), "png"), "caption": caption}
