"""The latents of a generator that is trained: normalised, and then learned by what draws them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddrep.config.base import Precision
from ddrep.config.generators import LatentTraining, Pretrain
from ddrep.data.batches import batch_indices, parts, to_unit
from ddrep.denoiser.schedule import Schedule, add_noise
from ddrep.device import autocast
from ddrep.generators.base import Generator
from ddrep.graphs import captured
from ddrep.training.loop import PATIENCE, LoopConfig, cosine_with_warmup, train

log = logging.getLogger("ddrep")

READ_AT_ONCE = 250


@torch.no_grad()
def normalise(images: np.ndarray, model: Generator, shape: tuple[int, ...]) -> Tensor:
    """Latents (N, *shape) of all images, uint8 (N, H, W[, C]), normalised by mean and deviation of each channel (the
    first of shape), which become the model's: until then they are 0 and 1.

    A channel that is the same in all images says nothing, and is not divided by its deviation of 0.
    """
    x = (to_unit(images[part], model.device) for part in parts(len(images), READ_AT_ONCE))
    latents = torch.cat([model.encoded(each) for each in x]).unflatten(1, shape)
    others, buffer = [0, *range(2, latents.ndim)], model.net.latent_mean
    mean, deviation = (each.reshape(buffer.shape) for each in (latents.mean(dim=others), latents.std(dim=others)))
    model.net.latent_mean.copy_(mean)
    model.net.latent_std.copy_(deviation.where(deviation > 0, 1.0))
    log.info("latents: %d of %s numbers; what draws them is trained now", len(latents), " x ".join(map(str, shape)))
    return (latents - mean) / model.net.latent_std


class _Denoising(nn.Module):
    """(latents, index, noise) of a batch -> the error of eps."""

    def __init__(
        self, net: nn.Module, schedule: Schedule, loss: Callable[[Tensor, Tensor], Tensor], precision: Precision
    ):
        super().__init__()
        self.net, self.schedule, self.loss, self.precision = net, schedule, loss, precision

    def forward(self, z: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        noised = add_noise(z, noise, self.schedule.abar_at(index, z))
        with autocast(self.precision, z.device):
            eps = self.net(noised, self.schedule.embedded(index).to(z.dtype))
        return self.loss(eps.float(), noise)


def train_latents(
    latents: Tensor, net: nn.Module, schedule: Schedule, cfg: Pretrain, section: LatentTraining, *,
    loss: Callable[[Tensor, Tensor], Tensor], seed: int, state: Path | None,
) -> None:  # fmt: skip
    """`net` learns eps of noised normalised latents, as a denoiser does of images (Ho et al. 2020, eq. 14).

    loss: of eps as estimated and as drawn. state: file of the unfinished training.
    """
    optimizer = torch.optim.AdamW(net.parameters(), section.lr, weight_decay=section.weight_decay, fused=True)

    def batch_at(step: int) -> tuple[Tensor, Tensor, Tensor]:
        z = latents[batch_indices(len(latents), section.batch, step, seed)]
        return z, torch.randint(schedule.num_steps, (len(z),), device=z.device), torch.randn_like(z)

    forward = captured(_Denoising(net, schedule, loss, cfg.precision), *batch_at(0))

    def loss_at(step: int) -> Tensor:
        value: Tensor = forward(*batch_at(step))
        return value

    loop = LoopConfig(section.steps, seed, section.ema_decay, clip=cfg.clip or math.inf, patience=PATIENCE)
    factor = cosine_with_warmup(section.steps, cfg.warmup)
    trained = train(net.train(), optimizer, loss_at, loop, lr_factor=factor, state=state)
    net.load_state_dict(trained.state_dict())
    net.eval()
