"""A look at every image: whether it is whole, what it is like, and which others are the same or nearly so."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ddrep.data.decoding import FORMATS, LAID, decode
from ddrep.data.disk import Found, read_bytes, reason

THUMB = 16
"""Width and height of what is compared."""
ALIKE = 0.985
"""Correlation of two thumbnails from which on images count as near copies. Of 124,750 pairs of different Fashion-MNIST
garments, as alike as images of one kind get, 4 reach it, and 99% and 100% of garments and themselves as JPEG of quality
50 and a tenth brighter; of 44,850 pairs of cuts of two photographs 1 does, and of the cuts and themselves 96% as such a
JPEG, 95% a tenth brighter, and 97% half as large."""
PART = 32
"""Images that a thread is given at once."""
BLOCK = 1024
"""Images that are compared with all others at once."""


@dataclass(frozen=True)
class Look:
    """What an image is like. `error` says why it cannot be used; all else is empty then."""

    error: str = ""
    size: tuple[int, int] = (0, 0)
    """Width and height."""
    mode: str = ""
    """As stored: Pillow's name."""
    frames: int = 1
    transparent: bool = False
    grey: bool = False
    digest: bytes = b""
    """Equal where all pixels are, as they are read."""
    thumb: np.ndarray | None = None
    """uint8 (16, 16, 3): YCbCr."""


def look_at(found: Sequence[Found]) -> list[Look]:
    """Decode all, as readers do, on all cores; Pillow works beside Python's lock."""
    parts = [found[start : start + PART] for start in range(0, len(found), PART)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [look for part in pool.map(lambda part: list(map(_look, part)), parts) for look in part]


def _look(found: Found) -> Look:
    try:
        found.name.encode("utf-8")
        content = read_bytes(found.regular and found.path)
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=FORMATS) as stored:
            mode, frames = stored.mode, getattr(stored, "n_frames", 1)
        image = decode(content)
        colours = image.convert("RGB")
        pixels = np.asarray(colours)
        grey = image.mode == "L" or bool((pixels == pixels[..., :1]).all())
        said = f"{image.size}".encode() + colours.tobytes()
        thumb = np.asarray(colours.resize((THUMB, THUMB), Image.Resampling.BOX).convert("YCbCr"))
        digest = hashlib.blake2b(said, digest_size=16).digest()
        return Look("", image.size, mode, frames, LAID in image.info, grey, digest, thumb)
    except UnicodeEncodeError:
        return Look("its name is not UTF-8; rename it")
    except Exception as e:  # whatever a decoder raises for bytes that it did not expect
        return Look(reason(e))


def near(thumbs: np.ndarray) -> np.ndarray:
    """Number of the group of each of the thumbnails (N, 16, 16, 3): near copies, and theirs, share one.

    An image of one colour is near no other.
    """
    unit, n = _unit(thumbs), len(thumbs)
    pairs = [_alike(unit[start : start + BLOCK], unit, start) for start in range(0, n, BLOCK)]
    one, other = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), np.int64)
    return connected_components(coo_array((np.ones(len(one), bool), (one, other)), (n, n)), directed=False)[1]


def near_any(thumbs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of the thumbnails (N, ...) is a near copy of one of the others (M, ...)."""
    unit, them = _unit(thumbs), _unit(others)
    found = np.zeros(len(unit), bool)
    for start in range(0, len(unit), BLOCK):
        found[start + _alike(unit[start : start + BLOCK], them, 0)[0]] = True
    return found


def _alike(some: np.ndarray, all_: np.ndarray, start: int) -> np.ndarray:
    """Numbers (2, pairs) of images that are alike; those of `some` begin with `start`."""
    one, other = np.nonzero(some @ all_.T >= ALIKE)
    return np.stack([one + start, other])


def _unit(thumbs: np.ndarray) -> np.ndarray:
    """float32 (N, 288): brightness, and colours at a quarter of the width, as JPEG keeps hardly more of them; each less
    its mean, all together of length 1, or 0 for one colour."""
    planes = thumbs.astype(np.float32) - thumbs.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    n, coarse = len(thumbs), THUMB // 4
    colours = 4 * planes[..., 1:].reshape(n, coarse, 4, coarse, 4, 2).mean(axis=(2, 4))
    flat = np.concatenate([planes[..., 0].reshape(n, -1), colours.reshape(n, -1)], axis=1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > THUMB, flat / np.maximum(length, 1), 0)
