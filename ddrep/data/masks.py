"""Images with segmentation masks in WebDataset tars (KEY.png and KEY.mask.png), readable by webdataset as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddrep.data.tars import AGAIN, Images, check_images, decode_png, encode_png, read_alike, read_tar, write_tar
from ddrep.errors import UserError

IGNORE = 255
"""Label of pixels that are of no class: neither trained on nor scored."""
MASK = "mask.png"


@dataclass(frozen=True)
class MaskedImages(Images):
    """`images` uint8 (N, H, W, C) with C 1 or 3, `masks` uint8 (N, H, W), one of `keys` an image.

    A mask holds at each pixel a number into `classes` (names), or IGNORE.
    """

    images: np.ndarray
    masks: np.ndarray
    keys: list[str]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_images(self.images, self.keys)
        expected = self.images.shape[:3]
        if self.masks.dtype != np.uint8 or self.masks.shape != expected:
            raise ValueError(f"masks: expected uint8 {expected}, got {self.masks.dtype} {self.masks.shape}")
        if not 1 <= len(self.classes) <= IGNORE:
            raise ValueError(f"classes: expected 1 to {IGNORE}, got {len(self.classes)}")
        for mask in self.masks:  # one at a time: the comparisons of all would take as much memory as the images
            check_labels(mask, len(self.classes))

    def take(self, rows: Sequence[int]) -> MaskedImages:
        return MaskedImages(self.images[rows], self.masks[rows], [self.keys[i] for i in rows], self.classes)


def check_labels(mask: np.ndarray, classes: int) -> None:
    """Raise ValueError unless all numbers in an integer array are below `classes`, or IGNORE."""
    wrong = mask[((mask < 0) | (mask >= classes)) & (mask != IGNORE)]
    if wrong.size:
        raise ValueError(f"class {wrong.flat[0]}, expected 0..{classes - 1}, or {IGNORE} for pixels of no class")


def resized(mask: np.ndarray, size: int) -> np.ndarray:
    """Mask (H, W) -> (size, size): nearest neighbour as OpenCV's INTER_NEAREST, which the published code calls.

    New pixel x takes the source's floor(x * scale), not the one at its centre. scale is one over one over the ratio of
    the sizes, in floating point, as there.
    """
    rows, columns = (np.floor(np.arange(size) * (1 / (size / side))).astype(int) for side in mask.shape)
    return mask[np.minimum(rows, mask.shape[0] - 1)][:, np.minimum(columns, mask.shape[1] - 1)]


def write_masked_shard(path: Path, images: MaskedImages) -> None:
    """Write a shard, whole or not at all. Equal content gives equal bytes. Raises ValueError for keys that WebDataset
    would lose.
    """
    masks = (encode_png(mask[..., None]) for mask in images.masks)
    write_tar(path, images.classes, images.keys, images.images, {MASK: masks})


def read_masked_shards(paths: Sequence[Path]) -> MaskedImages:
    """All images of the shards with their masks, in order.

    Raises UserError naming file and member if one is missing, broken, cut short, or differs from the first in
    size, channels or class names.
    """
    parts = read_alike(paths, _read)
    return MaskedImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.masks for part in parts]),
        [key for part in parts for key in part.keys],
        parts[0].classes,
    )


def _read(path: Path) -> MaskedImages:
    decode = {MASK: lambda content: decode_png(content, ("L",))[..., 0]}
    images, others, keys, classes = read_tar(path, decode)
    masks = others[MASK]
    for key, mask in zip(keys, masks, strict=True):
        try:
            if mask.shape != images.shape[1:3]:
                raise ValueError(f"{mask.shape}, expected {images.shape[1:3]} as its image")
            check_labels(mask, len(classes))
        except ValueError as e:
            raise UserError(f"{path}: {key}.{MASK} is wrong ({e}); {AGAIN}") from None
    return MaskedImages(images, np.stack(masks), keys, classes)
