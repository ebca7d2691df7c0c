"""Costs have every job that has a benchmark: those of the plan, as Snakemake prints it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ddrep.config import load
from ddrep.runs import cost_jobs
from tests.workflow.test_replanning import base
from tests.workflow.tree import REPO, copy_workflow, link_networks


def test_the_benchmark_of_each_rule_lies_as_its_log_does() -> None:
    """By which costs find the log of a benchmark."""
    found = []
    for file in sorted((REPO / "workflow/rules").glob("*.smk")):
        for rule in file.read_text(encoding="utf-8").split("\nrule ")[1:]:
            if path := re.search(r'benchmark:\s+"(.+)\.tsv"', rule):
                assert f'"{path[1].replace("/benchmarks/", "/logs/")}.log"' in rule, path[1]
                found.append(path[1])
    assert len(found) == len(set(found)) > 30


@pytest.mark.parametrize("parts", ["attributes masks augmentation", "masks", "augmentation"])
@pytest.mark.parametrize("kind", ["as it is", "made here"])
def test_every_benchmark_of_the_plan_is_a_row(kind: str, parts: str, tmp_path: Path) -> None:
    link_networks(tmp_path)
    tree = copy_workflow(tmp_path, checked=False)
    tree.configure(**(base(kind) | {"parts": parts.split()}))
    done = tree.snakemake("--dry-run", "--printshellcmds", "--cores", "2")
    assert done.returncode == 0, done.stdout
    planned = set(re.findall(r"--log results/fashion-demo/logs/(\S+)\.log", done.stdout)) - {"tables/costs"}
    jobs = cost_jobs(load(tree.path / "config.yaml"))
    assert sorted(jobs) == sorted(planned) and len(planned) > 15
