"""What the data sets have in common: one way to read an image, to complain about files, and to hold some out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageOps

from ddrep.errors import UserError

HELD_OUT = 0.1
"""Share of each class's training images that is for validation where a data set has none of its own."""
NAMED = 10
"""Complaints that are written out; of the others the error line says how many."""
BROKEN = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, BadZipFile, zlib.error)
"""What Pillow and zipfile raise for a file that is not what it should be."""


def complain(where: object, complaints: Sequence[str], what: str, advice: str) -> None:
    """Raise UserError with all complaints in one line, if there are any: `where: N what: this, that; advice`."""
    if complaints:
        more = f" and {len(complaints) - NAMED} more" if len(complaints) > NAMED else ""
        line = f"{where}: {len(complaints)} {what}: {', '.join(complaints[:NAMED])}{more}; {advice}"
        raise UserError(" ".join(line.split()))


def reason(error: Exception) -> str:
    """What is wrong with a file, from one of BROKEN."""
    # Pillow's own message repeats the path
    return "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__


def read_all(
    names: Sequence[str], read: Callable[[str], np.ndarray], shape: tuple[int, ...]
) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (N, *shape) of all `names`, and a complaint for each that could not be read."""
    images = np.zeros((len(names), *shape), np.uint8)  # in place: a list and its stack would take the memory twice
    complaints = []
    for i, name in enumerate(names):
        try:
            images[i] = read(name)
        except BROKEN as e:
            complaints.append(f"{name} ({reason(e)})")
    return images, complaints


def key(split: str, i: int, stem: str) -> str:
    """A key that a shard can hold, with the number of the image in its split."""
    return f"{split}-{i:06d}-{re.sub(r'[^A-Za-z0-9_-]', '_', stem)}"


def share(n: int) -> int:
    """How many of the n images of a class HELD_OUT means: one at least."""
    return max(1, round(HELD_OUT * n))


def hold_out(n: int, count: int, seed: int, number: int) -> tuple[list[int], list[int]]:
    """n images of class `number` -> indices that stay in train, and `count` held out, both ascending."""
    order = np.random.default_rng((seed, number)).permutation(n)
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())


def hold_out_by_class(labels: Iterable[int], seed: int) -> tuple[list[int], list[int]]:
    """Indices into `labels` that stay in train, and a tenth of each class (one at least) held out, both ascending."""
    numbers = np.fromiter(labels, np.int64)
    kept, held = [], []
    for number in np.unique(numbers).tolist():
        where = np.flatnonzero(numbers == number)
        stay, out = hold_out(len(where), share(len(where)), seed, number)
        kept += where[stay].tolist()
        held += where[out].tolist()
    return sorted(kept), sorted(held)


def read_image(file: Path | BinaryIO, size: int, channels: int) -> np.ndarray:
    """An image file as uint8 (size, size, channels): upright, shorter side resized (bicubic), centre-cropped.

    Raises what Pillow raises for a broken file, and ValueError for pixels of more than 16 bits.
    """
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):  # which convert() would clip, not scale
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {image.mode}, expected 8 or 16 bits")
        image = image.convert("L" if channels == 1 else "RGB")
        fitted = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(size, size, channels)


def exact_size(image: Image.Image, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """The image in Pillow's `mode`. Raises ValueError if its size is another."""
    if image.size != (width, height):
        raise ValueError(f"{image.width}x{image.height} pixels, expected {width}x{height}")
    return image.convert(mode)
