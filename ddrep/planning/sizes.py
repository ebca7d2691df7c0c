"""What is known of an experiment before anything is made: how many images there are, and the denoiser's network.

Nothing is refused: what a missing file would tell is taken from what else is known, or left out, with a remark.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddrep.checks.sets import image_shape
from ddrep.config import Data, Experiment, MaskData
from ddrep.data.readers import labelled, listing_of
from ddrep.data.tars import META, members
from ddrep.denoiser.importers import published
from ddrep.denoiser.network import DenoiserFile, UNetConfig, network_of
from ddrep.errors import UserError
from ddrep.saved import header

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Sizes:
    """Of the labelled images; `train` is the number in each class of one labelled subset, empty if not known."""

    image: tuple[int, int, int]
    """Height, width, channels."""
    train: tuple[int, ...] = ()
    validation: int = 0
    test: int = 0

    @property
    def classes(self) -> int:
        return len(self.train)

    @property
    def real(self) -> int:
        """Images in one labelled subset."""
        return sum(self.train)


def sizes_of(experiment: Experiment) -> tuple[Sizes, list[str]]:
    """Sizes, and what is to be remarked on them."""
    data, masks, made = experiment.data, experiment.masks.data, Path("results", experiment.experiment)
    remarks = _missing("masks.data", masks) if "masks" in experiment.parts else []
    if experiment.parts == ("masks",):
        return Sizes(image_shape(masks)), remarks
    image = image_shape(data)
    try:
        train, validation, test = _counts(data, experiment.seed, made)
    except UserError as e:
        unknown = f"how many images there are is not known, and what depends on it left out: {e}"
        return Sizes(image), [unknown, *remarks]
    return Sizes(image, train, validation, test), [*_missing("data", data), *remarks]


def _missing(section: str, data: Data | MaskData) -> list[str]:
    """Remarks on what is not there; few-shot masks come with another set's for an oracle."""
    tables = {name: getattr(data, name) for name in (data.table, "celebamask_hq") if getattr(data, name, None)}
    paths = {name: getattr(table, "path", None) or getattr(table, "root", None) for name, table in tables.items()}
    return [f"{section}.{name}: {path} is not there yet" for name, path in paths.items() if path and not path.exists()]


def _counts(data: Data, seed: int, made: Path) -> tuple[tuple[int, ...], int, int]:
    """Training images of each class, validation and test images. Raises UserError where they are not known."""
    if data.kind == "tiny-imagenet" and (tiny := data.tiny_imagenet):
        kept = tiny.train_per_class - tiny.validation_per_class
        held_out, test = (tiny.classes * n for n in (tiny.validation_per_class, tiny.test_per_class))
        return (kept,) * tiny.classes, held_out, test
    if data.kind == "celeba" and data.celeba:
        train, validation, test = data.celeba.partition
        return _evenly(train, 2), validation, test
    if data.kind == "embedded":
        labels = [labelled(data, split, 0, seed).labels for split in SPLITS]
        return tuple(np.bincount(labels[0]).tolist()), len(labels[1]), len(labels[2])
    if data.kind == "image-folder":
        listing = listing_of(data, seed)
        of_class = np.bincount([entry.label for entry in listing.splits["train"]], minlength=len(listing.classes))
        return tuple(of_class.tolist()), len(listing.splits["validation"]), len(listing.splits["test"])
    return _made(made)


def _made(results: Path) -> tuple[tuple[int, ...], int, int]:
    """What the shards say that have been made, of classes as many as there are taken for equally large."""
    shards = [results / "subset0" / "real.tar", results / "data" / "validation.tar", results / "data" / "test.tar"]
    if missing := [str(path) for path in shards if not path.is_file()]:
        raise UserError(f"make {' and '.join(missing)} first, by snakemake and their names, and plan again")
    heads = [next(content for name, content in members(path) if name == META) for path in shards]
    train, validation, test = (json.loads(head) for head in heads)
    return _evenly(train["images"], len(train["classes"])), validation["images"], test["images"]


def _evenly(images: int, classes: int) -> tuple[int, ...]:
    return tuple(images // classes + (label < images % classes) for label in range(classes))


def denoiser_of(experiment: Experiment, image: tuple[int, int, int]) -> tuple[UNetConfig | None, list[str]]:
    """The unconditional network, and what is to be remarked on it."""
    if experiment.denoiser.kind == "pretrain":
        return network_of(experiment.denoiser.pretrain.network, image[0], image[2]), []
    path = experiment.denoiser.file.path
    try:
        return header(path, DenoiserFile).network, []
    except UserError as e:
        name, network = published(path.stem, image[0]) or ("", None)
        instead = f"planned with the network of {name}" if network else "its disk and time are left out"
        return network, [f"denoiser.file.path: {e}; {instead}"]
