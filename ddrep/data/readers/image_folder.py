"""A folder of images: ROOT/train/CLASS/*, ROOT/test/CLASS/* and perhaps ROOT/validation/CLASS/*."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial

from ddrep.config import ImageFolder
from ddrep.data.decoding import FORMATS, fitted
from ddrep.data.disk import Found, inside, look, names_in, raw, reason
from ddrep.data.listing import SPLITS, Entry, Listing, drawn, from_disk, listed
from ddrep.data.readers import READERS, Named, Reader, square
from ddrep.data.reading import warn
from ddrep.errors import UserError, printable, some

SPLIT_OF = {split: split for split in SPLITS} | {"valid": "validation", "val": "validation"}
"""What the folder of each split may be called, in large or small letters."""
ADVICE = f"expected whole images ({', '.join(FORMATS)}) in folders named as train's; mend or remove them"
EXPECTED = "expected test/CLASS/*, train/CLASS/* and, if there are such images, validation/CLASS/*"
TWICE = "an image is expected in one class of one split: leave one of the two out"


def image_folder(cfg: ImageFolder, seed: int) -> Listing:
    """Classes are numbered in the order of their sorted names. Raises UserError."""
    where = str(cfg.root)
    folders = _splits(where, look(raw(cfg.root)))
    files = {split: _files(where, split, folder) for split, folder in folders.items()}
    classes = tuple(files["train"])
    if len(classes) < 2:
        raise UserError(f"{where}/train: {len(classes)} class folders ({some(classes)}); expected 2 or more")
    given: dict[str, list[Entry]] = {}
    complaints: dict[str, list[str]] = {}
    for split, of_class in files.items():
        given[split], complaints[split] = _entries(folders[split].name, of_class, classes)
    if "validation" not in given:
        complaints["validation"] = complaints["train"]
    splits = drawn(where, classes, given, seed, TWICE)
    pixels = partial(fitted, size=cfg.size, channels=cfg.channels)
    return Listing(where, classes, splits, square(cfg), from_disk, pixels, ADVICE, complaints)


def _splits(where: str, root: Found) -> dict[str, Found]:
    """The folder of each split. What else lies in the root is named in the log."""
    if not root.is_folder:
        raise UserError(f"{where}: no such folder; {EXPECTED}")
    there = inside(root.path)
    found: dict[str, Found] = {}
    unused = []
    for each in there:
        split = SPLIT_OF.get(each.name.lower())
        if split is None or not each.is_folder:
            unused.append(each.name + "/" * each.is_folder)
        elif split in found:
            raise UserError(f"{where}: {found[split].name} and {each.name} are both for {split}; leave one of them")
        else:
            found[split] = each
    for split in ("train", "test"):
        if split not in found:
            raise UserError(
                f"{where}/{split}: no such folder; {EXPECTED}; {where} holds {some([e.name for e in there])}"
            )
    if unused:
        warn(f"{where}: {some(unused)}: not used; {EXPECTED}")
    return {split: found[split] for split in SPLITS if split in found}


def _files(where: str, split: str, folder: Found) -> dict[str, list[Found]]:
    """What lies in the class folders of a split, by their names in Unicode's composed form (NFC), both sorted."""
    place = f"{where}/{folder.name}"
    there = inside(folder.path)
    if loose := [each for each in there if not each.is_folder]:
        status = loose[0].status
        first = printable(loose[0].name) + (f" ({reason(status)})" if isinstance(status, OSError) else "")
        raise UserError(f"{place}: {first} lies outside the class folders ({len(loose)} such files); move or remove it")
    files: dict[str, list[Found]] = {}
    for each in there:
        name = unicodedata.normalize("NFC", each.name)
        if name.encode("utf-8", "replace") != name.encode("utf-8", "surrogateescape"):
            raise UserError(f"{place}: the name of the class folder {printable(each.name)} is not UTF-8; rename it")
        if name in files:
            raise UserError(f"{place}: two class folders are called {name}, written in two ways in Unicode; join them")
        files[name] = inside(each.path)
    empty = [name for name, inner in files.items() if not inner]
    if empty or not files:
        raise UserError(f"{place}{'/' * bool(empty)}{''.join(empty[:1])}: no images; add some or remove the folder")
    for name, inner in files.items():
        if folders := [each.name for each in inner if each.is_folder]:
            raise UserError(
                f"{place}/{name}: holds {'a folder' if len(folders) == 1 else f'{len(folders)} folders'} "
                f"({some(folders)}) and {len(inner) - len(folders)} files; expected the images themselves: move them up"
            )
    return dict(sorted(files.items()))


def _entries(folder: str, files: dict[str, list[Found]], classes: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """The regular files of train's classes, and a complaint for each other."""
    everything = [(f"{folder}/{name}/{each.name}", name, each) for name, inner in files.items() for each in inner]
    strange = [f"{shown} (its class is not under train)" for shown, name, _ in everything if name not in classes]
    number = {name: label for label, name in enumerate(classes)}
    entries, wrong = listed((shown, number[name], each) for shown, name, each in everything if name in number)
    return entries, wrong + strange


READERS.add(
    Reader(
        "image-folder",
        ImageFolder,
        image_folder,
        paths=lambda cfg: [Named("root", cfg.root, "folder", "it holds train/CLASS/* and test/CLASS/*")],
        places=lambda cfg: (cfg.root / name for name in names_in(cfg.root) if name.lower() in SPLIT_OF),
    )
)
