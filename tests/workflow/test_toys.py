"""The paper's own overlays: that their toys are the same but for sizes, and a toy for real, on files made here."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from ddrep import cli
from ddrep.config import load, merge, parse
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.runs import table3_runs, table4_runs
from tests.data import replicas
from tests.denoiser import recipe
from tests.workflow.tree import REPO, Tree, copy_workflow

EXPERIMENTS = Path("workflow/experiments")
FULL, TOY = EXPERIMENTS / "tiny-imagenet.yaml", EXPERIMENTS / "tiny-imagenet-toy.yaml"
TOYS = sorted((REPO / EXPERIMENTS).glob("*-toy.yaml"))
SIZES = {
    "experiment",
    "data.tiny_imagenet.size", "data.tiny_imagenet.classes", "data.tiny_imagenet.train_per_class",
    "data.tiny_imagenet.test_per_class", "data.tiny_imagenet.validation_per_class",
    "finetune.steps", "finetune.batch",
    "rejection.epochs", "pixel_rejection.epochs",
    "sampling.steps", "synthesis.per_class", "synthesis.shards_per_scale",
    "classifier.epochs", "classifier.batch",
    "table4", "tables.resamples", "figures.figure1_images", "figures.figure3_classes", "figures.figure3_images",
}  # fmt: skip
"""All that a toy may set; that its Table 4 is a part of the full one is looked at by itself."""
KEYS = ["subset", "architecture", "mix", "source", "scale", "seed"]


def settings(content: dict[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from settings(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", value


def full_of(toy: Path) -> Path:
    return toy.with_name(toy.name.replace("-toy", ""))


@pytest.mark.parametrize("toy", TOYS, ids=lambda path: path.stem)
def test_a_toy_changes_sizes_alone_and_makes_them_smaller(toy: Path) -> None:
    base, full, small = (yaml.safe_load(path.read_text()) for path in (REPO / "config.yaml", full_of(toy), toy))
    before, after = dict(settings(merge(base, full))), dict(settings(small))
    assert after.keys() <= SIZES
    assert after["experiment"] == toy.stem
    assert not [key for key, value in after.items() if isinstance(value, int) and value >= before[key]]
    whole, part = (set(table4_runs(parse(raw))) for raw in (merge(base, full), merge(merge(base, full), small)))
    assert part < whole
    assert {run.architecture for run in part} == {run.architecture for run in whole}
    assert {run.mix for run in part} == {run.mix for run in whole}


def checkpoint(folder: Path) -> Path:
    """An ADM U-Net as improved-diffusion saves it: 16 pixels, 6 channels out, random weights."""
    published = json.loads(gzip.decompress((REPO / "tests/denoiser/published_shapes.json.gz").read_bytes()))
    shapes = {k: torch.Size(v) for k, v in published["improved_scale_shift"]["shapes"].items()}
    path = folder / "imagenet16_uncond.pt"
    torch.save({k: v.float() for k, v in recipe.fill(shapes).items()}, path)
    return path


def with_inputs(path: Path) -> Tree:
    """The workflow with the two files that tiny-imagenet.yaml names, at the toy's sizes."""
    tree = copy_workflow(path)
    replicas.zipped(replicas.tiny_imagenet(path)).rename(path / "tiny-imagenet-200.zip")
    options = "--image-size 16 --num-heads 2 --no-new-attention-order --schedule cosine --num-steps 4000"
    files = [str(checkpoint(path)), "--out", str(path / "imagenet64.safetensors"), "--log", str(path / "import.log")]
    assert cli.main(["import", *files, *options.split(), "--rescale-timesteps"]) == 0
    return tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return with_inputs(tmp_path_factory.mktemp("tiny-imagenet"))


def test_the_full_overlay_passes_a_dry_run(tree: Tree) -> None:
    done = tree.snakemake("--dry-run", "--cores", "2", "--quiet", "rules", "--configfile", str(FULL))
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line.strip()}
    assert counts["classifier"] == "24" and counts["classifier_on_synthetic_alone"] == "4"
    assert counts["synthesis"] == str(10 * (3 + 3))  # 3x of ours, 1x of the three others


@pytest.fixture(scope="module")
def finished(tree: Tree) -> Tree:
    """A tree in which the toy has run."""
    done = tree.snakemake("--cores", str(os.cpu_count()), "--show-failed-logs", "--quiet", "progress", *both())
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


def both() -> list[str]:
    return ["--configfile", str(FULL), str(TOY)]


@pytest.mark.parametrize("number", [3, 4])
def test_tables_of_the_toy_have_every_row_asked_for(finished: Tree, number: int) -> None:
    experiment = load(finished.path / "config.yaml", finished.path / FULL, finished.path / TOY)
    runs = table3_runs(experiment) if number == 3 else table4_runs(experiment)
    tables = finished.path / "results/tiny-imagenet-toy/tables"
    table = pd.read_parquet(tables / f"table{number}.parquet")
    rows = [tuple(row) for row in table[KEYS].itertuples(index=False)]
    assert sorted(rows) == sorted(tuple(getattr(run, key) for key in KEYS) for run in runs)
    assert table["top1"].between(0, 100).all()
    # 3 classes of 5 labelled images, for one of the 6 is held out; 1x is 2 images a class
    assert table["n_real"].tolist() == [15 if number == 4 or source == "real" else 0 for source in table["source"]]
    assert table["n_synthetic"].tolist() == [0 if source == "real" else 6 for source in table["source"]]
    assert (tables / f"table{number}-summary.md").read_text().count("|") > len(runs)
    if number == 4:
        assert set(table["architecture"]) == {"resnet18", "wide_resnet50_2", "resnext50_32x4d"}


def test_figures_of_the_toy_are_there_and_the_denoiser_is_the_imported_one(finished: Tree) -> None:
    results = finished.path / "results/tiny-imagenet-toy"
    for number in (1, 3, 4):
        assert (results / f"figures/figure{number}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"figures/figure{number}.pdf").read_bytes().startswith(b"%PDF")
    imported = Denoiser.load(finished.path / "imagenet64.safetensors")
    tuned = Denoiser.load(results / "subset0/finetuned.safetensors")
    assert tuned.schedule == imported.schedule == Schedule("cosine", 4000, True)
    assert tuned.learns_variance and len(tuned.classes) == 3 and tuned.net.cfg.num_classes == 4
    assert tuned.net.state_dict().keys() - imported.net.state_dict().keys() == {"label_emb.weight"}


def test_nothing_of_the_toy_is_planned_again(finished: Tree) -> None:
    done = finished.snakemake("--dry-run", *both())
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
