"""The subset of Fashion-MNIST that comes with ddrep."""

from __future__ import annotations

import numpy as np

from ddrep.config import EmbeddedData
from ddrep.data import embedded
from ddrep.data.idx import read_idx
from ddrep.data.readers import READERS, Known, Reader
from ddrep.data.shards import LabelledImages, together
from ddrep.errors import UserError


def embedded_images(split: str, subset: int, n: int | None = None) -> LabelledImages:
    """The first n images, or all; the classes take turns, so that they are balanced. Raises UserError."""
    images, labels, indices = (read_idx(embedded.path(split, kind)) for kind in ("images", "labels", "indices"))
    if subset >= embedded.SUBSETS:
        raise UserError(f"subset {subset}: the embedded data set has 0 to {embedded.SUBSETS - 1}")
    if split == "train":
        images, labels, indices = images[subset], labels[subset], indices[subset]
    keys = [f"{embedded.PARTS[split]}-{i:05d}" for i in indices[:n]]
    return LabelledImages(images[:n, ..., None], labels[:n].astype(np.int64), keys, embedded.CLASSES)


def _images(cfg: EmbeddedData, split: str, subset: int, seed: int) -> LabelledImages:
    train = cfg.per_class * len(embedded.CLASSES)
    return embedded_images(split, subset, {"train": train, "validation": None, "test": cfg.test_images}[split])


def _unlabelled(cfg: EmbeddedData, subset: int, seed: int) -> LabelledImages:
    """All training images that are not the subset's labelled ones, in a random order."""
    labelled = set(_images(cfg, "train", subset, seed).keys)
    every = together([embedded_images("train", k) for k in range(embedded.SUBSETS)])
    others = [row for row, key in enumerate(every.keys) if key not in labelled]
    return every.take(np.random.RandomState(seed % 2**32).permutation(others).tolist())


def _known(cfg: EmbeddedData) -> Known:
    validation, labels = (read_idx(embedded.path(split, "labels")) for split in ("validation", "train"))
    train = (cfg.per_class,) * len(embedded.CLASSES)
    return Known(embedded.CLASSES, train, len(validation), cfg.test_images, labels.size - sum(train))


READERS.add(
    Reader(
        "embedded",
        EmbeddedData,
        images=_images,
        expected=_known,
        with_labels=lambda cfg, labels: EmbeddedData(per_class=labels, test_images=cfg.test_images),
        unlabelled=_unlabelled,
        image_shape=lambda _: embedded.SHAPE,
        subsets=embedded.SUBSETS,
        paper=(1, 3, 4),
    )
)
