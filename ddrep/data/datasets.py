"""The images with segmentation masks of an experiment, by split and subset, whatever data set they come from."""

from __future__ import annotations

from ddrep.config import EmbeddedMasks, MaskData
from ddrep.data import embedded
from ddrep.data.celebamask_hq import celebamask_hq
from ddrep.data.few_shot import as_few_shot, few_shot
from ddrep.data.masks import MaskedImages
from ddrep.data.readers.embedded import embedded_images
from ddrep.data.shards import together
from ddrep.errors import UserError

MASK_SPLITS = ("train", "test", "oracle")


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
        found = together([embedded_images(each, k) for each, k in labelled_anyhow])
    else:
        found = embedded_images(split, subset, cfg.train if split == "train" else cfg.test)
    masks = garment_masks(found.images[..., 0], found.labels)
    return MaskedImages(found.images, masks, found.keys, ("background", *embedded.CLASSES))
