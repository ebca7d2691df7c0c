"""One step of the reverse process as a pure function of the images, the clean-image estimate and the noise levels.

abar and its neighbours are (N, 1, 1, 1): every image may be at a level of its own. abar = 1 means clean.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ddrep.denoiser.schedule import Schedule, eps_from_x0
from ddrep.errors import UserError

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


def most_steps(schedule: Schedule, solver: SolverName) -> int:
    """The most steps that a sampler can take on a schedule, each at a noise level of its own.

    DPM-Solver++ begins where lambda = -5.1, its authors' limit for the cosine schedule, beyond which x0 cannot be told
    from eps in floats: at the index that is also its number of steps.
    """
    if solver == "ddim":
        return schedule.num_steps
    return max(0, int((_half_log_snr(schedule.abar) >= -5.1).sum()) - 1)


def time_grid(schedule: Schedule, solver: SolverName, steps: int) -> list[int]:
    """The schedule indices a sampler visits, from noise to data; after the last comes the clean image.

    Exactly `steps` of them, strictly falling. DDIM: every stride-th from 0 by the first stride that gives so many, as
    the published `ddimN` (improved-diffusion, space_timesteps), which starts within a stride of the last index; where
    no stride does, evenly spaced from the last index itself to 0. DPM-Solver++: evenly spaced from `most_steps` to
    above 0. Raises UserError for more steps than `most_steps`.
    """
    most = most_steps(schedule, solver)
    if not 1 <= steps <= most:
        raise UserError(
            f"steps: {steps}, but {solver} takes 1 to {most} on this denoiser's {schedule.kind} schedule of "
            f"{schedule.num_steps} noise levels; ask for no more"
        )
    if solver == "dpm-solver++":
        return torch.linspace(0, most, steps + 1).round().int().tolist()[:0:-1]
    strided = range(0, schedule.num_steps, -(-schedule.num_steps // steps))
    if len(strided) == steps > 1:
        return list(strided)[::-1]
    last, gaps = schedule.num_steps - 1, max(1, steps - 1)
    return [last - (2 * k * last + gaps) // (2 * gaps) for k in range(steps)]  # k last / gaps, rounded
