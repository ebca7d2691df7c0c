"""D2C: a variational autoencoder with a map of latents, and a diffusion model of these (Sinha, Song, Meng & Ermon,
"D2C: Diffusion-Decoding Models for Few-Shot Conditional Generation", NeurIPS 2021).

A U-Net denoises latents by DDIM, and the decoder makes images of them in one pass. Written after the paper; the
autoencoder, which there is an NVAE's, is a plain convolutional one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Sampling
from ddrep.data.batches import to_uint8
from ddrep.denoiser.unet import UNet
from ddrep.errors import UserError
from ddrep.generators.base import Diffused, drawn
from ddrep.generators.network import AUTOENCODER_GROUPS, D2CConfig, D2CFile
from ddrep.sampling.rows import in_rows

LOG_VARIANCE = -20.0, 10.0
"""Bounds of the posterior's, so that no training step overflows."""


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(AUTOENCODER_GROUPS, channels)


class ConvBlock(nn.Module):
    """x + two 3x3 convolutions of x, each behind a norm and SiLU; the second is zero at first."""

    def __init__(self, in_ch: int, out_ch: int):
        super().__init__()
        self.norm1, self.conv1 = norm(in_ch), nn.Conv2d(in_ch, out_ch, 3, padding=1)
        self.norm2, self.conv2 = norm(out_ch), nn.Conv2d(out_ch, out_ch, 3, padding=1)
        self.skip = nn.Identity() if in_ch == out_ch else nn.Conv2d(in_ch, out_ch, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


def _level(in_ch: int, out_ch: int, blocks: int) -> list[nn.Module]:
    return [ConvBlock(in_ch if i == 0 else out_ch, out_ch) for i in range(blocks)]


class Encoder(nn.Sequential):
    """q(z | x), a diagonal normal distribution of the map of latents."""

    def __init__(self, cfg: D2CConfig):
        widths = cfg.autoencoder_widths
        layers: list[nn.Module] = [nn.Conv2d(cfg.in_channels, widths[0], 3, padding=1)]
        for i, width in enumerate(widths):
            if i:
                layers.append(nn.Conv2d(widths[i - 1], widths[i - 1], 3, stride=2, padding=1))
            layers += _level(widths[max(0, i - 1)], width, cfg.autoencoder_blocks)
        last = nn.Conv2d(widths[-1], 2 * cfg.latent_shape[0], 3, padding=1)
        super().__init__(*layers, norm(widths[-1]), nn.SiLU(), last)

    def posterior(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [-1, 1] -> mean and logarithm of the variance, both (N, *latent_shape), float32."""
        mean, log_variance = self(x0).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)


class Decoder(nn.Sequential):
    """Mean of p(x | z), a normal distribution of images (N, C, H, W) around [-1, 1], of latents (N, *latent_shape)."""

    def __init__(self, cfg: D2CConfig):
        widths = cfg.autoencoder_widths[::-1]
        layers: list[nn.Module] = [nn.Conv2d(cfg.latent_shape[0], widths[0], 3, padding=1)]
        for i, width in enumerate(widths):
            if i:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(widths[i - 1], width, 3, padding=1)]
            layers += _level(width, width, cfg.autoencoder_blocks)
        super().__init__(*layers, norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], cfg.in_channels, 3, padding=1))


class D2CNetwork(nn.Module):
    """All that a D2C's file holds. Raises UserError for a configuration that makes no network."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, cfg: D2CConfig):
        super().__init__()
        if problems := list(cfg.problems()):
            raise UserError("network: " + "; ".join(problems))
        self.cfg = cfg
        self.encoder, self.decoder, self.unet = Encoder(cfg), Decoder(cfg), UNet(cfg.unet)
        channels = cfg.latent_shape[0]
        self.register_buffer("latent_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(channels, 1, 1))


@dataclass
class D2C(Diffused):
    """Latents are normalised by the mean and the deviation of each channel over those of the training images."""

    FILE, NETWORK = D2CFile, D2CNetwork
    net: D2CNetwork

    @property
    def latent_size(self) -> int:
        channels, height, width = self.net.cfg.latent_shape
        return channels * height * width

    def evaluations(self, cfg: Sampling) -> int:
        """Of the decoder, which makes an image in one pass; the steps of latents, kept or refused, are not in it."""
        return 1

    def encoded(self, x0: Tensor) -> Tensor:
        """Of the posterior's mean."""
        mean, _ = self.net.encoder.posterior(x0)
        return ((mean - self.net.latent_mean) / self.net.latent_std).flatten(1)

    def latents(self, seeds: Sequence[int], steps: int) -> Tensor:
        """By DDIM without noise, and without clipping."""
        return drawn(self.net.unet, self.schedule, self.net.cfg.latent_shape, seeds, steps, self.device).flatten(1)

    @torch.no_grad()
    def images(self, latents: Tensor, seeds: Sequence[int], cfg: Sampling) -> np.ndarray:
        """The decoder's mean, for which neither seeds nor solver count."""
        z = latents.to(self.device).unflatten(1, self.net.cfg.latent_shape)
        return to_uint8(in_rows(self.net.decoder, z * self.net.latent_std + self.net.latent_mean), self.name)
