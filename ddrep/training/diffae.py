"""Train a DiffAE from scratch, without labels: encoder and U-Net together, then what draws latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import EvenSampling, PretrainDiffAE
from ddrep.cost import DENOISER, ENCODER, TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, to_unit
from ddrep.denoiser.schedule import Schedule, add_noise
from ddrep.device import autocast
from ddrep.generators.diffae import LATENT_SCHEDULE, DiffAE, DiffAENetwork
from ddrep.generators.network import diffae_of
from ddrep.graphs import captured
from ddrep.training.latents import normalise, train_latents
from ddrep.training.loop import PATIENCE, LoopConfig, cosine_with_warmup, train
from ddrep.training.pretrain import GRID_IMAGES, GRID_STEPS

LATENT_STEPS = 200
"""Of the latent DDIM, for the grid."""


class _Loss(nn.Module):
    """(x0, index, noise) of a batch -> the mean square error of eps."""

    def __init__(self, model: DiffAE, precision: str):
        super().__init__()
        self.unet, self.encoder = model.net.unet, model.net.encoder
        self.schedule, self.precision = model.schedule, precision

    def forward(self, x0: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        x = add_noise(x0, noise, self.schedule.abar_at(index, x0))
        with autocast(self.precision, x0.device):
            eps = self.unet.eps(x, self.schedule.embedded(index).to(x.dtype), self.encoder(x0))
        return F.mse_loss(eps.float(), noise)


def train_autoencoder(images: np.ndarray, model: DiffAE, cfg: PretrainDiffAE, *, seed: int, state: Path | None) -> None:
    """eps is learned of x_t, t and the encoder's latent of x0, all at once (Preechakul et al. 2022, eq. 6)."""
    net = nn.ModuleDict({"unet": model.net.unet, "encoder": model.net.encoder})
    optimizer = torch.optim.AdamW(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    def batch_at(step: int) -> tuple[Tensor, Tensor, Tensor]:
        x0 = to_unit(images[batch_indices(len(images), cfg.batch, step, seed)], model.device)
        index = torch.randint(cfg.num_steps, (len(x0),), device=model.device)
        return x0, index, torch.randn_like(x0)

    loss = captured(_Loss(model, cfg.precision), *batch_at(0))

    def loss_at(step: int) -> Tensor:
        value: Tensor = loss(*batch_at(step))
        return value

    loop = LoopConfig(cfg.steps, seed, cfg.ema_decay, clip=cfg.clip or math.inf, patience=PATIENCE)
    factor = cosine_with_warmup(cfg.steps, cfg.warmup)
    trained = train(net.train(), optimizer, loss_at, loop, lr_factor=factor, state=state)
    model.net.unet.load_state_dict(trained["unet"].state_dict())
    model.net.encoder.load_state_dict(trained["encoder"].state_dict())
    model.net.eval()


def pretrain(
    images: np.ndarray, cfg: PretrainDiffAE, *, seed: int, device: torch.device,
    states: Sequence[Path | None] = (None, None),
) -> DiffAE:  # fmt: skip
    """uint8 images (N, H, W[, C]) -> a DiffAE with EMA weights. states: files of the two unfinished trainings."""
    torch.manual_seed(seed)
    net = DiffAENetwork(diffae_of(cfg.network, images.shape[1], 1 if images.ndim == 3 else images.shape[-1]))
    model = DiffAE(net.to(device), Schedule(kind=cfg.schedule, num_steps=cfg.num_steps))
    train_autoencoder(images, model, cfg, seed=seed, state=states[0])
    latents = normalise(images, model, (model.latent_size,))
    own = net.latent_net, LATENT_SCHEDULE
    train_latents(latents, *own, cfg, cfg.latents, loss=F.l1_loss, seed=seed, state=states[1])  # eq. 9
    net.requires_grad_(False)
    return model


def samples(model: DiffAE, seeds: Sequence[int]) -> np.ndarray:
    """An image a seed, uint8 (N, H, W, C), by DDIM in at most 20 steps of images and 200 of latents."""
    cfg = EvenSampling(solver="ddim", steps=min(GRID_STEPS, model.schedule.num_steps), eta=0)
    return model.images(model.latents(seeds, LATENT_STEPS), seeds, cfg)


@costs("pretrain-diffae")
def cost(job: Job) -> Cost:
    """Training and the grid, as through the denoiser and its encoder, which are taken to be as large."""
    cfg = job.config(PretrainDiffAE)
    seen = cfg.steps * cfg.batch
    return Cost(Passes({DENOISER + TRAINING: seen, ENCODER + TRAINING: seen, DENOISER: GRID_IMAGES * GRID_STEPS}))
