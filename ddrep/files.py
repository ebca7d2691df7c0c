"""Outputs appear whole or not at all; content hashes name what must not be mixed up."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrep.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STATE_FORMAT = "2"
"""Raised when the content of a state changes, so that what an older ddrep left is begun anew."""


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
    """Tensors and metadata that `tensors_on_disk` wrote, read where they are indexed: the library's own mapping is
    refused for a file larger than the memory. Raises OSError, ValueError or KeyError for any other file."""
    import numpy as np

    with path.open("rb") as f:
        size = int.from_bytes(f.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("no header")
        header = json.loads(f.read(size))
    metadata = header.pop("__metadata__")
    if {entry["dtype"] for entry in header.values()} != {"F32"}:
        raise ValueError("not of float32")
    places = {name: (8 + size + entry["data_offsets"][0], tuple(entry["shape"])) for name, entry in header.items()}
    return {name: np.memmap(path, np.float32, "r", *place) for name, place in places.items()}, metadata


def load_tensors(path: Path, form: str, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and metadata of a safetensors file whose metadata give its format as `form`.

    Raises UserError for any other file; `what` says what was expected and how to make one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            meta = f.metadata() or {}
            weights = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {what}") from None
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: not a readable safetensors file ({e}); expected {what}") from None
    if meta.get("format") != form:
        raise UserError(f"{path}: of another format ({meta.get('format', 'unnamed')}); expected {what}")
    return weights, meta


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
