"""Warnings in words, each where it belongs and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddrep.data.shards import LabelledImages, write_shard
from ddrep.errors import UserError
from ddrep.reporting.report.caveats import caveats
from ddrep.reporting.report.results import Results
from ddrep.runs import cost_jobs
from tests.reporting.make_shards import write_synthetic
from tests.reporting.report.make_results import CLASSES, RIGHT, experiment, noise, write_judge, write_tables


def said(folder: Path, **changed: Any) -> str:
    return "\n".join(caveats(Results(experiment().model_copy(update=changed), folder)))


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path) -> None:
    jobs = tmp_path / "benchmarks/data"
    jobs.mkdir(parents=True)
    (jobs / "test.tsv").touch()
    assert "The run is not finished: 1 of " in said(tmp_path) and "tables/costs.parquet" in said(tmp_path)


def test_a_job_that_failed_says_why(tmp_path: Path) -> None:
    job = next(job for job in cost_jobs(experiment()) if job.startswith("synthesis/"))
    log = tmp_path / f"logs/{job}.log"
    log.parent.mkdir(parents=True)
    log.write_text("12:00:00 ddrep synthesize --index 0\n12:00:09 ddrep: synthesis.max_attempts: class a is short\n")
    line = f"Failed: {job}: synthesis.max_attempts: class a is short."
    assert line in said(tmp_path)
    (log.parent / "other.log").write_text(log.read_text())
    assert line in said(tmp_path), "no job of the experiment's"
    log.write_text("12:00:09 ddrep: interrupted; the same command goes on\n")
    assert "Failed" not in said(tmp_path)
    log.write_text("12:00:09 ddrep: synthesis.max_attempts: class a is short\n")
    done = tmp_path / f"benchmarks/{job}.tsv"
    done.parent.mkdir(parents=True)
    done.touch()
    assert "Failed" not in said(tmp_path), "it was made afterwards"


def test_few_runs_and_under_trained_controls(tmp_path: Path) -> None:
    write_tables(tmp_path, experiment())
    assert "Few seeds" not in said(tmp_path) and "gain 2.0 points" not in said(tmp_path)
    write_tables(tmp_path, experiment(), {**RIGHT, "real-equal-steps": 0.7})
    assert "The real images alone gain 10.0 points from longer training" in said(tmp_path)
    one = experiment().table4[0].model_copy(update={"seeds": (0,)})
    write_tables(tmp_path, experiment().model_copy(update={"table4": (one,)}))
    assert "Few seeds: one run a cell" in said(tmp_path)


@pytest.mark.parametrize("p, expected", [(0.9, "refuses almost nothing (100%"), (0.01, "almost everything (2.0%")])
def test_a_threshold_that_refuses_all_or_nothing(p: float, expected: str, tmp_path: Path) -> None:
    values = np.full((2, 100), p)
    values[:, :2] = 0.9
    path = tmp_path / "subset0/synthetic/ours/00000.tar"
    write_synthetic(path, noise(2, 100), values, 0.5, CLASSES)
    assert f"ours: the threshold {expected}" in said(tmp_path) or f"ours: the threshold refuses {expected}" in said(
        tmp_path
    )


def test_a_class_that_is_hard_to_get_is_named(tmp_path: Path) -> None:
    p = np.full((2, 100), 0.9)
    p[1, 2:] = 0.1
    write_synthetic(tmp_path / "subset0/synthetic/ours/00000.tar", noise(2, 100), p, 0.5, CLASSES)
    labels = np.array([0] * 9 + [1] * 3, np.int64)
    write_shard(tmp_path / "subset0/real.tar", LabelledImages(noise(12), labels, [f"{i}" for i in range(12)], CLASSES))
    assert "hardly any images of coat (2.0% kept)" in said(tmp_path)
    assert "Uneven classes: coat has 3 labelled images, others up to 9" in said(tmp_path)


def test_judges(tmp_path: Path) -> None:
    write_judge(tmp_path, error=0.3, n=20)
    assert "Not calibrated: the probabilities of probe (30 points" in said(tmp_path)
    assert "probe (20 images)" in said(tmp_path)
    write_judge(tmp_path, error=0.02, n=500)
    assert "probe" not in said(tmp_path)


def test_a_confusion_that_is_none_is_one_line(tmp_path: Path) -> None:
    write_judge(tmp_path)
    path = tmp_path / "subset0/probe/report.json"
    assert Results(experiment(), tmp_path).reports[path]["confusion"] == [[9, 1], [2, 8]]
    path.write_text(path.read_text().replace("[2, 8]", "[2]"))
    with pytest.raises(UserError, match=r"report.json: confusion: expected 2 numbers in each row"):
        _ = Results(experiment(), tmp_path).reports
