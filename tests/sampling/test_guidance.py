"""Guidance by a guide's gradient (paper, eq. 10, 11 and 13), against finite differences; and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ddrep.config import GuideTraining, Sampling, Taps
from ddrep.data.masks import IGNORE
from ddrep.denoiser.schedule import x0_from_eps
from ddrep.networks.guides import Guide
from ddrep.networks.metadata import GuideMeta
from ddrep.sampling.guidance import classifier_free, guided
from ddrep.sampling.sampler import draw, image_seed, sample
from ddrep.training.guides import fit
from tests import tiny

TAPS = {
    "attribute": Taps(blocks=("middle", "up2"), timesteps=(700,)),
    "mask": Taps(blocks=("up1", "up2"), timesteps=(300, 500)),
}
KINDS = [(of, reads) for of in ("attribute", "mask") for reads in ("features", "pixels")]


def guide(of: str, reads: str, double: bool = True) -> Guide:
    """A guide on an 8x8 denoiser, trained for two steps on real images; masks are bright against dark."""
    torch.manual_seed(0)
    denoiser = tiny.denoiser()
    images = tiny.images(classes=2, per_class=8)
    x = torch.as_tensor(images.images).movedim(-1, 1).float() / 127.5 - 1
    if double:
        denoiser.net.double()
        x = x.double()
    y = torch.as_tensor(images.labels if of == "attribute" else (images.images[..., 0] > 60).astype(np.int64))
    shown = {"of": of, "reads": reads, "taps": TAPS[of] if reads == "features" else None, "classes": ("a", "b")}
    meta = GuideMeta.model_validate(
        shown | {"hidden": 8, "channels": 1, "image_shape": (1, 8, 8), "denoiser_sha256": ""}
    )
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    try:
        made = fit(denoiser, meta, x, y, GuideTraining(steps=2, batch=8), seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    for p in made.net.parameters():  # so that no layer is flat
        torch.nn.init.normal_(p, std=0.3)
    return made


def target(of: str) -> Tensor:
    if of == "attribute":
        return torch.tensor([0, 1, 1])
    masks = torch.randint(0, 2, (3, 8, 8), generator=torch.Generator().manual_seed(1))
    masks[:, 0] = IGNORE
    return masks


@pytest.mark.parametrize(("of", "reads"), KINDS)
def test_the_gradient_equals_a_finite_difference(of: str, reads: str) -> None:
    g, y = guide(of, reads), target(of)
    denoiser, generator = g.denoiser, torch.Generator().manual_seed(2)
    x = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    index = torch.tensor([50, 400, 800])
    abar = denoiser.schedule.abar_at(index, x)

    @torch.no_grad()
    def value(x: Tensor) -> Tensor:
        return g.log_likelihood(x0_from_eps(x, denoiser.eps(x, index), abar), y)

    scale = 3.0
    with torch.no_grad():
        steered = guided(denoiser.eps, denoiser.schedule, lambda x0: g.log_likelihood(x0, y), scale)(x, index)
        gradient = (denoiser.eps(x, index) - steered) / (scale * (1 - abar).sqrt())
    h = 1e-5
    numeric = (value(x + h * direction) - value(x - h * direction)) / (2 * h)
    analytic = (gradient * direction).sum(dim=(1, 2, 3))
    assert analytic.abs().min() > 1e-6
    assert ((analytic - numeric).abs() / numeric.abs()).max() < 1e-5


def test_a_masks_likelihood_is_the_sum_over_pixels_that_count() -> None:
    g, y = guide("mask", "features"), target("mask")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        log_p = torch.log_softmax(g.net(g.inputs(x)), dim=1)
        terms = [[log_p[n, y[n, i, j], i, j] for i in range(1, 8) for j in range(8)] for n in range(3)]
        expected = [torch.stack(of_one).sum() for of_one in terms]
        torch.testing.assert_close(g.log_likelihood(x, y), torch.stack(expected))


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
def test_without_a_scale_samples_are_the_unguided_ones(solver: str) -> None:
    g = guide("attribute", "features", double=False)
    cfg = Sampling(solver=solver, steps=4, eta=1.0, guidance_scale=0.0)
    y = torch.tensor([0, 1])
    eps = guided(g.denoiser.eps, g.denoiser.schedule, lambda x0: g.log_likelihood(x0, y), 0.0)
    np.testing.assert_array_equal(draw(g.denoiser, [1, 2], cfg, eps), sample(g.denoiser, [1, 2], cfg))


@pytest.mark.parametrize("of", ["attribute", "mask"])
def test_guided_samples_do_not_depend_on_their_batch_and_leave_targets_alone(of: str) -> None:
    g, y = guide(of, "features", double=False), target(of)
    kept, cfg = y.clone(), Sampling(steps=3, eta=1.0)
    seeds = [image_seed(0, 0, 0, i) for i in range(3)]

    def drawn(rows: list[int]) -> np.ndarray:
        ll = lambda x0: g.log_likelihood(x0, y[rows])  # noqa: E731
        eps = guided(g.denoiser.eps, g.denoiser.schedule, ll, 1.0)
        return draw(g.denoiser, [seeds[i] for i in rows], cfg, eps)

    together = drawn([0, 1, 2]).astype(int)
    apart = np.concatenate([drawn([i]) for i in range(3)]).astype(int)
    assert np.abs(together - apart).max() <= 1
    assert torch.equal(y, kept)
    assert np.abs(together - sample(g.denoiser, seeds, cfg).astype(int)).max() > 1, "the guide does nothing"


def test_recomputed_blocks_give_the_same_gradient() -> None:
    g, y = guide("mask", "features"), target("mask")
    x, index = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([100, 500, 900])
    steered = guided(g.denoiser.eps, g.denoiser.schedule, lambda x0: g.log_likelihood(x0, y), 1.0)
    plain = steered(x, index)
    g.denoiser.net.gradient_checkpointing = True
    torch.testing.assert_close(steered(x, index), plain, rtol=1e-12, atol=1e-12)


def test_a_guide_steers_classifier_free_guidance_as_well() -> None:
    g, labels = guide("attribute", "features", double=False), torch.tensor([0, 2, 1])
    conditional, y = tiny.denoiser(4, seed=1), target("attribute")
    x, index = torch.randn(3, 1, 8, 8), torch.tensor([100, 500, 900])
    eps = classifier_free(conditional, labels, 0.5)
    steered = guided(eps, conditional.schedule, lambda x0: g.log_likelihood(x0, y), 2.0)(x, index)
    free = x.clone().requires_grad_()
    abar = conditional.schedule.abar_at(index, x)
    (gradient,) = torch.autograd.grad(g.log_likelihood(x0_from_eps(free, eps(free, index), abar), y).sum(), free)
    torch.testing.assert_close(steered, eps(x, index) - 2.0 * (1 - abar).sqrt() * gradient)
