"""Own images of two classes, from the README alone, through every table and figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.networks.architectures import build
from ddrep.networks.measures import Segmenter
from ddrep.networks.metadata import SegmenterMeta
from tests.data import replicas
from tests.workflow.tree import Tree, copy_workflow

SIZE, CLASSES = 8, ("cat", "dog")
BOTH = {"subsets": [0], "seeds": [0]}
GUIDED = {"training": {"steps": 2, "hidden": 8, "batch": 4}, "taps": {"blocks": ["middle", "up1"], "timesteps": [500]}}
OWN: dict[str, Any] = {
    "experiment": "own",
    "data": {"kind": "image-folder", "image_folder": {"root": "images", "size": SIZE, "channels": 3}},
    "denoiser": {"kind": "pretrain", "pretrain": {
        "data": {"kind": "unlabelled", "unlabelled": {"path": "images/train", "size": SIZE, "channels": 3}},
        "network": {"channel_mult": [1, 1], "attention_sizes": [4]}, "steps": 2, "batch": 4}},
    "finetune": {"steps": 2, "batch": 4, "warmup": 1},
    "rejection": {"epochs": 1, "hidden": 8},
    "pixel_rejection": {"epochs": 1, "hidden": 8},
    "sampling": {"steps": 2},
    "synthesis": {"per_class": 2, "shards_per_scale": 1, "threshold": 0.01, "max_attempts": 50},
    "classifier": {"epochs": 1, "min_steps": 1, "batch": 4},
    "attributes": {"groups": [{"name": "cats", "having": ["cat"]}], "examples": 3, **GUIDED},
    "masks": {"data": {"kind": "few-shot", "few_shot": {"root": "masks", "classes": ["a", "b", "c"], "train": 2,
                                                       "test": 2, "size": SIZE}}, **GUIDED},
    "evaluation": {"evaluator": None, "segmenter": "segmenter.safetensors",
                   "evaluator_training": {"width": 8, "epochs": 1, "batch": 4}},
    "robustness": {"timesteps": [500], "images": 4},
    "table1": {"methods": ["unguided", "ours"], "steps": [2], "images": 2, **BOTH},
    "table2": {"methods": ["unguided", "ours"], "steps": [2], "images": 2, **BOTH},
    "table3": {"sources": ["ours"], **BOTH},
    "table4": [{"architectures": ["resnet18"], "mix": [False], "sources": ["real", "ours"], "scales": [0, 1], **BOTH}],
    "tables": {"resamples": 20},
    "figures": {"figure1_images": 1, "figure2_images": 2, "figure3_classes": None, "figure3_images": 1},
}  # fmt: skip


def write_inputs(path: Path) -> Tree:
    """Images of noise in two classes, masks of three, and a segmenter of random weights."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 5), ("test", 3)):
        for name in CLASSES:
            (path / "images" / split / name).mkdir(parents=True)
            for i in range(n):
                noise = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                Image.fromarray(noise).save(path / "images" / split / name / f"{i}.png")
    replicas.few_shot(path / "masks", train=2, test=2, size=SIZE, mask_size=SIZE, classes=3)
    torch.manual_seed(0)
    meta = SegmenterMeta(width=4, image_shape=(SIZE, SIZE, 3), classes=("a", "b", "c"))
    Segmenter(build(meta), meta).save(path / "segmenter.safetensors")
    tree = copy_workflow(path)
    tree.configure(**OWN)
    return tree


def test_two_classes_go_through_every_table_and_figure(tmp_path: Path) -> None:
    tree = write_inputs(tmp_path)
    done = tree.snakemake("--cores", str(os.cpu_count()), "--show-failed-logs", "--quiet", "progress")
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results/own"
    assert Denoiser.load(results / "denoiser.safetensors").provenance["section"]["data"]["images"] == 10 - 2
    for number, rows in ((1, 4), (2, 2), (3, 2), (4, 2)):
        assert len(pd.read_parquet(results / f"tables/table{number}.parquet")) == rows
        assert (results / f"figures/figure{number}.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "figures/robustness.png").is_file() and (results / "tables/costs.parquet").is_file()
    synthetic = read_shards([results / "subset0/synthetic/ours/00000.tar"])
    assert synthetic.classes == CLASSES and np.bincount(synthetic.labels).tolist() == [2, 2]
