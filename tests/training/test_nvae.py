"""An NVAE learns what images are probable; its parts against closed forms; killed, it goes on to the same file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ddrep.data.batches import to_unit
from ddrep.generators.network import NVAEConfig
from ddrep.generators.nvae import NVAE
from ddrep.training.nvae import Spectral, balanced, elbo, kl_weight, pretrain, sizes_of
from tests import tiny
from tests.generators.tiny_nvae import nvae, section


def bits(model: NVAE, images: np.ndarray) -> float:
    """Of the ELBO, a number; with batch norms as they are settled."""
    torch.manual_seed(0)
    with torch.no_grad():
        log_p, kl = elbo(model.net, to_unit(images))
    return float((kl.sum(dim=1) - log_p).mean() / math.log(2) / math.prod(model.image_shape))


def test_it_learns_what_images_are_probable() -> None:
    images, others = tiny.images().images, tiny.images("validation", per_class=40).images
    cfg = section(steps=80, batch=16, lr=0.02, warmup=5, ema_decay=0.9)
    model = pretrain(images, cfg, seed=0, device=torch.device("cpu"))
    learned, noise = bits(model, others), np.random.default_rng(0).integers(0, 256, others.shape).astype(np.uint8)
    assert learned < 7.5, "nothing learned says 8 bits"
    assert bits(model, noise) > learned + 1 and not model.net.training and model.temperature == cfg.temperature
    assert not any(p.requires_grad for p in model.net.parameters())


def test_a_decoder_that_ignores_latents_has_the_closed_form() -> None:
    """Posterior equal to the prior: no KL; one logistic of mean 0 and scale 1 for every pixel: its probability."""
    model = nvae()
    net = model.net
    with torch.no_grad():
        for level in net.levels:
            torch.nn.init.zeros_(level.posterior.weight)
            level.posterior.bias = None
        for p in net.out.parameters():
            torch.nn.init.zeros_(p)
        log_p, kl = elbo(net, torch.full((2, 1, 8, 8), 1 / 255))
    middle = 1 / (1 + math.exp(-2 / 255)) - 0.5
    assert kl.abs().max() == 0 and kl.shape == (2, 3)
    assert log_p.tolist() == pytest.approx([64 * math.log(middle)] * 2, rel=1e-5)


def test_the_first_groups_kl_is_that_to_a_standard_normal() -> None:
    """Whose deviation is 1.01, as 0.01 is added to every one."""
    net = nvae().net
    with torch.no_grad():
        level = net.levels[0]
        torch.nn.init.zeros_(level.posterior.weight)
        level.posterior.bias = nn.Parameter(torch.tensor([0.5, -1.0, 0.3, 0.0]))
        _, kl = elbo(net, torch.zeros(1, 1, 8, 8))
        mu, sigma = (
            5 * torch.tanh(torch.tensor([0.5, -1.0]) / 5),
            torch.exp(5 * torch.tanh(torch.tensor([0.3, 0.0]) / 5)),
        )
        known = torch.distributions.Normal(mu, sigma + 0.01), torch.distributions.Normal(0.0, 1.01)
    pixels = math.prod(net.cfg.shapes[0][1:])
    assert kl[0, 0].item() == pytest.approx(pixels * torch.distributions.kl_divergence(*known).sum().item(), rel=1e-5)


def test_singular_values_are_found() -> None:
    net = nvae().net
    spectral = Spectral(net)
    for _ in range(200):
        found = spectral()
    convolutions = [m.weight.flatten(1) for m in net.modules() if isinstance(m, nn.Conv2d)]
    exact = sum(torch.linalg.svdvals(weight)[0] for weight in convolutions)
    assert found.item() == pytest.approx(float(exact), rel=0.01)
    net.requires_grad_(True)
    spectral().backward()
    assert all(m.weight.grad is not None for m in net.modules() if isinstance(m, nn.Conv2d))


def test_the_kl_warms_up_and_is_balanced_meanwhile() -> None:
    assert [kl_weight(step, 100, 0.3) for step in (0, 15, 30, 99)] == [1e-4, 0.5, 1, 1]
    assert kl_weight(0, 100, 0.0) == 1e-4 and kl_weight(1, 100, 0.0) == 1
    kl, sizes, half = torch.tensor([[1.0, 3.0]]), torch.tensor([1.0, 1.0]), torch.tensor(0.5)
    assert balanced(kl, sizes, torch.tensor(1.0)).tolist() == [4]
    much = torch.tensor([1.01, 3.01])
    assert balanced(kl, sizes, half).item() == pytest.approx(0.5 * float((kl[0] * much / much.mean()).sum()))
    assert balanced(kl, torch.tensor([1.0, 4.0]), half) < balanced(kl, sizes, half), "a large group pays less"
    cfg = NVAEConfig(image_size=32, outer_blocks=1, groups=(1, 2))
    assert sizes_of(cfg).tolist() == [1, 2, 2], "of 8x8 pixels one group, of 16x16 two"


def test_it_trains_in_mixed_precision() -> None:
    """Latents, KL and likelihood stay in single precision."""
    model = pretrain(tiny.images().images, section(precision="bf16"), seed=0, device=torch.device("cpu"))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in model.net.parameters())
