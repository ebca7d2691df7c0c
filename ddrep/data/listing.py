"""The listing of a data set, from which all its splits are drawn: train, validation and test are parts of one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ddrep.data.decoding import LAID, decode
from ddrep.data.disk import Found, read_bytes, reason
from ddrep.data.reading import complain, filled, hold_out, key, share, warn
from ddrep.data.shards import LabelledImages
from ddrep.errors import some

log = logging.getLogger("ddrep")

SPLITS = ("train", "validation", "test")

Contents = Iterable[tuple[int, Callable[[], bytes]]]
"""Numbers of entries, each with what reads its bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image. `name` is what messages call it, `stem` goes into its key, `label` is the number of its class.

    `place` is the same for all names of one file (or member of an archive), and for no two files; `path` is where the
    reader that made the entry finds it.
    """

    name: str
    stem: str
    label: int
    place: tuple[Any, ...]
    path: Any


@dataclass(frozen=True)
class Listing:
    """All images of a labelled data set: `splits` share no file. `where` begins messages, `advice` ends them.

    `contents` yields the bytes of some entries, in any order, with their number; `pixels` makes a decoded image uint8
    of `shape`. `complaints` are of files that can be in no split, and so refuse the one that they were meant for.
    """

    where: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Entry]]
    shape: tuple[int, int, int]
    contents: Callable[[Sequence[Entry]], Contents]
    pixels: Callable[[Image.Image], np.ndarray]
    advice: str
    complaints: Mapping[str, Sequence[str]] = field(default_factory=dict)


def once(where: str, given: Mapping[str, Sequence[Entry]], advice: str) -> dict[str, list[Entry]]:
    """The entries of each split without second names of one file: links, other spellings, a tar listed twice.

    Raises UserError for a file that is in two splits, or in two classes.
    """
    first: dict[tuple[Any, ...], tuple[str, Entry]] = {}
    left: dict[str, list[Entry]] = {split: [] for split in given}
    again, wrong = [], []
    for split, entries in given.items():
        for entry in entries:
            there, other = first.setdefault(entry.place, (split, entry))
            both = f"{entry.name} = {other.name}"
            if other is entry:
                left[split].append(entry)
            elif there != split:
                wrong.append(f"{both} (in {split} and {there})")
            elif other.label != entry.label:
                wrong.append(f"{both} (of two classes)")
            else:
                again.append(both)
    complain(where, wrong, "files are listed twice", advice)
    if again:
        warn(f"{where}: {len(again)} files are listed twice, by other names or links, and read once: {some(again)}")
    return left


def drawn(
    where: str, classes: Sequence[str], given: Mapping[str, Sequence[Entry]], seed: int, advice: str,
    count: int | None = None,
) -> dict[str, list[Entry]]:  # fmt: skip
    """The splits of a listing, in which no file is twice.

    Where none is given for validation, `count` of each class of train (or a tenth, one at least) are held out of it,
    as `seed` says. Raises UserError.
    """
    splits = once(where, given, advice)
    if "validation" not in splits:
        train = splits["train"]
        counts = np.bincount([entry.label for entry in train], minlength=len(classes)).tolist()
        few = [classes[label] for label, n in enumerate(counts) if n <= (count or 1)]
        complain(where, few, "classes have too few images", "some are held out: add images, or give a validation split")
        labels, of_class = [entry.label for entry in train], lambda n: share(n) if count is None else count
        kept, held = hold_out(labels, of_class, lambda number: np.random.default_rng((seed, number)))
        splits |= {"train": [train[i] for i in kept], "validation": [train[i] for i in held]}
    places = [entry.place for entries in splits.values() for entry in entries]
    assert len(set(places)) == len(places), "splits share a file"
    return splits


def listed(items: Iterable[tuple[str, int, Found]]) -> tuple[list[Entry], list[str]]:
    """Entries of files, given as the name for messages, the label, and the file; a complaint for what is none."""
    entries, complaints = [], []
    for name, label, found in items:
        try:
            entries.append(Entry(name, PurePosixPath(found.name).stem, label, found.place, found.path))
        except (OSError, ValueError) as e:
            complaints.append(f"{name} ({reason(e)})")
    return entries, complaints


def from_disk(entries: Sequence[Entry]) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """The contents of entries whose `path` is that of a file."""
    return ((i, partial(read_bytes, entry.path)) for i, entry in enumerate(entries))


def decoded(
    where: str, split: str, names: Sequence[str], contents: Contents, pixels: Callable[[Image.Image], np.ndarray],
    shape: tuple[int, ...],
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """uint8 (N, *shape) of image files, and a complaint for each that cannot be used."""
    laid = 0

    def make(content: Callable[[], bytes]) -> np.ndarray:
        nonlocal laid
        image = decode(content())
        laid += LAID in image.info
        return pixels(image)

    images, broken = filled(where, names, ((i, partial(make, content)) for i, content in contents), shape)
    if laid:
        log.info("%d of %d images of %s have transparency; laid on white", laid, len(names), split)
    return images, broken


def read(listing: Listing, split: str) -> LabelledImages:
    """The images of one split. Raises UserError naming all files that cannot be used."""
    entries, names = listing.splits[split], [entry.name for entry in listing.splits[split]]
    contents = listing.contents(entries)
    images, broken = decoded(listing.where, split, names, contents, listing.pixels, listing.shape)
    broken += listing.complaints.get(split, ())
    of = len(entries) + len(listing.complaints.get(split, ()))
    complain(listing.where, broken, f"of {of} files of {split} cannot be used", listing.advice)
    labels = np.array([entry.label for entry in entries], np.int64)
    keys = [key(split, i, entry.stem) for i, entry in enumerate(entries)]
    return LabelledImages(images, labels, keys, listing.classes)
