"""Writing and reading a shard of labelled images, against plain webdataset.

    python -m benchmarks.shards [--images 2000] [--rounds 7]

Both write PNG and class of the same images (those of the embedded test set) into a tar, and read them into arrays.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from PIL import Image

from benchmarks import page
from ddrep.data.readers.embedded import embedded_images
from ddrep.data.shards import LabelledImages, read_shards, write_shard

PLAIN, OURS = "plain webdataset", "ddrep"


def written(path: Path, data: LabelledImages) -> None:
    with wds.TarWriter(str(path)) as out:
        for key, pixels, label in zip(data.keys, data.images, data.labels, strict=True):
            out.write({"__key__": key, "png": Image.fromarray(pixels[..., 0]), "cls": int(label)})


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    both = wds.WebDataset(str(path), shardshuffle=False, empty_check=False).decode("l8").to_tuple("png", "cls")
    images, labels = zip(*both, strict=True)
    return np.stack(images), np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    data = embedded_images("test", 0, args.images)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder, "theirs.tar"), Path(folder, "ours.tar")
        work = {
            ("writing", PLAIN): lambda: written(theirs, data),
            ("writing", OURS): lambda: write_shard(ours, data),
            ("reading", PLAIN): lambda: read(theirs),
            ("reading", OURS): lambda: read_shards([ours]),
        }
        turns = [{key: page.processor_seconds(run) for key, run in work.items()} for _ in range(args.rounds + 1)][1:]
        assert np.array_equal(read(theirs)[0], read_shards([ours]).images[..., 0])
    rows = list[dict[str, Any]]()
    for quantity in ("writing", "reading"):
        each = {name: [1e6 * turn[quantity, name] / args.images for turn in turns] for name in (PLAIN, OURS)}
        rows += page.compared(quantity, "microseconds an image", each)
    page.record("Shards", ABOUT.format(**vars(args)), rows)


ABOUT = """`python -m benchmarks.shards`: {images} images of 28x28 pixels with classes, medians of {rounds} rounds; in \
brackets the range of the rounds, and how many times less than the reference."""

if __name__ == "__main__":
    main()
