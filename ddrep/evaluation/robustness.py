"""The claim of the paper's section 4.1, measured: which guide understands x0hat early in sampling?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ddrep.config import Robustness, Stage
from ddrep.cost import DENOISER, Cost, Job, Passes, costs, times
from ddrep.data.batches import finite, stratified, to_unit
from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import add_noise, x0_from_eps
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.networks.guides import Guide
from ddrep.rows import write_rows


def run(
    stage: Stage[Robustness], *, attribute: str, denoiser: Path, guides: list[Path], test: Path, subset: int,
    run_seed: int, out: Path,
) -> None:  # fmt: skip
    """A row for each guide and timestep: accuracy (percent) on x0hat(x_t) of test images noised to t.

    The same images, of each class its share, and the same noise for all guides and runs. x0hat is the denoiser's
    one-step estimate (paper, eq. 11).
    """
    device = pick_device()
    images = read_shards([test])
    chosen = stratified(images.labels, stage.config.images, stage.seed)
    x0, y = to_unit(images.images[chosen], device), torch.as_tensor(images.labels[chosen])
    loaded = [Guide.load(path, denoiser, device, "attribute") for path in guides]
    for path, classes in [(test, images.classes), *zip(guides, (guide.classes for guide in loaded), strict=True)]:
        if (of := classes[-1]) != attribute:
            raise UserError(f"{path}: of {of}, not of {attribute}; give images and guides of one attribute")
    rows = []
    for t in stage.config.timesteps:
        estimate = x0_hat(loaded[0].denoiser, x0, t, stage.seed)
        for guide in loaded:
            right = 100 * (guess(guide, estimate) == y).double().mean().item()
            rows.append({"reads": guide.meta.reads, "t": t, "accuracy": right, "n": len(y)})
    write_rows({out: pd.DataFrame(rows).assign(attribute=attribute, subset=subset, seed=run_seed)})


@torch.no_grad()
def x0_hat(denoiser: Denoiser, x0: Tensor, t: float, seed: int, batch: int = 250) -> Tensor:
    """x0hat(x_t) of images (N, C, H, W) noised to embedded time t, the noise by the seed."""
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)
    index = torch.full((len(x0),), denoiser.schedule.index(t), device=x0.device)
    abar = denoiser.schedule.abar_at(index, x0)
    x = add_noise(x0, noise, abar)
    parts = zip(x.split(batch), index.split(batch), strict=True)
    eps = finite(torch.cat([denoiser.eps(*part) for part in parts]), denoiser.name)
    return x0_from_eps(x, eps, abar)


@torch.no_grad()
def guess(guide: Guide, x0: Tensor, batch: int = 250) -> Tensor:
    """The more probable class of images (N, C, H, W): (N,) on the CPU."""
    logits = torch.cat([guide.net(guide.inputs(part)).cpu() for part in x0.split(batch)])
    return finite(logits, f"a guide of {guide.denoiser.name}").argmax(dim=1)


@costs("robustness")
def cost(job: Job) -> Cost:
    """At each time the denoiser estimates the images, and all guides look at the estimates."""
    cfg = job.config(Robustness)
    images = len(cfg.timesteps) * min(cfg.images, job.images("test"))
    return Cost(times(images, Passes([DENOISER]) + job.look("")))
