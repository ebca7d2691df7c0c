"""NVAE: a deep hierarchical variational autoencoder (Vahdat & Kautz, NeurIPS 2020).

Latents come in groups, coarse scales first, each of them told those before it: an encoder goes up from the image, and a
decoder down through the groups. Written after the paper; github.com/NVlabs/NVAE, whose licence is for non-commercial
use, was run beside it, and the networks compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Sampling
from ddrep.data.batches import to_uint8
from ddrep.errors import UserError
from ddrep.generators.base import Generator, latent_seed
from ddrep.generators.cells import EXPANSION, OUTER_EXPANSION, DecoderCell, EncoderCell, Flow, Normal
from ddrep.generators.logistic import LogisticMixture, parameters_of
from ddrep.generators.network import NVAEConfig, NVAEFile
from ddrep.sampling.rows import in_rows
from ddrep.sampling.sampler import ImageNoise, seed_of
from ddrep.saved import load, save

Chosen = Callable[[int, Tensor, Normal], Tensor]
"""(number of the group, the decoder's features, the prior) -> latents (N, latent, H, W)."""


class Group(nn.Module):
    """A group of latents: cells up to it and down to it, its prior and its posterior (figure 2)."""

    def __init__(self, cfg: NVAEConfig, number: int):
        """number: of the group, in the order in which latents are drawn."""
        super().__init__()
        scales, last = cfg.scales, len(cfg.scales) - 1
        width = cfg.channels << scales[number]
        up = [DecoderCell(2 * width, EXPANSION, doubles=True)] if number and scales[number - 1] > scales[number] else []
        halved = number < last and scales[number + 1] < scales[number]
        down = [EncoderCell(width // 2, halves=True)] if halved else []
        self.encoder = nn.Sequential(*down, *(EncoderCell(width) for _ in range(cfg.cells)))
        cells = cfg.cells if number else 0
        self.decoder = nn.Sequential(*up, *(DecoderCell(width, EXPANSION) for _ in range(cells)))
        told = nn.Conv2d(width, width, 1)
        self.told = told if number else nn.Sequential(nn.ELU(), told, nn.ELU())
        """Of what the encoder has seen, for the first group; of the decoder's features, added to it, for others."""
        self.posterior = nn.Conv2d(width, 2 * cfg.latent, 3, padding=1)
        self.flows = nn.Sequential(*(Flow(cfg.latent) for _ in range(2 * cfg.flows)))
        self.prior = nn.Sequential(nn.ELU(), nn.Conv2d(width, 2 * cfg.latent, 1)) if number else None
        self.join = nn.Conv2d(width + cfg.latent, width, 1)

    def prior_of(self, s: Tensor, latent: int) -> Normal:
        """p(z | z before it) of the decoder's features; standard normal for the first group (paper, section 3)."""
        return Normal.of(s.new_zeros(len(s), 2 * latent, *s.shape[2:]) if self.prior is None else self.prior(s))

    def posterior_of(self, seen: Tensor, s: Tensor, prior: Normal) -> Normal:
        """q(z | x, z before it), before flows, of the encoder's features and the decoder's."""
        features = self.told(seen) if self.prior is None else seen + self.told(s)
        return prior.relative(self.posterior(features))


class NVAENetwork(nn.Module):
    """All that an NVAE's file holds. Raises UserError for a configuration that makes no network."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, cfg: NVAEConfig):
        super().__init__()
        if problems := list(cfg.problems()):
            raise UserError("; ".join(f"network.{problem}" for problem in problems))
        self.cfg = cfg
        self.stem = nn.Conv2d(cfg.in_channels, cfg.channels, 3, padding=1)
        widths = [cfg.channels << block for block in range(cfg.outer_blocks)]
        cells = range(cfg.outer_cells)
        last = cfg.outer_cells - 1
        self.before = nn.Sequential(*(EncoderCell(width, halves=cell == last) for width in widths for cell in cells))
        width, size = cfg.channels << cfg.halvings, cfg.padded >> cfg.halvings
        self.start = nn.Parameter(torch.rand(width, size, size))
        """The decoder's features before any latent."""
        self.groups = nn.ModuleList(Group(cfg, number) for number in range(sum(cfg.groups)))
        self.after = nn.Sequential(*(
            DecoderCell(width * (1 if cell else 2), OUTER_EXPANSION, doubles=not cell)
            for width in reversed(widths) for cell in cells
        ))  # fmt: skip
        said = parameters_of(cfg.in_channels, cfg.mixtures)
        self.out = nn.Sequential(nn.ELU(), nn.Conv2d(cfg.channels, said, 3, padding=1))
        latent = sum(map(math.prod, cfg.shapes[: cfg.groups[0]]))
        self.register_buffer("latent_mean", torch.zeros(latent))
        self.register_buffer("latent_std", torch.ones(latent))

    @property
    def levels(self) -> list[Group]:
        """The groups, in the order in which latents are drawn."""
        return [group for group in self.groups if isinstance(group, Group)]

    def look(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) in [-1, 1] -> what the encoder sees of them for each group."""
        left = (self.cfg.padded - self.cfg.image_size) // 2
        right = self.cfg.padded - self.cfg.image_size - left
        h = self.before(self.stem(F.pad(x, (left, right, left, right), value=-1.0)))
        found = []
        for group in reversed(self.levels):
            h = group.encoder(h)
            found.append(h)
        return found[::-1]

    def descend(self, n: int, chosen: Chosen, groups: int | None = None) -> Tensor:
        """The decoder's features of n images behind the first `groups`, or all of them, with latents as `chosen`."""
        s = self.start.expand(n, -1, -1, -1)
        for number, group in enumerate(self.levels[:groups]):
            s = group.decoder(s)
            z = chosen(number, s, group.prior_of(s, self.cfg.latent))
            s = group.join(torch.cat([s, z.to(s.dtype)], dim=1))
        return s

    def say(self, s: Tensor) -> LogisticMixture:
        """p(x | z), of the decoder's features behind the last group."""
        said, size = self.out(self.after(s)), self.cfg.image_size
        edge = (self.cfg.padded - size) // 2
        return LogisticMixture(said[:, :, edge : edge + size, edge : edge + size], self.cfg.in_channels)


@dataclass
class NVAE(Generator):
    """Its latent is all that is drawn on the coarsest scale, z_1, z_2, ...: few numbers that the whole image hangs on,
    and a small part of the network. What is drawn on finer scales is the image's own noise, from its seed.

    Latents are normalised by the mean and the deviation of drawn ones.
    """

    FILE = NVAEFile
    net: NVAENetwork
    temperature: float = 1.0
    """Factor on the deviation of every drawn latent, for which the statistics of batch norms are."""

    @property
    def latent_size(self) -> int:
        return len(self.net.latent_mean)

    @property
    def noise_size(self) -> int:
        """Numbers in what is drawn on finer scales."""
        return sum(map(math.prod, self.net.cfg.shapes)) - self.latent_size

    @property
    def coarse(self) -> int:
        """Groups on the coarsest scale, the first ones, whose latents are the image's."""
        return self.net.cfg.groups[0]

    def _cut(self, numbers: Tensor, groups: int | None = None) -> list[Tensor]:
        """(N, numbers of the first groups, or of all) -> (N, C, H, W) of each."""
        shapes = self.net.cfg.shapes[:groups]
        parts = numbers.split([math.prod(shape) for shape in shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def evaluations(self, cfg: Sampling) -> int:
        """One, whatever the steps."""
        return 1

    def encoded(self, x0: Tensor) -> Tensor:
        """Of one sample of each image's posterior, whose noise is a function of the image's pixels.

        The posterior's mean would not do: it tells classes apart by differences far below the noise of drawn latents,
        of which a judge that has learned of means says nothing (docs/guidance.md).
        """
        seeds = [seed_of(image.tobytes()) for image in to_uint8(x0, self.name)]
        noise = self._cut(ImageNoise(seeds, (self.latent_size,), self.device).draw(), self.coarse)
        seen, found = self.net.look(x0), list[Tensor]()

        def chosen(number: int, s: Tensor, prior: Normal) -> Tensor:
            group = self.net.levels[number]
            posterior = group.posterior_of(seen[number], s, prior)
            found.append(group.flows(posterior.mu + posterior.sigma * noise[number]))
            return found[-1]

        self.net.descend(len(x0), chosen, self.coarse)
        return (torch.cat([z.flatten(1) for z in found], dim=1) - self.net.latent_mean) / self.net.latent_std

    @torch.no_grad()
    def latents(self, seeds: Sequence[int], steps: int) -> Tensor:
        """In one pass, whatever the steps."""
        noise = ImageNoise([latent_seed(seed) for seed in seeds], (self.latent_size,), self.device).draw()
        return (in_rows(self.drawn, noise) - self.net.latent_mean) / self.net.latent_std

    def drawn(self, noise: Tensor) -> Tensor:
        """Standard normal numbers (N, latent_size) -> latents, not normalised."""
        parts, found = self._cut(noise, self.coarse), list[Tensor]()

        def chosen(number: int, s: Tensor, prior: Normal) -> Tensor:
            found.append(prior.mu + self.temperature * prior.sigma * parts[number])
            return found[-1]

        self.net.descend(len(noise), chosen, self.coarse)
        return torch.cat([z.flatten(1) for z in found], dim=1)

    @torch.no_grad()
    def images(self, latents: Tensor, seeds: Sequence[int], cfg: Sampling) -> np.ndarray:
        """The mean of what is said of each pixel, in one pass; cfg counts for nothing."""
        z = latents.to(self.device) * self.net.latent_std + self.net.latent_mean
        noise = ImageNoise(seeds, (self.noise_size,), self.device).draw()
        return to_uint8(in_rows(self.decoded, z, noise), self.name)

    def decoded(self, z: Tensor, noise: Tensor) -> Tensor:
        """Latents that are not normalised, and noise of the finer scales -> images (N, C, H, W) in [-1, 1]."""
        parts = self._cut(torch.cat([z, noise], dim=1))

        def chosen(number: int, s: Tensor, prior: Normal) -> Tensor:
            if number < self.coarse:
                return parts[number]
            return prior.mu + self.temperature * prior.sigma * parts[number]

        return self.net.say(self.net.descend(len(z), chosen)).mean()

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write weights, in `dtype`, and metadata to `path`, whole or not at all. Statistics stay in float32."""
        content = NVAEFile(network=self.net.cfg, temperature=self.temperature, provenance=self.provenance)
        weights = {name: t.to(dtype) for name, t in self.net.named_parameters()}
        save(path, content, weights | dict(self.net.named_buffers()))

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Self:
        content, net = load(path, NVAEFile, lambda content: NVAENetwork(content.network), device)
        return cls(net, content.temperature, provenance=content.provenance, path=path)
