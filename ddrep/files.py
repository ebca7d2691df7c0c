"""Outputs appear whole or not at all; content hashes name what must not be mixed up."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrep import processes
from ddrep.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STATE_FORMAT = "3"
"""Raised when the content of a state changes, so that what an older ddrep left is begun anew."""
FULL, SILENT = 2**20, 86400.0
"""Bytes free at which a disk is full; seconds after which another machine's draft is taken for abandoned."""
WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors that only writing makes."""
LARGEST = 2**33
"""Bytes of an .npz's arrays: of more features of images than any distance wants."""
LONGEST_NAME = 255
"""Bytes of a file's name."""
TAIL = 8192
"""Bytes of a log that are looked at."""
_DRAFT = re.compile(r"-(?P<host>[0-9a-f]{8})-(?P<pid>\d{1,9})-(?P<started>\d*)(?:\.[^.]*)?$")
"""The end of a draft's name: the machine, the number of the process that writes it, and when that one began."""


@contextlib.contextmanager
def written_whole(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Yield one temporary sibling per path; rename all onto `paths` if the block succeeds, else remove them.

    The temporary name keeps the suffix, since writers choose their format by it. What is written gets the mode that any
    new file there has, for some writers' files are their owner's alone. A path that is such a draft already is written
    in place. Raises OSError, with the path, where the disk is full, whatever the writer made of it.
    """
    owner = f"-{processes.host()}-{os.getpid()}-{processes.started(os.getpid())}"
    drafts = tuple(
        path if owner in path.name else path.with_name(f".{_label(path)}{owner}{path.suffix}") for path in paths
    )
    mine = [(draft, path) for draft, path in zip(drafts, paths, strict=True) if draft != path]
    for _, path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
    modes = [_new_mode(draft) for draft, _ in mine]
    try:
        yield drafts
        for (draft, path), mode in zip(mine, modes, strict=True):
            _set_mode(draft, mode)
            os.replace(draft, path)
    except Exception as e:
        if mine and (number := _refused(e, mine[0][1].parent)):
            raise OSError(number, os.strerror(number), str(mine[0][1])) from e
        raise
    finally:
        for draft, _ in mine:
            remove(draft)


def _refused(e: Exception, folder: Path) -> int:
    """The number of an error of writing that names no file: the system's own, or a full disk's, of which writers make
    errors of other types; else 0."""
    if isinstance(e, OSError):
        return e.errno if e.filename is None and e.errno in WRITING else 0
    return errno.ENOSPC if shutil.disk_usage(folder).free < FULL else 0


def remove_abandoned(path: Path) -> None:
    """Remove the drafts of `path` that processes left when they were killed, and none that is being written.

    A process of this machine is known to be dead; one of another machine is taken for dead after a day of silence.
    """
    start, host = f".{_label(path)}-", processes.host()
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            owner = _DRAFT.search(entry.name) if entry.name.startswith(start) else None
            if not owner or entry.name != f"{start}{owner['host']}-{owner['pid']}-{owner['started']}{path.suffix}":
                continue
            idle = time.time() - entry.stat(follow_symlinks=False).st_mtime > SILENT
            if not processes.lives(int(owner["pid"]), owner["started"]) if owner["host"] == host else idle:
                remove(Path(entry.path))


def _label(path: Path) -> str:
    """What a draft of `path` is called: its stem, unless the whole name would be too long for a file system."""
    long = len(os.fsencode(path.name)) > LONGEST_NAME - 45  # which are for the owner
    return fingerprint(os.fsencode(path.name).hex()) if long else path.stem


def _new_mode(draft: Path) -> int:
    """The mode of a new file at `draft`, by the umask or by the folder's access list."""
    draft.touch()
    mode = stat.S_IMODE(draft.stat().st_mode)
    draft.unlink()
    return mode


def _set_mode(draft: Path, mode: int) -> None:
    """Give it to the file, or to the files of the folder."""
    for file in draft.rglob("*") if draft.is_dir() else [draft]:
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) != mode:
            file.chmod(mode)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def check_readable(path: Path, expected: str) -> None:
    """Raise UserError, which says what is there, unless `path` is a file with content that may be read."""
    try:
        there = path.stat()
        fault = _fault(there)
        if not fault:
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        fault = "no such file"
    except OSError as e:
        fault = str(e.strerror).lower()
    if fault:
        raise UserError(f"{path}: {fault}; expected {expected}")


def _fault(there: os.stat_result) -> str:
    if stat.S_ISDIR(there.st_mode):
        return "is a folder"
    if not stat.S_ISREG(there.st_mode):
        return "is a pipe or a device, not a file"
    return "" if there.st_size else "is empty"


def tail(path: Path) -> str:
    """The last TAIL bytes of a text."""
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - TAIL))
        return f.read().decode("utf-8", "replace").strip()


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; equal content gives equal bytes.

    The library writes metadata in a random order, and digests of these files name what was made with them.
    """
    from safetensors.torch import save_file  # with torch, which takes longer to import than many commands to run

    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata)
    with path.open("r+b") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(ordered) <= size
        f.seek(8)
        f.write(ordered.ljust(size))


def tensors_on_disk(path: Path, shape: tuple[int, ...], *names: str, metadata: dict[str, str]) -> dict[str, np.memmap]:
    """A safetensors file of float32 zeros, and its tensors, all of `shape`, as arrays that write to it: for what may be
    larger than the memory. Raises OSError where the disk has no room."""
    import numpy as np

    size = 4 * math.prod(shape)
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    for i, name in enumerate(names):
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the library wants tensors aligned
    total = 8 + len(text) + len(names) * size
    with path.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.truncate(total)
        if hasattr(os, "posix_fallocate"):  # or a full disk would kill the process when an array is written
            os.posix_fallocate(f.fileno(), 0, total)
    starts = {name: 8 + len(text) + i * size for i, name in enumerate(names)}
    return {name: np.memmap(path, np.float32, "r+", start, shape) for name, start in starts.items()}


def tensors_from_disk(path: Path) -> tuple[dict[str, np.memmap], dict[str, str]]:
    """Float32 tensors and metadata of a safetensors file, read where they are indexed. Raises OSError or ValueError."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise ValueError("is no file")
    try:
        with safe_open(path, framework="np") as f:  # which sees to it that the tensors fill the file
            metadata = f.metadata() or {}
    except SafetensorError as e:
        raise ValueError(str(e)) from None
    with path.open("rb") as f:
        size = int.from_bytes(f.read(8), "little")
        entries = {name: entry for name, entry in json.loads(f.read(size)).items() if name != "__metadata__"}
    if odd := [name for name, entry in entries.items() if entry["dtype"] != "F32" or 0 in entry["shape"]]:
        raise ValueError(f"{odd[0]} is not of float32, or empty")
    arrays = {
        name: np.memmap(path, np.float32, "r", 8 + size + entry["data_offsets"][0], tuple(entry["shape"]))
        for name, entry in entries.items()
    }
    return arrays, metadata


def read_arrays(path: Path, names: Sequence[str], expected: str) -> list[np.ndarray]:
    """Arrays of an .npz, by their names. Raises UserError naming the file; `expected` says what it should be."""
    import numpy as np

    check_readable(path, expected)
    try:
        with np.load(path, allow_pickle=False) as content:
            # by its own list, for a few compressed bytes may claim more than there is memory
            if sum(member.file_size for member in content.zip.infolist()) > LARGEST:
                raise ValueError(f"more than {LARGEST} bytes")
            return [content[name] for name in names]
    except Exception as e:  # of arbitrary bytes numpy and zipfile make errors of many types
        said = " ".join(str(e).split())[:200] or type(e).__name__
        raise UserError(f"{path}: not a whole .npz of {', '.join(names)} ({said}); expected {expected}") from None


def read_metadata(path: Path, forms: Collection[str], what: str) -> dict[str, str]:
    """What a safetensors file of one of these formats says of itself; no tensors are read, and no torch is imported.

    Raises UserError for any other file; `what` says what was expected and how to make one.
    """
    from safetensors import SafetensorError, safe_open

    check_readable(path, what)  # to the library each of these faults is a missing file
    try:
        with safe_open(path, framework="np") as f:
            meta: dict[str, str] = f.metadata() or {}
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: not a readable safetensors file ({e}); expected {what}") from None
    if meta.get("format", "") not in forms:
        raise UserError(f"{path}: of another format ({meta.get('format', 'unnamed')}); expected {what}")
    return meta


def load_tensors(path: Path, form: str, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and metadata of a safetensors file; as `read_metadata`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    meta = read_metadata(path, [form], what)
    try:
        return load_file(path), meta
    except (SafetensorError, OSError, AttributeError, KeyError) as e:  # also for types that torch has not
        raise UserError(f"{path}: not a readable safetensors file ({e}); expected {what}") from None


def is_zip(path: Path) -> bool:
    """Whether it is a file that ends as a zip does; one with a broken end is none, which Python would raise."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fingerprint(*parts: str) -> str:
    """16 hex digits naming the combination of `parts`, e.g. a section's JSON and its inputs' digests."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def state_path(stage: str, *parts: str) -> Path:
    """Where an unfinished command keeps its state: outside of its outputs, under `.ddrep/state` of the current folder.

    `parts` are everything that determines the result (the stage's JSON, the inputs' digests, options): another
    experiment or other inputs never meet this state.
    """
    return Path(".ddrep", "state", f"{stage}-{fingerprint(STATE_FORMAT, stage, *parts)}.pt")
