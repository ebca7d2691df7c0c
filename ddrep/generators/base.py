"""What every generator does: it draws latents and images from seeds, and encodes images into latents."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from ddrep.config import Sampling
from ddrep.data.batches import check_stored, finite, parts, to_unit
from ddrep.denoiser.schedule import Schedule, x0_from_eps
from ddrep.sampling.rows import in_rows
from ddrep.sampling.sampler import ImageNoise, seed_of
from ddrep.saved import Saved, load, save
from ddrep.solvers import Estimate, ddim_step, time_grid

PERCEPTRON_ROWS = 256
"""Latents without a map that are denoised at once: less than half the time that 16 at once take on a CPU."""


def latent_seed(seed: int) -> int:
    """Seed of the noise that an image's latent is drawn from, so that it is not that of the image again."""
    return seed_of(f"latent/{seed}".encode())


@torch.no_grad()
def drawn(
    eps: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, shape: tuple[int, ...], seeds: Sequence[int],
    steps: int, device: torch.device,
) -> Tensor:  # fmt: skip
    """A normalised latent a seed, (N, *shape), by DDIM without noise and without clipping.

    eps: of latents (N, *shape) and times (N,) in embedded units. Raises UserError for steps that the schedule has not.
    """
    grid = time_grid(schedule, "ddim", steps)
    z = ImageNoise([latent_seed(seed) for seed in seeds], shape, device).draw()
    rows = PERCEPTRON_ROWS if len(shape) == 1 else None
    for here, after in zip(grid, [*grid[1:], -1], strict=True):
        index = torch.full((len(z),), here, device=device)
        abar, abar_next = (schedule.abar_at(torch.full_like(index, i), z) for i in (here, after))
        estimate = in_rows(eps, z, schedule.embedded(index), rows=rows)
        z = ddim_step(Estimate(z, x0_from_eps(z, estimate, abar), abar), (), abar_next)
    return z


@dataclass
class Generator(ABC):
    """Draws images, each from its own seed and latent alone, whatever is drawn beside it."""

    FILE: ClassVar[type[Saved]]
    """What its file says of it."""
    net: Any
    """Its network: its configuration in `cfg`, and `latent_mean` and `latent_std`, by which latents are normalised."""
    provenance: dict[str, Any] = field(default_factory=dict, kw_only=True)
    """Where it came from: file, digest, the training section."""
    path: Path | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path or self.provenance.get("file") or f"the{self.FILE.WHAT[self.FILE.WHAT.index(' ') :]}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        cfg = self.net.cfg
        return cfg.in_channels, cfg.image_size, cfg.image_size

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """Numbers in one latent."""

    @property
    def device(self) -> torch.device:
        found: torch.device = self.net.latent_mean.device
        return found

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

    @abstractmethod
    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write weights, in `dtype`, and metadata to `path`, whole or not at all."""

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


@dataclass
class Diffused(Generator):
    """One that denoises, images or latents."""

    FILE: ClassVar[Any]
    NETWORK: ClassVar[type[nn.Module]]
    """Made of the file's `network`."""
    schedule: Schedule
    """Of its noise."""

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        content = self.FILE(network=self.net.cfg, schedule=self.schedule, provenance=self.provenance)
        save(path, content, {name: t.to(dtype) for name, t in self.net.state_dict().items()})

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Self:
        content, net = load(path, cls.FILE, lambda content: cls.NETWORK(content.network), device)
        return cls(net, Schedule(**dataclasses.asdict(content.schedule)), provenance=content.provenance, path=path)
