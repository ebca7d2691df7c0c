"""No image in two splits, by its pixels: a copy has another name, and its label may be another as well."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ddrep.data.masks import MaskedImages
from ddrep.data.reading import warn
from ddrep.data.shards import LabelledImages
from ddrep.errors import UserError, some

S = TypeVar("S", LabelledImages, MaskedImages)


def digests(images: np.ndarray) -> list[bytes]:
    """One of each of the uint8 images (N, H, W, C): equal exactly where all pixels are."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def apart(images: S, split: str, shards: Sequence[Path], read: Callable[[Sequence[Path]], S]) -> S:
    """The images of `split` without those whose pixels are of an image in `shards`: what is held out stays there.

    What is left out, and the same pixels under two labels of the split, is a line of the log each. Raises UserError
    if a class would be left without images.
    """
    own = digests(images.images)
    if isinstance(images, LabelledImages):
        _warn_of_two_classes(images, split, own)
    elsewhere: dict[bytes, str] = {}
    for shard in shards:
        held_out = read([shard])
        _check_shape(shard, held_out, images)
        elsewhere |= dict(zip(digests(held_out.images), (f"{key} of {shard}" for key in held_out.keys), strict=True))
    rows = [row for row, digest in enumerate(own) if digest not in elsewhere]
    if len(rows) == len(own):
        return images
    both = [f"{images.keys[row]} = {elsewhere[d]}" for row, d in enumerate(own) if d in elsewhere]
    warn(f"{split}: {len(both)} images left out, as their pixels are those of held-out images: {some(both)}")
    left = images.take(rows)
    if gone := sorted(_groups(images) - _groups(left)):
        raise UserError(
            f"{split}: all images of {some(gone)} are held-out images too ({both[0]}); give each split its own"
        )
    return left


def check_disjoint(
    first: LabelledImages, second: LabelledImages, names: tuple[Path, Path], rows: slice = slice(None)
) -> None:
    """Raise UserError if one of these rows of the first images has the pixels of one of the second.

    `names` are the files that they were read from.
    """
    there = dict(zip(digests(second.images), second.keys, strict=True))
    both = [(key, there[d]) for key, d in zip(first.keys[rows], digests(first.images[rows]), strict=True) if d in there]
    if both:
        raise UserError(
            f"{names[0]}: {len(both)} images are in {names[1]} too, {both[0][0]} = {both[0][1]} first; make both again"
        )


def _groups(images: LabelledImages | MaskedImages) -> set[str]:
    """Names of the classes that have images; all images with masks are one group."""
    if isinstance(images, LabelledImages):
        return {images.classes[label] for label in np.unique(images.labels)}
    return {"the split"} if len(images) else set()


def _warn_of_two_classes(images: LabelledImages, split: str, own: Sequence[bytes]) -> None:
    first: dict[bytes, int] = {}
    found = []
    for row, digest in enumerate(own):
        other = first.setdefault(digest, row)
        if images.labels[other] != images.labels[row]:
            found.append(" = ".join(f"{images.keys[i]} ({images.classes[images.labels[i]]})" for i in (other, row)))
    if found:
        warn(f"{split}: {len(found)} images are in two classes, and stay there: {some(found)}")


def _check_shape(shard: Path, held_out: LabelledImages | MaskedImages, images: LabelledImages | MaskedImages) -> None:
    if held_out.images.shape[1:] != images.images.shape[1:]:
        found, expected = ("x".join(map(str, part.images.shape[1:])) for part in (held_out, images))
        raise UserError(f"{shard}: images are {found}, expected {expected}; make it with the same config")
