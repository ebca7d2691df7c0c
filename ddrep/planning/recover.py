"""After Snakemake was killed: what still runs is waited for or ended, and what has finished meanwhile is kept."""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddrep import processes
from ddrep.config import Experiment
from ddrep.errors import UserError
from ddrep.files import tail, written_whole
from ddrep.locks import locks_in
from ddrep.planning.dag import Marked, recovered
from ddrep.stopping import WRITTEN

EVERY = 2.0
"""Seconds between two looks."""
PREFIX = "ddrep"
"""Of the names of SLURM jobs (workflow/profiles/slurm)."""
LONGEST = 2**20
"""Bytes of a log's first line that are looked at."""
SUBMITTED = Path(".snakemake/slurm_logs")
"""Where Snakemake has used SLURM from this folder."""
COLUMNS = ("s", "h:m:s", "max_rss", "max_vms", "max_uss", "max_pss", "io_in", "io_out", "mean_load", "cpu_time")
"""Of Snakemake's benchmarks."""


@dataclass(frozen=True)
class Orphan:
    """What runs on without its Snakemake."""

    name: str
    end: tuple[str, ...] = ()
    """Arguments of a command; none where it can only be waited for."""


def run(experiment: Experiment, overlays: Sequence[Path], cancel: bool) -> None:
    """Wait until nothing of the experiment runs any more, or end it; unlock; keep what has finished; say how to go on.

    Raises UserError where a Snakemake still runs in this folder, whose jobs are no orphans.
    """
    if living := [pid for pid, words in _processes_here() if _is_snakemake(words)]:
        raise UserError(f"process {living[0]}: Snakemake still runs in this folder; let it work, or end it first")
    _see_them_end(experiment.experiment, cancel)
    kept = recovered(experiment, os.cpu_count() or 1, _is_whole)
    for path in kept:
        print(f"finished after Snakemake was killed, and kept: {path}")
    profile = "slurm" if SUBMITTED.is_dir() else "local"
    call = ["snakemake", "--workflow-profile", f"workflow/profiles/{profile}"]
    call += ["--configfile", *map(str, overlays)] if overlays else []
    print(f"nothing runs any more; go on with: {shlex.join(call)}")


def _see_them_end(experiment: str, cancel: bool) -> None:
    told, began = set[Orphan](), time.monotonic()
    while orphans := set(_orphans(Path("results", experiment))):
        for orphan in sorted(orphans - told, key=str):
            if cancel and orphan.end:
                print(f"ending {orphan.name}", flush=True)
                subprocess.run(orphan.end, check=False)
            else:
                print(f"waiting for {orphan.name}", flush=True)
        told |= orphans
        time.sleep(max(EVERY, 10 * (time.monotonic() - began)))  # where there are many folders a look takes long
        began = time.monotonic()


def _orphans(results: Path) -> Iterator[Orphan]:
    yield from _slurm_jobs()
    pids = {pid for pid, words in _processes_here() if _works_on(words, results)}
    for lock in locks_in(results):
        if lock.dead:
            continue
        if lock.holder and lock.holder.machine == processes.host():
            pids.add(lock.holder.pid)
        else:
            yield Orphan(str(lock.holder or lock.path))
    yield from (Orphan(f"process {pid}", ("kill", "-TERM", str(pid))) for pid in pids - {os.getpid()})


def _processes_here() -> Iterator[tuple[int, list[str]]]:
    """Number and arguments of each process of this machine that works in the current folder, where the system tells."""
    here = os.path.realpath(".")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(folder / "cwd") == here:
                yield int(folder.name), folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")


def _program(words: Sequence[str]) -> str:
    """What Python runs, or the program."""
    if Path(words[0]).name.startswith("python"):
        words = words[2:] if words[1:2] == ["-m"] else words[1:]
    return Path(words[0]).name if words else ""


def _is_snakemake(words: Sequence[str]) -> bool:
    """One that nobody has started for a single job."""
    return _program(words) == "snakemake" and "--mode" not in words


def _works_on(words: Sequence[str], results: Path) -> bool:
    return _program(words) == "ddrep" and any(word.startswith(f"{results}{os.sep}") for word in words)


def _slurm_jobs() -> Iterator[Orphan]:
    """This user's that were submitted from this folder; none where there is no SLURM. Raises UserError where one that
    was used here does not answer."""
    if not shutil.which("squeue"):
        return
    asked = ["squeue", "--me", "--noheader", "--format=%i|%j|%Z"]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode and SUBMITTED.is_dir():
        raise UserError(f"squeue: {' '.join(done.stderr.split())}; ask again when SLURM answers")
    for line in done.stdout.splitlines():
        number, name, folder = line.split("|", 2)
        if name.startswith(PREFIX) and os.path.realpath(folder) == os.path.realpath("."):
            yield Orphan(f"SLURM job {number}", ("scancel", number))


def _is_whole(job: Marked) -> bool:
    """Whether a job ended as it should, by what it wrote: by its log this very command, on inputs that have not changed
    since it began, and all of its outputs. Its benchmark, which Snakemake would have written, is then written here."""
    try:
        with job.log.open("rb") as log:
            began, end = log.readline(LONGEST).decode(errors="replace"), tail(job.log)
        inputs = [path.stat().st_mtime for path in job.inputs]
        written = [path.stat().st_mtime for path in job.outputs]
    except OSError:
        return False
    same = _words(began.partition(" ddrep ")[2]) == _words(job.command.partition("ddrep ")[2])
    if not (same and end.endswith(WRITTEN) and max(inputs, default=0) <= job.begun <= min(written)):
        return False
    if job.benchmark:
        _write_benchmark(job.benchmark, max(written) - job.begun)
    return True


def _words(command: str) -> list[str]:
    """What a command does, whatever its threads; none of one that no shell would take."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    at = words.index("--threads") if "--threads" in words else len(words)
    return words[:at] + words[at + 2 :]


def _write_benchmark(path: Path, seconds: float) -> None:
    """The time; how much memory it took nobody knows."""
    values = [f"{seconds:.4f}", str(datetime.timedelta(seconds=int(seconds)))]
    values += ["NA"] * (len(COLUMNS) - len(values))
    with written_whole(path) as (draft,):
        draft.write_text("\t".join(COLUMNS) + "\n" + "\t".join(values) + "\n", encoding="utf-8")
