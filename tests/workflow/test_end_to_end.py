"""The whole experiment for real: every rule, all sources, the paper's three architectures, at the smallest sizes."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ddrep.config import Data, load
from ddrep.data.embedded import FOLDER
from ddrep.data.idx import write_idx
from ddrep.data.readers import labelled
from ddrep.data.shards import read_shards
from ddrep.networks.classifiers import load_classifier
from ddrep.runs import table3_runs, table4_runs
from ddrep.training.classifier import predict
from tests.workflow.tree import BIN, Tree, copy_workflow, environment

BOTH = {"subsets": [0], "seeds": [0]}
SMALLEST: dict[str, Any] = {
    "experiment": "smallest",
    "data": {"kind": "embedded", "embedded": {"per_class": 5, "test_images": 40}},
    "denoiser": {
        "kind": "pretrain",
        "pretrain": {
            "images": "unlabelled-idx3-ubyte.gz",
            "network": {"model_channels": 32, "channel_mult": [1, 1], "attention_sizes": [], "num_res_blocks": 1},
            "steps": 2, "batch": 4, "warmup": 1,
        },
    },
    "finetune": {"steps": 2, "batch": 4, "warmup": 1},
    "rejection": {"epochs": 1, "hidden": 8},
    "pixel_rejection": {"epochs": 1, "hidden": 8},
    "sampling": {"steps": 2, "grid": "even"},  # of which the judge of one epoch takes some of every class
    "synthesis": {"per_class": 2, "shards_per_scale": 2, "threshold": 0.05, "max_attempts": 20},
    "classifier": {"epochs": 1, "min_steps": 1, "batch": 16},
    "table4": [
        {"architectures": ["resnet18"], "mix": [False, True], "sources": ["real", "real-equal-steps", "ours"],
         "scales": [0, 1], **BOTH},
        {"architectures": ["wide_resnet50_2", "resnext50_32x4d"], "mix": [False], "sources": ["real", "ours"],
         "scales": [0, 1], **BOTH},
    ],
    "attributes": {
        "groups": [{"name": "footwear", "having": ["Sandal", "Sneaker", "Ankle boot"]}], "examples": 4,
        "training": {"steps": 2, "hidden": 8, "batch": 8}, "taps": {"blocks": ["middle", "up1"], "timesteps": [700]},
    },
    "masks": {"data": {"kind": "embedded", "embedded": {"train": 4, "test": 4}},
              "training": {"steps": 2, "hidden": 8, "batch": 4}, "taps": {"blocks": ["up1"], "timesteps": [500]}},
    "evaluation": {name: str(FOLDER / f"{name}.safetensors") for name in ("evaluator", "segmenter")},
    "robustness": {"timesteps": [300, 900], "images": 20},
    "table1": {"steps": [2], "images": 2, "threshold": 0.1},
    "table2": {"steps": [2], "images": 4},
    "tables": {"resamples": 20},
    "figures": {"figure2_images": 2, "figure1_images": 1, "figure3_classes": [0, 1], "figure3_images": 1},
}  # fmt: skip
KEYS = ["subset", "architecture", "mix", "source", "scale", "seed"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A tree in which the smallest experiment has run."""
    tree = copy_workflow(tmp_path_factory.mktemp("smallest"))
    write_idx(tree.path / "unlabelled-idx3-ubyte.gz", labelled(Data(), "validation", 0, 0).images[:16, :, :, 0])
    tree.configure(**SMALLEST)
    done = tree.snakemake("--cores", str(os.cpu_count()), "--show-failed-logs", "--quiet", "progress")
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


@pytest.mark.parametrize("number", [3, 4])
def test_tables_have_every_row_asked_for(finished: Tree, number: int) -> None:
    tables = finished.path / "results/smallest/tables"
    experiment = load(finished.path / "config.yaml")
    runs = table3_runs(experiment) if number == 3 else table4_runs(experiment)
    table = pd.read_parquet(tables / f"table{number}.parquet")
    rows = [tuple(row) for row in table[KEYS].itertuples(index=False)]
    assert sorted(rows) == sorted(tuple(getattr(run, key) for key in KEYS) for run in runs)
    assert table["top1"].between(0, 100).all()
    assert table["n_real"].tolist() == [50 if number == 4 or source == "real" else 0 for source in table["source"]]
    synthetic = [20 if source not in ("real", "real-equal-steps") else 0 for source in table["source"]]
    assert table["n_synthetic"].tolist() == synthetic
    assert len(pd.read_parquet(tables / f"table{number}-summary.parquet")) == len(runs)
    assert (tables / f"table{number}-summary.md").read_text().count("|") > len(runs)


def test_figures_costs_and_sources_are_there(finished: Tree) -> None:
    results = finished.path / "results/smallest"
    for number in (1, 2, 3, 4):
        assert (results / f"figures/figure{number}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"figures/figure{number}.pdf").read_bytes().startswith(b"%PDF")
    costs = pd.read_parquet(results / "tables/costs.parquet")
    assert (costs["seconds"].dropna() > 0).all()
    assert costs.loc[costs["stage"] == "synthesis", "accepted"].tolist() == [10] * 12
    guided = costs[costs["stage"] == "guided"]
    assert len(guided) == 4 + 3 and guided["seconds"].notna().all() and guided["accepted"].count() == 4
    for source in ("improved-ddpm", "classifier-free", "pixel-rejection", "ours"):
        assert (results / f"subset0/synthetic/{source}/_info.json").is_file()


def test_guidance_has_its_tables(finished: Tree) -> None:
    tables = finished.path / "results/smallest/tables"
    rows = pd.read_parquet(tables / "table1.parquet")
    assert rows["method"].tolist() == ["unguided", "rejection", "ddim-i", "ours"] * 2
    assert rows["present"].tolist() == [True] * 4 + [False] * 4
    assert rows["share"].between(0, 100).all() and (rows["n"] == 2).all() and (rows["attempts"] >= 2).all()
    masks = pd.read_parquet(tables / "table2.parquet")
    assert masks["method"].tolist() == ["unguided", "ddim-i", "ours"] and masks["miou"].between(0, 1).all()
    accuracy = pd.read_parquet(tables / "robustness.parquet")
    assert sorted(zip(accuracy["reads"], accuracy["t"], strict=True)) == [
        (reads, t) for reads in ("features", "pixels") for t in (300, 900)
    ]


def test_the_network_of_a_run_can_be_asked_for(finished: Tree) -> None:
    results = finished.path / "results/smallest"
    row = results / "subset0/classifiers/resnet18/plain/ours/1x/0.parquet"
    written = row.stat().st_mtime_ns
    network = row.with_suffix(".safetensors").relative_to(finished.path)
    done = finished.snakemake("--cores", "2", "--quiet", "progress", "--", str(network))
    assert done.returncode == 0, done.stdout + done.stderr
    assert row.stat().st_mtime_ns == written, "and nothing else is made"
    net, meta = load_classifier(finished.path / network)
    known = pd.read_parquet(row.with_suffix(".predictions.parquet"))
    test = read_shards([results / "data/test.tar"])
    np.testing.assert_allclose(predict(net, test)["p_label"], known["p_label"], rtol=1e-3, atol=1e-6)
    assert known["key"].tolist() == test.keys and meta.classes == test.classes


@pytest.mark.parametrize("verb, said", [("status", r"(\d+) of \1 jobs done"), ("plan", r"\| synthesis ours ")])
def test_a_run_with_figures_has_a_status_and_a_plan(verb: str, said: str, finished: Tree) -> None:
    done = subprocess.run(
        [str(BIN / "ddrep"), verb], cwd=finished.path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout), done.stdout


def test_no_draft_is_left(finished: Tree) -> None:
    files = [path for path in (finished.path / "results").rglob("*") if path.is_file()]
    assert len(files) > 100
    assert not [path for path in files if path.name.startswith(".")]


def test_nothing_is_planned_again(finished: Tree) -> None:
    done = finished.snakemake("--dry-run")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
