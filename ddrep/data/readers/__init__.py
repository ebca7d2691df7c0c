"""The readers of labelled data sets: each declared once, in a module of this folder or anywhere else.

A reader is a section of settings (`data.kind` names it, `data.{kind}` holds it) and what makes a listing of it; splits,
decoding, digests and checks follow. A file that calls `READERS.add` adds one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddrep.config import Data, Section
from ddrep.config.data import TABLES
from ddrep.data.listing import SPLITS, Listing, read
from ddrep.data.reading import complain
from ddrep.data.shards import LabelledImages
from ddrep.errors import UserError
from ddrep.registry import Registry

CHEAP = 2**25
"""Bytes of archives and lists up to which they are read through to tell what is known: a second's work at most."""
UNLABELLED = "unlabelled"
"""What is asked for like a split: real images beside the labelled ones, of which no label is read."""


@dataclass(frozen=True)
class Named:
    """A path among the settings: its key within the section, what it is to be, and what to do where it is not."""

    key: str
    path: Path
    kind: Literal["file", "folder", "file or folder"]
    advice: str


@dataclass(frozen=True)
class Known:
    """Of a data set: names of the classes, training images of each in one labelled subset, validation and test images,
    and images without labels beside them; None: not known."""

    classes: tuple[str, ...]
    train: tuple[int, ...] | None = None
    validation: int | None = None
    test: int | None = None
    unlabelled: int | None = None


def square(section: Any) -> tuple[int, int, int]:
    """Height, width, channels of images that are made `size` pixels wide and high."""
    return section.size, section.size, getattr(section, "channels", 3)


def counted(listing: Listing) -> Known:
    """Raises UserError naming the files that cannot be used."""
    for split, broken in listing.complaints.items():
        complain(listing.where, broken, f"files of {split} cannot be used", listing.advice)
    of = Counter(entry.label for entry in listing.splits["train"])
    train = tuple(of[label] for label in range(len(listing.classes)))
    return Known(listing.classes, train, len(listing.splits["validation"]), len(listing.splits["test"]))


@dataclass(frozen=True)
class Reader:
    """A kind of data set. The functions take its section first; they raise UserError, or OSError, for sets that are not
    what they should be."""

    name: str
    section: type[Section]
    listing: Callable[[Any, int], Listing] | None = None
    """All its images by split; the seed decides what is held out where there is no validation split."""
    images: Callable[[Any, str, int, int], LabelledImages] | None = None
    """Section, split, subset, seed -> the images, of a set that is no listing of files."""
    paths: Callable[[Any], Iterable[Named]] = lambda section: ()
    """The paths among its settings."""
    places: Callable[[Any], Iterable[Path]] | None = None
    """Files and folders that it reads, for the digest, as far as they are there; None: the paths themselves."""
    expected: Callable[[Any], Known] | None = None
    """What its settings alone tell, as of a published set of known size."""
    known: Callable[[Any, int], Known | None] | None = None
    """What names and lists tell at once, without a look into images or large archives; None: what settings or else the
    whole listing tell."""
    with_attribute: Callable[[Any, str], Any] | None = None
    """Of sets that have attributes beside classes: the section whose two classes are without and with one."""
    with_labels: Callable[[Any, int], Any] | None = None
    """The section with so many labelled images a class; None: of those that it gives, the first of a random order."""
    unlabelled: Callable[[Any, int, int], LabelledImages] | None = None
    """Section, subset, seed -> real images of the same kind beside the labelled ones; their labels do not count."""
    image_shape: Callable[[Any], tuple[int, int, int]] = square
    subsets: int = 1
    """Disjoint labelled subsets."""
    labels: bool = True
    """Whether its images have classes; without, they are for pretraining alone."""
    paper: tuple[int, ...] = ()
    """Tables in which the paper's own figures may stand beside this set's."""


class Readers(Registry[Reader]):
    def add(self, *members: Reader) -> None:
        """Declare readers, and their sections as tables of `data`."""
        for member in members:
            TABLES.setdefault(member.name.replace("-", "_"), member.section)
        super().add(*members)


READERS = Readers("kind of data set")


def reader_of(data: Data) -> Reader:
    return READERS[data.kind]


def listing_of(data: Data, seed: int) -> Listing:
    """All images of a data set that is a listing of files. Raises UserError."""
    listing = reader_of(data).listing
    assert listing, f"{data.kind} is no listing of files"
    return listing(data.section, seed)


def labelled(data: Data, split: str, subset: int, seed: int) -> LabelledImages:
    """The images of `split`; `subset` says which labelled subset the training images are.

    `seed` decides which training images are held out where a data set has no validation images. Raises UserError.
    """
    reader = reader_of(data)
    if split == UNLABELLED:
        if not has_unlabelled(data):
            raise UserError(f"data.kind: {data.kind} has no unlabelled images; leave out the sources that want them")
        if reader.unlabelled:
            return reader.unlabelled(data.section, subset, seed)
        images = read(listing_of(data, seed), "train")
        return images.take(np.random.RandomState(seed % 2**32).permutation(len(images)).tolist())
    if split not in SPLITS:
        raise UserError(f"split {split}: expected one of {', '.join((*SPLITS, UNLABELLED))}")
    if reader.images:
        return reader.images(data.section, split, subset, seed)
    if subset:
        raise UserError(f"subset {subset}: data of kind {data.kind} has only subset 0; set subsets to [0]")
    images = read(listing_of(data, seed), split)
    return _first(images, data.labels, seed) if split == "train" and data.labels else images


def has_unlabelled(data: Data) -> bool:
    """Whether there are real images without labels: beside the labelled ones, or nothing else."""
    reader = reader_of(data)
    return reader.unlabelled is not None or not reader.labels


def _first(images: LabelledImages, labels: int, seed: int) -> LabelledImages:
    """So many images of each class, the first of a random order: those of fewer are among those of more."""
    order = np.random.RandomState(seed % 2**32).permutation(len(images))
    counts = np.bincount(images.labels, minlength=len(images.classes))
    if counts.min() < labels:
        short = images.classes[int(counts.argmin())]
        raise UserError(f"data.labels: {labels} asked for, but class {short} has {counts.min()} labelled images")
    rows = [row for label in range(len(images.classes)) for row in order[images.labels[order] == label][:labels]]
    return images.take(sorted(rows))


def labels_of(data: Data) -> int | None:
    """Labelled images a class, as far as settings tell."""
    return data.labels or getattr(data.section, "per_class", None)


def with_labels(data: Data, labels: int) -> Data:
    """The same data set with so many labelled images a class."""
    if change := reader_of(data).with_labels:
        return data.with_section(change(data.section, labels))
    return data.model_copy(update={"labels": labels})


def known(data: Data, seed: int) -> Known | None:
    """What is known of a set whose paths are there. Raises UserError, or OSError, where it is not what it should be."""
    reader = reader_of(data)
    if reader.known:
        return reader.known(data.section, seed)
    return reader.expected(data.section) if reader.expected else counted(listing_of(data, seed))


def unlabelled_images(data: Data, seed: int) -> int | None:
    """How many images a set gives that `has_unlabelled`, if that is known."""
    found = known(data, seed)
    if reader_of(data).labels:
        return found.unlabelled if found else None
    return sum(found.train) if found and found.train else None


def places(data: Data) -> Iterable[Path]:
    """Files and folders that the data set's reader reads."""
    reader = reader_of(data)
    if reader.places:
        return reader.places(data.section)
    return [named.path for named in reader.paths(data.section)]


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
