"""What data sets hold, as far as names and lists tell it: no image is opened, and no large archive."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ddrep.config import Data, MaskData
from ddrep.data import celebamask_hq, embedded, few_shot
from ddrep.data.readers import reader_of, square
from ddrep.errors import UserError


def some(names: Sequence[object]) -> str:
    """The first few."""
    return ", ".join(map(str, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def image_shape(data: Data | MaskData) -> tuple[int, int, int]:
    """Height, width and channels of the images that a data set will give."""
    if isinstance(data, Data):
        return reader_of(data).image_shape(data.section)
    return embedded.SHAPE if data.kind == "embedded" else square(data.section)


def subsets(data: Data | MaskData) -> int:
    """How many labelled subsets there are."""
    if isinstance(data, Data):
        return reader_of(data).subsets
    return embedded.SUBSETS if data.kind == "embedded" else 1


def mask_classes(data: MaskData) -> tuple[str, ...]:
    """Names of the classes of a set's masks."""
    if data.kind == "embedded":
        return ("background", *embedded.CLASSES)
    return data.few_shot.classes if data.kind == "few-shot" and data.few_shot else celebamask_hq.CLASSES


def masked_set(data: MaskData, oracle: bool) -> None:
    """Raise UserError, or OSError, where a set whose paths are there is not what it should be.

    oracle: whether few_shot's images for an oracle, which celebamask_hq has, are wanted as well.
    """
    if data.kind == "few-shot" and (cfg := data.few_shot):
        for split, expected in (("train", cfg.train), ("test", cfg.test)):
            folder = cfg.root / "real" / split
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; expected few_shot.root to hold real/train and real/test")
            if (n := len(few_shot._paired(folder)[0])) != expected:
                raise UserError(f"{folder}: {n} images with a mask; masks.data.few_shot.{split} says {expected}")
    if (oracle or data.kind == "celebamask-hq") and (hq := data.celebamask_hq):
        for name in (celebamask_hq.IMAGES, celebamask_hq.ANNOTATIONS):
            if not (hq.root / name).is_dir():
                raise UserError(f"{hq.root}: no folder {name}; expected CelebAMask-HQ as it is published")
        n = sum(name.endswith(".jpg") for name in os.listdir(hq.root / celebamask_hq.IMAGES))
        if n != hq.images:
            raise UserError(
                f"{hq.root / celebamask_hq.IMAGES}: {n} images; masks.data.celebamask_hq.images says {hq.images}"
            )
