"""A reader of one .npz a split: images uint8 (N, H, W) and labels (N,)."""

from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.config import Section
from ddrep.data.decoding import fitted
from ddrep.data.listing import Entry, Listing, drawn
from ddrep.data.readers import READERS, Named, Reader


class Arrays(Section):
    """Arrays in .npz files."""

    root: Path
    """Holds train.npz and test.npz."""
    size: int = 8
    """Width and height in pixels."""
    channels: int = 1


def listing(cfg, seed):
    given = {split: entries(cfg.root / f"{split}.npz") for split in ("train", "test")}
    classes = tuple(f"class {label}" for label in range(1 + max(entry.label for entry in given["train"])))
    splits = drawn(str(cfg.root), classes, given, seed, "leave one out")
    pixels = partial(fitted, size=cfg.size, channels=cfg.channels)
    return Listing(str(cfg.root), classes, splits, (cfg.size, cfg.size, 1), contents, pixels, "make them anew")


def entries(path):
    labels = np.load(path)["labels"]
    return [Entry(f"{path}[{i}]", str(i), int(label), (path, i), (path, i)) for i, label in enumerate(labels)]


def contents(chosen):
    for number, entry in enumerate(chosen):
        yield number, partial(png, *entry.path)


def png(path, row):
    out = BytesIO()
    Image.fromarray(np.load(path)["images"][row]).save(out, "PNG")
    return out.getvalue()


READERS.add(Reader("arrays", Arrays, listing, paths=lambda cfg: [Named("root", cfg.root, "folder", "holds .npz")]))
