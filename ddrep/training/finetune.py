"""Make an unconditional denoiser class-conditional (paper, 4.2 and 5.3.1).

A label table is added to the time embedding and the whole network is trained on; a share of the labels is replaced by
the null row, so that the network keeps an unconditional estimate for classifier-free guidance.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddrep.config import FineTune, Sampling, Stage
from ddrep.data.batches import batch_indices, to_unit
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.loss import denoising_loss
from ddrep.denoiser.schedule import add_noise
from ddrep.denoiser.unet import UNet
from ddrep.device import autocast, pick_device
from ddrep.errors import UserError
from ddrep.files import sha256, state_path, written_whole
from ddrep.grids import save_grid
from ddrep.sampling.sampler import image_seed, sample
from ddrep.training.loop import LoopConfig, train

log = logging.getLogger("ddrep")

MARGIN_EVERY = 200
"""Steps between measurements of the label margin; they do not change the result."""
GRID_ATTEMPTS = 10
"""Samples a class in the grid, of the first 20 classes."""


def with_labels(denoiser: Denoiser, classes: tuple[str, ...], std: float) -> Denoiser:
    """A trainable copy with a label table of a row a class, drawn from N(0, std^2), and the null row, which is zero.

    So the null row starts as the unconditional network itself.
    """
    cfg = denoiser.net.cfg
    if cfg.num_classes:
        raise UserError("finetune: the denoiser is class-conditional already; start from an unconditional one")
    net = UNet(dataclasses.replace(cfg, num_classes=len(classes) + 1)).to(denoiser.device)
    left = net.load_state_dict(denoiser.net.state_dict(), strict=False)
    assert left.missing_keys == ["label_emb.weight"] and not left.unexpected_keys
    with torch.no_grad():
        net.label_emb.weight.normal_(0, std)
        net.label_emb.weight[-1].zero_()
    return Denoiser(net.train(), denoiser.schedule, classes=classes)


def finetune(
    denoiser: Denoiser, data: LabelledImages, cfg: FineTune, *, seed: int, state: Path | None = None,
    on_step: Callable[[int, Denoiser], None] | None = None,
) -> Denoiser:  # fmt: skip
    """Train on labelled images and return the EMA of the class-conditional denoiser, in evaluation mode."""
    torch.manual_seed(seed)
    device = denoiser.device
    model = with_labels(denoiser, data.classes, cfg.embedding_std)
    labels = torch.as_tensor(data.labels)
    optimizer = torch.optim.AdamW(model.net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    def loss_at(step: int) -> Tensor:
        rows = batch_indices(len(labels), cfg.batch, step, seed)
        x0, y = to_unit(data.images[rows], device), labels[rows].to(device)
        if cfg.flip:
            x0 = torch.where(torch.rand(len(x0), 1, 1, 1, device=device) < 0.5, x0.flip(-1), x0)
        y = torch.where(torch.rand(len(y), device=device) < cfg.label_dropout, torch.full_like(y, model.null_row), y)
        index = torch.randint(model.schedule.num_steps, y.shape, device=device)
        with autocast(cfg.precision, device):
            return denoising_loss(model, x0, index, torch.randn_like(x0), y)

    def follow(step: int, net: UNet) -> None:
        if on_step:
            on_step(step, dataclasses.replace(model, net=net))

    loop = LoopConfig(steps=cfg.steps, seed=seed, ema_decay=cfg.ema_decay, clip=cfg.clip)
    warm_up = lambda step: min(1.0, (step + 1) / max(1, cfg.warmup))  # noqa: E731
    net = train(model.net, optimizer, loss_at, loop, lr_factor=warm_up, state=state, on_step=follow)
    return dataclasses.replace(model, net=net.eval().requires_grad_(False))


@torch.inference_mode()
def label_margin(denoiser: Denoiser, x0: Tensor, y: Tensor, timesteps: tuple[float, ...] = (300, 500, 700)) -> float:
    """Share of images whose noise is estimated better with their own label than with a random other one.

    0.5 when the labels are not heard, 1 when they always help. The denoising loss hardly tells these apart, since most
    of it does not depend on the class; here images, noise and times are the same for both labels. Draws nothing from
    the global generator.
    """
    g = torch.Generator().manual_seed(0)
    other = ((y.cpu() + torch.randint(1, denoiser.null_row, y.shape, generator=g)) % denoiser.null_row).to(y.device)
    wins = []
    for t in timesteps:
        noise = torch.randn(x0.shape, generator=g).to(x0)
        index = torch.full_like(y, denoiser.schedule.index(t))
        x = add_noise(x0, noise, denoiser.schedule.abar_at(index, x0))
        own, wrong = ((denoiser.eps(x, index, label) - noise).square().mean(dim=(1, 2, 3)) for label in (y, other))
        wins.append(((own < wrong).double() + (own == wrong).double() / 2).mean().item())
    return float(np.mean(wins))


class _Margins:
    """The label margin by step, kept beside the training state so that a resumed job reports those of all its parts."""

    def __init__(self, file: Path, x0: Tensor, y: Tensor):
        self.file, self.x0, self.y = file, x0, y
        self.rows: list[tuple[int, float]] = []
        if file.exists():
            self.rows = [(int(step), float(margin)) for step, margin in json.loads(file.read_text())]

    def measure(self, step: int, model: Denoiser) -> None:
        training = model.net.training  # without EMA it is the very network being trained, with its dropout
        model.net.eval()
        margin = label_margin(model, self.x0, self.y)
        model.net.train(training)
        self.rows = [row for row in self.rows if row[0] < step] + [(step, margin)]
        with written_whole(self.file) as (draft,):
            draft.write_text(json.dumps(self.rows))
        log.info("step %d: the own label helps on %.1f%% of unseen images", step, 100 * margin)


def run(
    stage: Stage[FineTune], denoiser: Path, train_shard: Path, validation: Path, out: Path, grid: Path, history: Path
) -> None:
    """Fine-tune; write the denoiser, a grid with a row of samples a class, and the label margin by step."""
    base, data = Denoiser.load(denoiser, pick_device()), read_shards([train_shard])
    if data.images.shape[1:] != (*base.image_shape[1:], base.image_shape[0]):
        c, h, w = base.image_shape
        raise UserError(f"{train_shard}: images are {data.images.shape[1:]}; {denoiser} expects {(h, w, c)}")
    unseen = read_shards([validation])
    x0, y = to_unit(unseen.images[:256], base.device), torch.as_tensor(unseen.labels[:256]).to(base.device)
    inputs = {"denoiser_sha256": sha256(denoiser), "train_sha256": sha256(train_shard)}
    state = state_path("finetune", stage.model_dump_json(), *inputs.values())
    margins = _Margins(state.with_suffix(".json"), x0, y)

    def watch(step: int, model: Denoiser) -> None:
        if step % MARGIN_EVERY == 0 or step == stage.config.steps:
            margins.measure(step, model)

    model = finetune(base, data, stage.config, seed=stage.seed, state=state, on_step=watch)
    model.provenance = {
        "command": "ddrep finetune",
        "stage": stage.model_dump(mode="json"),
        "from": base.provenance,
        **inputs,
    }
    with written_whole(history) as (draft,):
        pd.DataFrame(margins.rows, columns=["step", "label_margin"]).to_parquet(draft, index=False)
    attempts = [(label, attempt) for label in range(min(20, model.null_row)) for attempt in range(GRID_ATTEMPTS)]
    seeds = [image_seed(stage.seed, label, 0, attempt) for label, attempt in attempts]
    samples = sample(model, seeds, Sampling(guidance_scale=0, eta=1), [label for label, _ in attempts])
    save_grid(samples, GRID_ATTEMPTS, grid)
    model.save(out)
    for file in (state, margins.file):
        file.unlink(missing_ok=True)
