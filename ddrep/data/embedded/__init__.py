"""A subset of Fashion-MNIST (Zalando SE, MIT licence; see LICENSE and README.md beside this file)."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Names of the labels 0..9, as Fashion-MNIST's README has them."""
SHAPE = (28, 28, 1)
"""Height, width and channels of an image."""
SUBSETS = 3
"""Disjoint labelled subsets of the training images."""
PARTS = {"train": "train", "validation": "train", "test": "t10k"}
"""Our splits, and the official split (as its files are named) that each is drawn from."""


def path(split: str, kind: str) -> Path:
    """File of `split`: kind images (uint8), labels (uint8) or indices (int32, into the official split)."""
    return FOLDER / file_name(split, kind)


def file_name(split: str, kind: str) -> str:
    """Training arrays have a leading axis of 3 disjoint subsets: images (3, 500, 28, 28), else (N, 28, 28)."""
    rank = (3 if kind == "images" else 1) + (split == "train")
    return f"{split}-{kind}-idx{rank}-{'int' if kind == 'indices' else 'ubyte'}.gz"
