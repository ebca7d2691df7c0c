"""Candidates that outlive the threshold: every image ever drawn with the same settings, kept outside rule outputs.

A killed synthesis job finds what it drew, and a changed threshold selects again and tops up.
"""

from __future__ import annotations

import contextlib
import fcntl
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ddrep.files import fingerprint, written_whole

Attempt = tuple[int, int]
"""(class, number of the attempt)."""


class Pool:
    """The candidates of one shard, drawn with one denoiser and one set of sampling settings.

    `key` names all that determines an image apart from its class and attempt; another key is another folder.
    """

    def __init__(self, root: Path, key: str, shard: int):
        self.folder = root / key / f"{shard:05d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.images: dict[Attempt, np.ndarray] = {}
        self._read: set[str] = set()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the shard's pool: sources that share candidates wait for each other instead of drawing them twice."""
        with (self.folder / "lock").open("w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            self.refresh()
            yield

    def refresh(self) -> None:
        """Read what other commands have added."""
        for path in sorted(self.folder.glob("[!.]*.npz")):
            if path.name not in self._read:
                self._read.add(path.name)
                self.images.update(_candidates(path))

    def add(self, attempts: Sequence[Attempt], images: np.ndarray) -> None:
        """Keep one batch, uint8 (N, H, W, C)."""
        name = fingerprint(*map(str, attempts)) + ".npz"
        with written_whole(self.folder / name) as (draft,):
            np.savez_compressed(draft, attempts=np.array(attempts), images=images)
        self._read.add(name)
        self.images.update(zip(attempts, images, strict=True))


def _candidates(path: Path) -> dict[Attempt, np.ndarray]:
    """One batch; nothing for a file that a failing disk left broken, which is then drawn again."""
    try:
        with np.load(path, allow_pickle=False) as content:
            pairs = [(int(label), int(attempt)) for label, attempt in content["attempts"]]
            return dict(zip(pairs, content["images"], strict=True))
    except (BadZipFile, zlib.error, ValueError, KeyError, EOFError):
        path.unlink()
        return {}
