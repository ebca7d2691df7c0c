"""`ddrep recover` after a real Snakemake was killed, and what it takes for a job that has finished."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ddrep.config import FineTune, Stage
from ddrep.data.shards import write_shard
from ddrep.errors import UserError
from ddrep.locks import lock_of
from ddrep.planning import recover
from ddrep.planning.dag import Marked
from ddrep.stopping import AGAIN, WRITTEN
from tests import tiny
from tests.test_locks import left_by
from tests.workflow.disturbed import jobs, with_inputs
from tests.workflow.tree import BIN, Tree, copy_workflow, environment

TARGET = "results/chaos/data/test.tar"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = copy_workflow(tmp_path)
    with_inputs(tree)
    yield tree
    for process in jobs(tree):
        process.kill()


def ddrep(tree: Tree, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(BIN / "ddrep"), *words], cwd=tree.path, env=environment(), stdout=pipe, stderr=pipe, text=True
    )


def test_what_an_orphan_finished_is_known_as_if_it_had_been_seen_to_end(tree: Tree) -> None:
    with (tree.path / "log").open("w") as log:
        snakemake = tree.start("--workflow-profile", "workflow/profiles/local", TARGET, log=log)
    while not jobs(tree):
        assert snakemake.poll() is None, (tree.path / "log").read_text()
        time.sleep(0.02)
    (orphan,) = jobs(tree)
    orphan.suspend()  # or it might end while the first question is asked
    asked = ddrep(tree, "recover")
    _, said = asked.communicate()
    assert asked.returncode == 2 and f"process {snakemake.pid}: Snakemake still runs in this folder" in said
    snakemake.kill()
    snakemake.wait()
    waiting = ddrep(tree, "recover")
    assert waiting.stdout and waiting.stdout.readline() == f"waiting for process {orphan.pid}\n"
    orphan.resume()
    said, wrong = waiting.communicate()
    assert waiting.returncode == 0, wrong
    assert said.splitlines() == [
        f"finished after Snakemake was killed, and kept: {TARGET}",
        "nothing runs any more; go on with: snakemake --workflow-profile workflow/profiles/local",
    ]
    assert pd.read_csv(tree.path / "results/chaos/benchmarks/data/test.tsv", sep="\t")["s"].iloc[0] > 0
    done = tree.snakemake("--dry-run", TARGET)
    assert "Nothing to be done" in done.stdout + done.stderr, "not incomplete"
    assert not list((tree.path / ".snakemake/locks").glob("*")), "a dry run takes no notice of locks"
    changed = tree.snakemake("--dry-run", TARGET, "--config", "seed=5")
    assert "Params have changed" in changed.stdout + changed.stderr, "which what nothing is known of never has"


def test_what_runs_can_be_ended_instead(tree: Tree) -> None:
    """A training by hand, as an orphan would be."""
    tiny.denoiser().save(tree.path / "d.safetensors")
    write_shard(tree.path / "t.tar", tiny.images())
    write_shard(tree.path / "v.tar", tiny.images("validation", per_class=5))
    stage = Stage[FineTune](config=FineTune(steps=10**6, batch=8)).model_dump_json()
    inputs = ["--stage", stage, "--denoiser", "d.safetensors", "--train", "t.tar", "--validation", "v.tar"]
    folder = Path("results/chaos/subset0")
    outputs = [f"--{name}={folder / name}{end}" for name, end in [("out", ".x"), ("grid", ".png"), ("history", ".y")]]
    orphan = ddrep(tree, "finetune", *inputs, *outputs, "--threads", "1")
    while not lock_of(tree.path / folder / "out.x").exists():
        assert orphan.poll() is None
        time.sleep(0.05)
    done = ddrep(tree, "recover", "--cancel")
    said, wrong = done.communicate()
    assert done.returncode == 0 and said.startswith(f"ending process {orphan.pid}\n"), wrong
    assert orphan.wait() == AGAIN


# What tells a finished job


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Marked:
    """A job that has finished; times in seconds since the year 1970."""
    monkeypatch.chdir(tmp_path)
    for name, at in {"a.in": 90, "b.in": 100, "a.out": 130, "b.out": 140}.items():
        Path(name).touch()
        os.utime(name, (at, at))
    Path("log").write_text(f"12:00:00 ddrep data --out 'a b' --threads 3 --log log\n12:00:09 12:00:40 {WRITTEN}\n")
    inputs, outputs = (tuple(Path(f"{name}.{end}") for name in "ab") for end in ("in", "out"))
    return Marked("ddrep data --out 'a b' --threads 8 --log log", inputs, outputs, Path("log"), Path("b/a.tsv"), 100)


def test_a_finished_job_is_whole_and_has_its_benchmark(whole: Marked) -> None:
    assert recover._is_whole(whole)
    (row,) = pd.read_csv("b/a.tsv", sep="\t").to_dict("records")
    assert row["s"] == 40 and row["h:m:s"] == "0:00:40" and pd.isna(row["max_rss"])


NOT = {
    "another command": lambda: Path("log").write_text(Path("log").read_text().replace("a b", "a c")),
    "no end": lambda: Path("log").write_text(Path("log").read_text().replace(WRITTEN, "step 7/9")),
    "no log": lambda: Path("log").unlink(),
    "an empty log": lambda: Path("log").write_text(""),
    "a log that no shell would take": lambda: Path("log").write_text(f"12:00:00 ddrep 'a\n{WRITTEN}\n"),
    "an output that is lacking": lambda: Path("b.out").unlink(),
    "an output of before": lambda: os.utime("b.out", (99, 99)),
    "an input that has changed since": lambda: os.utime("a.in", (101, 101)),
    "an input that is lacking": lambda: Path("a.in").unlink(),
}


@pytest.mark.parametrize("kind", NOT)
def test_what_is_not_whole(whole: Marked, kind: str) -> None:
    NOT[kind]()
    assert not recover._is_whole(whole) and not Path("b").exists()


# What runs without its Snakemake


def test_a_lock_of_another_machine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results/a/subset0").mkdir(parents=True)
    left_by(Path("results/a/subset0/real.tar"), machine="another", host="n7", pid=77)
    left_by(Path("results/a/subset0/dead.tar"), age=400, machine="another", host="n8", pid=88)
    (orphan,) = recover._orphans(Path("results/a"))
    assert orphan.name.startswith("process 77 on n7") and not orphan.end


SQUEUE = """#!/bin/sh
[ -e down ] && { echo 'Unable to contact slurm controller' >&2; exit 1; }
echo "11|ddrep_1-2|$PWD"
echo "12|ddrep_1-2|/elsewhere"
echo "13|other|$PWD"
"""


def test_jobs_of_slurm_are_those_of_this_folder_by_their_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue's lines as the format asks for them; tests/cluster has the real one."""
    monkeypatch.chdir(tmp_path)
    Path("squeue").write_text(SQUEUE)
    Path("squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert list(recover._slurm_jobs()) == [recover.Orphan("SLURM job 11", ("scancel", "11"))]
    Path("down").touch()
    assert list(recover._slurm_jobs()) == [], "a machine with SLURM's commands, but none of its own"
    recover.SUBMITTED.mkdir(parents=True)
    with pytest.raises(UserError, match="Unable to contact slurm controller; ask again"):
        list(recover._slurm_jobs())


def test_a_snakemake_of_a_single_job_is_no_main_one() -> None:
    main = [sys.executable, "/usr/bin/snakemake", "--cores", "2"]
    assert recover._is_snakemake(main) and recover._is_snakemake([sys.executable, "-m", "snakemake"])
    assert not recover._is_snakemake([*main, "--mode", "remote"]) and not recover._is_snakemake(["man", "snakemake"])
