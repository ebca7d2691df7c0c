"""The denoiser as a feature extractor: what heads are trained on, and what they judge and guide by.

One function serves training and use; the published code normalises features for training and forgets to for sampling.
Gradients run through it, for guidance.
Sources: paper, 4.1, 4.2 and 5; Baranchuk et al. 2022 for noising the image first and for per-pixel features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.config import Features, ProbeReading, Taps
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.network import MIDDLE
from ddrep.denoiser.schedule import add_noise
from ddrep.errors import UserError

CLEAN = 1.001
"""Largest absolute value of a clean image, and a little for rounding."""


def bottleneck_features(denoiser: Denoiser, x0: Tensor, cfg: Features) -> Tensor:
    """Clean images (N, C, H, W) in [-1, 1] -> (N, channels * timesteps, h, w), each timestep at unit RMS an image.

    Runs the encoder and the middle block alone: 0.3 of a forward pass. Raises UserError for other shapes and ranges.
    """
    check_clean(denoiser, x0)
    maps = feature_maps(denoiser, x0, Taps(blocks=(MIDDLE,), timesteps=cfg.timesteps, noise=cfg.noise))
    pooled = [F.adaptive_avg_pool2d(h, cfg.pool) for h in maps] if cfg.pool else maps
    return torch.cat([_unit(h) for h in pooled], dim=1)


def check_clean(denoiser: Denoiser, x0: Tensor) -> None:
    """Raise UserError unless all values are in [-1, 1]."""
    if len(x0) and not x0.abs().max() <= CLEAN:
        low, high = (f"{v:g}" for v in (x0.min(), x0.max()))
        raise UserError(
            f"{denoiser.name}: images are in [{low}, {high}], expected clean ones in [-1, 1], "
            "as ddrep.to_unit makes of uint8"
        )


def pooled_features(denoiser: Denoiser, x0: Tensor, taps: Taps) -> Tensor:
    """All taps at the width of the smallest, by average pooling: (N, channels, h, w). For what an image shows."""
    maps = feature_maps(denoiser, x0, taps)
    height, width = (min(h.shape[side] for h in maps) for side in (-2, -1))
    return torch.cat([_unit(F.adaptive_avg_pool2d(h, (height, width))) for h in maps], dim=1)


def pixel_features(denoiser: Denoiser, x0: Tensor, taps: Taps) -> Tensor:
    """All taps at the image's size, by nearest neighbour: (N, channels, H, W). For what a pixel shows (paper, 5.2)."""
    maps = feature_maps(denoiser, x0, taps)
    return torch.cat([F.interpolate(_unit(h), size=x0.shape[-2:], mode="nearest") for h in maps], dim=1)


def probe_features(denoiser: Denoiser, x0: Tensor, reading: ProbeReading) -> Tensor:
    """What probes read of images (N, C, H, W) in [-1, 1]: their taps' features side by side, (N, features)."""
    return torch.cat(tap_features(denoiser, x0, reading), dim=1)


def tap_features(denoiser: Denoiser, x0: Tensor, reading: ProbeReading) -> list[Tensor]:
    """Of each tap pool x pool averages of its block's channels, (N, channels pool pool), in the mean over fixed noises:
    the denoiser sees the image noised to the tap's timestep (DDAE, Xiang et al. 2023).

    Each timestep is one pass a noise. Raises UserError for other shapes, and for blocks that the network has not.
    """
    denoiser.check(x0)
    found: dict[tuple[str, float], Tensor] = {}
    for t in reading.timesteps:
        blocks = [tap.block for tap in reading.taps if tap.timestep == t]
        numbers = denoiser.net.cfg.block_numbers(tuple(blocks))
        for seed in range(reading.noises):
            for block, h in zip(blocks, _at(denoiser, x0, t, _noise(x0, seed), numbers), strict=True):
                pooled = F.adaptive_avg_pool2d(h, min(reading.pool, h.shape[-1])).flatten(1) / reading.noises
                found[block, t] = found[block, t] + pooled if seed else pooled
    return [found[tap.block, tap.timestep] for tap in reading.taps]


def feature_maps(denoiser: Denoiser, x0: Tensor, taps: Taps) -> list[Tensor]:
    """Images (N, C, H, W) in [-1, 1], or estimates of them, which may leave that range, -> the tapped blocks' outputs
    as they are, by timestep, then by block.

    The decoder runs as far as the last tapped block. Raises UserError for a block that the network has not, and for
    images of another shape.
    """
    denoiser.check(x0)
    numbers = denoiser.net.cfg.block_numbers(taps.blocks)
    noise = _noise(x0, 0) if taps.noise == "fixed" else None
    return [h for t in taps.timesteps for h in _at(denoiser, x0, t, noise, numbers)]


def _noise(x0: Tensor, seed: int) -> Tensor:
    """One noise for all images and all time: features of an image must not depend on its neighbours in the batch."""
    return torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x0)[None]


def _at(denoiser: Denoiser, x0: Tensor, t: float, noise: Tensor | None, numbers: list[int | None]) -> list[Tensor]:
    index = torch.full((len(x0),), denoiser.schedule.index(t), device=x0.device)
    x = x0 if noise is None else add_noise(x0, noise, denoiser.schedule.abar_at(index, x0))
    net = denoiser.net
    y = torch.full_like(index, denoiser.null_row) if net.cfg.num_classes else None
    emb = net.embed(denoiser.schedule.embedded(index).to(x.dtype), y)
    h, skips = net.encode(x, emb)
    wanted = [i for i in numbers if i is not None]
    tapped = net.decode(h, skips, emb, wanted, stop=max(wanted))[1] if wanted else {}
    return [h if i is None else tapped[i] for i in numbers]


def _unit(h: Tensor) -> Tensor:
    """At unit root mean square an image."""
    return h / h.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
