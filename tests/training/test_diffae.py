"""A DiffAE learns to denoise and to draw latents; killed, it goes on to the same file."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ddrep.data.batches import to_unit
from ddrep.denoiser.schedule import Schedule, add_noise
from ddrep.generators.diffae import LATENT_SCHEDULE, DiffAE, DiffAENetwork
from ddrep.generators.network import diffae_of
from ddrep.training.diffae import pretrain
from ddrep.training.latents import normalise, train_latents
from tests import tiny
from tests.generators.tiny_diffae import NETWORK, diffae, section


def test_it_learns_to_denoise_what_it_has_encoded() -> None:
    images = tiny.images().images
    cfg = section(steps=60, batch=16, lr=3e-3, warmup=5, ema_decay=0.9)
    model = pretrain(images, cfg, seed=0, device=torch.device("cpu"))
    x0, g = to_unit(tiny.images("validation", per_class=40).images), torch.Generator().manual_seed(0)
    index, noise = torch.randint(1000, (len(x0),), generator=g), torch.randn(x0.shape, generator=g)
    x = add_noise(x0, noise, model.schedule.abar_at(index, x0))
    with torch.no_grad():
        z = model.net.encoder(x0)
        told, misled = ((model.net.unet.eps(x, index.float(), each) - noise).square().mean() for each in (z, -z))
    assert told < 0.6, "a network that says eps = 0 has a loss of 1"
    assert told < misled and model.schedule.kind == "linear" and not model.net.training


def test_latents_are_normalised_by_those_of_the_training_images() -> None:
    images, model = tiny.images().images, diffae()
    latents = normalise(images, model, (8,))
    assert torch.allclose(latents.mean(0), torch.zeros(8), atol=5e-3)
    assert torch.allclose(latents.std(0), torch.ones(8), atol=5e-3)
    assert torch.allclose(model.encode(images), latents, atol=5e-3)


def test_a_number_that_all_latents_share_stays_finite() -> None:
    images, model = tiny.images().images, diffae()
    last = list(model.net.encoder.out.parameters())[-2:]  # of the last convolution: weights and biases
    with torch.no_grad():
        last[0][0], last[1][0] = 0, 7
    assert normalise(images, model, (8,))[:, 0].unique().tolist() == [0]


def test_drawn_latents_are_spread_as_what_was_learned() -> None:
    """Of a Gaussian with a mean and a deviation of its own, which DDIM is to give back."""
    torch.manual_seed(0)
    wide = section(network=NETWORK | {"latent_width": 128})
    model = DiffAE(DiffAENetwork(diffae_of(wide.network, 8, 1)), Schedule("linear"))
    latents = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 2
    cfg = section(latents={"steps": 800, "batch": 128, "lr": 3e-3, "ema_decay": 0.99}, warmup=10)
    own = model.net.latent_net, LATENT_SCHEDULE
    train_latents(latents, *own, cfg, loss=F.l1_loss, seed=0, state=None)
    drawn = model.latents(range(300), 50)
    assert (drawn.mean(0) - 2).abs().max() < 0.3 and (drawn.std(0) - 0.5).abs().max() < 0.25
