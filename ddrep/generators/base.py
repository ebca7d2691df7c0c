"""What every generator does: it draws latents and images from seeds, and encodes images into latents."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ddrep.config import Sampling
from ddrep.data.batches import check_stored, finite, parts, to_unit


def latent_seed(seed: int) -> int:
    """Seed of the noise that an image's latent is drawn from, so that it is not that of the image again."""
    return int.from_bytes(hashlib.sha256(f"latent/{seed}".encode()).digest()[:8], "big") >> 1


class Generator(ABC):
    """Draws images, each from its own seed and latent alone, whatever is drawn beside it."""

    FORMAT: ClassVar[str]
    """Of its file."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """Numbers in one latent."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def latents(self, seeds: Sequence[int], steps: int) -> Tensor:
        """A normalised latent for each seed, float32 (N, latent_size), drawn in so many steps of its own sampler.

        Raises UserError for steps that its schedule has not.
        """

    @abstractmethod
    def images(self, latents: Tensor, seeds: Sequence[int], cfg: Sampling) -> np.ndarray:
        """An image for each normalised latent and seed, uint8 (N, H, W, C). Raises UserError."""

    @abstractmethod
    def encoded(self, x0: Tensor) -> Tensor:
        """Normalised latents (N, latent_size) of images (N, C, H, W) in [-1, 1]."""

    @abstractmethod
    def evaluations(self, cfg: Sampling) -> int:
        """Of the network that makes images of latents, for one image; those of what draws and judges latents are left
        out, as judges' are."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Self:
        """Read its file, in evaluation mode. Raises UserError for any other file."""

    @torch.no_grad()
    def encode(self, images: np.ndarray, batch: int = 250) -> Tensor:
        """Normalised latents (N, latent_size) of uint8 images (N, H, W, C), on the CPU. Raises UserError."""
        check_stored(images, self.image_shape, self.name)
        found = [self.encoded(to_unit(images[part], self.device)).cpu() for part in parts(len(images), batch)]
        return finite(torch.cat(found), self.name)
