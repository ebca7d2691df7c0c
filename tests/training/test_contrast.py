"""The contrastive part of a D2C: its loss, its encoder of keys and its queue by their definitions, and its views."""

from __future__ import annotations

import math
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.config import Contrast
from ddrep.training import contrast
from ddrep.training.contrast import Keys, Projected, info_nce, view
from tests.generators.tiny_d2c import d2c

CFG = Contrast(queue=10, width=4, momentum=0.75)


def units(n: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


def keys() -> tuple[Keys, Projected]:
    model = d2c()
    projected = Projected(model.latent_size, CFG.width)
    return Keys(model.net.encoder, projected, CFG), projected


def test_the_loss_is_the_share_of_the_own_key() -> None:
    """MoCo, eq. 1, number by number."""
    queries, own, queue, losses = units(3, 0), units(3, 1), units(5, 2), []
    for q, k in zip(queries.tolist(), own.tolist(), strict=True):
        own_share, *others = (math.exp(sum(map(operator.mul, q, other)) / 0.2) for other in (k, *queue.tolist()))
        losses.append(-math.log(own_share / (own_share + sum(others))))
    assert info_nce(queries, own, queue, 0.2).item() == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_the_encoder_of_keys_follows_that_of_queries() -> None:
    """MoCo, eq. 2; it has no gradient, and begins as what it follows."""
    told, projected = keys()
    encoder = d2c().net.encoder
    before = [p.clone() for p in told.parameters()]
    theirs = [*encoder.parameters(), *projected.parameters()]
    assert all(map(torch.equal, before, theirs)) and not any(p.requires_grad for p in told.parameters())
    with torch.no_grad():
        for p in theirs:
            p.add_(1)
    told.follow(encoder, projected)
    for now, old, new in zip(told.parameters(), before, theirs, strict=True):
        assert torch.allclose(now, 0.75 * old + 0.25 * new, atol=1e-6)


def test_the_queue_has_the_latest_keys() -> None:
    """Of batches that do not divide it as of others; where a batch goes hangs on the step alone."""
    told, _ = keys()
    assert torch.allclose(told.queue.norm(dim=1), torch.ones(10))
    batches = [units(4, seed) for seed in range(6)]
    for step, batch in enumerate(batches):
        told.enqueue(batch, step)
    latest = torch.cat(batches)[-10:]
    assert sorted(told.queue.tolist()) == sorted(latest.tolist())
    resumed, _ = keys()
    for step in (3, 4, 5):
        resumed.enqueue(batches[step], step)
    assert torch.equal(resumed.queue, told.queue)


def test_keys_are_unit_vectors_of_the_posteriors_mean() -> None:
    told, _ = keys()
    x0 = torch.rand(3, 1, 8, 8) * 2 - 1
    expected = told.projected.layers(told.encoder.posterior(x0)[0])
    assert torch.allclose(told(x0), expected / expected.norm(dim=1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_random_and_stay_in_range(channels: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(6, channels, 8, 8) * 2 - 1
    one, other = view(x), view(x)
    assert one.shape == x.shape and one.dtype == x.dtype and one.abs().max() <= 1
    assert (one - other).abs().mean() > 0.05 and (one[0] - one[1]).abs().mean() > 0.05
    torch.manual_seed(0)
    torch.rand(6, channels, 8, 8)
    assert torch.equal(view(x), one), "of nothing but torch's generator"


def test_the_whole_of_an_image_unflipped_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 1, 8, 8) * 2 - 1
    monkeypatch.setattr(contrast, "SMALLEST", 1.0)
    monkeypatch.setattr(contrast.torch, "rand", lambda *shape, device: torch.ones(shape))
    assert torch.allclose(contrast._cropped(x), x, atol=1e-5)
    monkeypatch.setattr(contrast.torch, "rand", lambda *shape, device: torch.zeros(shape))
    assert torch.allclose(contrast._cropped(x), x.flip(3), atol=1e-5)


def test_a_colour_image_is_made_grey_now_and_then() -> None:
    torch.manual_seed(1)
    seen = contrast._recoloured(torch.rand(400, 3, 2, 2) * 2 - 1)
    grey = (seen.amax(1) - seen.amin(1)).flatten(1).amax(1) < 1e-5
    assert 0.1 < grey.float().mean() < 0.3
