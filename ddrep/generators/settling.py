"""Statistics of an NVAE's batch norms and latents, settled once its weights are what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ddrep.generators.nvae import NVAE

SETTLING = 50
"""Batches by which statistics of batch norms are settled."""
DRAWN = 2000
"""Latents by which their mean and deviation are."""


@contextmanager
def averaging(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norms of these parts forget their statistics, and have the average of the batches seen here."""
    norms = [norm for part in parts for norm in part.modules() if isinstance(norm, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def readjust(model: NVAE, batch: int, batches: int = SETTLING) -> None:
    """Of the decoder, and of latents, by drawing at the model's temperature: at a low one, what the decoder sees has
    other statistics than in training (published code: --readjust_bn). Noise comes from torch's global generator."""
    net = model.net
    with averaging([net.after, *(group.decoder for group in net.levels)]):
        for _ in range(batches):
            z, noise = (torch.randn(batch, size, device=model.device) for size in (model.latent_size, model.noise_size))
            model.decoded(model.drawn(z), noise)
    model.net.latent_mean.zero_()
    model.net.latent_std.fill_(1)
    latents = model.latents(range(DRAWN), 1)
    model.net.latent_mean.copy_(latents.mean(dim=0))
    deviation = latents.std(dim=0)
    model.net.latent_std.copy_(deviation.where(deviation > 0, 1.0))
