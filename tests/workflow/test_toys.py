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
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ddrep import cli
from ddrep.config import AutoencoderNetwork, LatentMapNetwork, load, merge, parse
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.runs import table1_runs, table2_runs, table3_runs, table4_runs
from tests.data import replicas
from tests.denoiser import recipe
from tests.generators.tiny_diffae import diffae
from tests.generators.tiny_nvae import nvae
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
    "classifier.epochs", "classifier.min_steps", "classifier.batch",
    "table4", "tables.resamples", "figures.figure1_images", "figures.figure3_classes", "figures.figure3_images",
    "data.celeba.partition", "data.celeba.size", "attributes.examples",
    *(f"{part}.training.{key}" for part in ("attributes", "masks") for key in ("hidden", "steps", "batch")),
    *(f"evaluation.{net}_training.{key}" for net in ("evaluator", "segmenter") for key in ("width", "epochs", "batch")),
    *(f"masks.data.few_shot.{key}" for key in ("train", "test", "size")),
    *(f"masks.data.celebamask_hq.{key}" for key in ("images", "train", "test", "size")),
    "robustness.timesteps", "robustness.images", "table1.threshold", "table1.steps", "table1.images",
    "table2.steps", "table2.images", "table2.candidates", "figures.figure2_images", "generators.diffae.latent_steps",
    *(
        f"generators.{name}.pretrain.{key}" for name in ("diffae", "d2c") for key in (
            "data.celeba.partition", "data.celeba.size", "steps", "batch", "latents.steps", "latents.batch",
            "contrast.queue", "contrast.width",
            *(f"network.{key}" for key in (*AutoencoderNetwork.model_fields, *LatentMapNetwork.model_fields)),
        )
    ),
}  # fmt: skip
"""All that a toy may set: sizes, and a threshold that random weights can pass. Table 4 is looked at by itself."""
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
    defaults = dict(settings(parse(merge(base, full)).model_dump(mode="json")))
    before = defaults | before
    assert not [key for key, value in after.items() if isinstance(value, int) and value >= before[key]]
    if "augmentation" not in parse(merge(base, full)).parts:
        return
    whole, part = (set(table4_runs(parse(raw))) for raw in (merge(base, full), merge(merge(base, full), small)))
    assert part < whole
    assert {run.architecture for run in part} == {run.architecture for run in whole}
    assert {run.mix for run in part} == {run.mix for run in whole}


def test_every_overlay_of_the_paper_has_a_toy() -> None:
    papers = {path.stem for path in (REPO / EXPERIMENTS).glob("*.yaml")} - {"fashion-full"}
    assert {toy.stem for toy in TOYS} == {name for name in papers if name.endswith("-toy")}
    assert papers == {full_of(toy).stem for toy in TOYS} | {toy.stem for toy in TOYS}


def checkpoint(folder: Path) -> Path:
    """An ADM U-Net as improved-diffusion saves it: 16 pixels, 6 channels out, random weights."""
    published = json.loads(gzip.decompress((REPO / "tests/denoiser/published_shapes.json.gz").read_bytes()))
    shapes = {k: torch.Size(v) for k, v in published["improved_scale_shift"]["shapes"].items()}
    path = folder / "imagenet16_uncond.pt"
    torch.save({k: v.float() for k, v in recipe.fill(shapes).items()}, path)
    return path


def imported(tree: Tree, file: Path, out: str, options: str) -> Tree:
    arguments = [str(file), "--out", str(tree.path / out), "--log", str(tree.path / "import.log"), *options.split()]
    assert cli.main(["import", *arguments]) == 0
    return tree


def with_inputs(path: Path) -> Tree:
    """The workflow with the two files that tiny-imagenet.yaml names, at the toy's sizes."""
    tree = copy_workflow(path)
    replicas.zipped(replicas.tiny_imagenet(path)).rename(path / "tiny-imagenet-200.zip")
    options = "--image-size 16 --num-heads 2 --no-new-attention-order --schedule cosine --num-steps 4000"
    return imported(tree, checkpoint(path), "imagenet64.safetensors", f"{options} --rescale-timesteps")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return with_inputs(tmp_path_factory.mktemp("tiny-imagenet"))


def test_the_full_overlay_passes_a_dry_run(tree: Tree) -> None:
    unchecked = Tree(tree.path, checked=False)  # the files are the toy's
    done = unchecked.snakemake("--dry-run", "--cores", "2", "--quiet", "rules", "--configfile", str(FULL))
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


def inception(path: Path) -> None:
    """A file of torch-fidelity's format: its network as it is initialised."""
    torch.manual_seed(0)
    torch.save(Untrained("x", ["2048"], feature_extractor_weights_path=str(_empty(path))).state_dict(), path)


class Untrained(FeatureExtractorInceptionV3):
    """torch-fidelity's network has no other way to be made without its weights."""

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        pass


def _empty(path: Path) -> Path:
    torch.save({}, path)
    return path


def celeba_tree(path: Path) -> Tree:
    """The files that celeba-64.yaml names, at the toy's sizes; the checkpoint is in the layout of ermongroup/ddim."""
    tree = copy_workflow(path)
    root = replicas.celeba(path / "celeba", (24, 6, 12))
    attributes = root / "list_attr_celeba.txt"
    attributes.write_text(attributes.read_text().replace("Smiling", "Blond_Hair"))
    inception(path / "weights-inception-2015-12-05-6726825d.pth")
    published = json.loads(gzip.decompress((REPO / "tests/denoiser/published_shapes.json.gz").read_bytes()))
    shapes = {k: torch.Size(v) for k, v in published["ho_unet"]["shapes"].items()}
    weights = {f"module.{k}": v.float() for k, v in recipe.fill(shapes).items()}
    torch.save([weights, {"state": {}}, 1, 2, weights], path / "ckpt.pth")
    nvae(16, channels=3).save(path / "nvae.safetensors")
    return imported(
        tree, path / "ckpt.pth", "celeba64.safetensors", "--image-size 16 --schedule linear --num-steps 1000"
    )


def ffhq_tree(path: Path) -> Tree:
    """The files that ffhq-256.yaml names, at the toy's sizes; the network has ffhq.pt's levels, 8 times narrower."""
    tree = copy_workflow(path)
    replicas.few_shot(path / "celeba_19")
    replicas.celebamask_hq(path / "CelebAMask-HQ")
    inception(path / "weights-inception-2015-12-05-6726825d.pth")
    network = UNetConfig(32, 3, 6, 32, (1, 1, 2, 2, 4, 4), 2, (4, 2, 1), num_head_channels=32, resblock_updown=True)
    torch.manual_seed(0)
    weights = {k: torch.randn(v.shape) * 0.05 for k, v in UNet(network).state_dict().items()}
    torch.save(weights, path / "ffhq.pt")
    diffae(32, channels=3).save(path / "diffae.safetensors")
    options = "--image-size 32 --num-head-channels 32 --no-new-attention-order --schedule linear --num-steps 1000"
    return imported(tree, path / "ffhq.pt", "ffhq.safetensors", f"{options} --no-rescale-timesteps")


GUIDANCE = {
    "celeba-64": (
        celeba_tree,
        1,
        ["robustness"],
        {"table1": "1", "attribute_shard": "8", "attribute_generated": "6", "pretrain_generator": "2"},
    ),
    "ffhq-256": (ffhq_tree, 2, ["figure2"], {"table2": "1", "mask_shard": "6", "mask_generated": "2"}),
}
"""Overlay -> what writes its files, its table, its figures, and jobs that the full overlay plans."""


@pytest.mark.parametrize("name", GUIDANCE)
def test_the_toys_of_guidance_run_end_to_end(name: str, tmp_path: Path) -> None:
    write, number, figures, expected = GUIDANCE[name]
    tree = write(tmp_path)
    full, toy = (str(EXPERIMENTS / f"{stem}.yaml") for stem in (name, f"{name}-toy"))
    planned = Tree(tmp_path, checked=False).snakemake(
        "--dry-run", "--cores", "2", "--quiet", "rules", "--configfile", full
    )
    counts = {line.split()[0]: line.split()[-1] for line in planned.stdout.splitlines() if line.strip()}
    assert planned.returncode == 0 and expected.items() <= counts.items(), planned.stdout + planned.stderr
    run = ["--cores", str(os.cpu_count()), "--show-failed-logs", "--quiet", "progress", "--configfile", full, toy]
    done = tree.snakemake(*run)
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / f"results/{name}-toy"
    experiment = load(tmp_path / "config.yaml", tmp_path / full, tmp_path / toy)
    table = pd.read_parquet(results / f"tables/table{number}.parquet")
    runs = table1_runs(experiment) if number == 1 else table2_runs(experiment)
    assert len(table) == len(runs) * (2 if number == 1 else 1)  # the attribute, and its absence
    assert set(table["method"]) == {run.method for run in runs}
    text = (results / f"tables/table{number}-summary.md").read_text()
    assert "No FD-inception-" in text and "Reported by the paper" in text
    for figure in figures:
        assert (results / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
    again = tree.snakemake("--dry-run", "--configfile", full, toy)
    assert "Nothing to be done" in again.stdout + again.stderr
