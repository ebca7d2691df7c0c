"""CelebAMask-HQ (Lee et al., 2020): the masks of the parts of a face, one PNG each, merged into one label map."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
from PIL import Image

from ddrep.config import CelebAMaskHQ
from ddrep.data.decoding import LAID, bilinear, decode, exact_size
from ddrep.data.disk import Found, inside, look, raw, read_bytes, reason
from ddrep.data.listing import decoded, from_disk, listed, once
from ddrep.data.masks import MaskedImages, resized
from ddrep.data.reading import Unusable, complain, filled, key
from ddrep.errors import UserError, some

IMAGES, ANNOTATIONS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
IMAGE_SIZE, MASK_SIZE = 1024, 512
A_FOLDER = 2000
"""Images whose masks lie in one folder of the annotations."""
PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip", "hair",
    "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""In the order of the published g_mask.py: number 1 is skin, and a later part lies over an earlier one."""
CLASSES = ("background", *PARTS)
PART_FILE = re.compile(rf"(\d{{5}})_({'|'.join(PARTS)})\.png")
ADVICE = "mend them, or unpack it anew"


def celebamask_hq(cfg: CelebAMaskHQ, split: str) -> MaskedImages:
    """The first images (train), the last (test), or those between (oracle), one at a time. Raises UserError."""
    there, parts = _checked(cfg)
    where, end = str(cfg.root), cfg.images - cfg.test
    entries, broken = listed((f"{IMAGES}/{i}.jpg", i, there[i]) for i in range(cfg.images))
    complain(where, broken, "files cannot be used", ADVICE)
    given = {"train": entries[: cfg.train], "oracle": entries[cfg.train : end], "test": entries[end:]}
    chosen, square = once(where, given, ADVICE)[split], (cfg.size, cfg.size)
    names = [entry.name for entry in chosen]
    images, broken = decoded(where, split, names, from_disk(chosen), partial(_pixels, size=cfg.size), (*square, 3))
    work = ((row, partial(_merged, parts[entry.label], cfg.size)) for row, entry in enumerate(chosen))
    masks, more = filled(where, names, work, square)
    complain(where, broken + more, f"files of the {len(chosen)} images of {split} cannot be used", ADVICE)
    return MaskedImages(images, masks, [key(split, row, entry.stem) for row, entry in enumerate(chosen)], CLASSES)


def _checked(cfg: CelebAMaskHQ) -> tuple[dict[int, Found], dict[int, dict[int, Found]]]:
    """Images, and the masks of each by class, both by number. Raises UserError naming all that is not there."""
    root = look(raw(cfg.root))
    there = {each.name: each for each in inside(root.path)} if root.is_folder else {}
    for name in (IMAGES, ANNOTATIONS):
        if name not in there or not there[name].is_folder:
            raise UserError(
                f"{cfg.root}: no folder {name}; expected CelebAMask-HQ as it is published; it holds {some(list(there))}"
            )
    found = {each.name: each for each in inside(there[IMAGES].path)}
    images = {int(name[:-4]): each for name, each in found.items() if re.fullmatch(r"(0|[1-9]\d*)\.jpg", name)}
    parts, misplaced = _parts(there[ANNOTATIONS])
    counts = ((f"images in {IMAGES}", len(images)), (f"images with masks in {ANNOTATIONS}", len(parts)))
    complaints = [f"{count} {what}, expected {cfg.images}" for what, count in counts if count != cfg.images]
    complaints += misplaced
    complaints += [f"{i}.jpg (missing)" for i in range(cfg.images) if i not in images]
    complaints += [f"{i}.jpg (no mask)" for i in range(cfg.images) if i in images and i not in parts]
    complain(cfg.root, complaints, "things are not as in CelebAMask-HQ", ADVICE)
    return images, parts


def _parts(annotations: Found) -> tuple[dict[int, dict[int, Found]], list[str]]:
    """The masks of each image, and a complaint for each PNG that is none."""
    found: dict[int, dict[int, Found]] = {}
    complaints = []
    for folder in inside(annotations.path):
        for each in inside(folder.path) if folder.is_folder else ():
            match = PART_FILE.fullmatch(each.name)
            if not each.name.endswith(".png"):
                continue
            if match is None:
                complaints.append(f"{folder.name}/{each.name} (no part of a face)")
            elif folder.name != str(int(match[1]) // A_FOLDER):
                complaints.append(f"{folder.name}/{each.name} (expected in folder {int(match[1]) // A_FOLDER})")
            else:
                found.setdefault(int(match[1]), {})[CLASSES.index(match[2])] = each
    return found, complaints


def _pixels(image: Image.Image, size: int) -> np.ndarray:
    return bilinear(exact_size(image, IMAGE_SIZE, IMAGE_SIZE), size)


def _merged(parts: dict[int, Found], size: int) -> np.ndarray:
    """uint8 (size, size) of class numbers. Raises Unusable with a complaint for each mask that cannot be read."""
    merged = np.zeros((MASK_SIZE, MASK_SIZE), np.uint8)  # where no part is, is the background
    complaints = []
    for number, found in sorted(parts.items()):
        try:
            mask = exact_size(decode(read_bytes(found.path)), MASK_SIZE, MASK_SIZE)
            if LAID in mask.info:
                raise ValueError("has transparency, expected black and white")
            merged[np.asarray(mask.convert("L")) > 0] = number
        except Exception as e:
            complaints.append(f"{found.name} ({reason(e)})")
    if complaints:
        raise Unusable(*complaints)
    return resized(merged, size)
