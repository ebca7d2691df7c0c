"""The denoising objective: MSE on eps, and the variational term where the variance is learned.

Source: Nichol & Dhariwal 2021, section 3.1 (hybrid loss, eq. 15-16); paper, eq. 6.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule, add_noise, x0_from_eps


def denoising_loss(denoiser: Denoiser, x0: Tensor, index: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
    """Mean over the batch of L_simple (+ 1e-3 num_steps L_vlb where variance is learned).

    x0 (N, C, H, W) in [-1, 1], schedule indices (N,), noise like x0, labels (N,) if conditional.
    """
    abar = denoiser.schedule.abar_at(index, x0)
    x = add_noise(x0, noise, abar)
    eps, variance = denoiser.output(x, index, y)
    eps = eps.to(x0)  # autocast's output may be bf16
    loss = (eps - noise).square().mean(dim=(1, 2, 3))
    if variance is not None:
        # The mean is detached: the variational term may only train the variance (Nichol & Dhariwal, section 3.1).
        bound = variational_bound(denoiser.schedule, x0, x, index, eps.detach(), variance.to(x0))
        loss = loss + denoiser.schedule.num_steps / 1000 * bound
    return loss.mean()


def posterior(schedule: Schedule, x0: Tensor, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 6-7); the variance at t=0 is that at t=1."""
    # In float64 up to the coefficients: with 4000 steps beta is 1e-5, of which 1 - abar in float32 loses a per cent.
    abar, before = schedule.abar_at(index, x.double()), schedule.abar_at(index - 1, x.double())
    beta = 1 - abar / before
    of_x0, of_x = before.sqrt() * beta / (1 - abar), (1 - beta).sqrt() * (1 - before) / (1 - abar)
    one = index.clamp(min=1)
    after, here = schedule.abar_at(one - 1, x.double()), schedule.abar_at(one, x.double())
    log_variance = ((1 - after) / (1 - here) * (1 - here / after)).log().to(x)
    return of_x0.to(x) * x0 + of_x.to(x) * x, log_variance


def log_variance_of(schedule: Schedule, raw: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """The learned log variance: between the posterior's and beta's by raw in [-1, 1] (Nichol & Dhariwal, eq. 15)."""
    low = posterior(schedule, x, x, index)[1]
    high = (1 - schedule.abar_at(index, x.double()) / schedule.abar_at(index - 1, x.double())).log().to(x)
    return low + (raw + 1) / 2 * (high - low)


def variational_bound(schedule: Schedule, x0: Tensor, x: Tensor, index: Tensor, eps: Tensor, raw: Tensor) -> Tensor:
    """One term of the variational bound in bits a dimension, (N,): KL, or at t=0 the discretised likelihood."""
    true_mean, true_log = posterior(schedule, x0, x, index)
    guess = x0_from_eps(x, eps, schedule.abar_at(index, x))
    mean, log_var = posterior(schedule, guess, x, index)[0], log_variance_of(schedule, raw, x, index)
    kl = 0.5 * (log_var - true_log - 1 + (true_log - log_var).exp() + (true_mean - mean).square() * (-log_var).exp())
    nll = -discretized_log_likelihood(x0, mean, 0.5 * log_var)
    bits = torch.where((index == 0)[:, None, None, None], nll, kl).mean(dim=(1, 2, 3))
    return bits / math.log(2)


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P of 256-level pixels x in [-1, 1] under a Gaussian; the outermost levels take the tails."""
    scale = (-log_scale).exp()

    def cdf(edge: Tensor) -> Tensor:
        return torch.special.ndtr((edge - mean) * scale)

    upper = torch.where(x > 0.999, torch.ones_like(x), cdf(x + 1 / 255))
    lower = torch.where(x < -0.999, torch.zeros_like(x), cdf(x - 1 / 255))
    return (upper - lower).clamp(min=1e-12).log()
