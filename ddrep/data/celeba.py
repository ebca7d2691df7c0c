"""CelebA's aligned images, cut and resized as the code of DDIM does (its CelebA-64 checkpoint saw such images)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.config import CelebA
from ddrep.data.reading import complain, exact_size, key, read_all
from ddrep.data.shards import LabelledImages
from ddrep.errors import UserError

WIDTH, HEIGHT = 178, 218
BOX = (25, 57, 153, 185)
"""left, top, right, bottom of the crop: 128x128 about (89, 121)."""
SPLITS = ("train", "validation", "test")
"""In the order of their numbers in list_eval_partition.txt."""
IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
ADVICE = "mend them, or unpack it anew"


def celeba(cfg: CelebA, split: str) -> LabelledImages:
    """The images of a part of the official partition. Raises UserError."""
    folder, attributes, partition = (_found(cfg.root, name) for name in (IMAGES, ATTRIBUTES, PARTITION))
    has, complaints = _attribute(attributes, cfg.attribute)
    part, more = _partition(partition)
    complaints += more
    there = {path.name for path in folder.iterdir()}
    for what, names in ((ATTRIBUTES, has), (PARTITION, part), (IMAGES, there)):
        complaints += [f"{name} (not in {what})" for name in sorted((has.keys() | part.keys()) - set(names))]
    for number, expected in enumerate(cfg.partition):
        count = sum(each == number for each in part.values())
        if count != expected:
            complaints.append(f"{PARTITION} ({count} images for {SPLITS[number]}, expected {expected})")
    complain(cfg.root, complaints, "things are not as in CelebA", ADVICE)
    chosen = sorted(name for name, number in part.items() if SPLITS[number] == split)
    labels = np.array([has[name] for name in chosen], np.int64)
    if len(set(labels.tolist())) < 2:
        raise UserError(f"{attributes}: {cfg.attribute} is the same in all images of {split}; choose another attribute")
    images, broken = read_all(chosen, lambda name: _image(folder / name, cfg.size), (cfg.size, cfg.size, 3))
    complain(folder, broken, f"of {len(chosen)} images of {split} cannot be used", ADVICE)
    keys = [key(split, i, Path(name).stem) for i, name in enumerate(chosen)]
    return LabelledImages(images, labels, keys, (f"not {cfg.attribute}", cfg.attribute))


def _found(root: Path, name: str) -> Path:
    """`name` in the root, or in the folder of the published tree that holds it."""
    inside = {IMAGES: "Img", ATTRIBUTES: "Anno", PARTITION: "Eval"}[name]
    for path in (root / name, root / inside / name):
        if path.is_dir() if name == IMAGES else path.is_file():
            return path
    raise UserError(f"{root}: no {name} and no {inside}/{name}; expected CelebA's aligned images and its lists")


def _attribute(path: Path, attribute: str) -> tuple[dict[str, int], list[str]]:
    """1 for each image that has the attribute, 0 for the others, and what is wrong with the list.

    The list is a line with the number of images, one with the names of the attributes, and a line of 1 and -1 for
    each image.
    """
    count, header, *lines = [*path.read_text(errors="replace").splitlines(), "", ""]
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
            complaints.append(f"{path.name} line {number} (expected a file name and {len(names)} times 1 or -1)")
        elif fields[0] in has:
            complaints.append(f"{path.name} line {number} ({fields[0]} is listed twice)")
        else:
            has[fields[0]] = int(fields[column] == "1")
    if count.strip() != str(len(has) + len(complaints)):
        complaints.append(f"{path.name} (its first line says {count.strip()[:20]} images, it has {len(has)})")
    return has, complaints


def _partition(path: Path) -> tuple[dict[str, int], list[str]]:
    """0, 1 or 2 for each image, and what is wrong with the list."""
    part: dict[str, int] = {}
    complaints = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match line.split():
            case []:
                pass
            case [name, ("0" | "1" | "2") as which] if name not in part:
                part[name] = int(which)
            case _:
                complaints.append(
                    f"{path.name} line {number} (expected a file name, once, and 0, 1 or 2: {line[:40]!r})"
                )
    return part, complaints


def _image(path: Path, size: int) -> np.ndarray:
    """(size, size, 3). Bilinear with anti-aliasing, which is what torchvision's Resize does to a Pillow image."""
    with Image.open(path) as opened:
        square = exact_size(opened, WIDTH, HEIGHT).crop(BOX)
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
