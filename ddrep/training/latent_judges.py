"""Train a judge of an attribute, or of masks, on a generator's latents of a few examples (paper, 5.1 and 5.2, of the
baselines)."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.config import LatentJudge as Settings
from ddrep.config import Stage
from ddrep.cost import ENCODER, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices
from ddrep.data.masks import IGNORE
from ddrep.device import pick_device
from ddrep.files import sha256
from ddrep.generators.files import load_generator
from ddrep.generators.judge import LatentJudge, build, logits_of
from ddrep.generators.network import LARGEST_MAP, LatentJudgeFile
from ddrep.networks.metadata import Of
from ddrep.training.guides import read_examples
from ddrep.training.loop import LoopConfig, train

log = logging.getLogger("ddrep")


def run(stage: Stage[Settings], *, generator: Path, examples: Path, of: Of, run_seed: int, out: Path) -> None:
    """Train a judge on the latents of a shard of examples with classes, or with masks; write it. Raises UserError."""
    images, y, classes = read_examples(of, examples)
    model = load_generator(generator, pick_device())
    latents = model.encode(images)
    meta = LatentJudgeFile(
        classes=classes, latent=model.latent_size, generator_sha256=sha256(generator),
        size=min(LARGEST_MAP, y.shape[-1]) if of == "mask" else 0,
    )  # fmt: skip
    fit(meta, latents, y, stage.config, seed=stage.seed + run_seed).save(out)


def fit(meta: LatentJudgeFile, latents: Tensor, y: Tensor, cfg: Settings, *, seed: int) -> LatentJudge:
    """Logistic regression on normalised latents (N, latent) and classes (N,), or label maps (N, H, W), on the CPU."""
    torch.manual_seed(seed)
    net = build(meta)
    optimizer = torch.optim.Adam(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay)

    def seen(latents: Tensor) -> Tensor:
        return logits_of(net, meta, latents, y.shape[1:])

    def loss_at(step: int) -> Tensor:
        rows = batch_indices(len(y), cfg.batch, step, seed)
        return F.cross_entropy(seen(latents[rows]), y[rows], ignore_index=IGNORE)

    train(net.train(), optimizer, loss_at, LoopConfig(steps=cfg.steps, seed=seed))
    net.eval().requires_grad_(False)
    log.info("training accuracy %.1f%%", 100 * (seen(latents).argmax(1) == y)[y != IGNORE].double().mean())
    return LatentJudge(net, meta)


@costs("judge-latents")
def cost(job: Job) -> Cost:
    """Each example is encoded once."""
    return Cost(Passes({ENCODER: job.images("examples")}))
