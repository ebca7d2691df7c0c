"""Train the embedded evaluator and segmenter on Fashion-MNIST's own files, all of them labelled:
`python tools/embedded_evaluators.py FOLDER [OUT]`.

FOLDER holds the official IDX files, as Debian's package dataset-fashion-mnist installs them. The two networks are for
measuring generated images: no experiment learns or is guided by them.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddrep import config
from ddrep.data.embedded import CLASSES, FOLDER
from ddrep.data.foreground import garment_masks
from ddrep.data.idx import read_idx
from ddrep.data.masks import MaskedImages
from ddrep.data.shards import LabelledImages
from ddrep.device import set_threads
from ddrep.errors import UserError
from ddrep.files import sha256, state_path
from ddrep.training.evaluators import accuracy, agreement, train_evaluator, train_segmenter

log = logging.getLogger("ddrep")
SEED = 2023
EVALUATOR = config.Evaluator(name="fashion-cnn", precision="bf16")
SEGMENTER = config.Segmenter(precision="bf16")
"""The sections' defaults, but for a precision that is the same on every machine."""


def official(source: Path, split: str) -> tuple[LabelledImages, dict[str, str]]:
    """All images of an official split (train, t10k), and the SHA-256 of the files they are from. Raises UserError."""
    files = [source / f"{split}-images-idx3-ubyte.gz", source / f"{split}-labels-idx1-ubyte.gz"]
    images, labels = (read_idx(file) for file in files)
    if images.shape != (len(labels), 28, 28):
        raise UserError(f"{source}: {split} is {images.shape} and {labels.shape}, expected images of 28x28 and labels")
    keys = [f"{split}-{i:05d}" for i in range(len(labels))]
    data = LabelledImages(images[..., None], labels.astype(np.int64), keys, CLASSES)
    return data, {file.name: sha256(file) for file in files}


def with_masks(data: LabelledImages) -> MaskedImages:
    """The same images with the masks of their garments."""
    masks = garment_masks(data.images[..., 0], data.labels)
    return MaskedImages(data.images, masks, data.keys, ("background", *data.classes))


def build(source: Path, out: Path) -> None:
    """Write evaluator.safetensors and segmenter.safetensors to `out`. Killed and started again, it resumes."""
    (train, digests), (test, _) = official(source, "train"), official(source, "t10k")
    build_evaluator(train, test, digests, out / "evaluator.safetensors")
    build_segmenter(with_masks(train), with_masks(test), digests, out / "segmenter.safetensors")


def build_evaluator(train: LabelledImages, test: LabelledImages, digests: dict[str, str], out: Path) -> None:
    """Train on `train`, measure on `test`, write."""
    state = state_path("evaluator", EVALUATOR.model_dump_json(), *digests.values())
    made = train_evaluator(train, EVALUATOR, seed=SEED, device=torch.device("cpu"), state=state)
    made.meta.provenance = _provenance(EVALUATOR, len(train), digests, accuracy(made, test))
    made.save(out)
    state.unlink(missing_ok=True)


def build_segmenter(train: MaskedImages, test: MaskedImages, digests: dict[str, str], out: Path) -> None:
    """Train on `train`, measure on `test`, write."""
    digests = digests | {"masks": hashlib.sha256(train.masks.tobytes()).hexdigest()}
    state = state_path("segmenter", SEGMENTER.model_dump_json(), *digests.values())
    made = train_segmenter(train, SEGMENTER, seed=SEED, device=torch.device("cpu"), state=state)
    made.meta.provenance = _provenance(SEGMENTER, len(train), digests, agreement(made, test))
    made.save(out)
    state.unlink(missing_ok=True)


def _provenance(section: config.Oracle, n: int, digests: dict[str, str], measured: dict[str, Any]) -> dict[str, Any]:
    log.info("on the official test split: %s", measured)
    command = {"command": "python tools/embedded_evaluators.py", "seed": SEED, "section": section.model_dump()}
    return command | {"images": n, "sha256": digests, "validation": measured}


def main(args: list[str]) -> int:
    """`FOLDER [OUT]`; OUT is this package by default."""
    if len(args) not in (1, 2):
        print("usage: python tools/embedded_evaluators.py FOLDER [OUT]", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    set_threads(1)  # the number of threads decides in which order is summed, and so the last bits of the weights
    try:
        build(Path(args[0]), Path(args[1]) if len(args) == 2 else FOLDER)
    except UserError as e:
        print(f"evaluators: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
