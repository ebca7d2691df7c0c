"""One step of the reverse process as a pure function of the images, the clean-image estimate and the noise levels.

abar and its neighbours are (N, 1, 1, 1): every image may be at a level of its own. abar = 1 means clean.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ddrep.denoiser.schedule import Schedule, eps_from_x0

SolverName = Literal["ddim", "dpm-solver++"]


def ddim_step(
    x: Tensor, x0: Tensor, abar: Tensor, abar_next: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12); eta = 1 is DDPM's ancestral step with the posterior's variance.

    eps is taken from x0, so that a clipped x0 is followed consistently (as the published `ddimN` does).
    """
    eps = eps_from_x0(x, x0, abar)
    if eta == 0 or noise is None:
        return abar_next.sqrt() * x0 + (1 - abar_next).sqrt() * eps
    variance = eta**2 * (1 - abar_next) / (1 - abar) * (1 - abar / abar_next)
    direction = (1 - abar_next - variance).clamp(min=0).sqrt()
    return abar_next.sqrt() * x0 + direction * eps + variance.sqrt() * noise


def dpm_step(
    x: Tensor,
    x0: Tensor,
    x0_before: Tensor,
    abar: Tensor,
    abar_next: Tensor,
    abar_before: Tensor,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order from this step's and the last step's x0.

    eta = 1 is SDE-DPM-Solver++(2M) (the same, appendix A), whose noise mends what a denoiser gets wrong early.
    An image at its first step passes x0_before = x0, which makes the step first-order; so is the step to abar = 1.
    """
    h = _half_log_snr(abar_next) - _half_log_snr(abar)
    h_before = _half_log_snr(abar) - _half_log_snr(abar_before)
    second = torch.isfinite(h) & (h_before > 0)
    c = torch.where(second, h / (2 * h_before), torch.zeros_like(h))
    d = (1 + c) * x0 - c * x0_before
    kept = ((1 - abar_next) / (1 - abar)).sqrt() * (torch.exp(-eta * h) if eta else 1.0)
    mean = kept * x - abar_next.sqrt() * torch.expm1(-(1 + eta) * h) * d
    if eta == 0 or noise is None:
        return mean
    return mean + (-(1 - abar_next) * torch.expm1(-2 * eta * h)).sqrt() * noise


def _half_log_snr(abar: Tensor) -> Tensor:
    """lambda = log(alpha / sigma) of the DPM-Solver papers."""
    return 0.5 * (abar.log() - (1 - abar).log())


def time_grid(schedule: Schedule, solver: SolverName, steps: int) -> list[int]:
    """The schedule indices a sampler visits, from noise to data; after the last comes the clean image.

    DDIM: every (num_steps // steps)-th, as the published `ddimN`. DPM-Solver++: evenly spaced below the index where
    lambda = -5.1, its authors' limit for the cosine schedule, beyond which x0 cannot be told from eps in floats.
    """
    if solver == "ddim":
        stride = schedule.num_steps // steps
        if stride < 1:
            raise ValueError(f"steps: expected at most the schedule's {schedule.num_steps}, got {steps}")
        return list(range(0, schedule.num_steps, stride))[:steps][::-1]
    last = int((_half_log_snr(schedule.abar) >= -5.1).sum()) - 1
    return torch.linspace(0, last, steps + 1).round().int().tolist()[:0:-1]
