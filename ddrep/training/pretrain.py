"""Train an unconditional denoiser from scratch, without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddrep.config import Pretrain, Sampling, Stage, UnlabelledImages
from ddrep.cost import DENOISER, TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, to_unit
from ddrep.data.digest import unchanged
from ddrep.data.disjoint import apart
from ddrep.data.idx import read_images
from ddrep.data.readers import labelled
from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.network import network_of
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, bytes_of
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import sha256, state_path
from ddrep.grids import save_grid
from ddrep.sampling.sampler import image_seed, sample
from ddrep.solvers import most_steps
from ddrep.training.loop import averaged
from ddrep.training.objective import loss_in_parts

GRID_IMAGES, GRID_STEPS = 64, 20
"""Samples in the grid, and solver steps at most."""


def pretrain(
    images: np.ndarray, cfg: Pretrain, *, seed: int, device: torch.device, state: Path | None = None
) -> Denoiser:
    """uint8 images (N, H, W[, C]) -> an unconditional Denoiser with EMA weights."""
    torch.manual_seed(seed)
    channels = 1 if images.ndim == 3 else images.shape[-1]
    net = UNet(network_of(cfg.network, images.shape[1], channels)).to(device)
    denoiser = Denoiser(net, Schedule(kind=cfg.schedule, num_steps=cfg.num_steps))
    optimizer = torch.optim.AdamW(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    losses = loss_in_parts(denoiser, cfg)

    def loss_at(step: int) -> Iterable[Tensor]:
        x0 = to_unit(images[batch_indices(len(images), cfg.batch, step, seed)], device)
        index = torch.randint(cfg.num_steps, (len(x0),), device=device)
        return losses(x0, index, torch.randn_like(x0))

    trained = averaged(net, optimizer, loss_at, cfg, seed=seed, state=state)
    return Denoiser(trained.eval().requires_grad_(False), denoiser.schedule)


def run(stage: Stage[Pretrain], *, apart_from: Sequence[Path] = (), out: Path, grid: Path | None) -> None:
    """Train on the images that the section names; write the denoiser and, if asked, a grid of samples.

    apart_from: shards of held-out images, whose pixels are left out of a data set's.
    """
    cfg = stage.config
    with unchanged(stage):
        images, digest = unlabelled_images(cfg, stage.seed, apart_from)
    # by what files hold: copies of them go on with the same training
    state = state_path("pretrain", stage.model_dump_json(exclude={"files"}), digest)
    denoiser = pretrain(images, cfg, seed=stage.seed, device=pick_device(), state=state)
    denoiser.provenance = provenance_of("pretrain", cfg, stage.seed, len(images), digest)
    if grid:
        seeds = [image_seed(stage.seed, 0, 0, attempt) for attempt in range(GRID_IMAGES)]
        sampling = Sampling(steps=min(GRID_STEPS, most_steps(denoiser.schedule, "dpm-solver++")), eta=1)
        save_grid(sample(denoiser, seeds, sampling), 8, grid)
    denoiser.save(out)
    state.unlink(missing_ok=True)


def provenance_of(verb: str, cfg: UnlabelledImages, seed: int, images: int, digest: str) -> dict[str, Any]:
    """What a file says of its training by a verb, on so many images of this digest."""
    section = cfg.model_dump(mode="json") | ({"images": cfg.images.name} if cfg.images else {})
    if cfg.data:  # a file that travels names no folder of this machine
        section["data"] = {"kind": cfg.data.kind, "images": images}
    return {"command": f"ddrep {verb}", "seed": seed, "section": section, "images_sha256": digest}


def unlabelled_images(
    cfg: UnlabelledImages, seed: int, apart_from: Sequence[Path], key: str = "denoiser.pretrain"
) -> tuple[np.ndarray, str]:
    """uint8 (N, H, W[, C]), and the SHA-256 of what they were read from: of an IDX file, or else of their pixels.

    key: of the section. Raises UserError.
    """
    if cfg.images:
        return read_images(cfg.images), sha256(cfg.images)
    if cfg.data is None:
        raise UserError(f"{key}.images: missing; name an IDX file of unlabelled images, or a data set in data")
    images = apart(labelled(cfg.data, "train", 0, seed), "train", apart_from, read_shards).images
    content = hashlib.sha256(repr(images.shape).encode())
    content.update(np.ascontiguousarray(images).data)
    return images, content.hexdigest()


@costs("pretrain")
def cost(job: Job) -> Cost:
    """Training, and the grid."""
    cfg = job.config(Pretrain)
    passes = Passes({DENOISER + TRAINING: cfg.steps * cfg.batch, DENOISER: GRID_IMAGES * GRID_STEPS})
    return Cost(passes, disk=bytes_of(job.network))
