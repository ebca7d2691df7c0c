"""The embedded experiment, shrunk, through workflow/profiles/slurm on a real cluster, while things go wrong on it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest

from tests import tiny
from tests.cluster.records import Record, most_at_once, records, shared_devices
from tests.workflow.test_end_to_end import BOTH, SMALLEST
from tests.workflow.tree import BIN, Tree, copy_workflow, environment

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent
SHRUNK = SMALLEST | {
    "experiment": "shrunk",
    "denoiser": {"kind": "file", "file": {"path": "denoiser.safetensors"}},
    "parts": ["augmentation"],
    "synthesis": SMALLEST["synthesis"] | {"shards_per_scale": 1},
    "table4": [{"architectures": ["resnet18"], "mix": [False], "sources": ["real", "ours"], "scales": [0, 1], **BOTH}],
}
RESULTS = "results/shrunk"
GROUPED = {"classifiers": 4, "scores": 3, "closing": 1}
"""SLURM jobs for the 8 classifiers in pairs, for what each judge knows, and for the tables, figures and lists."""
ALONE = {
    "held_out_images": 2, "labelled_images": 1, "finetune": 1, "features": 1, "rejection": 1,
    "pixel_rejection": 1, "pixel_threshold": 1, "probe": 1, "synthesis": 6, "copies": 1,
}  # fmt: skip
"""Jobs of the rules that have a SLURM job each."""


def shrunk(path: Path) -> Tree:
    path.mkdir()
    tree = copy_workflow(path)
    tiny.denoiser(image_size=28, attention_sizes=()).save(path / "denoiser.safetensors")
    tree.configure(**SHRUNK)
    profile = path / "workflow/profiles/slurm/config.yaml"
    filled_in = profile.read_text().replace("slurm_account: CHANGE-ME", "slurm_account: lab")
    profile.write_text(filled_in.replace("slurm_partition: CHANGE-ME", "slurm_partition: gpu"))
    return tree


CANCELLED = ("features", "probe", "rejection", "synthesis_wildcards_shrunk_0_ours", "copies")
"""Jobs of which one each is cancelled, by the beginnings of their comments."""


@dataclass
class Trouble:
    """What goes wrong on the cluster, each once: the SLURM job it befell; and the files finished until then."""

    befell: dict[str, str] = field(default_factory=dict)
    finished: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def look(self, results: Path, snakemake: subprocess.Popen[str]) -> None:
        """Cancel five jobs, hang the control past its limit, take the node of a late shard down, start the controller
        anew while a job runs, and kill Snakemake itself."""
        queue = ["squeue", "-h", "-t", "running,completing", "-o", "%A|%N|%M|%T|%k"]
        # A controller that is slow to answer is asked again.
        rows = [row.split("|", 4) for row in subprocess.run(queue, capture_output=True, text=True).stdout.splitlines()]
        # On a node that goes down before a cancelled job has ended there, that job counts as failed, not as cancelled.
        ending = {node for _, node, _, state, _ in rows if state == "COMPLETING"}
        running = [row for row in rows if row[3] == "RUNNING"]
        for job, node, _, _, comment in running:
            for rule in CANCELLED:
                if comment.startswith(f"rule_{rule}") and f"scancel {rule}" not in self.befell:
                    ending.add(node)
                    self._once(f"scancel {rule}", job, results, f"scancel {job}")
        for job, node, time_running, _, comment in running:
            if comment.startswith("rule_finetune"):
                self._once("controller", job, results, str(HERE / "restart.sh"))
            elif comment.startswith("rule_pixel_threshold") and "Snakemake" not in self.befell:
                self._once("Snakemake", job, results)
                snakemake.kill()
            elif comment.startswith("rule_pixel_rejection") and time_running >= "0:02":  # there is a process to stop
                stop = f"scancel --full --signal=STOP {job}"
                self._once("hang", job, results, stop, f"scontrol update jobid={job} timelimit=1")
            elif comment.startswith("rule_synthesis") and "_pixel-rejection_" in comment and node not in ending:
                self._once("node down", job, results, f"scontrol update nodename={node} state=down reason=test")

    def _once(self, kind: str, job: str, results: Path, *commands: str) -> None:
        if kind not in self.befell:
            self.befell[kind] = job
            self.finished |= outputs_of_jobs_alone(results)
            for command in commands:
                subprocess.run(command.split(), check=True)


def outputs_of_jobs_alone(results: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of each file that a rule with a SLURM job of its own has written."""
    files = [path for folder in ("data", "subset0") for path in (results / folder).rglob("*") if path.is_file()]
    grouped = {"classifiers", "cas", "_info.json", "test.parquet"}
    alone = [path for path in files if not grouped & set(path.parts)]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in alone if not path.name.startswith(".")}


@dataclass
class Run:
    tree: Tree
    trouble: Trouble
    jobs: list[Record]


def run(tree: Tree, call: str, meanwhile: Callable[[subprocess.Popen[str]], None] = lambda snakemake: None) -> str:
    """Run Snakemake to its end, `meanwhile` twice a second, and again after it was killed; what it said in all."""
    log = tree.path / "snakemake.log"
    with log.open("a") as told:
        process = tree.start(*call.split(), log=told)
    try:
        while process.poll() is None:
            meanwhile(process)
            time.sleep(0.5)
    finally:
        process.kill()
    if process.returncode == -signal.SIGKILL:
        subprocess.run([BIN / "ddrep", "recover"], cwd=tree.path, env=environment(), check=True)
        return run(tree, call, meanwhile)
    assert process.returncode == 0, log.read_text()
    return log.read_text()


@pytest.fixture(scope="module")
def locally(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The same on this machine. Its jobs have as many threads: Snakemake gives none more than there are cores."""
    tree = shrunk(tmp_path_factory.mktemp("here") / "tree")
    run(tree, f"--cores {os.cpu_count()} --quiet progress")
    return tree


@pytest.fixture(scope="module")
def on_cluster(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    tree, trouble = shrunk(tmp_path_factory.mktemp("cluster") / "tree"), Trouble()
    call = "--workflow-profile workflow/profiles/slurm --resources gpu=4 --group-components classifiers=2 closing=100"
    told = run(tree, call, lambda snakemake: trouble.look(tree.path / RESULTS, snakemake))
    begun = re.findall(r"SLURM run ID: (\S+)", told)
    assert len(begun) == 2
    return Run(tree, trouble, sorted(chain(*map(records, begun)), key=lambda job: job.start))


def test_what_came_to_grief_was_tried_again_and_what_ran_on_was_not(on_cluster: Run) -> None:
    """Neither a controller that starts anew nor a Snakemake that is killed ends a job."""
    states = {job.id: job.state for job in on_cluster.jobs}
    befell = {kind: states[job] for kind, job in on_cluster.trouble.befell.items()}
    lost = dict.fromkeys((f"scancel {rule}" for rule in CANCELLED), "CANCELLED")
    lost |= {"hang": "TIMEOUT", "node down": "NODE_FAIL"}
    assert befell == lost | dict.fromkeys(("controller", "Snakemake"), "COMPLETED")
    on_the_node = Counter(job.state for job in on_cluster.jobs)["NODE_FAIL"]
    assert len([job for job in on_cluster.jobs if job.state != "COMPLETED"]) == len(lost) - 1 + on_the_node


def test_a_second_attempt_may_take_longer(on_cluster: Run) -> None:
    """The rule's 240 minutes: lowered to 1 for the job that hangs, twice as long for the next."""
    limits = [job.limit for job in on_cluster.jobs if job.rule == "pixel_rejection"]
    assert limits == ["00:01:00", "08:00:00"]


def test_no_finished_job_was_redone(on_cluster: Run) -> None:
    completed = Counter(job.rule for job in on_cluster.jobs if job.state == "COMPLETED")
    assert {rule: completed[rule] for rule in ALONE} == ALONE
    assert completed.total() == sum(ALONE.values()) + sum(GROUPED.values())
    now = outputs_of_jobs_alone(on_cluster.tree.path / RESULTS)
    assert len(on_cluster.trouble.finished) > 10
    assert {path: now[path] for path in on_cluster.trouble.finished} == on_cluster.trouble.finished


def test_every_gpu_job_had_a_gpu_to_itself(on_cluster: Run) -> None:
    without = ("held_out_images", "labelled_images", "closing")
    for job in on_cluster.jobs:
        assert job.gpus == len(job.devices) == (0 if job.rule.startswith(without) else 1), job
    gpu_jobs = [job for job in on_cluster.jobs if job.gpus]
    assert {(job.node, *job.devices) for job in gpu_jobs} <= {(node, gpu) for node in ("n1", "n2") for gpu in "01"}
    assert shared_devices(gpu_jobs) == []
    assert 2 <= most_at_once(gpu_jobs) <= 4


def table(tree: Tree, name: str) -> pd.DataFrame:
    return pd.read_parquet(tree.path / RESULTS / f"tables/{name}.parquet")


@pytest.mark.parametrize("name", ["table3", "table3-summary", "table4", "table4-summary"])
def test_tables_are_those_of_a_local_run(on_cluster: Run, locally: Tree, name: str) -> None:
    here, there = (
        pd.read_parquet(tree.path / RESULTS / f"tables/{name}.parquet") for tree in (locally, on_cluster.tree)
    )
    pd.testing.assert_frame_equal(there, here, check_exact=True)


def test_costs_differ_in_times_and_memory_alone(on_cluster: Run, locally: Tree) -> None:
    """partial says of which work the time is: which of two shards drew what both may take is for the order of jobs."""
    measured = ["seconds", "seconds_per_accepted", "max_rss_mb", "partial"]
    here, there = (table(tree, "costs").drop(columns=measured) for tree in (locally, on_cluster.tree))
    pd.testing.assert_frame_equal(there, here, check_exact=True)


def test_nothing_is_planned_again(on_cluster: Run) -> None:
    done = on_cluster.tree.snakemake("--dry-run", "--workflow-profile", "workflow/profiles/slurm")
    assert "Nothing to be done" in done.stdout + done.stderr
