"""Latents drawn by DDIM are spread as what their noise is estimated of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddrep.denoiser.schedule import Schedule
from ddrep.errors import UserError
from ddrep.generators.base import drawn

SCHEDULE = Schedule("linear")
CPU = torch.device("cpu")


def eps(z: Tensor, t: Tensor) -> Tensor:
    """Of latents from N(2, 0.5^2): what is to be expected of the noise, given the noised latent."""
    abar = SCHEDULE.abar_at(t.long(), z)
    return (1 - abar).sqrt() * (z - 2 * abar.sqrt()) / (0.25 * abar + 1 - abar)


@pytest.mark.parametrize("shape", [(8,), (2, 4, 4)])
def test_latents_of_a_known_distribution_are_given_back(shape: tuple[int, ...]) -> None:
    z = drawn(eps, SCHEDULE, shape, range(500), 100, CPU)
    assert z.shape == (500, *shape)
    assert abs(z.mean() - 2) < 0.05 and abs(z.std() - 0.5) < 0.03


def test_each_is_its_seeds_alone() -> None:
    many, one = drawn(eps, SCHEDULE, (3,), range(20), 4, CPU), drawn(eps, SCHEDULE, (3,), [17], 4, CPU)
    assert torch.equal(many[17:18], one)


def test_more_steps_than_levels_are_one_line() -> None:
    with pytest.raises(UserError, match="steps: 1001, but ddim takes 1 to 1000"):
        drawn(eps, SCHEDULE, (3,), [0], 1001, CPU)
