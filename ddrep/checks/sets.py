"""What data sets hold, as far as names and lists tell it: no image is opened, and no large archive.

A function for each kind of data set, the only places that ask its reader.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddrep.config import SPLIT_FOLDERS, CelebA, Data, Experiment, MaskData, TinyImageNet
from ddrep.cost import Job
from ddrep.data import celeba, celebamask_hq, embedded, few_shot, tiny_imagenet
from ddrep.data.datasets import labelled, listing_of
from ddrep.data.digest import places
from ddrep.data.idx import read_idx
from ddrep.data.reading import complain
from ddrep.data.tars import META, members
from ddrep.errors import UserError

CHEAP = 2**25
"""Bytes of archives and lists up to which they are read through: a second's work at most."""


@dataclass(frozen=True)
class Labelled:
    """Names of the classes, and how many training images of each there are in one labelled subset; None: not known."""

    classes: tuple[str, ...]
    train: tuple[int, ...] | None = None


def some(names: Sequence[object]) -> str:
    """The first few."""
    return ", ".join(map(str, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def image_shape(data: Data | MaskData) -> tuple[int, int, int]:
    """Height, width and channels of the images that a data set will give."""
    if data.kind == "embedded":
        return embedded.SHAPE
    table = getattr(data, data.table)
    return table.size, table.size, getattr(table, "channels", 3)


def subsets(data: Data | MaskData) -> int:
    """How many labelled subsets there are."""
    return embedded.SUBSETS if data.kind == "embedded" else 1


def labelled_set(data: Data, seed: int) -> Labelled | None:
    """What is known of a set whose paths are there. Raises UserError, or OSError, where it is not what it should be."""
    if data.kind == "embedded":
        return Labelled(embedded.CLASSES, (data.embedded.per_class,) * len(embedded.CLASSES))
    if data.kind == "tiny-imagenet" and data.tiny_imagenet:
        return _tiny_imagenet(data.tiny_imagenet)
    if data.kind == "celeba" and data.celeba:
        return with_attribute(data.celeba, data.celeba.attribute)
    tars = data.webdataset if data.kind == "webdataset" else None
    if tars and sum(place.stat().st_size for place in places(tars)) > CHEAP:
        return Labelled(tars.classes) if tars.classes else None
    return _listed(data, seed)


def _listed(data: Data, seed: int) -> Labelled:
    listing = listing_of(data, seed)
    for split, broken in listing.complaints.items():
        complain(listing.where, broken, f"files of {split} cannot be used", listing.advice)
    of = Counter(entry.label for entry in listing.splits["train"])
    return Labelled(listing.classes, tuple(of[label] for label in range(len(listing.classes))))


def _tiny_imagenet(cfg: TinyImageNet) -> Labelled:
    """The number of images is what the configuration expects: their reader holds it against what is there."""
    if cfg.path.is_file() and not zipfile.is_zipfile(cfg.path):
        raise UserError(f"{cfg.path}: not a whole zip file; fetch it again")
    names = tuple(map(str, range(cfg.classes)))
    wnids = cfg.path / tiny_imagenet.WNIDS
    if wnids.is_file():
        names = tuple(wnids.read_text(encoding="utf-8", errors="replace").split())
    elif cfg.path.is_dir() or cfg.path.stat().st_size <= CHEAP:
        names = listing_of(Data(kind="tiny-imagenet", tiny_imagenet=cfg), 0).classes
    if len(names) != cfg.classes:
        raise UserError(f"{cfg.path}: {len(names)} classes; data.tiny_imagenet.classes says {cfg.classes}, mend one")
    return Labelled(names, (cfg.train_per_class - cfg.validation_per_class,) * cfg.classes)


def counts(data: Data, seed: int) -> dict[str, tuple[int, ...]]:
    """Split -> images of each class, of one labelled subset, whether they are there yet or not.

    Raises UserError where images alone tell, and there are none.
    """
    if data.kind == "tiny-imagenet" and (tiny := data.tiny_imagenet):
        held_out = tiny.validation_per_class
        of_class = {"train": tiny.train_per_class - held_out, "validation": held_out, "test": tiny.test_per_class}
        return {split: (n,) * tiny.classes for split, n in of_class.items()}
    if data.kind == "celeba" and data.celeba:
        return {split: evenly(n, 2) for split, n in zip(SPLIT_FOLDERS, data.celeba.partition, strict=True)}
    if data.kind == "webdataset":
        raise UserError("tars do not tell before they are read; give another kind of data")
    if data.kind == "embedded":
        labels = {split: labelled(data, split, 0, seed).labels.tolist() for split in SPLIT_FOLDERS}
        classes = len(embedded.CLASSES)
    else:
        listing = listing_of(data, seed)
        labels = {split: [entry.label for entry in entries] for split, entries in listing.splits.items()}
        classes = len(listing.classes)
    return {split: tuple(map(labels[split].count, range(classes))) for split in labels}


def made_counts(shard: Path) -> tuple[int, ...]:
    """Images of each class in a shard that is there, the classes taken for equally large."""
    head = json.loads(next(content for name, content in members(shard) if name == META))
    return evenly(head["images"], len(head["classes"]))


def shard_counts(job: Job, experiment: Experiment, splits: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Images of each class in the shard that a job makes of a data set with these splits; none if it makes none."""
    split = job.wildcards.get("split") or job.wildcards.get("part") or "train"
    if job.verb == "masks":
        return (mask_counts(experiment.masks.data)[split],)
    if job.verb == "attribute" and "part" not in job.wildcards:
        return (experiment.attributes.examples,) * 2
    images = splits.get(split, ())
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


def attributes_of(cfg: CelebA) -> tuple[str, ...]:
    """Names in list_attr_celeba.txt."""
    with celeba._found(cfg.root, celeba.ATTRIBUTES).open(encoding="utf-8", errors="replace") as lines:
        lines.readline()
        return tuple(lines.readline().split())


def with_attribute(cfg: CelebA, attribute: str) -> Labelled:
    """Without and with an attribute. Raises UserError."""
    attributes = celeba._found(cfg.root, celeba.ATTRIBUTES)
    if (names := attributes_of(cfg)) and attribute not in names:
        raise UserError(f"{attribute} is not in {attributes}; it has {', '.join(names)}")
    if attributes.stat().st_size > CHEAP // 16:  # a list takes longer to read than the names in an archive
        return Labelled((f"not {attribute}", attribute))
    return _listed(Data(kind="celeba", celeba=cfg.model_copy(update={"attribute": attribute})), 0)


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
