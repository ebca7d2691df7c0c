"""The objective against numbers of the published code, and its parts against SciPy.

PUBLISHED holds `mse` and `vb` of `GaussianDiffusion.training_losses` in openai/improved-diffusion, for each image, with
EPSILON, LEARNED_RANGE, RESCALED_MSE (what `rescale_learned_sigmas` stands for, the default its ImageNet-64 file was
trained with) and rescaled timesteps. The network is its `UNetModel` of the case improved_scale_shift in recipe.py; all
of it in float64 (its casts to float32 patched out). Images and noise are those of `_inputs`.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.loss import denoising_loss, discretized_log_likelihood, posterior
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from tests import tiny
from tests.denoiser import recipe

PUBLISHED = {
    ("cosine", 4000): {
        0: (1.25656458509, 3.63506394204),
        1: (1.3897112677, 3.1267355455),
        40: (1.32964794894, 0.131987050584),
        1200: (1.25454857879, 0.00689043063093),
        3960: (1.33862577162, 0.200645387053),
    },
    ("linear", 1000): {
        0: (1.25707867974, 2.67312423752),
        1: (1.39904647862, 0.884476041404),
        10: (1.32932771604, 0.142922471527),
        300: (1.25662123809, 0.00916235339416),
        990: (1.33883442739, 0.019530193594),
    },
}


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """x0 and noise, (5, 3, 16, 16): 256-level images and standard normal numbers of numpy's default_rng(1)."""
    rng = np.random.default_rng(1)
    x0 = torch.from_numpy(rng.integers(0, 256, (5, 3, 16, 16)) / 127.5 - 1)
    return x0, torch.from_numpy(rng.standard_normal((5, 3, 16, 16)))


def _published_network(kind, num_steps: int, dtype: torch.dtype) -> Denoiser:
    cfg = UNetConfig(
        recipe.SIZE, attention_sizes=(recipe.ATTENTION_AT,), **recipe.COMMON, **recipe.CASES["improved_scale_shift"]
    )
    net = UNet(cfg).to(dtype).eval()
    net.load_state_dict(recipe.fill({k: v.shape for k, v in net.state_dict().items()}))
    return Denoiser(net, Schedule(kind, num_steps))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
@pytest.mark.parametrize("schedule", PUBLISHED, ids=str)
def test_the_hybrid_loss_is_the_published_one(schedule, dtype, tolerance):
    kind, num_steps = schedule
    denoiser, (x0, noise) = _published_network(kind, num_steps, dtype), _inputs()
    for i, (t, (mse, vb)) in enumerate(PUBLISHED[schedule].items()):
        part = slice(i, i + 1)
        with torch.no_grad():
            loss = denoising_loss(denoiser, x0[part].to(dtype), torch.tensor([t]), noise[part].to(dtype)).item()
        # at t=0 the published code approximates the normal distribution function by a tanh, good to 3e-4
        assert loss - mse == pytest.approx(vb, rel=0.02 if t == 0 else tolerance), t


def test_without_a_learned_variance_it_is_the_mean_squared_error():
    denoiser = tiny.denoiser(4)
    x0, noise, index, y = (
        torch.rand(3, 1, 8, 8) * 2 - 1,
        torch.randn(3, 1, 8, 8),
        torch.tensor([0, 500, 999]),
        [0, 2, 3],
    )
    total = 0.0
    for i, t in enumerate(index.tolist()):
        abar = math.cos((t + 1) / 1000 / 1.008 * math.pi / 2 + 0.008 / 1.008 * math.pi / 2) ** 2
        abar /= math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        if t == 999:  # where beta is clipped
            abar = float(np.prod(1 - denoiser.schedule.betas.numpy()))
        x = math.sqrt(abar) * x0[i] + math.sqrt(1 - abar) * noise[i]
        guess = denoiser.net(x[None], torch.tensor([float(t)]), torch.tensor([y[i]]))[0]
        total += float(((guess - noise[i]) ** 2).mean())
    loss = denoising_loss(denoiser, x0, index, noise, torch.tensor(y))
    assert loss.item() == pytest.approx(total / 3, rel=1e-4)


def test_the_variational_term_trains_the_variance_alone():
    denoiser, (x0, noise) = _published_network("cosine", 1000, torch.float32), (v.float() for v in _inputs())
    weight, index = denoiser.net.out[-1].get_parameter("weight"), torch.tensor([0, 5, 300, 600, 999])

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, weight)[0]

    hybrid = gradient(denoising_loss(denoiser, x0, index, noise))
    abar = denoiser.schedule.abar_at(index, x0)
    eps = denoiser.eps(abar.sqrt() * x0 + (1 - abar).sqrt() * noise, index)
    plain = gradient((eps - noise).square().mean())
    torch.testing.assert_close(hybrid[:3], plain[:3], rtol=1e-4, atol=1e-5)
    assert hybrid[3:].abs().max() > 1e-4 and plain[3:].abs().max() == 0


@pytest.mark.parametrize("schedule", [Schedule("cosine", 4000), Schedule("linear", 1000)], ids=str)
def test_the_posterior_is_bayes_rule(schedule):
    # q(x_{t-1} | x0) q(x_t | x_{t-1}) as a product of two Gaussians in x_{t-1}
    x0, x = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.8, dtype=torch.float64)
    for t in (1, 2, 100, schedule.num_steps - 1):
        beta, before = schedule.betas[t], schedule.abar[t - 1]
        precision = 1 / (1 - before) + (1 - beta) / beta
        mean = (before.sqrt() * x0 / (1 - before) + (1 - beta).sqrt() * x / beta) / precision
        ours = posterior(schedule, x0.reshape(1, 1, 1, 1), x.reshape(1, 1, 1, 1), torch.tensor([t]))
        assert ours[0].item() == pytest.approx(mean.item(), rel=1e-9)
        assert ours[1].item() == pytest.approx(-math.log(precision), rel=1e-9)


def test_the_likelihood_of_a_pixel_is_the_gaussians_mass_of_its_level():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, scale in ((0.1, 0.05), (-0.99, 0.02), (0.0, 3.0)):
        log_p = discretized_log_likelihood(levels, levels.new_tensor(mean), levels.new_tensor(math.log(scale)))
        edges = np.concatenate([[-np.inf], (levels.numpy()[1:] + levels.numpy()[:-1]) / 2, [np.inf]])
        mass = np.diff(stats.norm.cdf(edges, mean, scale))
        np.testing.assert_allclose(log_p.exp().numpy(), np.maximum(mass, 1e-12), rtol=1e-6, atol=1e-9)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
