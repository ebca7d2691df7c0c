"""Which pixels of an image of Fashion-MNIST show the garment: by brightness, then mended by the shape of regions.

The photographs are inverted and cut out, so that the background is black but for a faint halo about the garment. The
numbers below were chosen by looking at the masks.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

DARK = 8
"""Brightest pixel of the background. Halos are mostly below it, and some garments are hardly above it."""
SPECK = 6
"""Pixels that a bright region must have to be garment: smaller ones are what is left of the halo."""
HOLE = 4
"""Pixels of the largest dark region that is filled: prints and seams. Larger ones, as in the handle of a bag or among
the straps of a sandal, show the background."""
SIDES = ndimage.generate_binary_structure(2, 1)
CORNERS = ndimage.generate_binary_structure(2, 2)


def garment_masks(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) and class numbers (N,) -> masks uint8 (N, H, W): 0 for background, 1 + class for the garment."""
    return np.where(foreground(images), 1 + labels[:, None, None], 0).astype(np.uint8)


def foreground(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) -> bool (N, H, W)."""
    found = images > DARK
    found &= _sizes(found, CORNERS) >= SPECK
    # a single dark row between two bright ones is the seam between a shoe and its white sole, all along it
    found[:, 1:-1] |= found[:, :-2] & found[:, 2:]
    # the frame makes all dark pixels at the border one large region
    dark = np.pad(~found, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    return found | (dark & (_sizes(dark, SIDES) <= HOLE))[:, 1:-1, 1:-1]


def _sizes(chosen: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """(N, H, W) -> for each chosen pixel, the number of pixels of its region; regions lie within an image."""
    apart = np.zeros((3, 3, 3), bool)
    apart[1] = neighbours
    regions, _ = ndimage.label(chosen, apart)
    return np.bincount(regions.ravel())[regions]
