"""Outputs appear whole or not at all; content hashes name what must not be mixed up."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Yield one temporary sibling per path; rename all onto `paths` if the block succeeds, else remove them.

    The temporary name keeps the suffix, since writers choose their format by it.
    """
    drafts = tuple(p.with_name(f".{p.stem}.{os.getpid()}{p.suffix}") for p in paths)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield drafts
        for draft, path in zip(drafts, paths, strict=True):
            os.replace(draft, path)
    finally:
        for draft in drafts:
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


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
    return Path(".ddrep", "state", f"{stage}-{fingerprint(stage, *parts)}.pt")
