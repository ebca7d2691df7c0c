"""Costs have every job that has a benchmark: those of the plan, as Snakemake prints it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ddrep.config import load
from ddrep.methods import generators
from ddrep.runs import cost_jobs
from tests.workflow.test_replanning import base
from tests.workflow.tree import copy_workflow, link_networks


@pytest.mark.parametrize("parts", ["attributes masks augmentation", "masks", "augmentation"])
@pytest.mark.parametrize("kind", ["as it is", "made here"])
def test_every_benchmark_of_the_plan_is_a_row(kind: str, parts: str, tmp_path: Path) -> None:
    link_networks(tmp_path)
    for name in generators():
        (tmp_path / f"{name}.safetensors").touch()
    tree = copy_workflow(tmp_path, checked=False)
    tree.configure(**(base(kind) | {"parts": parts.split()}))
    done = tree.snakemake("--dry-run", "--printshellcmds", "--cores", "2")
    assert done.returncode == 0, done.stdout
    planned = set(re.findall(r"--log results/fashion-demo/logs/(\S+)\.log", done.stdout)) - {"tables/costs", "report"}
    jobs = cost_jobs(load(tree.path / "config.yaml"))
    assert sorted(jobs) == sorted(planned) and len(planned) > 15
