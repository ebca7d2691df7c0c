"""CelebAMask-HQ (Lee et al., 2020): the masks of the parts of a face, one PNG each, merged into one label map."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.config import CelebAMaskHQ
from ddrep.data.masks import MaskedImages, resized
from ddrep.data.reading import BROKEN, complain, exact_size, key, read_all, reason
from ddrep.errors import UserError

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
    parts = _checked(cfg)
    end = cfg.images - cfg.test
    chosen = {"train": range(cfg.train), "oracle": range(cfg.train, end), "test": range(end, cfg.images)}[split]
    names = [f"{IMAGES}/{i}.jpg" for i in chosen]
    images, broken = read_all(names, lambda name: _image(cfg.root / name, cfg.size), (cfg.size, cfg.size, 3))
    masks = np.zeros((len(chosen), cfg.size, cfg.size), np.uint8)
    for row, i in enumerate(chosen):
        mask, more = _merged(cfg.root / ANNOTATIONS, parts[i])
        masks[row] = resized(mask, cfg.size)
        broken += more
    complain(cfg.root, broken, f"files of the {len(chosen)} images of {split} cannot be used", ADVICE)
    return MaskedImages(images, masks, [key(split, row, str(i)) for row, i in enumerate(chosen)], CLASSES)


def _checked(cfg: CelebAMaskHQ) -> dict[int, dict[int, str]]:
    """The masks of each image, as class number: path in ANNOTATIONS. Raises UserError naming all that is not there."""
    for name in (IMAGES, ANNOTATIONS):
        if not (cfg.root / name).is_dir():
            raise UserError(f"{cfg.root}: no folder {name}; expected CelebAMask-HQ as it is published")
    there = {path.name for path in (cfg.root / IMAGES).iterdir() if re.fullmatch(r"\d+\.jpg", path.name)}
    parts, misplaced = _parts(cfg.root / ANNOTATIONS)
    counts = ((f"images in {IMAGES}", len(there)), (f"images with masks in {ANNOTATIONS}", len(parts)))
    complaints = [f"{count} {what}, expected {cfg.images}" for what, count in counts if count != cfg.images]
    complaints += misplaced
    complaints += [f"{i}.jpg (missing)" for i in range(cfg.images) if f"{i}.jpg" not in there]
    complaints += [f"{i}.jpg (no mask)" for i in range(cfg.images) if f"{i}.jpg" in there and i not in parts]
    complain(cfg.root, complaints, "things are not as in CelebAMask-HQ", ADVICE)
    return parts


def _parts(folder: Path) -> tuple[dict[int, dict[int, str]], list[str]]:
    """The masks of each image, and a complaint for each PNG that is none."""
    found: dict[int, dict[int, str]] = {}
    complaints = []
    for path in sorted(folder.glob("*/*.png")):
        name = f"{path.parent.name}/{path.name}"
        match = PART_FILE.fullmatch(path.name)
        if match is None:
            complaints.append(f"{name} (no part of a face)")
        elif path.parent.name != str(int(match[1]) // A_FOLDER):
            complaints.append(f"{name} (expected in folder {int(match[1]) // A_FOLDER})")
        else:
            found.setdefault(int(match[1]), {})[CLASSES.index(match[2])] = name
    return found, complaints


def _image(path: Path, size: int) -> np.ndarray:
    """(size, size, 3). Bilinear with anti-aliasing, which is what torchvision's Resize does to a Pillow image."""
    with Image.open(path) as image:
        whole = exact_size(image, IMAGE_SIZE, IMAGE_SIZE)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR))


def _merged(folder: Path, parts: dict[int, str]) -> tuple[np.ndarray, list[str]]:
    """uint8 (512, 512) of class numbers, and a complaint for each mask that could not be read."""
    merged = np.zeros((MASK_SIZE, MASK_SIZE), np.uint8)
    complaints = []
    for number, name in sorted(parts.items()):
        try:
            with Image.open(folder / name) as image:
                merged[np.asarray(exact_size(image, MASK_SIZE, MASK_SIZE, "L")) > 0] = number
        except BROKEN as e:
            complaints.append(f"{name} ({reason(e)})")
    return merged, complaints
