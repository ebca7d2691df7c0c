"""The solvers of the reverse process: each declared once, as the grid of times it visits and the step between two.

A step is a pure function of the images, of what was estimated at this and earlier steps, and of the noise levels. abar
is (N, 1, 1, 1): every image may be at a level of its own. abar = 1 means clean. A file that calls `SOLVERS.add` adds
one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol

from pydantic import AfterValidator

from ddrep.errors import UserError
from ddrep.registry import Registry

if TYPE_CHECKING:  # settings are read without torch
    from torch import Tensor


class Schedule(Protocol):
    """What is asked of a noise schedule (ddrep.denoiser.schedule)."""

    @property
    def kind(self) -> str: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def abar(self) -> Tensor: ...


class Estimate(NamedTuple):
    """What was known at one step: x_t, x0hat as it is followed (clipped), and abar of its level."""

    x: Tensor
    x0: Tensor
    abar: Tensor

    @property
    def eps(self) -> Tensor:
        """That of x0, so that a clipped x0 is followed consistently (as the published `ddimN` does)."""
        return (self.x - self.abar.sqrt() * self.x0) / (1 - self.abar).sqrt()


class Step(Protocol):
    def __call__(
        self, here: Estimate, before: Sequence[Estimate], abar_next: Tensor, eta: float, noise: Tensor | None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Solver:
    """How a sampler goes from noise to images."""

    name: str
    step: Step
    """The estimate here and the earlier ones, the latest first; abar of the next level, eta, and standard normal noise,
    which eta = 0 does without -> x at the next level. Earlier ones that an image has not are repeats of its first."""
    most_steps: Callable[[Sequence[float]], int]
    """abar of each level -> the most steps it can take, each at a level of its own."""
    grid: Callable[[int, int, int], list[int]]
    """Levels, the most steps, steps -> that many indices, strictly falling."""
    memory: int = 1
    """How many earlier estimates it reads."""
    deterministic: bool = False
    """Whether it has no use for eta."""


SOLVERS: Registry[Solver] = Registry("solver")
SolverName = Annotated[str, AfterValidator(SOLVERS.known)]


def check_eta(solver: str, eta: float) -> None:
    """Raise ValueError for fresh noise that a solver has no use for."""
    if SOLVERS[solver].deterministic and eta:
        raise ValueError(f"eta: {eta:g}, but {solver} takes no fresh noise; expected 0")


def most_steps(schedule: Schedule, solver: str) -> int:
    """The most steps that a sampler can take on a schedule, each at a noise level of its own."""
    return SOLVERS[solver].most_steps(schedule.abar.tolist())


def time_grid(schedule: Schedule, solver: str, steps: int) -> list[int]:
    """The schedule indices a sampler visits, from noise to data; after the last comes the clean image.

    Exactly `steps` of them, strictly falling. Raises UserError for more steps than `most_steps`.
    """
    most = most_steps(schedule, solver)
    if not 1 <= steps <= most:
        raise _too_many(steps, most, solver, schedule)
    return SOLVERS[solver].grid(schedule.num_steps, most, steps)


def _too_many(steps: int, most: int, what: str, schedule: Schedule) -> UserError:
    return UserError(
        f"steps: {steps}, but {what} takes 1 to {most} on this denoiser's {schedule.kind} schedule of "
        f"{schedule.num_steps} noise levels; ask for no more"
    )


FIRST = -5.1
"""lambda (log(alpha / sigma)) at which dpm-solver++ begins, its authors' limit for the cosine schedule, beyond which x0
cannot be told from eps in floats."""


def log_snr_grid(schedule: Schedule, steps: int) -> list[int]:
    """Indices of so many levels, evenly spaced by lambda (uniform logSNR, Lu et al. 2022), strictly falling.

    The clean image, whose lambda is infinite, counts as 20 / (steps + 4) below the schedule's last level: of few steps
    none is to be spent on noise that nobody sees, many end where the schedule does. `python -m benchmarks.steps` has
    what comes of it. Raises UserError for more steps than there are levels.
    """
    abar = schedule.abar.tolist()
    most = _dpm_most_steps(abar)
    if not 1 <= steps <= most:
        raise _too_many(steps, most, "a grid by log SNR", schedule)
    known = [0.5 * math.log(max(level, 1e-12) / max(1 - level, 1e-12)) for level in abar[: most + 1]]
    clean = known[0] - 20 / (steps + 4)
    grid, below = list[int](), most + 1
    for k in range(steps):
        away = [abs(each - FIRST - k * (clean - FIRST) / steps) for each in known]
        below = max(steps - 1 - k, min(away.index(min(away)), below - 1))  # one of its own, in short schedules too
        grid.append(below)
    return grid


def ddim_step(
    here: Estimate, before: Sequence[Estimate], abar_next: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12); eta = 1 is DDPM's ancestral step with the posterior's variance."""
    if eta == 0 or noise is None:
        return abar_next.sqrt() * here.x0 + (1 - abar_next).sqrt() * here.eps
    variance = eta**2 * (1 - abar_next) / (1 - here.abar) * (1 - here.abar / abar_next)
    direction = (1 - abar_next - variance).clamp(min=0).sqrt()
    return abar_next.sqrt() * here.x0 + direction * here.eps + variance.sqrt() * noise


def _ddim_grid(levels: int, most: int, steps: int) -> list[int]:
    """Every stride-th from 0 by the first stride that gives so many, as the published `ddimN` (improved-diffusion,
    space_timesteps), which starts within a stride of the last index; where no stride does, evenly spaced from the last
    index itself to 0."""
    strided = range(0, levels, -(-levels // steps))
    if len(strided) == steps > 1:
        return list(strided)[::-1]
    last, gaps = levels - 1, max(1, steps - 1)
    return [last - (2 * k * last + gaps) // (2 * gaps) for k in range(steps)]  # k last / gaps, rounded


SOLVERS.add(Solver("ddim", ddim_step, most_steps=len, grid=_ddim_grid, memory=0))


def dpm_step(
    here: Estimate, before: Sequence[Estimate], abar_next: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order from this step's and the last step's x0.

    eta = 1 is SDE-DPM-Solver++(2M) (the same, appendix A), whose noise mends what a denoiser gets wrong early.
    An image's first step is first-order, and so is the step to abar = 1.
    """
    h = _half_log_snr(abar_next) - _half_log_snr(here.abar)
    h_before = _half_log_snr(here.abar) - _half_log_snr(before[0].abar)
    second = h.isfinite() & (h_before > 0)
    c = (h / (2 * h_before)).masked_fill(~second, 0)
    d = (1 + c) * here.x0 - c * before[0].x0
    kept = ((1 - abar_next) / (1 - here.abar)).sqrt() * ((-eta * h).exp() if eta else 1.0)
    mean = kept * here.x - abar_next.sqrt() * (-(1 + eta) * h).expm1() * d
    if eta == 0 or noise is None:
        return mean
    return mean + (-(1 - abar_next) * (-2 * eta * h).expm1()).sqrt() * noise


def _half_log_snr(abar: Tensor) -> Tensor:
    """lambda = log(alpha / sigma) of the DPM-Solver papers."""
    return 0.5 * (abar.log() - (1 - abar).log())


def _dpm_most_steps(abar: Sequence[float]) -> int:
    """It begins at lambda = `FIRST`: at the index that is also its number of steps."""
    return max(0, sum(level >= math.exp(2 * FIRST) * (1 - level) for level in abar) - 1)


def _dpm_grid(levels: int, most: int, steps: int) -> list[int]:
    """Evenly spaced from `most` to above 0."""
    import torch  # whose single precision decides where a half is rounded to

    return torch.linspace(0, most, steps + 1).round().int().tolist()[:0:-1]


SOLVERS.add(Solver("dpm-solver++", dpm_step, _dpm_most_steps, _dpm_grid))


ADAMS_BASHFORTH = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the latest derivatives, by how many there are."""


def ipndm_step(
    here: Estimate, before: Sequence[Estimate], abar_next: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """iPNDM (Zhang & Chen 2023, appendix; fourth order once it has three earlier estimates): DDIM's step by eps that
    Adams and Bashforth extrapolate. The step to abar = 1 is first-order, as of dpm-solver++."""
    estimates, order = [here, *before], here.abar.new_ones(here.abar.shape).long()
    for newer, older in zip(estimates, before, strict=False):
        order = order + (older.abar < newer.abar)
    weights = here.abar.new_tensor([[*row, *[0.0] * (4 - len(row))] for row in ADAMS_BASHFORTH])
    of_each = weights[order.where(abar_next < 1, 1).flatten() - 1].T.reshape(4, -1, 1, 1, 1)
    eps = here.eps * of_each[0]
    for weight, each in zip(of_each[1:], before, strict=True):
        eps = eps + weight * each.eps
    clean = (here.x - (1 - here.abar).sqrt() * eps) / here.abar.sqrt()
    return abar_next.sqrt() * clean + (1 - abar_next).sqrt() * eps


SOLVERS.add(Solver("ipndm", ipndm_step, _dpm_most_steps, _dpm_grid, memory=3, deterministic=True))
