"""Tables 1 and 2 with generators beside the denoiser, at the smallest sizes: trained, judged, drawn of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ddrep.data import embedded
from ddrep.data.embedded import FOLDER
from ddrep.data.masks import read_masked_shards
from ddrep.generators.files import load_generator
from tests.generators import tiny_d2c, tiny_nvae
from tests.generators.tiny_diffae import LATENTS, NETWORK
from tests.workflow.tree import Tree, copy_workflow

METHODS = ["unguided", "diffae", "d2c", "nvae"]
SMALLEST: dict[str, Any] = {
    "experiment": "generated",
    "parts": ["attributes", "masks"],
    "data": {"kind": "embedded", "embedded": {"per_class": 5, "test_images": 40}},
    "denoiser": {"kind": "file", "file": {"path": str(FOLDER / "denoiser.safetensors")}},
    "attributes": {
        "groups": [{"name": "footwear", "having": ["Sandal", "Sneaker", "Ankle boot"]}], "examples": 4,
        "training": {"steps": 2, "hidden": 8, "batch": 8}, "taps": {"blocks": ["middle"], "timesteps": [700]},
    },
    "generators": {
        "diffae": {
            "kind": "pretrain",
            "pretrain": {
                "images": str(embedded.path("test", "images")), "steps": 2, "batch": 4, "warmup": 1,
                "network": NETWORK | {"attention_sizes": [14]}, "latents": LATENTS,
            },
            "latent_steps": 4,
        },
        "d2c": {
            "kind": "pretrain",
            "pretrain": {
                "images": str(embedded.path("test", "images")), "steps": 2, "batch": 4, "warmup": 1,
                "network": tiny_d2c.NETWORK | {"attention_sizes": [14]}, "latents": tiny_d2c.LATENTS,
                "contrast": tiny_d2c.CONTRAST,
            },
        },
        "nvae": {
            "kind": "pretrain",
            "pretrain": {
                "images": str(embedded.path("test", "images")), "steps": 2, "batch": 4, "warmup": 1,
                "network": tiny_nvae.NETWORK,
            },
        },
        "judge": {"steps": 5},
    },
    "evaluation": {name: str(FOLDER / f"{name}.safetensors") for name in ("evaluator", "segmenter")},
    "robustness": {"timesteps": [300], "images": 4},
    "table1": {"methods": METHODS, "steps": [2], "images": 3, "threshold": 0.3},
    "table2": {"methods": ["diffae"], "steps": [2], "images": 5, "candidates": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = copy_workflow(tmp_path_factory.mktemp("generated"))
    tree.configure(**SMALLEST)
    done = tree.snakemake("--cores", "1", "--show-failed-logs", "--quiet", "progress")
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


def results(tree: Tree) -> Path:
    return tree.path / "results/generated"


def test_table1_has_its_rows_and_the_papers_stay_apart(finished: Tree) -> None:
    rows = pd.read_parquet(results(finished) / "tables/table1.parquet")
    assert rows["method"].tolist() == METHODS * 2
    assert rows["share"].between(0, 100).all() and (rows["n"] == 3).all() and (rows["attempts"] >= 3).all()
    text = (results(finished) / "tables/table1-summary.md").read_text()
    measured, _, reported = text.partition("## Reported by the paper")
    assert "Attempts of diffae, d2c, nvae are latents" in measured
    assert "diffae" in measured and "DiffAE" not in measured and "DiffAE" in reported
    assert "d2c" in measured and "D2C" not in measured and "D2C" in reported
    assert "nvae" in measured and "NVAE" not in measured and "NVAE" in reported


def test_table2_has_the_row_of_its_generator(finished: Tree) -> None:
    (row,) = pd.read_parquet(results(finished) / "tables/table2.parquet").to_dict("records")
    assert row["method"] == "diffae" and row["n"] == 5 and 0 <= row["miou"] <= 1
    shard = read_masked_shards([results(finished) / "subset0/masks/0/diffae/2.tar"])
    targets = read_masked_shards([results(finished) / "masks/test.tar"])
    np.testing.assert_array_equal(shard.masks, targets.masks[:5])
    text = (results(finished) / "tables/table2-summary.md").read_text()
    assert "diffae draws latents for each mask, of which the one that fits it best is made an image" in " ".join(
        text.split()
    )


@pytest.mark.parametrize(("method", "evaluations"), [("diffae", 2), ("d2c", 1), ("nvae", 1)])
def test_costs_count_what_was_drawn(finished: Tree, method: str, evaluations: int) -> None:
    costs = pd.read_parquet(results(finished) / "tables/costs.parquet")
    row = costs[(costs["stage"] == "guided") & (costs["source"] == method)].iloc[0]
    attempts = pd.read_parquet(results(finished) / f"subset0/attributes/footwear/0/{method}/2.parquet")
    assert row["accepted"] == 6 and row["attempts"] == len(attempts) >= 6
    assert row["network_evaluations_per_accepted"] == evaluations, "what is refused is a latent, which none has drawn"
    assert row["seconds_per_accepted"] > 0
    jobs = set(costs["job"])
    assert {method, f"subset0/footwear-0-{method}"} <= jobs


@pytest.mark.parametrize(("name", "size"), [("diffae", 8), ("d2c", 2 * 14 * 14), ("nvae", 2 * 7 * 7)])
def test_the_generator_is_one(finished: Tree, name: str, size: int) -> None:
    made = load_generator(results(finished) / f"{name}.safetensors")
    assert made.image_shape == (1, 28, 28) and made.latent_size == size
    assert (results(finished) / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_planned_again_but_what_a_changed_key_is_of(finished: Tree) -> None:
    same, judge, threshold = finished.plans(
        [{}, {"generators": {"judge": {"steps": 6}}}, {"table1": {"threshold": 0.2}}]
    )
    assert not [job for job in same if job.pending]
    started = {job.rule for job in judge if job.pending}
    of = {f"{part}_{rule}" for part in ("attribute", "mask") for rule in ("latent_judge", "generated", "score")}
    assert started == {*of, "table1", "table2", "figure2", "costs", "report"}
    drawn = {job.output.split("/")[-2] for job in threshold if job.pending and job.output.endswith("/2.tar")}
    assert drawn == {"diffae", "d2c", "nvae"}, "unguided images are refused by no threshold"
