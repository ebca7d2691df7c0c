"""From noise to uint8 images: the seeds, the loop over the solver's steps, the rounding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ddrep.config import Sampling
from ddrep.data.batches import parts, to_uint8
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule, x0_from_eps
from ddrep.errors import UserError
from ddrep.sampling.guidance import EpsFunction, classifier_free
from ddrep.sampling.rows import heard
from ddrep.solvers import SOLVERS, Estimate, log_snr_grid, time_grid

DEFAULT = Sampling()
"""As in config.yaml."""


def image_seed(experiment: int, label: int, shard: int, attempt: int) -> int:
    """Seed of one image, in 0..2^63-1: of nothing but these, so that sources share noise and batches do not matter."""
    digest = hashlib.sha256(f"{experiment}/{label}/{shard}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class ImageNoise:
    """Standard normal noise with a generator of its own for each image, drawn on the CPU whatever the device."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = shape, device

    def draw(self) -> Tensor:
        """The next noise of every image, (N, C, H, W)."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)


def levels(schedule: Schedule, cfg: Sampling) -> list[int]:
    """The schedule indices that are visited, one a step, strictly falling; after the last comes the clean image.

    Raises UserError for more steps, or others, than the schedule has, and for a grid that has yet to be fitted.
    """
    if cfg.grid == "even":
        return time_grid(schedule, cfg.solver, cfg.steps)
    if cfg.grid == "log-snr":
        return log_snr_grid(schedule, cfg.steps)
    if isinstance(cfg.grid, str):
        raise UserError(
            f"sampling.grid: {cfg.grid}, but no grid is given; expected one made by `ddrep fit-grid`, or its indices"
        )
    if cfg.grid[0] >= schedule.num_steps:
        raise UserError(
            f"sampling.grid: {cfg.grid[0]}, but the denoiser's schedule has noise levels 0..{schedule.num_steps - 1}"
        )
    return list(cfg.grid)


def solve(eps: EpsFunction, schedule: Schedule, noise: ImageNoise, cfg: Sampling) -> Tensor:
    """Integrate from x_T to images (N, C, H, W) in [-1, 1]; x0 is clipped to that range at every step.

    An image of which eps was ever infinite or NaN is NaN: the clipping would make a black or white one of it.
    """
    grid, solver = levels(schedule, cfg), SOLVERS[cfg.solver]
    x, before = noise.draw(), list[Estimate]()
    finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for here, after in zip(grid, [*grid[1:], -1], strict=True):
        index = torch.full((len(x),), here, device=x.device)
        abar, abar_next = (schedule.abar_at(torch.full_like(index, i), x) for i in (here, after))
        said = eps(x, index)
        finite &= said.isfinite().flatten(1).all(dim=1)
        x0 = x0_from_eps(x, said, abar).clamp(-1, 1)
        z = noise.draw() if cfg.eta and after >= 0 else None
        now = Estimate(x, x0, abar)
        before = before or [now] * solver.memory
        x = solver.step(now, before, abar_next, cfg.eta, z)
        before = [now, *before[:-1]] if solver.memory else []
    return x.masked_fill(~finite[:, None, None, None], torch.nan)


@torch.no_grad()  # not inference_mode: a guide takes gradients in between
def draw(denoiser: Denoiser, seeds: Sequence[int], cfg: Sampling, eps: EpsFunction) -> np.ndarray:
    """One image a seed by listening to `eps`, uint8 (N, H, W, C)."""
    noise = ImageNoise(seeds, denoiser.image_shape, denoiser.device)
    return to_uint8(solve(eps, denoiser.schedule, noise, cfg), denoiser.name)


def sample(
    denoiser: Denoiser,
    seeds: Sequence[int],
    cfg: Sampling = DEFAULT,
    labels: Sequence[int] | None = None,
    pretrained: Denoiser | None = None,
    batch: int | None = None,
) -> np.ndarray:
    """One image a seed, uint8 (N, H, W, C): a function of its seed, of its label and of `cfg`, whatever is beside it.

    labels: into `denoiser.classes`, one a seed, for a class-conditional denoiser. pretrained: the denoiser that
    guidance is against, where `cfg` says so. batch: images drawn at once, which bounds the memory; None draws all.
    Raises UserError for labels that are too few, wanting, or no classes, and for steps that the schedule has not.
    """
    if not len(seeds):
        raise UserError("seeds: none given; expected one for each image")
    if labels is not None and len(labels) != len(seeds):
        raise UserError(f"labels: {len(labels)} for {len(seeds)} seeds; expected one for each")
    at_once = parts(len(seeds), len(seeds) if batch is None else batch)
    heard = [eps_of(denoiser, cfg, labels if labels is None else labels[part], pretrained) for part in at_once]
    return np.concatenate([draw(denoiser, seeds[part], cfg, eps) for part, eps in zip(at_once, heard, strict=True)])


def evaluations(cfg: Sampling, steps: int | None = None) -> int:
    """Evaluations of denoisers that one image of a class takes, or its first `steps`; see `classifier_free`."""
    taken = cfg.steps if steps is None else steps
    return taken + (sum(k < taken for k in _guided(cfg)) if cfg.guidance_scale else 0)


def _guided(cfg: Sampling) -> list[int]:
    """Numbers of the steps in which w counts, from 0."""
    first, last = cfg.guidance_interval
    return [k for k in range(cfg.steps) if first <= k / cfg.steps < last]


def guided_at(schedule: Schedule, cfg: Sampling, device: torch.device) -> Tensor | None:
    """Schedule indices at which w counts; None where it does at all."""
    guided, grid = _guided(cfg), levels(schedule, cfg)
    return None if len(guided) == cfg.steps else torch.tensor([grid[k] for k in guided], device=device).long()


def eps_of(
    denoiser: Denoiser, cfg: Sampling, labels: Sequence[int] | None = None, pretrained: Denoiser | None = None
) -> EpsFunction:
    """What unguided sampling listens to: plain eps, or with labels classifier-free guidance.

    Raises UserError for labels that are no classes of the denoiser.
    """
    model = heard(denoiser, cfg)
    if labels is None:
        return model.eps
    known = len(denoiser.classes) or denoiser.net.cfg.num_classes - 1
    if wrong := [label for label in labels if not 0 <= label < known]:
        has = f"knows 0..{known - 1}" if denoiser.net.cfg.num_classes else "is unconditional"
        raise UserError(f"labels: {wrong[0]} asked for, but {denoiser.name} {has}")
    y = torch.tensor(list(labels), device=denoiser.device)
    other = heard(pretrained, cfg) if pretrained and cfg.unconditional == "pretrained" else None
    where = guided_at(denoiser.schedule, cfg, denoiser.device)
    return classifier_free(model, y, cfg.guidance_scale, other, where)
