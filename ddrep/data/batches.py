"""From images in memory to batches: which images step s sees, and pixels in [-1, 1].

Step s sees a pure function of (seed, s), so that a resumed run needs no saved state.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=4)
def _epoch(n: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def batch_indices(n: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Indices (batch,) into n images for 0-based `step`, cut from an endless stream of shuffled epochs.

    Every batch is full: none is ever a single image (which BatchNorm cannot take) or odd (which Mixup cannot), and
    after any number of steps no image has been seen more than once oftener than another.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // n
    return np.concatenate([_epoch(n, int(e), seed)[positions[epochs == e] % n] for e in np.unique(epochs)])


def steps_for(epochs: float, n: int, batch: int, least: int = 1) -> int:
    """Optimiser steps in which n images are seen `epochs` times, but `least` at least."""
    return max(least, -(-int(epochs * n) // batch))


def to_unit(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 images (N, H, W) or (N, H, W, C) -> float32 (N, C, H, W) in [-1, 1]."""
    x = torch.as_tensor(images).to(device)
    x = x[:, None] if x.ndim == 3 else x.movedim(-1, 1)
    return x.float() / 127.5 - 1
