"""How a generator's latents are drawn of noise: by DDIM, each of its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddrep.denoiser.schedule import Schedule, x0_from_eps
from ddrep.generators.base import latent_seed
from ddrep.sampling.rows import in_rows
from ddrep.sampling.sampler import ImageNoise
from ddrep.solvers import Estimate, ddim_step, time_grid

PERCEPTRON_ROWS = 256
"""Latents without a map that are denoised at once: less than half the time that 16 at once take on a CPU."""


@torch.no_grad()
def drawn(
    eps: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, shape: tuple[int, ...], seeds: Sequence[int],
    steps: int, device: torch.device,
) -> Tensor:  # fmt: skip
    """A normalised latent a seed, (N, *shape), by DDIM without noise and without clipping.

    eps: of latents (N, *shape) and times (N,) in embedded units. Raises UserError for steps that the schedule has not.
    """
    grid = time_grid(schedule, "ddim", steps)
    z = ImageNoise(list(map(latent_seed, seeds)), shape, device).draw()
    rows = PERCEPTRON_ROWS if len(shape) == 1 else None
    for here, after in zip(grid, [*grid[1:], -1], strict=True):
        index = torch.full((len(z),), here, device=device)
        abar, abar_next = (schedule.abar_at(torch.full_like(index, i), z) for i in (here, after))
        estimate = in_rows(eps, z, schedule.embedded(index), rows=rows)
        z = ddim_step(Estimate(z, x0_from_eps(z, estimate, abar), abar), (), abar_next)
    return z
