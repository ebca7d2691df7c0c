"""The few-shot sets of ddpm-segmentation (Baranchuk et al., 2022): an image and a label map (.npy) of the same stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.config import FewShot
from ddrep.data.masks import IGNORE, MaskedImages, check_labels, resized
from ddrep.data.reading import BROKEN, complain, key, read_all
from ddrep.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png")
ADVICE = "mend them, or unpack the set anew; number, size and classes are expected as few_shot in the config says"


def few_shot(cfg: FewShot, split: str) -> MaskedImages:
    """The images of real/train or real/test, resized as the published code does. Raises UserError."""
    folder = cfg.root / "real" / split
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected few_shot.root to hold real/train and real/test")
    names, complaints = _paired(folder)
    expected = {"train": cfg.train, "test": cfg.test}[split]
    if len(names) != expected:
        complaints.insert(0, f"{len(names)} images with a mask, expected {expected}")
    square = (cfg.size, cfg.size)
    images, broken = read_all(names, lambda name: _image(folder / name, cfg.size), (*square, 3))
    of = {f"{Path(name).stem}.npy": name for name in names}
    masks, more = read_all(list(of), lambda name: _mask(folder / name, folder / of[name], cfg), square)
    complain(folder, complaints + broken + more, "things are not as expected", ADVICE)
    return MaskedImages(images, masks, [key(split, i, Path(name).stem) for i, name in enumerate(names)], cfg.classes)


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


def _paired(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the images that have a mask, sorted, and a complaint for each file without its partner."""
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    images: dict[str, str] = {}
    complaints = []
    for name in files:
        stem, suffix = Path(name).stem, Path(name).suffix.lower()
        if suffix in IMAGES and f"{stem}.npy" not in files:
            complaints.append(f"{name} (no mask {stem}.npy)")
        elif suffix in IMAGES and stem in images:
            complaints.append(f"{name} (its mask is also that of {images[stem]})")
        elif suffix in IMAGES:
            images[stem] = name
    stems = {Path(name).stem for name in files if Path(name).suffix.lower() in IMAGES}
    complaints += [f"{name} (no image)" for name in files if name.endswith(".npy") and Path(name).stem not in stems]
    return list(images.values()), complaints


def _image(path: Path, size: int) -> np.ndarray:
    """(size, size, 3). Bilinear with anti-aliasing, which is what torchvision's Resize does to a Pillow image."""
    with Image.open(path) as image:
        if image.width != image.height:
            raise ValueError(f"{image.width}x{image.height} pixels, expected a square")
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _mask(path: Path, image: Path, cfg: FewShot) -> np.ndarray:
    """(size, size) of the label map of `image`. Raises ValueError, OSError or EOFError for anything else."""
    try:
        mask = np.load(path, allow_pickle=False)
    except ValueError as e:
        # numpy's own message tells how to load it nevertheless
        raise ValueError("pickled or not an .npy file, never loaded" if "pickle" in str(e) else str(e)) from None
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else "several arrays"
        raise ValueError(f"{found}, expected integers (height, width)")
    side = (cfg.mask_size, cfg.mask_size) if cfg.mask_size else _size(image)
    if side and mask.shape != side:
        whose = "few_shot.mask_size" if cfg.mask_size else "its image"
        raise ValueError(f"{mask.shape[1]}x{mask.shape[0]} pixels, expected {side[1]}x{side[0]} as {whose}")
    check_labels(mask, len(cfg.classes))
    return resized(mask.astype(np.uint8), cfg.size)


def _size(image: Path) -> tuple[int, int] | None:
    """Height and width; None for a broken image, which has its own complaint."""
    try:
        with Image.open(image) as opened:
            return opened.height, opened.width
    except BROKEN:
        return None
