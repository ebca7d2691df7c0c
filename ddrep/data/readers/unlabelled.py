"""Images without labels, for the denoiser to be pretrained on: all of a folder, at any depth, or those of a list."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath

from ddrep.config import Unlabelled
from ddrep.data.decoding import fitted
from ddrep.data.disk import Found, below, raw
from ddrep.data.listing import Listing, from_disk, listed, once
from ddrep.data.lists import files, places, rows
from ddrep.data.readers import READERS, Named, Reader
from ddrep.data.reading import warn
from ddrep.errors import UserError, some

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm"}
"""Of the files in a folder that are taken for images."""
CLASSES = ("unlabelled",)


def unlabelled(cfg: Unlabelled, seed: int) -> Listing:
    """All are of split train, and of one class. Raises UserError."""
    where = str(cfg.path)
    found = _folder(where, cfg.path) if cfg.path.is_dir() else _listed(cfg)
    entries, complaints = listed((each.name, 0, each) for each in found)
    splits = once(where, {"train": entries, "validation": [], "test": []}, "leave one of the two out")
    if not entries and not complaints:
        raise UserError(f"{where}: no images ({', '.join(sorted(SUFFIXES))}), at any depth; add some")
    pixels, shape = partial(fitted, size=cfg.size, channels=cfg.channels), (cfg.size, cfg.size, cfg.channels)
    advice = "mend or remove them, or make a list without them with `ddrep init`"
    return Listing(where, CLASSES, splits, shape, from_disk, pixels, advice, {"train": complaints})


def is_image(found: Found) -> bool:
    return PurePath(found.name).suffix.lower() in SUFFIXES


def _folder(where: str, folder: Path) -> list[Found]:
    everything = list(below(raw(folder)))
    if others := [each.name for each in everything if not is_image(each)]:
        warn(f"{where}: {some(others)}: not used, as they are not called images ({', '.join(sorted(SUFFIXES))})")
    return list(filter(is_image, everything))


def _listed(cfg: Unlabelled) -> Iterator[Found]:
    return files(cfg.path, cfg.root, [row["path"] for row in rows(cfg.path, ("path",))])


def _paths(cfg: Unlabelled) -> Iterator[Named]:
    yield Named("path", cfg.path, "file or folder", "give a folder of images, or a CSV file with the column path")
    if cfg.root:
        yield Named("root", cfg.root, "folder", "the paths in the list start from it")


READERS.add(
    Reader(
        "unlabelled", Unlabelled, unlabelled, paths=_paths, places=lambda cfg: places(cfg.path, cfg.root), labels=False
    )
)
