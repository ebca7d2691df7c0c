"""Labelled subsets are independent repeats: each draws with a seed of its own, which its sources share."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from typing import Any

import pytest
import torch

from ddrep.config import subset_seed
from ddrep.data import embedded
from ddrep.methods import METHODS, for_masks, generators
from ddrep.sampling.sampler import ImageNoise, image_seed
from tests.workflow.tree import copy_workflow, link_networks

DRAWS = {
    "finetune", "rejection", "pixel-rejection", "pixel-threshold", "synthesize", "classify", "guide",
    "guide-attribute", "guide-masks", "robustness", "judge-latents", "generate-attribute", "generate-masks",
}  # fmt: skip
"""The commands that draw anything at random for one labelled subset."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, set[int]]]:
    """Command -> labelled subset -> the seeds that its jobs are given by the real rules."""
    path = tmp_path_factory.mktemp("tree")
    link_networks(path)
    tree = copy_workflow(path)
    tables: dict[str, dict[str, Any]] = {f"table{n}": {"subsets": [0, 1, 2], "images": 5} for n in (1, 2)}
    tables["table1"] |= {"methods": [*METHODS]}
    tables["table2"] |= {"methods": [*for_masks()]}
    pretrain = {"images": str(embedded.path("test", "images"))}
    runs = {"sources": ["real", "ours", "classifier-free"], "scales": [0, 1], "mix": [False], "subsets": [0, 1, 2]}
    tree.configure(seed=7, **tables, table3={"subsets": [0, 1, 2]}, table4=[runs],
                   generators={name: {"kind": "pretrain", "pretrain": pretrain} for name in generators()})  # fmt: skip
    done = tree.snakemake("--cores", "1", "--dry-run", "--forceall", "--printshellcmds")
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for line in (done.stdout + done.stderr).splitlines():
        verb, *options = shlex.split(line.removeprefix("Shell command: ddrep ")) if " ddrep " in line else [""]
        if verb in DRAWS and (subset := re.search(r"subset(\d+)/", line)):
            found[verb][int(subset[1])].add(json.loads(options[options.index("--stage") + 1])["seed"])
    return found


def test_each_subset_has_a_seed_of_its_own_that_its_jobs_share(seeds: dict[str, dict[int, set[int]]]) -> None:
    expected = {subset: {subset_seed(7, subset)} for subset in range(3)}
    assert expected[0] == {7} and len(set.union(*expected.values())) == 3
    assert {verb: dict(seeds[verb]) for verb in DRAWS} == dict.fromkeys(DRAWS, expected)


def test_candidates_of_two_subsets_share_no_noise() -> None:
    noise = [
        ImageNoise(
            [image_seed(subset_seed(0, subset), 3, 0, attempt) for attempt in range(200)],
            (1, 8, 8),
            torch.device("cpu"),
        )
        for subset in (0, 1, 2)
    ]
    drawn = torch.stack([each.draw().flatten() for each in noise])
    between = torch.corrcoef(drawn)[~torch.eye(3, dtype=torch.bool)]
    assert between.abs().max() < 5 / drawn.shape[1] ** 0.5  # of 12,800 independent pairs: 5 standard errors


def test_seeds_of_subsets_do_not_meet_those_of_other_experiments() -> None:
    assert len({subset_seed(seed, subset) for seed in range(100) for subset in range(10)}) == 1000
