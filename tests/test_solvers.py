"""Solvers against diffusers' schedulers and against a Gaussian whose reverse process is known in closed form."""

import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, IPNDMScheduler

from ddrep.config import Sampling
from ddrep.denoiser.schedule import Schedule
from ddrep.errors import UserError
from ddrep.sampling.sampler import ImageNoise, levels, solve
from ddrep.solvers import Estimate, ddim_step, dpm_step, ipndm_step, log_snr_grid, most_steps, time_grid

CPU = torch.device("cpu")
SCALE, MEAN = 0.25, 0.3


def _eps(x, index, schedule):
    """The exact eps of data from N(MEAN, SCALE^2): E[eps | x_t] = sqrt(1 - abar) (x - sqrt(abar) MEAN) / var(x_t)."""
    abar = schedule.abar_at(index, x)
    return (1 - abar).sqrt() * (x - abar.sqrt() * MEAN) / (abar * SCALE**2 + 1 - abar)


def _abar(schedule, i, x):
    return schedule.abar_at(torch.full((len(x),), i), x)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_ddim_equals_diffusers_with_the_published_settings(kind):
    schedule = Schedule(kind, 1000)
    theirs = DDIMScheduler(
        trained_betas=schedule.betas.float().numpy(),
        clip_sample=True,
        set_alpha_to_one=True,
        timestep_spacing="leading",
    )
    theirs.set_timesteps(100)
    grid = time_grid(schedule, "ddim", 100)
    assert grid == theirs.timesteps.tolist()
    ours = reference = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    for here, after in zip(grid, [*grid[1:], -1], strict=True):
        abar, abar_next = _abar(schedule, here, ours), _abar(schedule, after, ours)
        eps = _eps(ours, torch.full((4,), here), schedule)
        x0 = ((ours - (1 - abar).sqrt() * eps) / abar.sqrt()).clamp(-1, 1)
        ours = ddim_step(Estimate(ours, x0, abar), (), abar_next)
        eps = _eps(reference, torch.full((4,), here), schedule)
        reference = theirs.step(eps, here, reference, use_clipped_model_output=True).prev_sample
    assert torch.allclose(ours, reference, atol=1e-5)


def test_ddim_at_eta_1_is_ddpms_ancestral_step():
    schedule = Schedule("linear", 1000)
    theirs = DDPMScheduler(trained_betas=schedule.betas.float().numpy(), variance_type="fixed_small", clip_sample=True)
    x = torch.randn(2, 1, 4, 4)
    abar, abar_next = _abar(schedule, 400, x), _abar(schedule, 399, x)
    eps = _eps(x, torch.full((2,), 400), schedule)
    x0 = ((x - (1 - abar).sqrt() * eps) / abar.sqrt()).clamp(-1, 1)
    g = torch.Generator().manual_seed(5)
    reference = theirs.step(eps, 400, x, generator=g).prev_sample
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(ddim_step(Estimate(x, x0, abar), (), abar_next, 1.0, noise), reference, atol=1e-5)


@pytest.mark.parametrize(("algorithm", "eta"), [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)])
def test_dpm_solver_equals_diffusers(algorithm, eta):
    schedule = Schedule("cosine", 1000)
    theirs = DPMSolverMultistepScheduler(
        trained_betas=schedule.betas.float().numpy(),
        algorithm_type=algorithm,
        solver_order=2,
        final_sigmas_type="zero",
        lambda_min_clipped=-5.1,
    )
    theirs.set_timesteps(20)
    grid = time_grid(schedule, "dpm-solver++", 20)
    assert grid == theirs.timesteps.tolist()
    ours = reference = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    before: list[Estimate] = []
    for here, after in zip(grid, [*grid[1:], -1], strict=True):
        index = torch.full((4,), here)
        abar, abar_next = (_abar(schedule, i, ours) for i in (here, after))
        now = Estimate(ours, (ours - (1 - abar).sqrt() * _eps(ours, index, schedule)) / abar.sqrt(), abar)
        z = torch.randn(ours.shape, generator=torch.Generator().manual_seed(here)) if after >= 0 else None
        ours, before = dpm_step(now, before or [now], abar_next, eta, z), [now]
        noise = torch.zeros_like(ours) if z is None else z
        reference = theirs.step(_eps(reference, index, schedule), here, reference, variance_noise=noise).prev_sample
    assert torch.allclose(ours, reference, atol=2e-4)


def test_ipndm_equals_diffusers():
    schedule, steps = Schedule("cosine", 1000), 8
    grid = time_grid(schedule, "ipndm", steps)
    sigma = (1 - schedule.abar[grid]).sqrt()
    theirs = IPNDMScheduler(trained_betas=[*sigma.tolist(), 0.0])
    theirs.set_timesteps(steps)
    ours = reference = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    before: list[Estimate] = []
    for k, (here, after) in enumerate(itertools.pairwise(grid)):
        abar, abar_next = _abar(schedule, here, ours), _abar(schedule, after, ours)
        eps = _eps(ours, torch.full((4,), here), schedule)
        now = Estimate(ours, (ours - (1 - abar).sqrt() * eps) / abar.sqrt(), abar)
        before = before or [now] * 3
        ours, before = ipndm_step(now, before, abar_next), [now, *before[:2]]
        # whose output is a velocity, of which it makes eps
        eps = _eps(reference, torch.full((4,), here), schedule)
        velocity = (eps - reference * theirs.betas[k]) / theirs.alphas[k]
        reference = theirs.step(velocity, theirs.timesteps[k], reference).prev_sample
        assert torch.allclose(ours, reference, atol=1e-4), k
    last = Estimate(ours, ours / 2, abar_next)
    assert torch.allclose(ipndm_step(last, before, torch.ones_like(abar)), last.x0), "the step to clean is first-order"


def _error(solver: str, steps: int, grid: Literal["even", "log-snr"] = "even") -> float:
    """RMS distance to the exact solution of the sampling ODE: for Gaussian data, an affine map of the noise."""
    schedule = Schedule("cosine", 1000)
    cfg = Sampling(solver=solver, steps=steps, eta=0.0, grid=grid)
    noise = ImageNoise(range(64), (1, 2, 2), CPU)
    x_start = ImageNoise(range(64), (1, 2, 2), CPU).draw()
    x = solve(lambda x, index: _eps(x, index, schedule), schedule, noise, cfg)
    abar = schedule.abar[levels(schedule, cfg)[0]]
    spread = (abar * SCALE**2 + 1 - abar).sqrt()
    exact = MEAN + SCALE * (x_start - abar.sqrt() * MEAN) / spread
    return float((x - exact.clamp(-1, 1)).square().mean().sqrt())


def test_both_solvers_converge_to_the_closed_form_at_their_order():
    ddim, dpm = [_error("ddim", n) for n in (20, 100)], [_error("dpm-solver++", n) for n in (20, 40)]
    assert ddim[1] < ddim[0] / 3 and ddim[1] < 0.01
    assert dpm[1] < dpm[0] / 3 and dpm[1] < ddim[1] / 2
    snr = [_error("dpm-solver++", n, "log-snr") for n in (20, 80)]
    assert snr[1] < snr[0] / 2 and snr[1] < 0.01
    few = {solver: _error(solver, 6) for solver in ("ddim", "dpm-solver++", "ipndm")}
    assert few["ipndm"] < few["dpm-solver++"] < few["ddim"] and _error("ipndm", 40) < ddim[0] / 5


def test_every_image_may_be_at_a_step_of_its_own():
    schedule = Schedule("cosine", 1000)
    x, x0, before = (torch.randn(3, 1, 2, 2, dtype=torch.float64) for _ in range(3))
    abar, after, earlier = (
        schedule.abar_at(torch.tensor(i), x) for i in ([900, 500, 60], [840, 440, -1], [960, 500, 120])
    )
    for step, memory in ((ipndm_step, 3), (dpm_step, 1)):
        together = step(Estimate(x, x0, abar), [Estimate(x, before, earlier)] * memory, after)
        for i in range(3):
            mine = [each[i : i + 1] for each in (x, x0, abar, before, earlier, after)]
            alone = step(Estimate(*mine[:3]), [Estimate(mine[0], *mine[3:5])] * memory, mine[5])
            assert torch.allclose(together[i : i + 1], alone, rtol=1e-12)
    # The second image is at its first step (no level before): first order; the third ends at the clean image.
    assert torch.allclose(together[1], ddim_step(Estimate(x, x0, abar), (), after)[1]), (abar[1], after[1])
    assert torch.allclose(together[2], x0[2])


def _published(levels: int) -> dict[int, list[int]]:
    """improved-diffusion's space_timesteps(levels, "ddimN") for every N that it has: the first stride that gives N."""
    found: dict[int, list[int]] = {}
    for stride in range(1, levels):
        taken = list(range(0, levels, stride))
        found.setdefault(len(taken), taken[::-1])
    return found


@pytest.mark.parametrize("levels", [1, 2, 7, 50, 1000, 4000])
@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
def test_any_number_of_steps_is_taken_and_starts_at_noise(solver, kind, levels):
    """No steps are dropped, least of all the noisiest: 600 of 1000 once started at t = 599."""
    schedule, published = Schedule(kind, levels), _published(levels)
    most = most_steps(schedule, solver)
    assert most == levels if solver == "ddim" else 0 <= most < levels
    for steps in range(1, most + 1):
        grid = np.array(time_grid(schedule, solver, steps))
        assert len(grid) == steps and (np.diff(grid) < 0).all() and grid[-1] >= 0, steps
        if solver == "dpm-solver++":
            ideal = np.linspace(most, most / steps, steps)
        elif steps in published:
            assert levels - grid[0] <= -(-levels // steps), steps
            ideal = np.array(published[steps])
        else:
            ideal = np.linspace(levels - 1, 0, steps)
        assert np.abs(grid - ideal).max() <= (0 if steps in published and solver == "ddim" else 0.501), steps


def test_the_first_levels_of_a_thousand_are_the_published_ones():
    schedule = Schedule("cosine", 1000)
    starts = {steps: time_grid(schedule, "ddim", steps)[0] for steps in (10, 12, 16, 50, 100, 300, 400, 600, 1000)}
    assert starts == {10: 900, 12: 924, 16: 945, 50: 980, 100: 990, 300: 999, 400: 999, 600: 999, 1000: 999}


@pytest.mark.parametrize(
    ("solver", "steps", "most"), [("ddim", 1001, 1000), ("dpm-solver++", 996, 995), ("ddim", 0, 1000)]
)
def test_more_steps_than_noise_levels_are_one_line(solver, steps, most):
    with pytest.raises(UserError, match=rf"steps: {steps}, but .* takes 1 to {most} .* 1000 noise levels") as caught:
        time_grid(Schedule("cosine", 1000), solver, steps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("grid", ["even", "log-snr"])
@pytest.mark.parametrize("steps", [300, 600])
def test_many_steps_end_where_pure_noise_belongs(solver, steps, grid):
    """The closed form of abar = 0 at the start, which a grid that drops the noisiest levels misses by far."""
    schedule = Schedule("cosine", 1000)
    x = solve(
        lambda x, index: _eps(x, index, schedule),
        schedule,
        ImageNoise(range(64), (1, 2, 2), CPU),
        Sampling(solver=solver, steps=steps, eta=0.0, grid=grid),
    )
    exact = MEAN + SCALE * ImageNoise(range(64), (1, 2, 2), CPU).draw()
    assert (x - exact.clamp(-1, 1)).square().mean().sqrt() < 0.01


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [4, 6, 12, 40])
def test_a_grid_by_log_snr_is_even_in_it(kind, steps):
    schedule = Schedule(kind, 1000)
    grid = log_snr_grid(schedule, steps)
    found = torch.logit(schedule.abar[grid].double()).numpy() / 2
    away = np.abs(found - np.linspace(found[0], found[-1], steps)).max()
    assert away < 0.12, "as far as levels of the schedule are apart; a grid even in time is 0.5 and more away"
    assert -5.1 <= found[0] < -5


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("levels_there", [12, 30, 100])
def test_a_grid_by_log_snr_has_a_level_a_step_in_short_schedules_too(kind, levels_there):
    schedule = Schedule(kind, levels_there)
    most = most_steps(schedule, "dpm-solver++")
    for steps in range(1, most + 1):
        grid = log_snr_grid(schedule, steps)
        assert len(grid) == steps and grid == sorted(set(grid), reverse=True) and 0 <= grid[-1] <= grid[0] <= most
    with pytest.raises(UserError, match=rf"steps: {most + 1}, but a grid by log SNR takes 1 to {most} on this"):
        log_snr_grid(schedule, most + 1)


def test_fresh_noise_for_a_solver_without_use_for_it_is_refused():
    with pytest.raises(ValueError, match=r"eta: 0\.5, but ipndm takes no fresh noise; expected 0"):
        Sampling(solver="ipndm", eta=0.5)
    assert Sampling(solver="ipndm", eta=0.0).solver == "ipndm"
