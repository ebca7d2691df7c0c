"""Train a DiffAE from scratch, without labels: encoder and U-Net together, then what draws latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import EvenSampling, PretrainDiffAE
from ddrep.cost import DENOISER, ENCODER, TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, to_unit
from ddrep.denoiser.schedule import Schedule
from ddrep.generators.diffae import LATENT_SCHEDULE, DiffAE, DiffAENetwork
from ddrep.generators.network import diffae_of
from ddrep.training.latents import learn_eps, normalise, train_latents
from ddrep.training.pretrain import GRID_IMAGES, GRID_STEPS

LATENT_STEPS = 200
"""Of the latent DDIM, for the grid."""


def train_autoencoder(images: np.ndarray, model: DiffAE, cfg: PretrainDiffAE, *, seed: int, state: Path | None) -> None:
    """eps is learned of x_t, t and the encoder's latent of x0, all at once (Preechakul et al. 2022, eq. 6)."""
    unet, encoder = model.net.unet, model.net.encoder

    def x0_at(step: int) -> Tensor:
        return to_unit(images[batch_indices(len(images), cfg.batch, step, seed)], model.device)

    def eps(x: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        return unet.eps(x, t, encoder(x0))

    net = nn.ModuleDict({"unet": unet, "encoder": encoder})
    learn_eps(net, eps, x0_at, model.schedule, cfg, loss=F.mse_loss, seed=seed, state=state)


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
    # eq. 9
    train_latents(latents, net.latent_net, LATENT_SCHEDULE, cfg, loss=F.l1_loss, seed=seed, state=states[1])
    net.eval().requires_grad_(False)
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
