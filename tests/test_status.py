"""How far an experiment is, from files alone: of jobs by hand, and of a real run that was stopped."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ddrep.config import Experiment
from ddrep.cost import Job, Passes
from ddrep.planning import status
from ddrep.planning.forecast import Plan, Step
from ddrep.planning.report import Forecast
from ddrep.planning.sizes import Sizes
from ddrep.planning.status import At, where

LINE = "12:00:00 step 100/300 loss 0.1234, 2.00 steps/s, 1.7 min left"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    return tmp_path


def job(name: str = "a", rule: str = "train", after: tuple[Job, ...] = ()) -> Job:
    outputs = {"": (f"{name}.out",), "other": (f"{name}.more",)}
    return Job(rule, "pretrain", {}, {}, outputs, {}, 1, 0, 0, after, f"{name}.log", f"{name}.tsv")


def written(path: str, text: str = "", ago: float = 0.0) -> None:
    Path(path).write_text(text)
    os.utime(path, (time.time() - ago,) * 2)


def state(of: Job) -> str:
    return where(of, time.time()).state


def test_a_job_is_left_then_runs_then_is_done(here: Path) -> None:
    one = job()
    assert where(one, 0) == At("left")
    written(".snakemake/locks/0.input.lock", ago=60)
    written("a.log", f"12:00:00 ddrep pretrain --out a.out\n{LINE}\n", ago=5)
    found = where(one, time.time())
    assert (found.state, found.line, found.left) == ("running", LINE, 100)
    assert found.since == pytest.approx(5, abs=1)
    written("a.out")
    assert state(one) == "running", "until all outputs are there"
    written("a.more")
    assert state(one) == "done"


def test_what_was_killed_does_not_run(here: Path) -> None:
    """Snakemake takes its lock away when it ends; where it was killed too, the silence tells."""
    written("a.log", LINE, ago=5)
    assert state(job()) == "stopped"
    written(".snakemake/locks/0.input.lock", ago=2)
    assert state(job()) == "stopped", "the log is of a run before the one that has the lock"
    written(".snakemake/locks/0.input.lock", ago=5000)
    written("a.log", LINE, ago=status.SILENCE + 10)
    assert state(job()) == "stopped"


@pytest.mark.parametrize("locked", [False, True])
def test_a_failure_is_said_as_the_log_says_it(here: Path, locked: bool) -> None:
    if locked:
        written(".snakemake/locks/0.input.lock", ago=60)
    written("a.log", "12:00:00 ddrep data --out x\n12:00:01 ddrep: x: no such file\n")
    found = where(job(), time.time())
    assert (found.state, found.line, found.left) == ("failed", "x: no such file", None)
    written("a.log", "12:00:00 ddrep data\n12:00:01 ddrep: a defect, or\nTraceback\nKeyError: 3\n")
    assert where(job(), time.time()).line == "a defect, or"
    written("a.log", "12:00:00 ddrep data\n12:00:01 ddrep: interrupted; the same command goes on\n")
    assert state(job()) == ("running" if locked else "stopped")


def test_time_to_go_is_that_of_jobs_of_the_kind_or_as_wrong_as_their_forecasts(here: Path) -> None:
    """Forecast: 10 s each. Two of a kind took 30 and 50; the third is expected to take 40, one of another kind 40 too,
    as the forecast was wrong by 4; and one says itself that it has 100 s left."""
    jobs = [*(job(name) for name in "abc"), job("d", rule="other"), job("e", rule="third")]
    for name, seconds in (("a", 30), ("b", 50)):
        for end in ("out", "more"):
            written(f"{name}.{end}")
        written(f"{name}.tsv", f"s\th:m:s\n{seconds}.0\t0:00:30\n")
    written(".snakemake/locks/0.input.lock", ago=60)
    written("e.log", LINE)
    steps = [Step(each, each.rule, Passes(), 0, 0) for each in jobs]
    made = Forecast(
        Plan(Experiment(), jobs, Sizes((8, 8, 1)), None, {}), steps, lambda step: 10.0, 1, 0, "this CPU", []
    )
    text, over = status.status(made, time.time())
    assert not over
    assert text.splitlines()[0] == "fashion-demo: 2 of 5 jobs done, 1 running, 2 left; about 3.0 min to go"
    assert "| train |    2 |         |        |         |    1 |  40 s |" in text
    assert "| third |      |       1 |        |         |      | 100 s |" in text
    assert f"running: e.log, 0 s ago: {LINE}" in text
    written("e.log", "12:00:00 ddrep train --stage '{}' --out e.out\n")
    assert "running: e.log, 0 s ago: 12:00:00 ddrep train\n" in status.status(made, time.time())[0] + "\n"
    for name in "cde":
        written(f"{name}.out")
        written(f"{name}.more")
    text, over = status.status(made, time.time())
    assert over and text.splitlines()[0] == "fashion-demo: 5 of 5 jobs done"


def test_the_newest_pictures_are_named(here: Path) -> None:
    folder = here / "results/fashion-demo/logs/finetune"
    folder.mkdir(parents=True)
    for i in range(5):
        written(str(folder / f"subset0-{i}.png"), ago=100 - i)
    (line,) = status._pictures(Experiment())
    assert line == "pictures: " + ", ".join(f"results/fashion-demo/logs/finetune/subset0-{i}.png" for i in (2, 3, 4))
