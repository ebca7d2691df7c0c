"""The images of an experiment, labelled or with masks, by split and subset, whatever data set they come from."""

from __future__ import annotations

import numpy as np

from ddrep.config import Data, EmbeddedMasks, MaskData
from ddrep.data import embedded
from ddrep.data.celeba import celeba
from ddrep.data.celebamask_hq import celebamask_hq
from ddrep.data.few_shot import as_few_shot, few_shot
from ddrep.data.idx import read_idx
from ddrep.data.image_folder import image_folder
from ddrep.data.listing import SPLITS, Listing, read
from ddrep.data.masks import MaskedImages
from ddrep.data.shards import LabelledImages
from ddrep.data.tiny_imagenet import tiny_imagenet
from ddrep.data.webdataset import webdataset
from ddrep.errors import UserError

MASK_SPLITS = ("train", "test", "oracle")


def labelled(cfg: Data, split: str, subset: int, seed: int) -> LabelledImages:
    """The images of `split`; `subset` says which labelled subset the training images are.

    `seed` decides which training images are held out where a data set has no validation images. Raises UserError.
    """
    if split not in SPLITS:
        raise UserError(f"split {split}: expected one of {', '.join(SPLITS)}")
    if cfg.kind == "embedded":
        train = cfg.embedded.per_class * len(embedded.CLASSES)
        return _embedded(split, subset, {"train": train, "validation": None, "test": cfg.embedded.test_images}[split])
    if subset:
        raise UserError(f"subset {subset}: data of kind {cfg.kind} has only subset 0; set subsets to [0]")
    return read(listing_of(cfg, seed), split)


def listing_of(cfg: Data, seed: int) -> Listing:
    """All images of a data set that is not embedded, by split; `seed` as in `labelled`. Raises UserError."""
    if cfg.tiny_imagenet and cfg.kind == "tiny-imagenet":
        return tiny_imagenet(cfg.tiny_imagenet, seed)
    if cfg.webdataset and cfg.kind == "webdataset":
        return webdataset(cfg.webdataset, seed)
    if cfg.celeba and cfg.kind == "celeba":
        return celeba(cfg.celeba)
    assert cfg.image_folder is not None  # Data's validator
    return image_folder(cfg.image_folder, seed)


def masked(cfg: MaskData, split: str, subset: int) -> MaskedImages:
    """The images of `split` with their masks; `subset` says which labelled subset the training images are of.

    Those of `oracle` are for a segmenter that is trained apart and judges. Raises UserError.
    """
    if split not in MASK_SPLITS:
        raise UserError(f"split {split}: expected one of {', '.join(MASK_SPLITS)}")
    if cfg.kind == "embedded":
        return _embedded_masks(cfg.embedded, split, subset)
    if subset:
        raise UserError(f"subset {subset}: masks of kind {cfg.kind} have only subset 0")
    ours = cfg.few_shot if cfg.kind == "few-shot" else None
    if ours and split != "oracle":
        return few_shot(ours, split)
    if cfg.celebamask_hq is None:
        raise UserError("split oracle: few_shot has no such images; add a table celebamask_hq, where they come from")
    images = celebamask_hq(cfg.celebamask_hq, split)
    return as_few_shot(ours, images) if ours else images


def _embedded_masks(cfg: EmbeddedMasks, split: str, subset: int) -> MaskedImages:
    from ddrep.data.foreground import garment_masks  # with scipy, which takes longer to import than the masks to make

    if split == "oracle":
        labelled_anyhow = [("train", k) for k in range(embedded.SUBSETS)] + [("validation", 0)]
        parts = [_embedded(each, k, None) for each, k in labelled_anyhow]
    else:
        parts = [_embedded(split, subset, cfg.train if split == "train" else cfg.test)]
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    keys = [key for part in parts for key in part.keys]
    return MaskedImages(images, garment_masks(images[..., 0], labels), keys, ("background", *embedded.CLASSES))


def _embedded(split: str, subset: int, n: int | None) -> LabelledImages:
    """The first n images, or all; the classes take turns, so that they are balanced."""
    images, labels, indices = (read_idx(embedded.path(split, kind)) for kind in ("images", "labels", "indices"))
    if subset >= embedded.SUBSETS:
        raise UserError(f"subset {subset}: the embedded data set has 0 to {embedded.SUBSETS - 1}")
    if split == "train":
        images, labels, indices = images[subset], labels[subset], indices[subset]
    keys = [f"{embedded.PARTS[split]}-{i:05d}" for i in indices[:n]]
    return LabelledImages(images[:n, ..., None], labels[:n].astype(np.int64), keys, embedded.CLASSES)
