"""Noise schedules, and x_t, x0 and eps expressed in one another.

A discrete schedule has `num_steps` noise levels. Two scales of time meet here: the *index* 0..num_steps-1 into the
schedule, and the *embedded time* the network is told. Files trained with rescaled timesteps embed index * 1000 /
num_steps, so that t=300 is the same noise level and the same embedding on 1000 and on 4000 steps. The papers'
timesteps are embedded ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ddrep.denoiser.network import ScheduleConfig


@dataclass(frozen=True)
class Schedule(ScheduleConfig):
    """Noise schedule of a checkpoint; travels in the Denoiser file."""

    @cached_property
    def betas(self) -> Tensor:
        """(num_steps,) float64. Cosine: Nichol & Dhariwal 2021, eq. 17; linear: Ho et al. 2020."""
        if self.kind == "linear":
            scale = 1000 / self.num_steps
            return torch.linspace(scale * 1e-4, scale * 0.02, self.num_steps, dtype=torch.float64)
        u = torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps
        f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)

    @cached_property
    def abar(self) -> Tensor:
        """Cumulative products of alpha = 1 - beta, (num_steps,) float64 (paper, below eq. 5)."""
        return torch.cumprod(1 - self.betas, dim=0)

    def embedded(self, index: Tensor) -> Tensor:
        """Schedule indices -> the times the network is told."""
        return index.double() * (1000 / self.num_steps) if self.rescale_timesteps else index.double()

    def index(self, t: float) -> int:
        """The papers' timestep t in [0, 1000) -> schedule index."""
        if not 0 <= t < 1000:
            raise ValueError(f"timestep {t}: expected 0 <= t < 1000")
        return min(round(t * self.num_steps / 1000), self.num_steps - 1)

    def abar_at(self, index: Tensor, like: Tensor) -> Tensor:
        """abar of each index (N,), shaped (N, 1, 1, 1) in the dtype of `like`; index -1 stands for clean images."""
        return _table(self, index.device)[index].to(like).reshape(-1, *[1] * (like.ndim - 1))


@lru_cache
def _table(schedule: Schedule, device: torch.device) -> Tensor:
    """abar and the 1 of clean images, on a device once and for all, for a GPU is waited for while it is sent one."""
    with torch.inference_mode(False):
        return torch.cat([schedule.abar, torch.ones(1, dtype=torch.float64)]).to(device)


def add_noise(x0: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """x_t from x0 (paper, eq. 5)."""
    return abar.sqrt() * x0 + (1 - abar).sqrt() * eps


def x0_from_eps(x: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """Estimate of the clean image (paper, eq. 11)."""
    return (x - (1 - abar).sqrt() * eps) / abar.sqrt()
