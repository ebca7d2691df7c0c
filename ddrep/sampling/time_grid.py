"""GITS: a time grid that is fitted to a denoiser (Chen et al. 2024, On the Trajectory Regularity of ODE-based Diffusion
Sampling, 4).

Trajectories of many small steps have one shape whatever image they end in, so some hundreds of them say where large
steps do harm. In the variance-exploding coordinates x / sqrt(abar), sigma = sqrt((1 - abar) / abar), a step is Euler's.
Its cost is how much further from the line between noise and image it ends than the trajectory is there; the grid of
least cost is found by dynamic programming. Published settings, but where said, and trajectories end in the clean image.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddrep.config import EvenSampling, FitGrid, Sampling, Stage
from ddrep.config.stages import TEACHER
from ddrep.cost import DENOISER, Cost, Job, Passes, costs
from ddrep.data.batches import finite
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule, x0_from_eps
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.sampling.guidance import EpsFunction
from ddrep.sampling.sampler import ImageNoise, image_seed, levels, solve
from ddrep.sampling.synthesis import unconditional
from ddrep.saved import write_json
from ddrep.solvers import Estimate, most_steps

log = logging.getLogger("ddrep")

TRAJECTORIES, WEIGHT = 128, 1.15
"""How many there are (published: 256), and what a step's cost counts beside that of the one before it (published: the
same)."""
AT_ONCE, GRID_SHARD = 32, -2
"""Trajectories in memory, and the shard number of their noise, which no shard has."""


def run(stage: Stage[FitGrid], *, denoiser: Path, out: Path) -> None:
    """Fit a grid to what the pretrained denoiser draws, and write it.

    Raises UserError for more steps than a trajectory has.
    """
    steps, model = stage.config.steps, unconditional(0.0, denoiser)
    teacher = teacher_of(steps, model.schedule)
    cost = mean_costs(model, teacher, stage.seed)
    path = best_path(cost, steps)
    content = {
        "levels": [levels(model.schedule, teacher)[i] for i in path],
        "cost": weighted(cost, path),
        "cost_even": weighted(cost, [round(k * teacher.steps / steps) for k in range(steps)]),
        "denoiser_sha256": sha256(denoiser),
    }
    log.info("%s", content)
    write_json(out, content)


@torch.no_grad()
def mean_costs(denoiser: Denoiser, teacher: Sampling, seed: int) -> np.ndarray:
    """`costs_of` all trajectories."""
    schedule, found = denoiser.schedule, []
    for start in range(0, TRAJECTORIES, AT_ONCE):
        seeds = [image_seed(seed, 0, GRID_SHARD, number) for number in range(start, start + AT_ONCE)]
        noise = ImageNoise(seeds, denoiser.image_shape, denoiser.device)
        x, eps = trajectory(denoiser.eps, schedule, noise, teacher)
        finite(x[-1], denoiser.name)
        found.append(costs_of(sigmas(schedule, teacher), x, eps))
        log.info("%d of %d trajectories", start + AT_ONCE, TRAJECTORIES)
    return np.mean(found, axis=0)


def teacher_of(steps: int, schedule: Schedule) -> Sampling:
    """How a trajectory is drawn. Raises UserError for a grid of more steps than a short schedule allows."""
    most = min(TEACHER, most_steps(schedule, "ipndm"))
    if steps > most:
        raise UserError(f"sampling.steps: {steps}, but the denoiser's schedule allows a fitted grid {most}")
    return EvenSampling(solver="ipndm", steps=most, eta=0.0)


def sigmas(schedule: Schedule, teacher: Sampling) -> Tensor:
    """Noise levels of a trajectory, sigma = sqrt((1 - abar) / abar), falling to 0, (steps + 1,)."""
    abar = schedule.abar[levels(schedule, teacher)].double()
    return torch.cat([((1 - abar) / abar).sqrt(), abar.new_zeros(1)])


def trajectory(
    eps: EpsFunction, schedule: Schedule, noise: ImageNoise, teacher: Sampling
) -> tuple[list[Tensor], list[Tensor]]:
    """x / sqrt(abar) at each level and of the clean image, and eps at each, which is its slope; all (N, C H W)."""
    x_at, slopes = list[Tensor](), list[Tensor]()

    def watched(x: Tensor, index: Tensor) -> Tensor:
        said, abar = eps(x, index), schedule.abar_at(index, x)
        here = Estimate(x, x0_from_eps(x, said, abar).clamp(-1, 1), abar)
        x_at.append((x / abar.sqrt()).flatten(1))
        slopes.append(here.eps.flatten(1))
        return said

    x_at.append(solve(watched, schedule, noise, teacher).flatten(1))  # after those that it is watched at
    return x_at, slopes


def costs_of(sigma: Tensor, x: Sequence[Tensor], eps: Sequence[Tensor]) -> np.ndarray:
    """Cost of one step from level i to level j (paper, eq. 21), the mean over trajectories, (levels, levels); infinite
    unless j > i. sigma (levels,); x of each level and eps of each but the last, (N, D).

    What is apart from the line is linear in the step's length: three inner products tell it for every j.
    """
    end = x[-1].double()
    line = torch.nn.functional.normalize(end - x[0].double(), dim=1)

    def apart(v: Tensor) -> Tensor:
        return v - (v * line).sum(1, keepdim=True) * line

    cost = np.full((len(x), len(x)), np.inf)
    reached = [0.0] * len(x)
    for i, (here, slope) in enumerate(zip(x[:-1], eps, strict=True)):
        a, b, length = apart(here.double() - end), apart(slope.double()), (sigma[i + 1 :] - sigma[i]).to(end)[:, None]
        square = a.square().sum(1) + 2 * length * (a * b).sum(1) + length.square() * b.square().sum(1)
        cost[i, i + 1 :] = square.clamp(min=0).sqrt().mean(1).cpu().numpy()
        reached[i] = float(a.norm(dim=1).mean())
    return cost - np.array(reached)


def best_path(cost: np.ndarray, steps: int, weight: float = WEIGHT) -> list[int]:
    """Of the paths from the first node to the last in so many steps the one of least `weighted` cost (paper, algorithm
    1): the nodes that it visits before the last. cost (nodes, nodes), infinite where there is no way."""
    least, choices = np.append(cost[:-1, -1], np.inf), list[np.ndarray]()
    for _ in range(steps - 1):
        through = cost + weight * least
        choices.append(through.argmin(axis=1))
        least = through.min(axis=1)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return path


def weighted(cost: np.ndarray, path: Sequence[int], weight: float = WEIGHT) -> float:
    """Of a path, which ends in the last node."""
    ends = zip(path, [*path[1:], len(cost) - 1], strict=True)
    return float(sum(weight**k * cost[i, j] for k, (i, j) in enumerate(ends)))


@costs("fit-grid")
def cost(job: Job) -> Cost:
    return Cost(Passes({DENOISER: TRAJECTORIES * TEACHER}))
