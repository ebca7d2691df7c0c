"""Train a guide on a few examples (paper, 5.1 and 5.2); DDIM-I's the same way on pixels."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.config import Guide as Settings
from ddrep.config import GuideTraining, Stage
from ddrep.cost import ENCODER, TRAINING, Cost, Job, Passes, costs, times
from ddrep.data.batches import batch_indices, to_unit
from ddrep.data.masks import IGNORE, read_masked_shards
from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.networks import architectures
from ddrep.networks.guides import Guide
from ddrep.networks.metadata import GuideMeta, Of
from ddrep.training.loop import LoopConfig, train

log = logging.getLogger("ddrep")


def run(stage: Stage[Settings], *, of: Of, denoiser: Path, examples: Path, run_seed: int, out: Path) -> None:
    """Train a guide of an "attribute" or a "mask" on a shard of examples, and write it. Raises UserError.

    With taps it reads denoiser features, without them pixels.
    """
    device = pick_device()
    model = Denoiser.load(denoiser, device)
    images, y, classes = read_examples(of, examples)
    c, h, w = model.image_shape
    if images.shape[1:] != (h, w, c):
        raise UserError(f"{examples}: images are {images.shape[1:]}; {denoiser} expects {(h, w, c)}")
    if stage.config.taps:
        model.net.cfg.block_numbers(stage.config.taps.blocks)
    meta = GuideMeta(
        of=of,
        reads="features" if stage.config.taps else "pixels",
        taps=stage.config.taps,
        hidden=stage.config.training.hidden,
        channels=c,
        classes=classes,
        image_shape=(c, h, w),
        denoiser_sha256=sha256(denoiser),
    )
    fit(model, meta, to_unit(images), y, stage.config.training, seed=stage.seed + run_seed).save(out)


def read_examples(of: Of, path: Path) -> tuple[np.ndarray, Tensor, tuple[str, ...]]:
    """Images, targets int64 (N,) or (N, H, W), and names of the classes."""
    if of == "mask":
        masked = read_masked_shards([path])
        return masked.images, torch.as_tensor(masked.masks).long(), masked.classes
    labelled = read_shards([path])
    return labelled.images, torch.as_tensor(labelled.labels), labelled.classes


def fit(denoiser: Denoiser, meta: GuideMeta, x0: Tensor, y: Tensor, cfg: GuideTraining, *, seed: int) -> Guide:
    """A trained guide. x0 (N, C, H, W) in [-1, 1]; what the network reads of them is read once, and gives the channels
    in place of those of `meta`."""
    torch.manual_seed(seed)
    with torch.no_grad():
        read = torch.cat(
            [architectures.inputs(meta, denoiser, part.to(denoiser.device)).cpu() for part in x0.split(50)]
        )
    meta = meta.model_copy(update={"channels": read.shape[1]})
    net = architectures.build(meta).to(denoiser.device)
    optimizer = torch.optim.Adam(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    def loss_at(step: int) -> Tensor:
        rows = batch_indices(len(y), cfg.batch, step, seed)
        logits = net(read[rows].to(denoiser.device))
        return F.cross_entropy(logits, y[rows].to(denoiser.device), ignore_index=IGNORE)

    train(net.train(), optimizer, loss_at, LoopConfig(steps=cfg.steps, seed=seed, log_every=25))
    net.eval().requires_grad_(False)
    with torch.no_grad():
        guess = torch.cat([net(part.to(denoiser.device)).argmax(1).cpu() for part in read.split(50)])
    log.info("training accuracy %.1f%%", 100 * (guess == y)[y != IGNORE].double().mean())
    return Guide(net, meta, denoiser)


@costs("guide")
def cost(job: Job) -> Cost:
    """What it reads of its examples is read once, and they are looked at once in the end."""
    cfg = job.config(Settings)
    name = f"{job.part}-guide-on-{'features' if cfg.taps else 'pixels'}"
    reads = Passes({f"{ENCODER}/{job.part}": len(cfg.taps.timesteps)} if cfg.taps else {})
    look = Passes({name: 1}) + reads
    trained = Passes({name + TRAINING: cfg.training.steps * cfg.training.batch})
    return Cost(trained + times(job.images("examples"), look), look)
