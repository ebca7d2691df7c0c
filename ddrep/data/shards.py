"""Labelled images in WebDataset tars (KEY.png and KEY.cls), readable by webdataset and timm as they are."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddrep.data.tars import AGAIN, Images, check_images, counted, read_alike, read_tar, write_tar
from ddrep.errors import UserError
from ddrep.files import written_whole

if TYPE_CHECKING:
    import pandas as pd

    from ddrep.rows import Kind

SOFT = "soft.npy"
"""Ending of the member with an image's soft label."""
ATTEMPTS: dict[str, Kind] = {"key": "text", "class": "whole", "accepted": "flag", "digest": "text"}
"""Columns by which a shard is checked; older ones have no digests."""


@dataclass(frozen=True)
class LabelledImages(Images):
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

    def take(self, rows: Sequence[int]) -> LabelledImages:
        soft = None if self.soft is None else self.soft[rows]
        return LabelledImages(self.images[rows], self.labels[rows], [self.keys[i] for i in rows], self.classes, soft)

    @property
    def digests(self) -> list[str]:
        """32 hex digits for each image with its label: equal exactly where pixels and labels are."""
        parts = [self.images, self.labels] if self.soft is None else [self.images, self.labels, self.soft]
        rows = (b"".join(part.tobytes() for part in row) for row in zip(*parts, strict=True))
        return [hashlib.sha256(row).hexdigest()[:32] for row in rows]  # of which machines have an instruction

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


def write_with_attempts(path: Path, images: LabelledImages, attempts: pd.DataFrame) -> None:
    """Write a shard and beside it (.parquet) the attempts that it was kept of, each with the digest of what is kept.

    attempts: a row each with `key`, `class`, `accepted` and more. By these rows a shard that was cut short, or is
    another's, is known when it is read.
    """
    digests = dict(zip(images.keys, images.digests, strict=True))
    with written_whole(path, path.with_suffix(".parquet")) as (shard_draft, table_draft):
        write_shard(shard_draft, images)
        kept = [digests.get(key, "") for key in attempts["key"]]
        attempts.assign(digest=kept).to_parquet(table_draft, index=False)


def write_unlabelled(path: Path, images: LabelledImages) -> None:
    """Write a shard of images alone: of these no label is ever read."""
    write_tar(path, images.classes, images.keys, images.images, {})


def read_unlabelled(path: Path) -> LabelledImages:
    """Images of a shard with or without labels, all of label 0. Raises UserError."""
    images, _, keys, classes = read_tar(path, {})
    return LabelledImages(images, np.zeros(len(images), np.int64), keys, classes)


def read_shards(paths: Sequence[Path]) -> LabelledImages:
    """All images of the shards, in order.

    Raises UserError naming file and member if one is missing, broken, cut short, not what its attempts tell of, or
    differs from the first in size, channels or class names.
    """
    return together(read_alike(paths, _read))


def _read(path: Path) -> LabelledImages:
    images, others, keys, classes = read_tar(path, {"cls": int, SOFT: _from_npy}, optional=(SOFT,))
    labels, soft = others["cls"], others[SOFT]
    if len(classes) < 2:
        raise UserError(f"{path}: one class ({classes[0]}), which leaves nothing to tell; expected 2 or more")
    for key, label in zip(keys, labels, strict=True):
        if not 0 <= label < len(classes):
            raise UserError(f"{path}: {key}.cls is {label}, expected 0..{len(classes) - 1}; {AGAIN}")
    try:
        read = LabelledImages(images, np.array(labels, np.int64), keys, classes, np.stack(soft) if soft else None)
    except ValueError as e:
        raise UserError(f"{path}: {e}; {AGAIN}") from None
    _check_attempts(path, read)
    return read


def _check_attempts(path: Path, images: LabelledImages) -> None:
    """Raise UserError unless the shard holds what the attempts beside it tell of, if there are any."""
    kept = _kept(path, len(images))
    if kept is None:
        return
    there = dict(zip(images.keys, images.digests if "digest" in kept else images.labels.tolist(), strict=True))
    told = dict(zip(kept["key"], kept["digest" if "digest" in kept else "class"], strict=True))
    if wrong := [key for key in there if there[key] != told.get(key)]:
        raise _swapped(path, f"image {wrong[0]} is not the one")


def _kept(path: Path, images: int) -> pd.DataFrame | None:
    """The accepted attempts of a shard of so many images; None where no attempts are beside it."""
    table = path.with_suffix(".parquet")
    if not table.exists():
        return None
    from ddrep.rows import read_rows  # with pandas, which takes longer to import than most shards to read

    rows = read_rows(table, ATTEMPTS, f"the attempts of {path}; {AGAIN}", optional=["digest"])
    kept = rows[rows["accepted"]]
    if len(kept) != images:
        raise _swapped(path, f"{images} images, but {len(kept)}")
    return kept


def _swapped(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what} that {path.with_suffix('.parquet').name} beside it tells of: cut short, or another shard's; "
        "delete both and make them again"
    )


def _npy(row: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, row.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()


def _from_npy(content: bytes) -> np.ndarray:
    row: np.ndarray = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if row.dtype.kind != "f":
        raise ValueError(f"holds {row.dtype}, expected probabilities")
    return row


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
    for path, length in zip(shards, lengths, strict=True):
        _kept(path, length)
    ends = range(shards_per_scale, len(shards) + 1, shards_per_scale)
    splits = {f"{k}x": _split(f"{k}x", names[:end], lengths[:end]) for k, end in enumerate(ends, 1)}
    with written_whole(out) as (draft,):
        draft.write_text(json.dumps({"splits": splits}, indent=1) + "\n", encoding="utf-8")


def _split(name: str, filenames: list[str], lengths: list[int]) -> dict[str, Any]:
    return {"name": name, "filenames": filenames, "shard_lengths": lengths, "num_samples": sum(lengths)}
