"""Table 1 with a generator beside the denoiser, at the smallest sizes: trained, judged, drawn of, in every table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddrep.data import embedded
from ddrep.data.embedded import FOLDER
from ddrep.generators.diffae import DiffAE
from ddrep.generators.nvae import NVAE
from tests.generators.tiny_diffae import LATENTS, NETWORK
from tests.generators.tiny_nvae import NETWORK as NVAE_NETWORK
from tests.workflow.tree import Tree, copy_workflow

SMALLEST: dict[str, Any] = {
    "experiment": "generated",
    "parts": ["attributes"],
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
        "nvae": {
            "kind": "pretrain",
            "pretrain": {
                "images": str(embedded.path("test", "images")), "steps": 2, "batch": 4, "warmup": 1,
                "network": NVAE_NETWORK,
            },
        },
        "judge": {"steps": 5},
    },
    "evaluation": {"evaluator": str(FOLDER / "evaluator.safetensors")},
    "robustness": {"timesteps": [300], "images": 4},
    "table1": {"methods": ["unguided", "diffae", "nvae"], "steps": [2], "images": 3, "threshold": 0.3},
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
    assert rows["method"].tolist() == ["unguided", "diffae", "nvae"] * 2
    assert rows["share"].between(0, 100).all() and (rows["n"] == 3).all() and (rows["attempts"] >= 3).all()
    text = (results(finished) / "tables/table1-summary.md").read_text()
    measured, _, reported = text.partition("## Reported by the paper")
    assert "Attempts of diffae, nvae are latents" in measured
    assert "diffae" in measured and "DiffAE" not in measured and "DiffAE" in reported


def test_costs_count_what_was_drawn(finished: Tree) -> None:
    costs = pd.read_parquet(results(finished) / "tables/costs.parquet")
    row = costs[(costs["stage"] == "guided") & (costs["source"] == "diffae")].iloc[0]
    attempts = pd.read_parquet(results(finished) / "subset0/attributes/footwear/0/diffae/2.parquet")
    assert row["accepted"] == 6 and row["attempts"] == len(attempts) >= 6
    assert row["network_evaluations_per_accepted"] == 2, "what is refused is a latent, which no evaluation has drawn"
    assert row["seconds_per_accepted"] > 0
    of_nvae = costs[(costs["stage"] == "guided") & (costs["source"] == "nvae")].iloc[0]
    assert of_nvae["accepted"] == 6 and of_nvae["network_evaluations_per_accepted"] == 1
    jobs = set(costs["job"])
    assert {"diffae", "subset0/footwear-0-diffae", "nvae", "subset0/footwear-0-nvae"} <= jobs


def test_generators_are_there(finished: Tree) -> None:
    made = DiffAE.load(results(finished) / "diffae.safetensors")
    assert made.image_shape == (1, 28, 28) and made.latent_size == 8
    assert NVAE.load(results(finished) / "nvae.safetensors").image_shape == (1, 28, 28)
    for name in ("diffae", "nvae"):
        assert (results(finished) / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_planned_again_but_what_a_changed_key_is_of(finished: Tree) -> None:
    same, judge, threshold = finished.plans(
        [{}, {"generators": {"judge": {"steps": 6}}}, {"table1": {"threshold": 0.2}}]
    )
    assert not [job for job in same if job.pending]
    started = {job.rule for job in judge if job.pending}
    assert started == {"attribute_latent_judge", "attribute_generated", "attribute_score", "table1", "costs", "report"}
    drawn = {job.output.split("/")[-2] for job in threshold if job.pending and job.output.endswith("/2.tar")}
    assert drawn == {"diffae", "nvae"}, "unguided images are refused by no threshold"
