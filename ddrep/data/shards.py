"""Labelled images in WebDataset tars (KEY.png and KEY.cls), readable by webdataset and timm as they are."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddrep.errors import UserError
from ddrep.files import written_whole

META = "__shard__"
"""First member: JSON with the class names and the number of images. WebDataset skips members named __*__."""
KEY = re.compile(r"(?!__)[^./]+")
"""What a key may look like: WebDataset ends it at the first dot, and reads slashes as folders."""


@dataclass(frozen=True)
class LabelledImages:
    """`images` uint8 (N, H, W, C) with C 1 or 3, `labels` int64 (N,) into `classes` (names), one of `keys` an image."""

    images: np.ndarray
    labels: np.ndarray
    keys: list[str]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] not in (1, 3):
            raise ValueError(f"images: expected uint8 (N, H, W, 1 or 3), got {self.images.dtype} {self.images.shape}")
        if len(self.labels) != n or len(self.keys) != n:
            raise ValueError(f"{n} images, {len(self.labels)} labels, {len(self.keys)} keys: expected as many of each")
        if n and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise ValueError(f"labels: expected 0..{len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.images)


def write_shard(path: Path, images: LabelledImages) -> None:
    """Write a shard, whole or not at all. Equal images give equal bytes. Raises ValueError for keys that WebDataset
    would lose.
    """
    wrong = [key for key in images.keys if not KEY.fullmatch(key)]
    if wrong or len(set(images.keys)) < len(images.keys):
        raise ValueError(
            f"keys: expected each once, without dot, slash or leading __; got {wrong[:3] or 'a key twice'}"
        )
    meta = json.dumps({"classes": list(images.classes), "images": len(images)}, ensure_ascii=False)
    with written_whole(path) as (draft,), tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, META, meta.encode())
        for image, label, key in zip(images.images, images.labels, images.keys, strict=True):
            _add(tar, f"{key}.png", _png(image))
            _add(tar, f"{key}.cls", str(int(label)).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # time stamp 0, owner 0, mode 0644: the same bytes whoever writes, and when
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def read_shards(paths: Sequence[Path]) -> LabelledImages:
    """All images of the shards, in order.

    Raises UserError naming file and member if one is missing, broken, cut short, or differs from the first in
    size, channels or class names.
    """
    if not paths:
        raise UserError("shards: none given; expected at least one .tar")
    parts = [_read(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if part.classes != first.classes or part.images.shape[1:] != first.images.shape[1:]:
            raise UserError(f"{path}: {_describe(part)}, but {paths[0]} {_describe(first)}; make them with one config")
    return LabelledImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [key for part in parts for key in part.keys],
        first.classes,
    )


def _describe(part: LabelledImages) -> str:
    height, width, channels = part.images.shape[1:]
    return (
        f"has {len(part.classes)} classes ({', '.join(part.classes[:3])}, ...) and images {height}x{width}x{channels}"
    )


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such shard; make it with `ddrep data` or `ddrep synthesize`") from None
    except (tarfile.TarError, OSError) as e:
        raise UserError(f"{path}: not a whole tar file ({e}); delete it and make it again") from None


def _read(path: Path) -> LabelledImages:
    meta: dict[str, Any] = {}
    pngs: dict[str, np.ndarray] = {}
    labels: dict[str, int] = {}
    for name, content in _members(path):
        try:
            if name == META:
                meta = json.loads(content)
            elif name.endswith(".png"):
                pngs[name.removesuffix(".png")] = _decode(content)
            elif name.endswith(".cls"):
                labels[name.removesuffix(".cls")] = int(content)
        except (OSError, ValueError, SyntaxError) as e:
            raise UserError(f"{path}: {name} is broken ({e}); delete the shard and make it again") from None
    return _checked(path, meta, pngs, labels)


def _decode(content: bytes) -> np.ndarray:
    """PNG -> (H, W, C). Raises OSError, SyntaxError or ValueError."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"mode {image.mode}, expected L or RGB")
        return np.asarray(image).reshape(image.height, image.width, -1)


def _checked(path: Path, meta: dict[str, Any], pngs: dict[str, np.ndarray], labels: dict[str, int]) -> LabelledImages:
    again = "delete the shard and make it again"
    if not isinstance(meta, dict) or not {"classes", "images"} <= meta.keys():
        raise UserError(f"{path}: no member {META} with classes and images; expected a shard made by ddrep")
    alone = sorted(pngs.keys() ^ labels.keys())
    if alone:
        raise UserError(f"{path}: {alone[0]} has only one of .png and .cls; {again}")
    # tarfile takes an archive cut between two members for a whole one
    if len(pngs) != meta["images"] or not pngs:
        raise UserError(f"{path}: {len(pngs)} images, expected {meta['images'] or 'some'}; {again}")
    first = next(iter(pngs.values()))
    for key, image in pngs.items():
        if image.shape != first.shape:
            raise UserError(f"{path}: {key}.png is {image.shape}, expected {first.shape} as the first; {again}")
        if not 0 <= labels[key] < len(meta["classes"]):
            raise UserError(f"{path}: {key}.cls is {labels[key]}, expected 0..{len(meta['classes']) - 1}; {again}")
    numbers = np.array([labels[key] for key in pngs], np.int64)
    return LabelledImages(np.stack(list(pngs.values())), numbers, list(pngs), tuple(meta["classes"]))


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
    lengths = [sum(name.endswith(".cls") for name, _ in _members(path)) for path in shards]
    ends = range(shards_per_scale, len(shards) + 1, shards_per_scale)
    splits = {f"{k}x": _split(f"{k}x", names[:end], lengths[:end]) for k, end in enumerate(ends, 1)}
    with written_whole(out) as (draft,):
        draft.write_text(json.dumps({"splits": splits}, indent=1) + "\n")


def _split(name: str, filenames: list[str], lengths: list[int]) -> dict[str, Any]:
    return {"name": name, "filenames": filenames, "shard_lengths": lengths, "num_samples": sum(lengths)}
