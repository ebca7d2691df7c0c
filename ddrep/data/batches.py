"""From images in memory to batches and back: which images step s sees, and pixels in [-1, 1].

Step s sees a pure function of (seed, s), so that a resumed run needs no saved state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddrep.errors import UserError


@lru_cache(maxsize=4)
def _epoch(n: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def batch_indices(n: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Indices (batch,) into n images for 0-based `step`, cut from an endless stream of shuffled epochs.

    Every batch is full: none is ever a single image (which BatchNorm cannot take) or odd (which Mixup cannot). After
    any number of steps the images' visit counts differ by at most one.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // n
    return np.concatenate([_epoch(n, int(e), seed)[positions[epochs == e] % n] for e in np.unique(epochs)])


def stratified(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Indices of n of the images, or of all, in their order: of each class as many as its share, up or down to a whole
    number. Which images, and which classes are rounded up, is chosen by the seed.

    A systematic sample: every (N / n)-th of the images in random order within each class, from a random start.
    """
    rng, total, n = np.random.default_rng(seed), len(labels), min(n, len(labels))
    shuffled = rng.permutation(total)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    places = (np.arange(n) * total + rng.integers(max(1, total))) // max(1, n)
    return np.sort(by_class[places])


def parts(n: int, batch: int) -> list[slice]:
    """Of n images, `batch` at a time; of none, one part of none. Raises UserError."""
    if batch < 1:
        raise UserError(f"batch: expected 1 image or more at a time, got {batch}")
    return [slice(start, start + batch) for start in range(0, max(1, n), batch)]


def steps_for(epochs: float, n: int, batch: int, least: int = 1) -> int:
    """Optimiser steps in which n images are seen `epochs` times, but `least` at least."""
    return max(least, -(-int(epochs * n) // batch))


def to_unit(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 images (N, H, W) or (N, H, W, C) -> float32 (N, C, H, W) in [-1, 1]. Raises UserError for any others."""
    x = torch.as_tensor(images).to(device)
    if x.dtype != torch.uint8 or x.ndim not in (3, 4):
        raise UserError(f"images are {tuple(x.shape)} {x.dtype}, expected uint8 (N, H, W) or (N, H, W, C), in 0..255")
    x = x[:, None] if x.ndim == 3 else x.movedim(-1, 1)
    return x.float() / 127.5 - 1


def to_uint8(x: Tensor, whose: str) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1] -> uint8 (N, H, W, C), rounded to the nearest level.

    Raises UserError naming the denoiser `whose` images are not finite: as uint8 they would be black.
    """
    broken = int((~x.isfinite()).flatten(1).any(dim=1).sum())
    if broken:
        raise UserError(
            f"{whose}: gave values that are not finite for {broken} of {len(x)} images, and none is kept; its weights "
            "are broken (train or import it anew), or it is guided too strongly (lower the scale)"
        )
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu().numpy()


def check_stored(images: np.ndarray, image_shape: Sequence[int], whose: str) -> None:
    """Raise UserError unless images are uint8 (N, H, W, C) of image_shape (C, H, W), the only ones that a network can
    judge: of another size or range it says something all the same."""
    c, h, w = image_shape
    if images.dtype != np.uint8 or images.shape[1:] != (h, w, c):
        got = "x".join(map(str, images.shape[1:]))
        raise UserError(f"{whose}: images are {got} {images.dtype}, expected {h}x{w}x{c} uint8 as it was trained on")


def finite(x: Tensor, whose: str) -> Tensor:
    """x itself. Raises UserError if it holds NaN or infinity, which would pass for some class or share."""
    if not x.isfinite().all():
        raise UserError(f"{whose}: gives values that are not finite; its weights are broken: train or import it anew")
    return x
