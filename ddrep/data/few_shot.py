"""The few-shot sets of ddpm-segmentation (Baranchuk et al., 2022): an image and a label map (.npy) of the same stem."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.config import FewShot
from ddrep.data.decoding import FORMATS, bilinear
from ddrep.data.disk import Found, inside, look, raw, read_bytes
from ddrep.data.listing import Entry, decoded, from_disk, listed, once
from ddrep.data.masks import IGNORE, MaskedImages, check_labels, resized
from ddrep.data.reading import complain, filled, key, warn
from ddrep.errors import UserError, some

IMAGES = (".jpg", ".jpeg", ".png")
ADVICE = "mend them, or unpack the set anew; number, size and classes are expected as few_shot in the config says"


def few_shot(cfg: FewShot, split: str) -> MaskedImages:
    """The images of real/train or real/test, resized as the published code does. Raises UserError."""
    where = cfg.root / "real"
    pairs = {each: _paired(where / each) for each in ("train", "test")}
    chosen = once(str(where), {each: pair[0] for each, pair in pairs.items()}, "leave one of the two out")[split]
    names, (_, mask_of, complaints) = [entry.name for entry in chosen], pairs[split]
    expected = {"train": cfg.train, "test": cfg.test}[split]
    if len(names) != expected:
        complaints.insert(0, f"{len(names)} images with a mask, expected {expected}")
    square, folder = (cfg.size, cfg.size), str(where / split)
    images, unread = decoded(folder, split, names, from_disk(chosen), partial(_pixels, size=cfg.size), (*square, 3))
    work = ((i, partial(_mask, mask_of[entry.name], entry.path, cfg)) for i, entry in enumerate(chosen))
    masks, more = filled(folder, [mask_of[name].name for name in names], work, square)
    complain(folder, complaints + unread + more, "things are not as expected", ADVICE)
    return MaskedImages(images, masks, [key(split, i, entry.stem) for i, entry in enumerate(chosen)], cfg.classes)


def as_few_shot(cfg: FewShot, images: MaskedImages) -> MaskedImages:
    """Images of another set with the labels in the order of `cfg.classes`. Raises UserError if classes differ."""
    if set(images.classes) != set(cfg.classes):
        differ = sorted(set(images.classes) ^ set(cfg.classes))
        raise UserError(
            f"few_shot.classes: {', '.join(differ[:5])} not in both this set and celebamask_hq; "
            "expected the same names, or no images for an oracle"
        )
    order = np.full(256, IGNORE, np.uint8)
    for number, name in enumerate(images.classes):
        order[number] = cfg.classes.index(name)
    return MaskedImages(images.images, order[images.masks], images.keys, cfg.classes)


def _paired(folder: Path) -> tuple[list[Entry], dict[str, Found], list[str]]:
    """The images that have a mask, sorted; the mask of each, by its name; a complaint for each file without a partner,
    or that is none. Raises UserError if there is no such folder."""
    found = look(raw(folder))
    if not found.is_folder:
        raise UserError(f"{folder}: no such folder; expected few_shot.root to hold real/train and real/test")
    files = {each.name: each for each in inside(found.path)}
    images: dict[str, Found] = {}
    complaints, unused = [], []
    for name, each in files.items():
        stem, suffix = Path(name).stem, Path(name).suffix.lower()
        if suffix in IMAGES and f"{stem}.npy" not in files:
            complaints.append(f"{name} (no mask {stem}.npy)")
        elif suffix in IMAGES and stem in images:
            complaints.append(f"{name} (its mask is also that of {images[stem].name})")
        elif suffix in IMAGES:
            images[stem] = each
        elif suffix != ".npy":
            unused.append(name)
    stems = {Path(name).stem for name in files if Path(name).suffix.lower() in IMAGES}
    complaints += [f"{name} (no image)" for name in files if name.endswith(".npy") and Path(name).stem not in stems]
    if unused:
        warn(f"{folder}: {some(unused)}: neither an image ({', '.join(IMAGES)}) nor an .npy, and not used")
    entries, broken = listed((each.name, 0, each) for each in images.values())
    return entries, {each.name: files[f"{stem}.npy"] for stem, each in images.items()}, complaints + broken


def _pixels(image: Image.Image, size: int) -> np.ndarray:
    if image.width != image.height:
        raise ValueError(f"{image.width}x{image.height} pixels, expected a square")
    return bilinear(image, size)


def _mask(found: Found, image: bytes, cfg: FewShot) -> np.ndarray:
    """(size, size) of the label map of `image`. Raises ValueError or what reading raises for anything else."""
    try:
        mask = np.load(io.BytesIO(read_bytes(found.path)), allow_pickle=False)
    except ValueError as e:
        # numpy's own message tells how to load it nevertheless
        raise ValueError("pickled or not an .npy file, never loaded" if "pickle" in str(e) else str(e)) from None
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        there = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else "several arrays"
        raise ValueError(f"{there}, expected integers (height, width)")
    side = (cfg.mask_size, cfg.mask_size) if cfg.mask_size else _size(image)
    if side and mask.shape != side:
        whose = "few_shot.mask_size" if cfg.mask_size else "its image"
        raise ValueError(f"{mask.shape[1]}x{mask.shape[0]} pixels, expected {side[1]}x{side[0]} as {whose}")
    check_labels(mask, len(cfg.classes))
    return resized(mask.astype(np.uint8), cfg.size)


def _size(image: bytes) -> tuple[int, int] | None:
    """Height and width; None for a broken image, which has its own complaint."""
    try:
        with Image.open(io.BytesIO(read_bytes(image)), formats=FORMATS) as opened:
            return opened.height, opened.width
    except Exception:
        return None
