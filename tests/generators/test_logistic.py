"""The mixture of logistics over 256 levels: its probabilities against sums, an integral and torch's distributions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import AffineTransform, SigmoidTransform, TransformedDistribution, Uniform

from ddrep.generators.logistic import LEAST_LOG_SCALE, LogisticMixture, parameters_of

LEVELS = 2 * torch.arange(256, dtype=torch.float64) / 255 - 1


def said_of(channels: int, mixtures: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Of one pixel in each of four images."""
    g = torch.Generator().manual_seed(seed)
    return spread * torch.randn(4, parameters_of(channels, mixtures), 1, 1, generator=g)


def grey(log_weight: float, mean: float, log_scale: float) -> Tensor:
    return torch.tensor([log_weight, mean, log_scale])[None, :, None, None]


@pytest.mark.parametrize("spread", [0.3, 1, 10], ids=str)
def test_levels_sum_to_one(spread: float) -> None:
    """However narrow or wide, and wherever the means lie: no mass is lost beyond black and white."""
    mixture = LogisticMixture(said_of(1, 3, spread=spread), 1)
    log_p = torch.cat([mixture.log_prob(level.float().expand(4, 1, 1, 1)) for level in LEVELS], dim=1)
    assert log_p.isfinite().all()
    assert torch.allclose(log_p.double().exp().sum(dim=1), torch.ones(4, 1, dtype=torch.float64), atol=1e-4)


def test_colours_sum_to_one_given_the_channels_before() -> None:
    """Of blue, whose mean red and green move; the sum over its levels is what red and green have."""
    said = said_of(3, 2)
    mixture = LogisticMixture(said, 3)
    red, green = 0.2 * torch.ones(4, 1, 1), -0.4 * torch.ones(4, 1, 1)

    def blue(level: Tensor) -> Tensor:
        return mixture.log_prob(torch.stack([red, green, level.float().expand(4, 1, 1)], dim=1))

    whole = torch.stack([blue(level).double().exp() for level in LEVELS]).sum(dim=0)
    two = LogisticMixture(said, 3)
    two.log_scales[:, 2] = 50.0  # every level of blue as probable: half of it black, half white
    ends = [torch.stack([red, green, end * torch.ones(4, 1, 1)], dim=1) for end in (-1, 1)]
    assert torch.allclose(whole, torch.stack([two.log_prob(x).double().exp() for x in ends]).sum(dim=0), rtol=1e-4)


def test_a_level_has_the_logistics_probability_between_its_neighbours() -> None:
    """Against torch's logistic distribution, made of a uniform one."""
    mean, scale = 0.1, 0.05
    known = TransformedDistribution(
        Uniform(torch.zeros((), dtype=torch.float64), 1), [SigmoidTransform().inv, AffineTransform(mean, scale)]
    )
    mixture = LogisticMixture(grey(0.0, mean, torch.tensor(scale).log().item()), 1)
    for level in (100, 140, 141, 200):
        x = LEVELS[level]
        expected = known.cdf(x + 1 / 255) - known.cdf(x - 1 / 255)
        found = mixture.log_prob(x.float().view(1, 1, 1, 1)).double().exp().item()
        assert found == pytest.approx(expected.item(), rel=2e-4)
    ends = [mixture.log_prob(LEVELS[level].float().view(1, 1, 1, 1)).double().exp().item() for level in (0, 255)]
    assert ends == pytest.approx([known.cdf(LEVELS[0] + 1 / 255).item(), 1 - known.cdf(LEVELS[255] - 1 / 255).item()])


def test_what_is_all_but_impossible_is_finite() -> None:
    mixture = LogisticMixture(grey(0.0, -1.0, LEAST_LOG_SCALE - 5), 1)
    log_p = mixture.log_prob(torch.full((1, 1, 1, 1), 0.9))
    assert log_p.isfinite().all() and log_p.item() < -1000
    assert mixture.log_prob(torch.full((1, 1, 1, 1), -1.0)).item() == pytest.approx(0, abs=0.02)


def test_the_mean_is_that_of_the_parts() -> None:
    said = torch.cat([torch.tensor([0.0, 0.0]), torch.tensor([-0.5, 0.1]), torch.zeros(2)])[None, :, None, None]
    assert LogisticMixture(said, 1).mean().item() == pytest.approx(-0.2)
    mixture = LogisticMixture(said_of(3, 2, spread=0.1), 3)
    assert mixture.mean().shape == (4, 3, 1, 1) and mixture.mean().abs().max() <= 1
