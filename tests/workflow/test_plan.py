"""The forecast's jobs are Snakemake's, and `snakemake plan` says what `ddrep plan` says."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from ddrep.config import Experiment, load
from ddrep.data.idx import write_idx
from ddrep.planning.plan import Plan
from ddrep.planning.sizes import Sizes
from ddrep.planning.stages import rows
from tests.overlays import overlays
from tests.workflow.tree import REPO, Tree


def jobs(experiment: Experiment) -> Counter[str]:
    """Of the forecast, by rule."""
    planned = rows(Plan(experiment, Sizes((64, 64, 3)), None))
    return Counter({row.rule: 0 for row in planned}) + Counter(row.rule for row in planned for _ in row.jobs)


@pytest.mark.parametrize(
    "name", ["demo", "fashion-full", "tiny-imagenet", "tiny-imagenet at 7x", "celeba-64", "ffhq-256"]
)
def test_jobs_are_those_that_snakemake_plans_from_nothing(tree: Tree, name: str) -> None:
    for network in ("imagenet64", "celeba64", "ffhq"):
        (tree.path / f"{network}.safetensors").touch()
    (tree.path / "weights-inception-2015-12-05-6726825d.pth").touch()
    files = overlays(name, tree.path)
    given = ["--configfile", *map(str, files)] if files else []
    done = Tree(tree.path, checked=False).snakemake(*given, "--cores", "2", "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    table = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if re.search(r" \d+$", line)}
    total = int(table.pop("total"))
    assert jobs(load(REPO / "config.yaml", *files)) == {rule: int(n) for rule, n in table.items()}
    assert sum(jobs(load(REPO / "config.yaml", *files)).values()) == total


def test_pretraining_and_a_subset_without_a_denoiser_are_counted(tree: Tree) -> None:
    block = {"architectures": ["resnet18"], "mix": [False], "scales": [0, 1], "seeds": [0]}
    blocks = [
        {**block, "sources": ["real", "real-equal-steps"], "subsets": [2]},
        {**block, "sources": ["ours"], "subsets": [1]},
    ]
    write_idx(tree.path / "images-idx3-ubyte.gz", np.zeros((1, 28, 28), np.uint8))
    pretrained = {"kind": "pretrain", "pretrain": {"images": "images-idx3-ubyte.gz"}}
    tree.configure(denoiser=pretrained, table4=blocks, parts=["augmentation"])
    done = tree.snakemake("--cores", "2", "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    table = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if re.search(r" \d+$", line)}
    del table["total"]
    assert table["pretrain"] == "1" and table["labelled_images"] == "3" and table["finetune"] == "2"
    assert jobs(load(tree.path / "config.yaml")) == {rule: int(n) for rule, n in table.items()}


def test_the_target_plan_prints_the_present_configuration(tree: Tree) -> None:
    settings = ["--config", "experiment=mine"]
    done = tree.snakemake("plan", "--cores", "2", "--quiet", "all", *settings)
    assert done.returncode == 0, done.stderr
    assert "# mine\n" in done.stdout and "On 2 cores" in done.stdout
    assert re.search(r"synthesis ours +\| +7 \| +1,400 \|", done.stdout)
    assert not list(tree.path.glob("results/*/subset*")), "nothing is made"
