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
"""Set for this process and those it starts: the visible devices are theirs, and none of them claims one for itself."""
LAUNCHED = "LOCAL_RANK"
"""Set by torchrun and accelerate for the processes that share the launcher's devices."""
POLL = 0.2
"""Seconds between looks at devices that others hold."""
_held: list[IO[str]] = []
"""Locks last as long as their files are open."""


def claim(wanted: int, count: Callable[[], int], folder: Path | None = None) -> None:
    """Make `wanted` GPUs visible to this process alone, until it ends; wait while others hold them.

    What torch sees is shared out, `count()` devices: without CUDA_VISIBLE_DEVICES all of the machine, by number; else
    the first of its list, which CUDA obeys up to the first name that stands for none. If it lists no more than are
    wanted, nothing is locked: a scheduler, or the user, has given this job its devices. Where there are none, nothing
    is claimed: this job computes on the CPU. To be called before CUDA is initialised.

    folder: of the lock files. Raises UserError if there are fewer devices than wanted.
    """
    if CLAIMED in os.environ or LAUNCHED in os.environ:
        return
    listed, seen = os.environ.get(VISIBLE), count()
    names = [str(i) for i in range(seen)] if listed is None else [n for n in listed.replace(" ", "").split(",") if n]
    if not names[:seen]:
        if names:
            log.info("computing on the CPU (%s names %d, torch sees none)", VISIBLE, len(names))
        return
    if len(names[:seen]) < wanted:
        told = f", of which torch sees {seen}" if len(names) > seen else ""
        raise UserError(f"{wanted} GPUs wanted, but there are {len(names)} ({', '.join(names)}){told}; ask for fewer")
    if listed is not None and len(names) == wanted:
        os.environ[CLAIMED] = listed
        return
    names = names[:seen]
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
    with (folder / "door").open("w", encoding="utf-8") as door:
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
    file = path.open("w", encoding="utf-8")
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    file.close()
    return None
