"""What a data set's files look like from outside, in one line: what was made of other files is made anew.

The line has the names, sizes and times of all files or, where `digest: contents` asks for it, their names and contents.
Each rule that reads a data set has it among its params, so that a file added, removed or replaced plans the rule again;
and each command compares it before and after reading, so that a set that changes meanwhile is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ddrep.config import AttributeImages, CelebAMaskHQ, Data, FewShot, MaskData, Stage, UnlabelledImages
from ddrep.data.celebamask_hq import ANNOTATIONS, IMAGES
from ddrep.data.disk import raw
from ddrep.data.readers import places as places_of
from ddrep.errors import UserError


@contextlib.contextmanager
def unchanged(stage: Stage[Any]) -> Iterator[None]:
    """Raise UserError if the stage's files are not those it was planned for, before the block or after it.

    By hand, without a plan, nothing is compared.
    """
    _compare(stage)
    yield
    _compare(stage)


def _compare(stage: Stage[Any]) -> None:
    if not stage.files:
        return
    digest.cache_clear()
    where = places(stage.config)
    now = digest(where, stage.files.partition(":")[0])
    if now != stage.files:
        names = ", ".join(map(str, where[:3])) or "the data set"
        raise UserError(f"{names}: planned for {stage.files}; now {now or 'nothing'}; run snakemake again")


@lru_cache(maxsize=16)
def digest(where: tuple[Path, ...], by: str) -> str:
    """One line about all files at and below the places `where`, hidden ones apart; "" for no place.

    by: "times" (names, sizes, times of modification) or "contents" (names, contents). Equal for equal files in whatever
    order folders list them. Links are followed. Raises UserError for what cannot be looked into.
    """
    if not where:
        return ""
    total, size, latest, lines = 0, 0, 0, hashlib.sha256()
    for number, place in enumerate(where):
        for name, path, status in _files(place):
            total, size, latest = total + 1, size + status.st_size, max(latest, status.st_mtime_ns)
            what = _content(path, status) if by == "contents" else b"%d" % status.st_mtime_ns
            lines.update(b"%d/%s\0%d\0%s\n" % (number, name, status.st_size, what))
    when = f", latest {datetime.fromtimestamp(latest // 10**9, UTC):%Y-%m-%d %H:%M:%S}" if by == "times" else ""
    return f"{by}: {total} files, {size} bytes{when}, {lines.hexdigest()[:16]}"


def _files(place: Path) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Name below `place` (its own for a file), path and status of each file; names as bytes, whatever the locale."""
    path = raw(place)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            yield from _below(path, b"", frozenset())
        else:
            yield os.path.basename(path), path, status
    except OSError as e:
        raise UserError(f"{os.fsdecode(e.filename or path)}: {e.strerror}; expected a data set's files") from None


def _below(
    folder: bytes, prefix: bytes, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """The files below a folder. `above`: the folders it lies in, which a link among them may name again."""
    status = os.stat(folder)
    if (here := (status.st_dev, status.st_ino)) in above:
        return
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not entry.name.startswith(b".")), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _below(entry.path, prefix + entry.name + b"/", above | {here})
        else:
            yield prefix + entry.name, entry.path, _status(entry)


def _status(entry: os.DirEntry[bytes]) -> os.stat_result:
    """Of what a link leads to; of the link itself where it leads nowhere, which is for a reader to complain about."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return entry.stat(follow_symlinks=False)


def _content(path: bytes, status: os.stat_result) -> bytes:
    if not stat.S_ISREG(status.st_mode):
        return b"no file"
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").digest()


def places(section: BaseModel) -> tuple[Path, ...]:
    """Where the files lie that a section reads: of the table that counts, those there are; none of embedded data."""
    return tuple(path for path in _named(section) if os.path.exists(raw(path)))


def _named(section: BaseModel) -> Iterator[Path]:
    match section:
        case MaskData():
            yield from _named(getattr(section, section.table))
            if section.kind == "few-shot" and section.celebamask_hq:
                yield from _named(section.celebamask_hq)
        case UnlabelledImages(images=Path() as images):
            yield images
        case (Data() as data) | AttributeImages(data=data) | UnlabelledImages(data=Data() as data):
            yield from places_of(data)
        case FewShot(root=root):
            yield from (root / "real" / split for split in ("train", "test"))
        case CelebAMaskHQ(root=root):
            yield from (root / name for name in (IMAGES, ANNOTATIONS))
