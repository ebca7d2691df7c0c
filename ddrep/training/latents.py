"""The latents of a generator that is trained: normalised, and then learned by what draws them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddrep.config import Pretrain, PretrainD2C, PretrainDiffAE
from ddrep.config.base import Precision
from ddrep.data.batches import batch_indices, parts, to_unit
from ddrep.denoiser.schedule import Schedule, add_noise
from ddrep.device import autocast
from ddrep.generators.base import Generator
from ddrep.graphs import captured
from ddrep.training.loop import averaged

log = logging.getLogger("ddrep")

READ_AT_ONCE = 250
Eps = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t, times (N,) in embedded units, x0) -> the estimated noise of x_t."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""Of eps as estimated and as drawn."""


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
    """(x0, index, noise) of a batch -> the error of eps."""

    def __init__(self, net: nn.Module, eps: Eps, schedule: Schedule, loss: Loss, precision: Precision):
        super().__init__()
        self.net, self.eps, self.schedule, self.loss, self.precision = net, eps, schedule, loss, precision

    def forward(self, x0: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        x = add_noise(x0, noise, self.schedule.abar_at(index, x0))
        with autocast(self.precision, x0.device):
            eps = self.eps(x, self.schedule.embedded(index).to(x.dtype), x0)
        return self.loss(eps.float(), noise)


def learn_eps(
    net: nn.Module, eps: Eps, x0_at: Callable[[int], Tensor], schedule: Schedule, cfg: Pretrain, *, loss: Loss,
    seed: int, state: Path | None,
) -> None:  # fmt: skip
    """`net`, by which `eps` is estimated, learns it of the noised x0 of each step, as a denoiser does of images (Ho et
    al. 2020, eq. 14). state: file of the unfinished training."""
    optimizer = torch.optim.AdamW(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    def batch_at(step: int) -> tuple[Tensor, Tensor, Tensor]:
        x0 = x0_at(step)
        return x0, torch.randint(schedule.num_steps, (len(x0),), device=x0.device), torch.randn_like(x0)

    forward = captured(_Denoising(net, eps, schedule, loss, cfg.precision), *batch_at(0))
    trained = averaged(net, optimizer, lambda step: forward(*batch_at(step)), cfg, seed=seed, state=state)
    net.load_state_dict(trained.state_dict())
    net.eval()


def train_latents(
    latents: Tensor, net: nn.Module, schedule: Schedule, cfg: PretrainDiffAE | PretrainD2C, *, loss: Loss, seed: int,
    state: Path | None,
) -> None:  # fmt: skip
    """`net` learns eps of noised normalised latents (N, ...) and times in embedded units, as `cfg.latents` says."""
    section = cfg.model_copy(update=dict(cfg.latents))

    def latents_at(step: int) -> Tensor:
        return latents[batch_indices(len(latents), section.batch, step, seed)]

    learn_eps(net, lambda z, t, _: net(z, t), latents_at, schedule, section, loss=loss, seed=seed, state=state)
