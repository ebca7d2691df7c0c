"""What data sets hold, as far as names and lists tell it: no image is opened, and no large archive."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ddrep.config import Data, Experiment, MaskData
from ddrep.cost import Job
from ddrep.data import celebamask_hq, embedded, few_shot
from ddrep.data.idx import read_idx
from ddrep.data.readers import known, reader_of, square
from ddrep.data.tars import read_meta
from ddrep.errors import UserError
from ddrep.runs import subset_of


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


def counts(data: Data, seed: int) -> dict[str, tuple[int, ...]]:
    """Split -> images of each class, of one labelled subset, whether they are there yet or not.

    Raises UserError, or OSError, where images alone tell, and there are none.
    """
    reader = reader_of(data)
    found = reader.expected(data.section) if reader.expected else known(data, seed)
    if not (found and found.train and found.validation is not None and found.test is not None):
        raise UserError(f"data.{data.kind}: too much to be read for that")
    held_out, classes = {"validation": found.validation, "test": found.test}, len(found.classes)
    train = tuple(min(n, data.labels or n) for n in found.train)
    return {"train": train, **{split: evenly(n, classes) for split, n in held_out.items()}}


def made_counts(shard: Path) -> tuple[int, ...]:
    """Images of each class in a shard that is there, the classes taken for equally large."""
    head = read_meta(shard)
    return evenly(head.images, len(head.classes))


def shard_counts(job: Job, experiment: Experiment, splits: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Images of each class in the shard that a job makes of a data set with these splits; none if it makes none."""
    split = job.wildcards.get("split") or job.wildcards.get("part") or "train"
    if job.verb == "masks":
        return (mask_counts(experiment.masks.data)[split],)
    if job.verb == "attribute" and "part" not in job.wildcards:
        return (experiment.attributes.examples,) * 2
    images = splits.get(split, ())
    if split == "train" and (labels := subset_of(job.wildcards.get("subset", "0"))[1]):
        images = (labels,) * len(images)
    return evenly(sum(images), 2) if job.verb == "attribute" else images if job.verb == "data" else ()


def evenly(images: int, classes: int) -> tuple[int, ...]:
    """Images of each class, all but equally many."""
    return tuple(images // classes + (label < images % classes) for label in range(classes))


def mask_counts(data: MaskData) -> dict[str, int]:
    """Images with masks: to train guides, for the targets ("test"), and for an oracle."""
    if data.kind == "embedded":
        oracle = sum(read_idx(embedded.path(split, "labels")).size for split in ("train", "validation"))
        return {"train": data.embedded.train, "test": data.embedded.test, "oracle": oracle}
    faces, ours = data.celebamask_hq, data.few_shot if data.kind == "few-shot" else data.celebamask_hq
    oracle = faces.images - faces.train - faces.test if faces else 0
    return {"train": ours.train, "test": ours.test, "oracle": oracle} if ours else {}


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
