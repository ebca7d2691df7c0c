"""Make an unconditional denoiser class-conditional (paper, 4.2 and 5.3.1).

A label table is added to the time embedding and the whole network is trained on; a share of the labels is replaced by
the null row, so that the network keeps an unconditional estimate for classifier-free guidance.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddrep.config import FineTune, Sampling, Stage
from ddrep.cost import DENOISER, TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, stratified, to_unit
from ddrep.data.disjoint import check_disjoint
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import add_noise
from ddrep.denoiser.unet import UNet, bytes_of
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import sha256, state_path
from ddrep.grids import save_grid
from ddrep.rows import write_rows
from ddrep.sampling.sampler import image_seed, sample
from ddrep.solvers import most_steps
from ddrep.training import parallel
from ddrep.training.loop import PATIENCE, LoopConfig, train
from ddrep.training.objective import loss_in_parts

log = logging.getLogger("ddrep")

MARGIN_EVERY = 200
"""Steps between measurements of loss and label margin; they do not change the result."""
MARGIN_IMAGES = 256
"""Validation images at most that the label margin is measured on, of each class its share."""
GRID_EVERY = 10_000
"""Steps between grids of samples beside the log: a thousandth of the time at the paper's size, none in a short run."""
GRID_CLASSES, GRID_ATTEMPTS, GRID_STEPS = 20, 10, 16
"""Classes in the grids, the first ones; samples of each; solver steps at most."""
MARGIN_TIMESTEPS = (300.0, 500.0, 700.0)
"""Where the label margin is measured, in embedded units."""


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
    on_step: Callable[[int, Denoiser], None] | None = None, losses: Tensor | None = None, records: list | None = None,
    micro_batch: int | None = None,
) -> Denoiser:  # fmt: skip
    """Train on labelled images and return the EMA of the class-conditional denoiser, in evaluation mode.

    state, on_step, losses, records: see `ddrep.training.loop.train`; micro_batch: see `loss_in_parts`. In several
    processes only the first returns the EMA.
    """
    torch.manual_seed(seed)
    device = denoiser.device
    model = with_labels(denoiser, data.classes, cfg.embedding_std)
    labels = torch.as_tensor(data.labels)
    optimizer = torch.optim.AdamW(model.net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    loss_of = loss_in_parts(model, cfg, micro_batch)

    def loss_at(step: int) -> Iterable[Tensor]:
        rows = batch_indices(len(labels), cfg.batch, step, seed)
        x0, y = to_unit(data.images[rows], device), labels[rows].to(device)
        if cfg.flip:
            x0 = torch.where(torch.rand(len(x0), 1, 1, 1, device=device) < 0.5, x0.flip(-1), x0)
        y = torch.where(torch.rand(len(y), device=device) < cfg.label_dropout, torch.full_like(y, model.null_row), y)
        index = torch.randint(model.schedule.num_steps, y.shape, device=device)
        return loss_of(x0, index, torch.randn_like(x0), y)

    def follow(step: int, net: UNet) -> None:
        if on_step:
            on_step(step, dataclasses.replace(model, net=net))

    loop = LoopConfig(cfg.steps, seed, cfg.ema_decay, clip=cfg.clip or math.inf, patience=PATIENCE)
    warm_up = lambda step: min(1.0, (step + 1) / max(1, cfg.warmup))  # noqa: E731
    kept: dict[str, Any] = {"state": state, "on_step": follow, "losses": losses, "records": records}
    net = train(model.net, optimizer, loss_at, loop, lr_factor=warm_up, **kept)
    return dataclasses.replace(model, net=net.eval().requires_grad_(False))


@torch.inference_mode()
def label_margin(denoiser: Denoiser, x0: Tensor, y: Tensor, timesteps: tuple[float, ...] = MARGIN_TIMESTEPS) -> float:
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


@contextlib.contextmanager
def _evaluated(model: Denoiser) -> Iterator[None]:
    """Evaluation mode for a while: without EMA it is the very network being trained, with its dropout."""
    training = model.net.training
    model.net.eval()
    yield
    model.net.train(training)


class _History:
    """Loss and label margin by step; the training state keeps them, so that a resumed job reports all its parts."""

    def __init__(self, losses: Tensor, x0: Tensor, y: Tensor):
        self.losses, self.x0, self.y = losses, x0, y
        self.rows: list[tuple[int, float, float]] = []

    def measure(self, step: int, model: Denoiser) -> None:
        with _evaluated(model):
            margin = label_margin(model, self.x0, self.y)
        since = self.rows[-1][0] if self.rows else 0
        self.rows.append((step, self.losses[since:step].nanmean().item(), margin))
        log.info("step %d: the own label helps on %.1f%% of unseen images", step, 100 * margin)

    def save(self, path: Path) -> None:
        write_rows({path: pd.DataFrame(self.rows, columns=["step", "loss", "label_margin"])})


def save_samples(model: Denoiser, seed: int, path: Path) -> None:
    """A grid with a row of samples for each of the first classes, the same noise every time."""
    labels = range(min(GRID_CLASSES, model.null_row))
    attempts = [(label, attempt) for label in labels for attempt in range(GRID_ATTEMPTS)]
    seeds = [image_seed(seed, label, 0, attempt) for label, attempt in attempts]
    cfg = Sampling(steps=min(GRID_STEPS, most_steps(model.schedule, "dpm-solver++")), eta=1)
    with _evaluated(model):
        samples = sample(model, seeds, cfg, [label for label, _ in attempts])
    save_grid(samples, GRID_ATTEMPTS, path)


def run(
    stage: Stage[FineTune], *, denoiser: Path, train: Path, validation: Path, out: Path, grid: Path, history: Path,
    micro_batch: int | None = None, previews: Path | None = None,
) -> None:  # fmt: skip
    """Fine-tune; write the denoiser, a grid with a row of samples a class, and loss and label margin by step.

    previews: a grid of samples is written to {previews}-{step}.png every GRID_EVERY steps.
    """
    base, data = Denoiser.load(denoiser, pick_device()), read_shards([train])
    if data.images.shape[1:] != (*base.image_shape[1:], base.image_shape[0]):
        c, h, w = base.image_shape
        raise UserError(f"{train}: images are {data.images.shape[1:]}; {denoiser} expects {(h, w, c)}")
    unseen = read_shards([validation])
    check_disjoint(data, unseen, (train, validation))
    rows = stratified(unseen.labels, MARGIN_IMAGES, stage.seed)
    x0, y = to_unit(unseen.images[rows], base.device), torch.as_tensor(unseen.labels[rows]).to(base.device)
    inputs = {"denoiser_sha256": sha256(denoiser), "train_sha256": sha256(train)}
    state = state_path("finetune", stage.model_dump_json(), *inputs.values())
    losses = torch.empty(stage.config.steps, dtype=torch.float64)
    records = _History(losses, x0, y)

    def watch(step: int, model: Denoiser) -> None:
        if step % MARGIN_EVERY == 0 or step == stage.config.steps:
            records.measure(step, model)
        if previews and step % GRID_EVERY == 0:
            save_samples(model, stage.seed, previews.with_name(f"{previews.name}-{step:06d}.png"))

    model = finetune(
        base, data, stage.config, seed=stage.seed, state=state, on_step=watch, losses=losses, records=records.rows,
        micro_batch=micro_batch,
    )  # fmt: skip
    if parallel.rank() > 0:
        return
    model.provenance = {
        "command": "ddrep finetune",
        "stage": stage.model_dump(mode="json"),
        "from": base.provenance,
        **inputs,
    }
    records.save(history)
    save_samples(model, stage.seed, grid)
    model.save(out)
    state.unlink(missing_ok=True)


@costs("finetune")
def cost(job: Job) -> Cost:
    """Training, label margins with two labels each, and the grid."""
    cfg, unseen = job.config(FineTune), min(MARGIN_IMAGES, job.images("validation"))
    margins = math.ceil(cfg.steps / MARGIN_EVERY) * unseen * 2 * len(MARGIN_TIMESTEPS)
    grid = min(GRID_CLASSES, len(job.of_class("train"))) * GRID_ATTEMPTS * GRID_STEPS
    passes = Passes({DENOISER + TRAINING: cfg.steps * cfg.batch, DENOISER: margins + grid})
    return Cost(passes, disk=bytes_of(job.network))
