"""Grids of images as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.files import written_whole


def save_grid(images: np.ndarray, columns: int, path: Path) -> None:
    """uint8 images (N, H, W, C) -> a PNG of rows of `columns`, two pixels apart on white, twice as large."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 2) + 2, (i % columns) * (width + 2) + 2
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet)
    with written_whole(path) as (draft,):
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(draft)
