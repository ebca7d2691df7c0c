"""Labelled images in WebDataset tars (KEY.png and KEY.cls), readable by webdataset and timm as they are."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddrep.data.tars import AGAIN, check_images, counted, read_alike, read_tar, write_tar
from ddrep.errors import UserError
from ddrep.files import written_whole

SOFT = "soft.npy"
"""Ending of the member with an image's soft label."""


@dataclass(frozen=True)
class LabelledImages:
    """`images` uint8 (N, H, W, C) with C 1 or 3, `labels` int64 (N,) into `classes` (names), one of `keys` an image.

    `soft`: where a judge has said them, the probabilities of all classes, float16 (N, classes).
    """

    images: np.ndarray
    labels: np.ndarray
    keys: list[str]
    classes: tuple[str, ...]
    soft: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_images(self.images, self.keys)
        n = len(self.images)
        if len(self.labels) != n:
            raise ValueError(f"{n} images, {len(self.labels)} labels: expected as many of each")
        if n and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise ValueError(f"labels: expected 0..{len(self.classes) - 1}")
        if self.soft is not None and not _are_probabilities(self.soft, (n, len(self.classes))):
            raise ValueError(f"soft: expected {n} rows of {len(self.classes)} probabilities that sum to 1")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int]) -> LabelledImages:
        soft = None if self.soft is None else self.soft[rows]
        return LabelledImages(self.images[rows], self.labels[rows], [self.keys[i] for i in rows], self.classes, soft)

    @property
    def targets(self) -> np.ndarray:
        """What a network is to say: the labels (N,), or the soft ones as float32 (N, classes), which sum to 1."""
        if self.soft is None:
            return self.labels
        soft = self.soft.astype(np.float32)
        return soft / soft.sum(axis=1, keepdims=True)


def _are_probabilities(p: np.ndarray, shape: tuple[int, int]) -> bool:
    """To the precision of float16."""
    if p.shape != shape:
        return False
    whole = p.astype(np.float64)
    return bool(((whole >= 0).all(axis=1) & (abs(whole.sum(axis=1) - 1) < 0.01)).all())


def together(parts: Sequence[LabelledImages]) -> LabelledImages:
    """All images of parts with the same classes; if some have soft labels, those of the others are their classes."""
    certain = np.eye(len(parts[0].classes), dtype=np.float16)
    soft = [certain[part.labels] if part.soft is None else part.soft for part in parts]
    return LabelledImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [key for part in parts for key in part.keys],
        parts[0].classes,
        np.concatenate(soft) if any(part.soft is not None for part in parts) else None,
    )


def write_shard(path: Path, images: LabelledImages) -> None:
    """Write a shard, whole or not at all; soft labels as KEY.soft.npy. Equal images give equal bytes.

    Raises ValueError for keys that WebDataset would lose.
    """
    others = {"cls": [str(int(label)).encode() for label in images.labels]}
    if images.soft is not None:
        others[SOFT] = [_npy(row) for row in images.soft]
    write_tar(path, images.classes, images.keys, images.images, others)


def write_unlabelled(path: Path, images: LabelledImages) -> None:
    """Write a shard of images alone: of these no label is ever read."""
    write_tar(path, images.classes, images.keys, images.images, {})


def read_unlabelled(path: Path) -> LabelledImages:
    """Images of a shard with or without labels, all of label 0. Raises UserError."""
    images, _, keys, classes = read_tar(path, {})
    return LabelledImages(images, np.zeros(len(images), np.int64), keys, classes)


def read_shards(paths: Sequence[Path]) -> LabelledImages:
    """All images of the shards, in order.

    Raises UserError naming file and member if one is missing, broken, cut short, or differs from the first in
    size, channels or class names.
    """
    return together(read_alike(paths, _read))


def _read(path: Path) -> LabelledImages:
    images, others, keys, classes = read_tar(path, {"cls": int, SOFT: _from_npy}, optional=(SOFT,))
    labels, soft = others["cls"], others[SOFT]
    for key, label in zip(keys, labels, strict=True):
        if not 0 <= label < len(classes):
            raise UserError(f"{path}: {key}.cls is {label}, expected 0..{len(classes) - 1}; {AGAIN}")
    try:
        return LabelledImages(images, np.array(labels, np.int64), keys, classes, np.stack(soft) if soft else None)
    except ValueError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None


def _npy(row: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, row.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()


def _from_npy(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False)


def write_info(out: Path, shards: Sequence[Path], shards_per_scale: int) -> None:
    """Write _info.json with which timm reads the folder as splits 1x, 2x, ...: kx is the first k * shards_per_scale.

    The shards must lie in the folder of `out` (or below). Raises UserError.
    """
    if not shards or len(shards) % shards_per_scale:
        raise UserError(f"{out}: {len(shards)} shards are not a multiple of {shards_per_scale}, the shards of 1x")
    folder = out.parent.resolve()
    outside = [path for path in shards if not path.resolve().is_relative_to(folder)]
    if outside:
        raise UserError(f"{outside[0]}: expected shards in the folder of {out}; write _info.json beside them")
    names = [path.resolve().relative_to(folder).as_posix() for path in shards]
    lengths = [counted(path, "cls") for path in shards]
    ends = range(shards_per_scale, len(shards) + 1, shards_per_scale)
    splits = {f"{k}x": _split(f"{k}x", names[:end], lengths[:end]) for k, end in enumerate(ends, 1)}
    with written_whole(out) as (draft,):
        draft.write_text(json.dumps({"splits": splits}, indent=1) + "\n", encoding="utf-8")


def _split(name: str, filenames: list[str], lengths: list[int]) -> dict[str, Any]:
    return {"name": name, "filenames": filenames, "shard_lengths": lengths, "num_samples": sum(lengths)}
