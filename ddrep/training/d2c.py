"""Train a D2C from scratch, without labels: encoder and decoder together, then the U-Net that draws latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import PretrainD2C, Sampling
from ddrep.cost import DENOISER, ENCODER, TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, to_unit
from ddrep.denoiser.schedule import Schedule
from ddrep.device import autocast
from ddrep.generators.d2c import D2C, D2CNetwork
from ddrep.generators.network import d2c_of
from ddrep.graphs import captured
from ddrep.training.contrast import Keys, Projected, info_nce, view
from ddrep.training.latents import normalise, train_latents
from ddrep.training.loop import averaged
from ddrep.training.pretrain import GRID_IMAGES

LATENT_STEPS = 50
"""Of DDIM, for the grid."""


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of diagonal normal distributions (N, ...) from the standard one, (N,) in nats (Kingma & Welling 2014, B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1)


def objective(x0: Tensor, mean_x: Tensor, mean: Tensor, log_variance: Tensor, kl_weight: float) -> Tensor:
    """What an autoencoder minimises of images (N, C, H, W), a pixel value: half of the squared error, which is
    -log p(x | z) of a unit variance but for a constant, and kl_weight times the latents' divergence.

    With kl_weight = s^2 it is s^2 times the negative evidence lower bound of a decoder whose variance is s^2.
    """
    error = 0.5 * (x0 - mean_x.float()).square().flatten(1).sum(dim=1)
    return (error + kl_weight * divergence(mean, log_variance)).mean() / x0[0].numel()


class _Autoencoding(nn.Module):
    """(x0, two views of it, noise of its latents, queue) of a batch -> the loss, and the second view's keys."""

    def __init__(self, model: D2C, projected: Projected, keys: Keys, cfg: PretrainD2C):
        super().__init__()
        self.encoder, self.decoder = model.net.encoder, model.net.decoder
        self.projected, self.keys, self.cfg = projected, keys, cfg

    def forward(self, x0: Tensor, one: Tensor, other: Tensor, noise: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(self.cfg.precision, x0.device):
            means, log_variances = self.encoder.posterior(torch.cat([x0, one]))  # in one pass
            mean, log_variance = means[: len(x0)], log_variances[: len(x0)]
            mean_x = self.decoder(mean + (0.5 * log_variance).exp() * noise)
            queries, told = self.projected(means[len(x0) :]), self.keys(other)
        section, loss = self.cfg.contrast, objective(x0, mean_x, mean, log_variance, self.cfg.kl_weight)
        return loss + section.weight * info_nce(queries, told, queue, section.temperature), told


def train_autoencoder(images: np.ndarray, model: D2C, cfg: PretrainD2C, *, seed: int, state: Path | None) -> None:
    """Reconstruction, divergence and contrast at once: L_D2 + lambda L_C (Sinha et al. 2021), of which the diffusion
    of latents comes later, as in the published code."""
    encoder, decoder = model.net.encoder, model.net.decoder
    projected = Projected(model.latent_size, cfg.contrast.width).to(model.device)
    keys = Keys(encoder, projected, cfg.contrast).to(model.device)
    net = nn.ModuleDict({"encoder": encoder, "decoder": decoder, "projected": projected, "momentum": keys})
    learning = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    def batch_at(step: int) -> tuple[Tensor, ...]:
        x0 = to_unit(images[batch_indices(len(images), cfg.batch, step, seed)], model.device)
        noise = torch.randn(len(x0), *model.net.cfg.latent_shape, device=model.device)
        return x0, view(x0), view(x0), noise, keys.queue.clone()  # which changes before the gradient is taken

    forward = captured(_Autoencoding(model, projected, keys, cfg), *batch_at(0))

    def loss_at(step: int) -> Tensor:
        keys.follow(encoder, projected)
        loss: Tensor
        loss, told = forward(*batch_at(step))
        keys.enqueue(told, step)
        return loss

    net.load_state_dict(averaged(net, optimizer, loss_at, cfg, seed=seed, state=state).state_dict())
    model.net.eval()


def pretrain(
    images: np.ndarray, cfg: PretrainD2C, *, seed: int, device: torch.device,
    states: Sequence[Path | None] = (None, None),
) -> D2C:  # fmt: skip
    """uint8 images (N, H, W[, C]) -> a D2C with EMA weights. states: files of the two unfinished trainings."""
    torch.manual_seed(seed)
    net = D2CNetwork(d2c_of(cfg.network, images.shape[1], 1 if images.ndim == 3 else images.shape[-1]))
    model = D2C(net.to(device), Schedule(kind=cfg.schedule, num_steps=cfg.num_steps))
    train_autoencoder(images, model, cfg, seed=seed, state=states[0])
    latents = normalise(images, model, net.cfg.latent_shape)
    train_latents(latents, net.unet, model.schedule, cfg, loss=F.mse_loss, seed=seed, state=states[1])
    net.requires_grad_(False)
    return model


def samples(model: D2C, seeds: Sequence[int]) -> np.ndarray:
    """An image a seed, uint8 (N, H, W, C), of latents by DDIM in at most 50 steps."""
    steps = min(LATENT_STEPS, model.schedule.num_steps)
    return model.images(model.latents(seeds, steps), seeds, Sampling(solver="ddim", steps=max(2, steps), eta=0))


@costs("pretrain-d2c")
def cost(job: Job) -> Cost:
    """Of images as through encoder and decoder of the denoiser, of latents as through its encoder, which are taken to
    be as large: each image is seen twice, and once more for its key."""
    cfg = job.config(PretrainD2C)
    seen, latents = cfg.steps * cfg.batch, cfg.latents.steps * cfg.latents.batch
    trained = {DENOISER + TRAINING: seen, ENCODER + TRAINING: seen + latents}
    return Cost(Passes(trained | {ENCODER: seen, DENOISER: GRID_IMAGES}))
