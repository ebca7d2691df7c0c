"""What students make of each way to draw: solvers, steps and guidance, beside what an image kept costs.

    python -m benchmarks.ways [--results results/fashion-ways]

Of the runs of docs/evidence/ways.yaml, whose classifiers are tested on the validation images:
`DDREP_MEMBERS=docs/evidence/ways.py snakemake --configfile docs/evidence/ways.yaml`, once
results/fashion-ways/data/test.tar is made and validation.tar put in its place. The table has means over the labelled
subsets and their range; docs/evidence/ways.parquet has every run, and ways.png shows both kinds of students against
evaluations.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from benchmarks import page
from benchmarks.steps import real_features
from ddrep.data.embedded import FOLDER
from ddrep.data.shards import read_shards
from ddrep.device import set_threads
from ddrep.evaluation.frechet import frechet_distance
from ddrep.files import written_whole
from ddrep.networks.measures import Evaluator

EVIDENCE = Path(__file__).parents[1] / "docs/evidence"
KINDS = {"alone": "alone, 1x", "beside": "real + 3x"}
"""Students of these images alone, and of real images beside."""


def students(results: Path) -> pd.DataFrame:
    """A row a run: source, subset, seed, kind of student, top-1."""
    files = itertools.chain(
        results.glob("subset*/cas/*/*/*/*/?.parquet"), results.glob("subset*/classifiers/*/*/*/*/?.parquet")
    )
    rows = pd.concat([pd.read_parquet(file) for file in files])
    kind = rows["n_real"].map(lambda n: KINDS["beside"] if n else KINDS["alone"])
    return rows.assign(kind=kind)[["source", "subset", "seed", "kind", "top1", "n_synthetic", "steps"]]


def drawn(results: Path, source: str, subset: int, evaluator: Evaluator, real: Any) -> dict[str, float]:
    """What a shard's attempts and images tell of a way."""
    folder = results / f"subset{subset}/synthetic/{source}"
    attempts = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("?????.parquet"))])
    found = read_shards(sorted(folder.glob("*.tar")))
    right = evaluator.probabilities(found.images).argmax(axis=1) == found.labels
    return {
        "evaluations": attempts["evaluations"].iloc[0], "kept": attempts["accepted"].mean(),
        "evaluations an image kept": attempts["evaluations"].sum() / attempts["accepted"].sum(),
        "right of those kept": right.mean(),
        "distance": frechet_distance(real, evaluator.features(found.images), 0, minimum=2),
    }  # fmt: skip


def summary(rows: pd.DataFrame, results: Path) -> pd.DataFrame:
    """A row a way and labelled subset."""
    evaluator = Evaluator.load(FOLDER / "evaluator.safetensors")
    real = real_features(evaluator)
    means = rows.pivot_table("top1", ["source", "subset"], "kind")
    synthetic = rows[rows["n_synthetic"] > 0]
    found = []
    for source, subset in synthetic[["source", "subset"]].drop_duplicates().itertuples(index=False):
        costs = drawn(results, source, subset, evaluator, real)
        found.append({"source": source, "subset": subset, **costs, **means.loc[(source, subset)].to_dict()})
    return pd.DataFrame(found)


def plot(table: pd.DataFrame, real: float, out: Path) -> None:
    """Both kinds of students against evaluations an image kept, a line from the worst to the best subset; names in the
    order of the points stand beside them."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, kind in zip(axes, KINDS.values(), strict=True):
        of_way = table.groupby("source")
        points = pd.DataFrame({"x": of_way["evaluations an image kept"].mean(), "y": of_way[kind].mean()}).sort_values(
            "y"
        )
        axis.vlines(
            points["x"], of_way[kind].min()[points.index], of_way[kind].max()[points.index], "#BBBBBB", linewidth=1
        )
        for place, (source, (x, y)) in enumerate(points.iterrows()):
            colour = "#D55E00" if str(source).startswith("unguided") else "#0072B2"
            axis.plot(x, y, "o", color=colour, zorder=3)
            leader = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6}
            beside = (0.3, 0.1 + 0.8 * place / (len(points) - 1))
            axis.annotate(
                source, (x, y), beside, "data", "axes fraction", leader, color=colour, fontsize=8, va="center"
            )
        axis.axhline(real, color="#000000", linestyle=":", linewidth=1)
        axis.set(xscale="log", xlabel="evaluations an image kept", ylabel="top-1 on validation images, %", title=kind)
    figure.savefig(out, dpi=110, format="png")
    plt.close(figure)


def page_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    ways = list(table.groupby("source")["evaluations an image kept"].mean().sort_values().index)
    return [
        {
            "name": way, "reference": "published", "quantity": quantity, "unit": "", "value": float(values.mean()),
            "low": float(values.min()), "high": float(values.max()), "ratio": 0.0,
        }
        for way in ways
        for quantity, values in table[table["source"] == way].drop(columns=["source", "subset"]).items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-ways"))
    results = parser.parse_args().results
    set_threads(1)
    rows = students(results)
    table = summary(rows, results)
    real = float(rows[rows["source"] == "real"]["top1"].mean())
    with written_whole(EVIDENCE / "ways.parquet", EVIDENCE / "ways.png") as (runs, figure):
        rows.sort_values(["kind", "source", "subset", "seed"]).to_parquet(runs, index=False)
        plot(table, real, figure)
    page.record("Students of each way to draw", ABOUT.format(real=real, n=rows["subset"].nunique()), page_rows(table))


ABOUT = """`python -m benchmarks.ways`: means over {n} labelled subsets, each with its fine-tune and judge, in \
brackets their range. Images are those that the judge keeps; right and distance as in *Fewer evaluations*, of 600. \
Students: ResNet-18, top-1 on the 1,000 validation images, of 200 such images alone (six seeds), and of the 200 real \
ones and 600 such (three seeds); of the real ones alone {real:.1f}. On which machines they were drawn and trained, \
[the evidence](../docs/evidence/README.md#eight-steps-unguided) says; the line below is of this summary."""

if __name__ == "__main__":
    main()
