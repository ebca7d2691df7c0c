"""CelebA's aligned images, cut and resized as the code of DDIM does (its CelebA-64 checkpoint saw such images)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.config import CelebA
from ddrep.data.decoding import bilinear, exact_size
from ddrep.data.disk import inside, look, raw, read_text
from ddrep.data.listing import SPLITS, Entry, Listing, drawn, from_disk, listed
from ddrep.data.readers import CHEAP, READERS, Known, Named, Reader, counted
from ddrep.data.reading import complain, warn
from ddrep.errors import UserError, some

WIDTH, HEIGHT = 178, 218
BOX = (25, 57, 153, 185)
"""left, top, right, bottom of the crop: 128x128 about (89, 121)."""
IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
FOLDERS = {IMAGES: "Img", ATTRIBUTES: "Anno", PARTITION: "Eval"}
"""Where they lie in the published tree."""
ADVICE = "mend them, or unpack it anew"


def celeba(cfg: CelebA, seed: int = 0) -> Listing:
    """The official partition; class 1 has the attribute. Raises UserError."""
    folder, attributes, partition = (_found(cfg.root, name) for name in (IMAGES, ATTRIBUTES, PARTITION))
    has, complaints = _attribute(attributes, cfg.attribute)
    part, more = _partition(partition)
    complaints += more
    there = {found.name: found for found in inside(raw(folder))}
    for what, names in ((ATTRIBUTES, has), (PARTITION, part), (IMAGES, there)):
        complaints += [f"{name} (not in {what})" for name in sorted((has.keys() | part.keys()) - set(names))]
    for number, expected in enumerate(cfg.partition):
        count = sum(each == number for each in part.values())
        if count != expected:
            complaints.append(f"{PARTITION} ({count} images for {SPLITS[number]}, expected {expected})")
    known = sorted(part.keys() & has.keys() & there.keys())
    entries, broken = listed((name, has[name], there[name]) for name in known)
    complain(cfg.root, complaints + broken, "things are not as in CelebA", ADVICE)
    if extra := sorted(there.keys() - part.keys()):
        warn(f"{cfg.root}: {some(extra)}: in no list, and not used")
    given: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in entries:
        given[SPLITS[part[entry.name]]].append(entry)
    classes = (f"not {cfg.attribute}", cfg.attribute)
    for split, entries in given.items():
        if len({entry.label for entry in entries}) < 2:
            raise UserError(
                f"{attributes}: {cfg.attribute} is the same in all images of {split}; choose another attribute"
            )
    splits = drawn(str(cfg.root), classes, given, 0, ADVICE)
    shape, pixels = (cfg.size, cfg.size, 3), partial(_pixels, size=cfg.size)
    return Listing(str(cfg.root), classes, splits, shape, from_disk, pixels, ADVICE)


def _found(root: Path, name: str) -> Path:
    """`name` in the root, or in the folder of the published tree that holds it."""
    inner = FOLDERS[name]
    for path in (root / name, root / inner / name):
        found = look(raw(path))
        if found.exists and found.is_folder == (name == IMAGES):
            return path
    there = some([each.name for each in inside(raw(root))]) if look(raw(root)).is_folder else "is no folder"
    raise UserError(
        f"{root}: no {name} and no {inner}/{name}; expected CelebA's aligned images and its lists; it holds {there}"
    )


def _attribute(path: Path, attribute: str) -> tuple[dict[str, int], list[str]]:
    """1 for each image that has the attribute, 0 for the others, and what is wrong with the list.

    The list is a line with the number of images, one with the names of the attributes, and a line of 1 and -1 for
    each image.
    """
    count, header, *lines = [*read_text(raw(path)).splitlines(), "", ""]
    names = header.split()
    if attribute not in names:
        raise UserError(f"data.celeba.attribute: {attribute} is not in {path}; it has {', '.join(names) or 'none'}")
    column = 1 + names.index(attribute)
    has, complaints = {}, []
    for number, line in enumerate(lines, 3):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 1 + len(names) or fields[column] not in ("1", "-1"):
            complaints.append(f"{ATTRIBUTES} line {number} (expected a file name and {len(names)} times 1 or -1)")
        elif fields[0] in has:
            complaints.append(f"{ATTRIBUTES} line {number} ({fields[0]} is listed twice)")
        else:
            has[fields[0]] = int(fields[column] == "1")
    if count.strip() != str(len(has) + len(complaints)):
        complaints.append(f"{ATTRIBUTES} (its first line says {count.strip()[:20]} images, it has {len(has)})")
    return has, complaints


def _partition(path: Path) -> tuple[dict[str, int], list[str]]:
    """0, 1 or 2 for each image, and what is wrong with the list."""
    part: dict[str, int] = {}
    complaints = []
    for number, line in enumerate(read_text(raw(path)).splitlines(), 1):
        match line.split():
            case []:
                pass
            case [name, ("0" | "1" | "2") as which] if name not in part:
                part[name] = int(which)
            case _:
                complaints.append(
                    f"{PARTITION} line {number} (expected a file name, once, and 0, 1 or 2: {line[:40]!r})"
                )
    return part, complaints


def _pixels(image: Image.Image, size: int) -> np.ndarray:
    return bilinear(exact_size(image, WIDTH, HEIGHT).crop(BOX), size)


def _expected(cfg: CelebA) -> Known:
    train, validation, test = cfg.partition
    return Known((f"not {cfg.attribute}", cfg.attribute), (train - train // 2, train // 2), validation, test)


def _known(cfg: CelebA, seed: int) -> Known:
    attributes = _found(cfg.root, ATTRIBUTES)
    _, header, *_ = [*read_text(raw(attributes)).split("\n", 2), ""]
    names = header.split()
    if names and cfg.attribute not in names:
        raise UserError(f"{cfg.attribute} is not in {attributes}; it has {', '.join(names)}")
    if attributes.stat().st_size > CHEAP // 16:  # a list takes longer to read than the names in an archive
        return Known((f"not {cfg.attribute}", cfg.attribute))
    return counted(celeba(cfg))


READERS.add(
    Reader(
        "celeba",
        CelebA,
        celeba,
        paths=lambda cfg: [Named("root", cfg.root, "folder", "it holds CelebA's aligned images and its lists")],
        places=lambda cfg: (cfg.root / path for name, inner in FOLDERS.items() for path in (name, f"{inner}/{name}")),
        expected=_expected,
        known=_known,
        with_attribute=lambda cfg, name: cfg.model_copy(update={"attribute": name}),
        paper=(1,),
    )
)
