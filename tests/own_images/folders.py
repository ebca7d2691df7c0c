"""Folders of small images of noise, no two of them alike."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NUMBERS = count()


def noise(size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Image.Image:
    """Random colours that flow into one another, another image at every call."""
    pixels = np.random.default_rng(next(NUMBERS)).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


def save(path: Path, image: Image.Image | None = None, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or noise()).save(path, **how)
    return path


def folder(root: Path, counts: dict[str, int]) -> Path:
    """ROOT/PLACE/NUMBER.png."""
    for place, n in counts.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            save(root / place / f"{i:02d}.png")
    return root
