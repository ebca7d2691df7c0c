"""One command at a time writes an output, on whatever machines of a shared folder commands are started.

A lock is a file beside the output, `.NAME.lock`, which says who holds it. That it is made once is for O_EXCL to see to,
which shared folders know (NFS from version 3 on) where flock may be of one machine alone. The lock of a dead holder is
taken away: of this machine one whose process has gone, or is another by the time it began, or whose machine has started
anew since; of any other machine one that has not touched its lock for `STALE` seconds by the clock of the folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, ValidationError

from ddrep import processes

log = logging.getLogger("ddrep")

BEAT, STALE = 20.0, 300.0
"""Seconds between a holder's touches of its locks; seconds without one after which another machine's is abandoned, for
nodes may see a touch a minute late."""
POLL = 1.0
"""Seconds between looks at a lock that another holds."""
LONGEST = 255
"""Bytes of a file's name."""


class Holder(BaseModel):
    """Who holds a lock."""

    model_config = ConfigDict(frozen=True)
    host: str
    """The machine's name, for people."""
    machine: str
    """The machine and, on it, the container."""
    boot: str
    pid: Annotated[int, Ge(1), Le(2**22)]
    started: str
    since: Annotated[float, Ge(0), Le(2**40)]
    command: str

    @property
    def dead(self) -> bool | None:
        """None where it cannot be told from here."""
        if self.machine != processes.host():
            return None
        return self.boot != processes.boot() or not processes.lives(self.pid, self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {time.ctime(self.since)} ({self.command[:80]})"


@dataclass(frozen=True)
class Lock:
    """A lock file as it was found: its holder, None where it does not say, and whether that is dead."""

    path: Path
    text: str
    holder: Holder | None
    dead: bool


@contextlib.contextmanager
def held(outputs: Sequence[Path]) -> Iterator[None]:
    """Hold the locks of all outputs, whose folders are made; wait while others do, and say once who.

    Two commands that want the same locks ask for them in the same order, and never wait for each other.
    """
    if not outputs or _launched():
        yield
        return
    stop, taken = threading.Event(), list[Path]()
    beat = threading.Thread(target=_beat, args=(taken, stop), daemon=True)
    beat.start()
    made = [folder for output in outputs for folder in output.parents if not folder.exists()]  # deepest first
    try:
        for lock in sorted({lock_of(output) for output in outputs}):
            _take(lock)
            taken.append(lock)
        yield
    finally:
        stop.set()
        beat.join()
        for lock in taken:
            _release(lock)
        for folder in made:  # where nothing came of it
            with contextlib.suppress(OSError):
                folder.rmdir()


def lock_of(output: Path) -> Path:
    """Where the lock of an output lies, by whatever way it is named."""
    name = f".{output.name}.lock"
    if len(os.fsencode(name)) > LONGEST:
        name = f".{output.name[:40]}-{processes.digest(os.fsencode(output.name).hex())}.lock"
    return Path(os.path.realpath(output.parent)) / name


def locks_in(folder: Path) -> Iterator[Lock]:
    """All that lie in a folder and below."""
    for path in sorted(folder.rglob(".*.lock")):
        if found := look(path):
            yield found


def _launched() -> bool:
    """Whether torchrun or accelerate has started this process beside a first one, which has the locks."""
    return os.environ.get("RANK", "0") != "0" and "LOCAL_RANK" in os.environ


def _me() -> Holder:
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        machine=processes.host(),
        boot=processes.boot(),
        pid=pid,
        started=processes.started(pid),
        since=time.time(),
        command=shlex.join(["ddrep", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode(),
    )


def _take(lock: Path) -> None:
    text, told = _me().model_dump_json(), ""
    while not _make(lock, text):
        found = look(lock)
        if found and found.dead:
            _break(found)
        elif found:
            if found.text != told:
                log.warning(
                    "%s: waiting for %s, who writes it", _output(lock), found.holder or "whoever holds the lock"
                )
            told = found.text
            time.sleep(POLL)


def _output(lock: Path) -> str:
    return os.path.relpath(lock.with_name(lock.name[1 : -len(".lock")]))


def _make(lock: Path, text: str) -> bool:
    """Whether the lock was made; not if it is there already. Raises OSError where it cannot be written."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        number = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except (FileExistsError, FileNotFoundError):  # or one who failed has taken the folder away
        return False
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as e:
        lock.unlink(missing_ok=True)
        raise OSError(e.errno, os.strerror(e.errno or 0), str(lock)) from None
    return True


def look(lock: Path) -> Lock | None:
    """A lock as it is now; None where there is none."""
    try:
        with lock.open("rb") as file:
            content, touched = file.read(2**16), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    text = content.decode("utf-8", "replace")
    try:
        holder = Holder.model_validate_json(text)
        dead = holder.dead
    except ValidationError:  # one that is being written, or was when its holder was killed
        holder, dead = None, None
    return Lock(lock, text, holder, _now(lock.parent) - touched > STALE if dead is None else dead)


def _now(folder: Path) -> float:
    """By the clock of the folder, which need not be this machine's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _break(found: Lock) -> None:
    """Take a dead holder's lock away, and no other one: who renames it has it."""
    aside = found.path.with_name(f"{found.path.name}-{processes.host()}-{os.getpid()}")
    try:
        found.path.rename(aside)
    except FileNotFoundError:  # another was quicker
        return
    if aside.read_text(encoding="utf-8", errors="replace") != found.text:  # and holds it by now
        with contextlib.suppress(FileExistsError):
            os.link(aside, found.path)
    else:
        log.info("%s: its lock was left by %s", _output(found.path), found.holder or "nobody known")
    aside.unlink()


def _beat(taken: list[Path], stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        for lock in list(taken):
            with contextlib.suppress(OSError):
                os.utime(lock)


def _release(lock: Path) -> None:
    """Unless it was taken for abandoned, as after a suspension, and is another's by now."""
    found = look(lock)
    if found and found.holder and (found.holder.pid, found.holder.machine) == (os.getpid(), processes.host()):
        lock.unlink(missing_ok=True)
