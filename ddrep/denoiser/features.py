"""The denoiser as a feature extractor: what the rejection classifier is trained on, and what it judges by.

One function serves both; the published code normalises features for training and forgets to for sampling.
Sources: paper, 4.2 and 5.3.1; Baranchuk et al. 2022 for noising the image first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.config import Features
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import add_noise


def bottleneck_features(denoiser: Denoiser, x0: Tensor, cfg: Features) -> Tensor:
    """Clean images (N, C, H, W) in [-1, 1] -> (N, channels * timesteps, h, w), each timestep at unit RMS an image.

    Runs the encoder and the middle block alone: 0.3 of a forward pass.
    """
    return torch.cat([_at(denoiser, x0, t, cfg) for t in cfg.timesteps], dim=1)


def _at(denoiser: Denoiser, x0: Tensor, t: float, cfg: Features) -> Tensor:
    index = torch.full((len(x0),), denoiser.schedule.index(t), device=x0.device)
    x = x0
    if cfg.noise == "fixed":
        # One noise for all images and all time: features of an image must not depend on its neighbours in the batch.
        noise = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(0)).to(x0)
        x = add_noise(x0, noise[None], denoiser.schedule.abar_at(index, x0))
    net = denoiser.net
    y = torch.full_like(index, denoiser.null_row) if net.cfg.num_classes else None
    h, _ = net.encode(x, net.embed(denoiser.schedule.embedded(index).to(x.dtype), y))
    if cfg.pool:
        h = F.adaptive_avg_pool2d(h, cfg.pool)
    return h / h.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
