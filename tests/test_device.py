"""Real processes that claim stand-in GPUs: names in CUDA_VISIBLE_DEVICES, or a count, with no hardware behind them."""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddrep import gpus
from ddrep.errors import UserError

CODE = """
import os
import sys
from pathlib import Path
from ddrep import gpus
for line in sys.stdin:
    gpus.claim({wanted}, lambda: 4, Path({folder!r}))
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
"""


@dataclass
class Job:
    """A process that claims GPUs when it is told to."""

    process: subprocess.Popen[str]

    def ask(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("claim\n")
        self.process.stdin.flush()

    def said(self) -> str:
        """What it holds; waits for it."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def claimed(self) -> str:
        self.ask()
        return self.said()

    def waits(self) -> bool:
        """Whether it says nothing for a while."""
        return self not in has_said([self], 3 * gpus.POLL)

    def end(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def has_said(jobs: list[Job], seconds: float = 60) -> list[Job]:
    ready, _, _ = select.select([job.process.stdout for job in jobs if job.process.stdout], [], [], seconds)
    return [job for job in jobs if job.process.stdout in ready]


Start = Callable[..., Job]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    for name in (gpus.VISIBLE, gpus.CLAIMED):
        monkeypatch.delenv(name, raising=False)
    jobs: list[Job] = []

    def start(wanted: int = 1, **env: str) -> Job:
        command = [sys.executable, "-c", CODE.format(wanted=wanted, folder=str(tmp_path))]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        jobs.append(Job(subprocess.Popen(command, env={**os.environ, **env}, **pipes)))
        return jobs[-1]

    yield start
    for job in jobs:
        job.process.kill()
        job.end()


def test_four_jobs_hold_four_devices_and_a_killed_one_frees_its_own(start: Start) -> None:
    jobs = [start() for _ in range(4)]
    for job in jobs:
        job.ask()
    held = {job.said(): job for job in jobs}
    assert set(held) == {"0", "1", "2", "3"}
    fifth = start()
    fifth.ask()
    assert fifth.waits()
    held["2"].process.send_signal(signal.SIGKILL)
    assert fifth.said() == "2"


def test_a_job_keeps_its_device_till_it_ends(start: Start) -> None:
    first, second = start(CUDA_VISIBLE_DEVICES="0,1"), start(CUDA_VISIBLE_DEVICES="0,1")
    assert (first.claimed(), second.claimed(), first.claimed()) == ("0", "1", "0")
    first.end()
    assert start(CUDA_VISIBLE_DEVICES="0,1").claimed() == "0"


def test_jobs_that_want_several_do_not_wait_for_each_other(start: Start) -> None:
    """3 of 4 and 2 of 4 at once: each would hold some and lack some for ever, if both took what is free."""
    waiting = [start(wanted) for wanted in (3, 2, 1, 3, 2, 1)]
    for job in waiting:
        job.ask()
    while waiting:
        ready = has_said(waiting)
        assert ready, f"{len(waiting)} jobs wait for each other"
        waiting.remove(ready[0])
        ready[0].end()


def test_a_job_that_wants_many_is_not_overtaken(start: Start) -> None:
    small, large, late = start(1), start(4), start(1)
    assert small.claimed() == "0"
    large.ask()
    assert large.waits()
    late.ask()
    assert late.waits()
    small.end()
    assert large.said() == "0,1,2,3"
    large.end()
    assert late.said() in {"0", "1", "2", "3"}, "whichever the kernel lets go of first"


GIVEN = {
    "one, by a scheduler or the user": (1, "3", "3"),
    "as many as wanted": (2, "GPU-ab,GPU-cd", "GPU-ab,GPU-cd"),
    "none": (1, "", ""),
    "more than wanted": (1, "5, 7", "5"),
    "several of more": (2, "5,6,7", "5,6"),
    "parts of a GPU": (1, "MIG-GPU-ab/1/0,MIG-GPU-ab/2/0", "MIG-GPU-ab/1/0"),
}


@pytest.mark.parametrize("wanted, listed, visible", GIVEN.values(), ids=GIVEN.keys())
def test_a_list_that_is_there(start: Start, wanted: int, listed: str, visible: str) -> None:
    assert start(wanted, CUDA_VISIBLE_DEVICES=listed).claimed() == visible


def test_given_devices_are_not_locked(start: Start, tmp_path: Path) -> None:
    for _ in range(2):
        assert start(CUDA_VISIBLE_DEVICES="0").claimed() == "0"
    assert not list(tmp_path.iterdir())
    assert start().claimed() == "0"


CHILD = "from ddrep import gpus; gpus.claim(1, lambda: 4); import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
GIVEN_TWO = """
import subprocess, sys
from ddrep import gpus
gpus.claim({wanted}, lambda: 2)
subprocess.run([sys.executable, "-c", {child!r}], check=True)
"""


@pytest.mark.parametrize("variable", [gpus.CLAIMED, gpus.LAUNCHED])
def test_processes_of_one_job_share_its_devices(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A scheduler's two for a job that wants two; what it starts, or torchrun has started, claims nothing."""
    monkeypatch.delenv(gpus.CLAIMED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, "a,b")
    if variable == gpus.LAUNCHED:
        monkeypatch.setenv(variable, "1")
    code = GIVEN_TWO.format(wanted=2, child=CHILD)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["a,b"]


def test_fewer_devices_than_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(gpus.CLAIMED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    with pytest.raises(UserError, match=r"4 GPUs wanted, but there are 2 \(0, 1\); ask for fewer"):
        gpus.claim(4, lambda: 2, tmp_path)
    with pytest.raises(UserError, match=r"2 GPUs wanted, but there are 2 \(0, 1\), of which torch sees 1; ask"):
        gpus.claim(2, lambda: 1, tmp_path)


NOT_THERE = [
    "0,1",
    "0",
    "0,0",
    "-1",
    "-1,0",
    "NoDevFiles",
    "GPU-8932f937-d72c-4106",
    "5,6,7",
    " 0 , 1 ",
]


@pytest.mark.parametrize("listed", NOT_THERE)
def test_gpus_that_are_listed_but_not_there_mean_the_cpu(
    listed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(gpus.CLAIMED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, listed)
    caplog.set_level("INFO", "ddrep")
    for wanted in (1, 4):
        gpus.claim(wanted, lambda: 0, tmp_path)
    said = f"computing on the CPU (CUDA_VISIBLE_DEVICES names {listed.count(',') + 1}, torch sees none)"
    assert [record.getMessage() for record in caplog.records] == [said] * 2
    assert os.environ[gpus.VISIBLE] == listed and gpus.CLAIMED not in os.environ and not list(tmp_path.iterdir())


CPU_JOBS = """
import torch
from ddrep import device
from ddrep.cli.base import log_to
log_to(None)
assert device.pick_device() == torch.device("cpu")
input()
"""


def test_three_jobs_of_a_node_without_gpus_do_not_wait_for_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own count, not a stand-in. On a machine with GPUs these names stand for none of them."""
    monkeypatch.delenv(gpus.CLAIMED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, "GPU-not-there,GPU-neither")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen([sys.executable, "-c", CPU_JOBS], **pipes) for _ in range(3)]
    told = [job.communicate("end\n", timeout=120)[1] for job in jobs[::-1]]
    assert all("computing on the CPU (CUDA_VISIBLE_DEVICES names 2, torch sees none)" in said for said in told)
    assert [job.returncode for job in jobs] == [0] * 3


def test_of_a_longer_list_those_are_shared_out_that_are_there(start: Start) -> None:
    """Stand-ins for four GPUs: the fifth job waits, though eight are listed."""
    listed = ",".join(map(str, range(8)))
    jobs = [start(CUDA_VISIBLE_DEVICES=listed) for _ in range(4)]
    assert sorted(job.claimed() for job in jobs) == ["0", "1", "2", "3"]
    fifth = start(CUDA_VISIBLE_DEVICES=listed)
    fifth.ask()
    assert fifth.waits()


def test_the_folder_is_the_users_and_in_slurm_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    folder = gpus.lock_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert gpus.lock_folder() == folder
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert gpus.lock_folder() != folder
    gpus.lock_folder().rmdir()
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    with pytest.raises(UserError, match="belongs to another user"):
        gpus.lock_folder()
    monkeypatch.undo()
    Path("/tmp/ddrep-gpus-987654-12").rmdir()


PARENT = f"""
import os, subprocess, sys, torch
from ddrep.device import pick_device
torch.cuda.device_count = lambda: 2
pick_device()
assert not torch.cuda.is_initialized()
pick_device()
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True, timeout=60)
"""


def test_a_process_keeps_its_device_and_shares_it_with_those_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"stand-in-{os.getpid()}-{i}" for i in range(2)]
    monkeypatch.delenv(gpus.CLAIMED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, ",".join(names))
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [names[0]] * 2
    for name in names:
        (gpus.lock_folder() / name).unlink(missing_ok=True)


def test_a_finetune_on_two_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes see the two GPUs that it claimed before it started them."""
    names = [f"stand-in-{os.getpid()}-{i}" for i in range(4)]
    monkeypatch.delenv(gpus.CLAIMED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, ",".join(names))
    work = "import os; os.write(1, (os.environ['CUDA_VISIBLE_DEVICES'] + chr(10)).encode())"
    code = f"""
import torch
torch.cuda.device_count = lambda: 4
from ddrep.training.parallel import in_processes
in_processes(2, exec, {work!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [",".join(names[:2])] * 2
    for name in names[:2]:
        (gpus.lock_folder() / name).unlink()


FAULTS = """
import resource
import torch
from ddrep.device import pick_device
if {picked}:
    assert pick_device().type == "cpu"
for _ in range(10):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_is_not_had_from_the_kernel_again_and_again() -> None:
    """64 MiB, freed and wanted ten times over: 16,384 pages each time, if the C library hands them back."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not GNU's")
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    codes = [FAULTS.format(picked=picked) for picked in (False, True)]
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env) for code in codes]
    default, kept = (int(done.stdout) for done in told)
    assert kept < 1000 < default


THREADS = """
import numpy, scipy.linalg, sys, torch
from threadpoolctl import threadpool_info
from ddrep.device import set_threads
before = {pool["num_threads"] for pool in threadpool_info()}
set_threads(1)
import sklearn.linear_model
print(before, {pool["num_threads"] for pool in threadpool_info()}, torch.get_num_threads())
"""


def test_all_libraries_are_held_to_the_threads_of_a_job() -> None:
    """Linear algebra is loaded before a job says how many threads it has, and took all cores: a judge beside a
    fine-tune took fifteen times as long."""
    env = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", THREADS], env=env, capture_output=True, text=True, check=True)
    before = "{1, 2}" if os.cpu_count() == 1 else "{2}"  # OpenBLAS takes no more than there are
    assert said.stdout == f"{before} {{1}} 1\n"
