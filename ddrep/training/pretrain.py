"""Train an unconditional denoiser from scratch, without labels."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddrep.config import Pretrain
from ddrep.data.batches import batch_indices, to_unit
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.loss import denoising_loss
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.device import autocast
from ddrep.training.loop import LoopConfig, cosine_with_warmup, train

log = logging.getLogger("ddrep")


def pretrain(images: np.ndarray, cfg: Pretrain, *, seed: int, device: torch.device, state: Path | None = None,
             on_step: Callable[[int, nn.Module], None] | None = None) -> Denoiser:
    """uint8 images (N, H, W[, C]) -> an unconditional Denoiser with EMA weights."""
    torch.manual_seed(seed)
    channels = 1 if images.ndim == 3 else images.shape[-1]
    network = UNetConfig(
        image_size=images.shape[1], in_channels=channels, out_channels=channels, **cfg.network.model_dump()
    )
    net = UNet(network).to(device)
    denoiser = Denoiser(net, Schedule(kind=cfg.schedule, num_steps=cfg.num_steps))
    optimizer = torch.optim.AdamW(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    def loss_at(step: int) -> Tensor:
        x0 = to_unit(images[batch_indices(len(images), cfg.batch, step, seed)], device)
        index = torch.randint(cfg.num_steps, (len(x0),), device=device)
        with autocast(cfg.precision, device):
            return denoising_loss(denoiser, x0, index, torch.randn_like(x0))

    loop = LoopConfig(steps=cfg.steps, seed=seed, ema_decay=cfg.ema_decay, clip=cfg.clip)
    started = time.monotonic()
    net = train(net, optimizer, loss_at, loop, state=state, on_step=on_step,
                lr_factor=lambda step: cosine_with_warmup(step, cfg.steps, cfg.warmup))
    log.info("pretrained in %.0f s", time.monotonic() - started)
    return Denoiser(net.eval().requires_grad_(False), denoiser.schedule)
