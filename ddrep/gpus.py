"""Which GPUs a job computes on, where no scheduler hands them out.

Snakemake's `--resources gpu=4` caps how many jobs with a GPU run at once, but gives none of them a device. So each job
holds a lock file a device while it lives. The kernel lets go of a dead holder's locks, however it died: there is
nothing to clean up.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from ddrep.errors import UserError

log = logging.getLogger("ddrep")

VISIBLE = "CUDA_VISIBLE_DEVICES"
CLAIMED = "DDREP_GPUS_CLAIMED"
"""Set for this process and those it starts: the visible devices are theirs."""
POLL = 0.2
"""Seconds between looks at devices that others hold."""
_held: list[IO[str]] = []
"""Locks last as long as their files are open."""


def claim(wanted: int, count: Callable[[], int], folder: Path | None = None) -> None:
    """Make `wanted` GPUs visible to this process alone, until it ends; wait while others hold them.

    CUDA_VISIBLE_DEVICES that lists as many as are wanted is obeyed and nothing is locked: a scheduler, or the user, has
    given this job its devices. If it lists more, the jobs that see the list share it out among themselves. Without it
    all devices of the machine are shared out, numbers 0 to `count()` - 1. To be called before CUDA is initialised.

    folder: of the lock files. Raises UserError if fewer devices are listed than wanted.
    """
    if CLAIMED in os.environ:
        return
    listed = os.environ.get(VISIBLE)
    names = [str(i) for i in range(count())] if listed is None else [n for n in listed.replace(" ", "").split(",") if n]
    if 0 < len(names) < wanted:
        raise UserError(f"{wanted} GPUs wanted, but there are {len(names)} ({', '.join(names)}); ask for fewer")
    if not names or (listed is not None and len(names) == wanted):
        return
    log.info("waiting for %d of the GPUs %s", wanted, ", ".join(names))
    locks = _taken(names, wanted, folder or lock_folder())
    _held.extend(locks.values())
    mine = ",".join(name for name in names if name in locks)
    log.info("computing on GPU %s", mine)
    os.environ |= {VISIBLE: mine, CLAIMED: mine}


def lock_folder() -> Path:
    """A folder of this user's on this machine, whatever TMPDIR says: jobs that do not share it share devices unawares.

    In a job of SLURM one of the job's own, for devices may be numbered from 0 in each job.
    """
    folder = Path("/tmp") / "-".join(["ddrep-gpus", str(os.getuid()), *filter(None, [os.environ.get("SLURM_JOB_ID")])])
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user; remove it, or name the job's devices in {VISIBLE}")
    return folder


def _taken(names: Sequence[str], wanted: int, folder: Path) -> dict[str, IO[str]]:
    """The locks of `wanted` devices, by name.

    Whoever lacks some stands in the door while it waits. As nobody else can then hold one device and wait for another,
    no two jobs wait for each other; and a job that wants many is not overtaken for ever by those that want one.
    """
    locks: dict[str, IO[str]] = {}
    with (folder / "door").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        while True:
            for name in names:
                if name not in locks and len(locks) < wanted and (lock := _lock(folder / name.replace("/", "_"))):
                    locks[name] = lock
            if len(locks) == wanted:
                return locks
            time.sleep(POLL)


def _lock(path: Path) -> IO[str] | None:
    """The open, locked file; None if another process holds it."""
    file = path.open("w")
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    file.close()
    return None
