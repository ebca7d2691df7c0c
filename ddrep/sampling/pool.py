"""Candidates that outlive the threshold: every image ever drawn with the same settings, kept outside rule outputs.

A killed synthesis job finds what it drew, and a changed threshold selects again and tops up.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ddrep.errors import UserError
from ddrep.files import fingerprint, written_whole

log = logging.getLogger("ddrep")

Attempt = tuple[int, int]
"""(class, number of the attempt)."""


class Pool:
    """The candidates of one shard, drawn with one denoiser and one set of sampling settings.

    `key` names all that determines an image apart from its class and attempt; another key is another folder.
    """

    def __init__(self, root: Path, key: str, shard: int, image_shape: tuple[int, int, int]):
        """image_shape: (C, H, W) of the denoiser's images."""
        channels, height, width = image_shape
        self.shape = (height, width, channels)
        self.folder = root / key / f"{shard:05d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.images: dict[Attempt, np.ndarray] = {}
        self._read: set[str] = set()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the shard's pool: sources that share candidates wait for each other instead of drawing them twice."""
        lock = self.folder / "lock"
        if lock.exists() and not lock.is_file():
            raise UserError(f"{lock}: not a file; remove it, for those who draw candidates wait for each other there")
        with lock.open("w", encoding="utf-8") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            self.refresh()
            yield

    def refresh(self) -> None:
        """Read what other commands have added."""
        for path in sorted(self.folder.glob("[!.]*.npz")):
            if path.name not in self._read:
                self._read.add(path.name)
                self.images.update(_candidates(path, self.shape))

    def add(self, attempts: Sequence[Attempt], images: np.ndarray) -> None:
        """Keep one batch, uint8 (N, H, W, C)."""
        name = fingerprint(*map(str, attempts)) + ".npz"
        with written_whole(self.folder / name) as (draft,):
            np.savez_compressed(draft, attempts=np.array(attempts), images=images)
        self._read.add(name)
        self.images.update(zip(attempts, images, strict=True))


def _candidates(path: Path, shape: tuple[int, int, int]) -> dict[Attempt, np.ndarray]:
    """One batch; nothing for a file that holds none, as a failing disk may leave it, which is then drawn again."""
    if not path.is_file():
        raise UserError(f"{path}: not a file; remove it, for candidates are kept in files of this name")
    try:
        with np.load(path, allow_pickle=False) as content:
            attempts, images = content["attempts"], content["images"]
        if attempts.shape != (len(images), 2) or images.shape[1:] != shape or images.dtype != np.uint8:
            raise ValueError(f"images {images.shape}")
        return dict(zip([(int(label), int(attempt)) for label, attempt in attempts], images, strict=True))
    except PermissionError:
        raise
    except Exception as e:  # of arbitrary bytes numpy and zipfile make errors of many types
        log.warning("%s: not candidates of %s pixels (%s): removed, to be drawn again", path, shape, type(e).__name__)
        path.unlink()
        return {}
