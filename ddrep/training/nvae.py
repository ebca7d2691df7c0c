"""Train an NVAE from scratch, without labels, and settle the statistics of its batch norms for drawing."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import PretrainNVAE, Sampling
from ddrep.cost import DENOISER, ENCODER, TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, to_unit
from ddrep.device import autocast
from ddrep.generators.cells import Normal
from ddrep.generators.network import NVAEConfig, nvae_of
from ddrep.generators.nvae import NVAE, NVAENetwork
from ddrep.generators.settling import SETTLING, averaging, readjust
from ddrep.graphs import captured
from ddrep.training.loop import averaged
from ddrep.training.pretrain import GRID_IMAGES

log = logging.getLogger("ddrep")

LEAST_KL = 1e-4
"""Weight of the KL at the first step."""


class Spectral(nn.Module):
    """The largest singular value of each convolution, by power iteration (paper, eq. 3): a step of it each time, from
    where the last one ended."""

    def __init__(self, net: nn.Module):
        super().__init__()
        shapes: dict[torch.Size, list[Tensor]] = {}
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                shapes.setdefault(module.weight.flatten(1).shape, []).append(module.weight)
        self.weights = list(shapes.values())
        """Those of one shape together; no parameters of this module's, for they are the network's."""
        for i, each in enumerate(self.weights):
            self.register_buffer(f"left{i}", F.normalize(torch.randn(len(each), len(each[0])), dim=1))

    def forward(self) -> Tensor:
        """Their sum."""
        found = []
        for i, each in enumerate(self.weights):
            left: Tensor = getattr(self, f"left{i}")
            matrices = torch.stack([weight.flatten(1) for weight in each])
            with torch.no_grad():
                right = F.normalize(torch.einsum("nr,nrc->nc", left, matrices), dim=1)
                left.copy_(F.normalize(torch.einsum("nrc,nc->nr", matrices, right), dim=1))
            found.append(torch.einsum("nr,nrc,nc->", left, matrices, right))
        return torch.stack(found).sum()


def elbo(net: NVAENetwork, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Of images (N, C, H, W) in [-1, 1], in nats: log p(x | z) (N,), and the KL of each group (N, groups) (eq. 1)."""
    seen, kl = net.look(x0), list[Tensor]()

    def chosen(number: int, s: Tensor, prior: Normal) -> Tensor:
        posterior = net.levels[number].posterior_of(seen[number], s, prior)
        kl.append(posterior.kl_to(prior).sum(dim=(1, 2, 3)))
        return posterior.mu + posterior.sigma * torch.randn_like(posterior.mu)

    said = net.say(net.descend(len(x0), chosen))
    return said.log_prob(x0).sum(dim=(1, 2)), torch.stack(kl, dim=1)


def kl_weight(step: int, steps: int, share: float) -> float:
    """Rises to 1 in a share of the steps (appendix A, "warming up the KL term")."""
    return min(1.0, max(step / max(1.0, share * steps), LEAST_KL))


def balanced(kl: Tensor, sizes: Tensor, weight: Tensor) -> Tensor:
    """Weighted KL (N,) of those of groups (N, groups); while the weight () is below 1, groups with much of it pay more.

    Otherwise the easy groups would be used alone (appendix A, "balancing the KL terms"). sizes: of the groups, by which
    what they pay is divided.
    """
    much = (kl.detach().abs().mean(dim=0) + 0.01) / sizes
    return weight * (kl * torch.where(weight < 1, much / much.mean(), 1)).sum(dim=1)


def sizes_of(cfg: NVAEConfig) -> Tensor:
    """Pixels of each group's scale, a group of it, relative to the least."""
    shapes = cfg.shapes
    found = torch.tensor([math.prod(shape[1:]) / shapes.count(shape) for shape in shapes])
    return found / found.min()


class _Loss(nn.Module):
    """(x0, weight of the KL) of a batch -> the negative ELBO in bits a number, with what keeps the network smooth."""

    def __init__(self, net: NVAENetwork, cfg: PretrainNVAE):
        super().__init__()
        self.nvae, self.spectral, self.cfg = net, Spectral(net), cfg
        self.register_buffer("sizes", sizes_of(net.cfg), persistent=False)
        self.scales: list[Tensor] = [norm.weight for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)]

    def forward(self, x0: Tensor, weight: Tensor) -> Tensor:
        with autocast(self.cfg.precision, x0.device):
            log_p, kl = elbo(self.nvae, x0)
        smooth = self.spectral() + torch.stack(torch._foreach_norm(self.scales, math.inf)).sum()
        paid: Tensor = balanced(kl, self.sizes, weight) - log_p  # type: ignore[arg-type]
        return (paid.mean() + self.cfg.spectral * smooth) / (math.log(2) * x0[0].numel())


def fit(images: np.ndarray, model: NVAE, cfg: PretrainNVAE, *, seed: int, state: Path | None) -> None:
    """The ELBO is raised, in bits a number; the weights become the average of those on the way."""
    net = _Loss(model.net, cfg).to(model.device).train()
    if model.device.type == "cpu":  # depthwise convolutions take half the time
        net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adamax(model.net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, foreach=True)

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        x0 = to_unit(images[batch_indices(len(images), cfg.batch, step, seed)], model.device)
        return x0, torch.tensor(kl_weight(step, cfg.steps, cfg.kl_warmup), device=x0.device)

    forward = captured(net, *batch_at(0))
    # statistics that a step without a finite loss has spoiled are settled at the end
    trained = averaged(net, optimizer, lambda step: forward(*batch_at(step)), cfg, seed=seed, state=state)
    model.net.load_state_dict(trained.nvae.state_dict())
    model.net.eval()


@torch.no_grad()
def settle(images: np.ndarray, model: NVAE, batch: int, *, seed: int) -> None:
    """Statistics of all batch norms, of the training images and for the weights as they are; then the decoder's of
    drawn images."""
    torch.manual_seed(seed)
    with averaging([model.net]):
        for step in range(SETTLING):
            elbo(model.net, to_unit(images[batch_indices(len(images), batch, step, seed)], model.device))
    readjust(model, batch)


def pretrain(
    images: np.ndarray, cfg: PretrainNVAE, *, seed: int, device: torch.device, states: Sequence[Path | None] = (None,)
) -> NVAE:
    """uint8 images (N, H, W[, C]) -> an NVAE with EMA weights. states: of them the file of the unfinished training."""
    torch.manual_seed(seed)
    net = NVAENetwork(nvae_of(cfg.network, images.shape[1], 1 if images.ndim == 3 else images.shape[-1]))
    model = NVAE(net.to(device), cfg.temperature)
    fit(images, model, cfg, seed=seed, state=states[0])
    settle(images, model, cfg.batch, seed=seed)
    net.requires_grad_(False)
    return model


def samples(model: NVAE, seeds: Sequence[int]) -> np.ndarray:
    """An image a seed, uint8 (N, H, W, C)."""
    return model.images(model.latents(seeds, 1), seeds, Sampling())


@costs("pretrain-nvae")
def cost(job: Job) -> Cost:
    """Training and the grid, as through the denoiser and its encoder, which are taken to be as large."""
    cfg = job.config(PretrainNVAE)
    seen = cfg.steps * cfg.batch
    return Cost(Passes({DENOISER + TRAINING: seen, ENCODER + TRAINING: seen, DENOISER: GRID_IMAGES}))
