"""A D2C learns to encode, decode and draw latents, by what its objective is; killed, it goes on to the same file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from ddrep.data.batches import to_unit
from ddrep.denoiser.schedule import Schedule, add_noise
from ddrep.generators.d2c import D2C, D2CNetwork
from ddrep.generators.network import d2c_of
from ddrep.training import d2c as training
from ddrep.training.contrast import info_nce
from ddrep.training.d2c import divergence, objective, pretrain, train_autoencoder
from ddrep.training.latents import normalise, train_latents
from tests import tiny
from tests.generators.tiny_d2c import CONTRAST, NETWORK, d2c, section


def test_the_divergence_is_that_of_diagonal_normal_distributions() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 2, 3, 3, dtype=torch.float64)
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 3)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 3)
    assert torch.allclose(divergence(mean, log_variance), kl_divergence(posterior, prior), rtol=1e-12)


def test_the_objective_is_the_evidence_lower_bound_of_a_linear_model() -> None:
    """x = w z + s e, of one number z: log p(x) is known, and with the true posterior the bound is equal to it."""
    w, s = torch.tensor([0.6, -0.3, 0.2], dtype=torch.float64), 0.4
    x = torch.tensor([0.5, 0.1, -0.7], dtype=torch.float64)
    covariance = w.outer(w) + s**2 * torch.eye(3, dtype=torch.float64)
    log_p = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(x)
    variance = 1 / (1 + w @ w / s**2)
    mean = variance * (w @ x) / s**2
    points, weights = np.polynomial.hermite_e.hermegauss(20)  # exact, for the error is quadratic in z
    z = mean + variance.sqrt() * torch.from_numpy(points)
    images = (z[:, None] * w).reshape(20, 3, 1, 1)
    of_point = [objective(x.reshape(1, 3, 1, 1), each[None].double(), mean.reshape(1, 1, 1, 1),
                          variance.log().reshape(1, 1, 1, 1), s**2) for each in images]  # fmt: skip
    expected = 3 * float(np.dot(weights, of_point) / weights.sum())  # s^2 times the negative bound, but for a constant
    constant = 1.5 * np.log(2 * np.pi * s**2)
    assert -expected / s**2 - constant == pytest.approx(float(log_p), rel=1e-6)


def test_it_learns_to_encode_and_to_decode() -> None:
    images = tiny.images().images
    cfg = section(steps=80, batch=16, lr=5e-3, warmup=5, ema_decay=0.9, kl_weight=1e-4)
    model = pretrain(images, cfg, seed=0, device=torch.device("cpu"))
    x0 = to_unit(tiny.images("validation", per_class=40).images)
    with torch.no_grad():
        mean, log_variance = model.net.encoder.posterior(x0)
        error = (model.net.decoder(mean) - x0).square().mean()
    assert error < 0.5 * x0.var(), "what says the mean image alone has all of it"
    assert (0.5 * log_variance).exp().mean() < 1 and not model.net.training and model.schedule.kind == "linear"


def test_two_views_of_an_image_come_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the keys of other images less, for images that differ in large parts."""
    images = np.random.default_rng(0).integers(0, 256, (64, 2, 2, 1), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    margins = list[float]()

    def watched(queries: Tensor, told: Tensor, queue: Tensor, temperature: float) -> Tensor:
        margins.append(((queries * told).sum(1) - (queries @ queue.T).mean(1)).mean().item())
        return info_nce(queries, told, queue, temperature)

    monkeypatch.setattr(training, "info_nce", watched)
    cfg = section(steps=25, batch=32, lr=3e-3, warmup=5, contrast={"weight": 1.0, "queue": 64, "momentum": 0.9})
    torch.manual_seed(0)
    model = D2C(D2CNetwork(d2c_of(cfg.network, 8, 1)), Schedule("linear"))
    train_autoencoder(images, model, cfg, seed=0, state=None)
    assert np.mean(margins[-5:]) > 2 * margins[2], "since the queue is of images' keys"


def test_latents_are_normalised_by_those_of_the_training_images() -> None:
    images, model = tiny.images().images, d2c()
    latents = normalise(images, model, (2, 4, 4))
    assert latents.shape == (len(images), 2, 4, 4)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(2), atol=5e-3)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(2), atol=5e-3)
    assert torch.allclose(model.encode(images), latents.flatten(1), atol=5e-3)


def test_a_channel_that_all_latents_share_stays_finite() -> None:
    images, model = tiny.images().images, d2c()
    last = model.net.encoder[-1]
    assert isinstance(last, torch.nn.Conv2d) and last.bias is not None
    with torch.no_grad():
        last.weight[0], last.bias[0] = 0, 7
    assert normalise(images, model, (2, 4, 4))[:, 0].unique().tolist() == [0]


def test_the_unet_learns_the_noise_of_latents() -> None:
    """Of such as are all one number each, so that the noise is told by the others."""
    torch.manual_seed(0)
    model = D2C(D2CNetwork(d2c_of(section().network, 8, 1)), Schedule("linear"))
    latents = torch.randn(500, 1, 1, 1).expand(500, 2, 4, 4).contiguous()
    cfg = section(latents={"steps": 60, "batch": 32, "lr": 3e-3, "ema_decay": 0.9}, warmup=5)
    own = model.net.unet, model.schedule
    train_latents(latents, *own, cfg, loss=F.mse_loss, seed=0, state=None)
    index, noise = torch.randint(1000, (100,)), torch.randn(100, 2, 4, 4)
    noised = add_noise(latents[:100], noise, model.schedule.abar_at(index, noise))
    with torch.no_grad():
        error = (model.net.unet(noised, index.float()) - noise).square().mean()
    assert error < 0.5, "a network that says eps = 0 has a loss of 1"


def test_a_queue_shorter_than_a_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"contrast\.queue: 4; expected a batch, 8, at least"):
        section(network=NETWORK, contrast=CONTRAST | {"queue": 4})
