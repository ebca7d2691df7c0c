"""Schedules against diffusers', and the embedded-time convention of rescaled checkpoints."""

import pytest
import torch
from diffusers import DDPMScheduler

from ddrep.denoiser.schedule import Schedule, add_noise, x0_from_eps


@pytest.mark.parametrize(("kind", "theirs"), [("cosine", "squaredcos_cap_v2"), ("linear", "linear")])
def test_abar_equals_diffusers(kind, theirs):
    reference = DDPMScheduler(num_train_timesteps=1000, beta_schedule=theirs, beta_start=1e-4, beta_end=0.02)
    assert torch.allclose(Schedule(kind, 1000).abar.float(), reference.alphas_cumprod, rtol=2e-5, atol=1e-9)


def test_a_paper_timestep_is_one_noise_level_and_one_embedding_on_every_schedule():
    short, long = Schedule("cosine", 1000), Schedule("cosine", 4000, rescale_timesteps=True)
    for t in (300, 500, 700, 800):
        i, j = torch.tensor([short.index(t)]), torch.tensor([long.index(t)])
        assert j == 4 * t
        assert short.embedded(i) == long.embedded(j) == t
        # Index i of n ends at time (i + 1) / n, so the two levels differ by less than one coarse step.
        assert abs(short.abar[i] - long.abar[j]) < abs(short.abar[i] - short.abar[i - 1])


def test_without_rescaling_the_index_itself_is_embedded():
    assert Schedule("cosine", 4000, rescale_timesteps=False).embedded(torch.tensor([1200])) == 1200


def test_the_estimate_inverts_the_noise():
    x0, eps = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.randn(3, 1, 4, 4, dtype=torch.float64)
    schedule = Schedule("linear", 1000)
    abar = schedule.abar_at(torch.tensor([0, 500, 999]), x0)
    x = add_noise(x0, eps, abar)
    assert torch.allclose(x0_from_eps(x, eps, abar), x0, atol=1e-10)


def test_index_minus_one_is_the_clean_image():
    assert Schedule().abar_at(torch.tensor([-1]), torch.zeros(1, 1, 1, 1)) == 1


@pytest.mark.parametrize("t", [-1, 1000])
def test_times_outside_the_schedule_are_refused(t):
    with pytest.raises(ValueError, match="expected 0 <= t < 1000"):
        Schedule().index(t)
