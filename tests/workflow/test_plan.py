"""The forecast's jobs are Snakemake's, and `snakemake plan` says what `ddrep plan` says."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from ddrep.config import load
from ddrep.data.idx import write_idx
from ddrep.planning.dag import jobs_of
from tests.overlays import overlays
from tests.workflow.tree import Tree


def planned(tree: Tree, *given: str) -> Counter[str]:
    """Jobs by rule, as `snakemake -n` counts them from nothing."""
    done = Tree(tree.path, checked=False).snakemake(*given, "--cores", "2", "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    table = {line.split()[0]: int(line.split()[-1]) for line in done.stdout.splitlines() if re.search(r" \d+$", line)}
    assert table.pop("total") == sum(table.values())
    return Counter(table)


@pytest.mark.parametrize("name", ["demo", "tiny-imagenet at 7x", "celeba-64", "ffhq-256"])
def test_jobs_are_those_that_snakemake_plans_from_nothing(
    tree: Tree, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.path)
    files = overlays(name, tree.path)
    jobs = jobs_of(load(tree.path / "config.yaml", *files), cores=2)  # without the files that -n asks for
    for network in ("imagenet64", "celeba64", "nvae", "ffhq", "diffae"):
        (tree.path / f"{network}.safetensors").touch()
    (tree.path / "weights-inception-2015-12-05-6726825d.pth").touch()
    given = ["--configfile", *map(str, files)] if files else []
    assert Counter(job.rule for job in jobs) == planned(tree, *given)
    for i, job in enumerate(jobs):
        assert set(job.after) <= set(jobs[:i]), "every job is behind those that it waits for"


def test_pretraining_and_a_subset_without_a_denoiser_are_counted(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.path)
    block = {"architectures": ["resnet18"], "mix": [False], "scales": [0, 1], "seeds": [0]}
    blocks = [
        {**block, "sources": ["real", "real-equal-steps"], "subsets": [2]},
        {**block, "sources": ["ours"], "subsets": [1]},
    ]
    write_idx(tree.path / "images-idx3-ubyte.gz", np.zeros((1, 28, 28), np.uint8))
    pretrained = {"kind": "pretrain", "pretrain": {"images": "images-idx3-ubyte.gz"}}
    tree.configure(denoiser=pretrained, table4=blocks, parts=["augmentation"])
    rules = Counter(job.rule for job in jobs_of(load(tree.path / "config.yaml"), cores=2))
    assert rules["pretrain"] == 1 and rules["labelled_images"] == 3 and rules["finetune"] == 2
    assert rules == planned(tree)


def test_what_is_there_already_is_counted_as_well(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.path)
    experiment = load(tree.path / "config.yaml")
    before = Counter(job.rule for job in jobs_of(experiment, cores=2))
    done = tree.snakemake("results/fashion-demo/masks/test.tar", "--cores", "1", "--quiet", "all")
    assert done.returncode == 0, done.stderr
    assert Counter(job.rule for job in jobs_of(experiment, cores=2)) == before


def test_the_target_plan_prints_the_present_configuration(tree: Tree) -> None:
    settings = ["--config", "experiment=mine"]
    done = tree.snakemake("plan", "--cores", "2", "--quiet", "all", *settings)
    assert done.returncode == 0, done.stderr
    assert "# mine\n" in done.stdout and "On 2 cores" in done.stdout
    assert re.search(r"synthesis ours +\| +3 \| +600 \|", done.stdout)
    assert not list(tree.path.glob("results/*/subset*")), "nothing is made"
