"""Seeds, labels and batches: what a sampled image may and may not depend on."""

import numpy as np
import pytest
import torch

from ddrep.config import Sampling
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.sampling.guidance import classifier_free
from ddrep.sampling.rows import MOST
from ddrep.sampling.sampler import ImageNoise, evaluations, guided_at, image_seed, levels, sample


def tiny(num_classes: int = 0, seed: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    net = UNet(
        UNetConfig(
            8,
            1,
            1,
            model_channels=32,
            channel_mult=(1, 1),
            num_res_blocks=1,
            attention_sizes=(4,),
            num_heads=2,
            num_classes=num_classes,
        )
    )
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return Denoiser(net.eval().requires_grad_(False), Schedule())


def test_classifier_free_guidance_is_its_formula_and_leaves_labels_alone():
    model, y = tiny(4), torch.tensor([0, 2, 1])
    x, index = torch.randn(3, 1, 8, 8), torch.tensor([10, 500, 900])
    kept = y.clone()
    for w in (0.0, 0.01, 2.0):
        expected = (1 + w) * model.eps(x, index, y) - w * model.eps(x, index, torch.full_like(y, 3))
        assert torch.allclose(classifier_free(model, y, w)(x, index), expected, atol=1e-5)
    assert torch.equal(y, kept)


def test_the_unconditional_estimate_may_be_the_pretrained_networks():
    model, base, y = tiny(4), tiny(0, seed=1), torch.tensor([0, 2])
    x, index = torch.randn(2, 1, 8, 8), torch.tensor([10, 500])
    expected = 1.5 * model.eps(x, index, y) - 0.5 * base.eps(x, index)
    assert torch.allclose(classifier_free(model, y, 0.5, base)(x, index), expected, atol=1e-6)


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_null_estimate_counts_inside_its_interval_alone(pretrained):
    model, base, y = tiny(4), tiny(0, seed=1) if pretrained else None, torch.tensor([0, 2, 1])
    x, index, where = torch.randn(3, 1, 8, 8), torch.tensor([10, 500, 900]), torch.tensor([900, 10])
    plain, guided = classifier_free(model, y, 0.0)(x, index), classifier_free(model, y, 2.0, base)(x, index)
    found = classifier_free(model, y, 2.0, base, where)(x, index)
    assert torch.allclose(found[1], plain[1], atol=1e-5) and torch.allclose(found[::2], guided[::2], atol=1e-5)
    nowhere = classifier_free(model, y, 2.0, base, where[:0])(x, index)
    assert torch.equal(nowhere, plain) and not torch.allclose(guided, plain, atol=1e-2)


def test_an_interval_is_a_part_of_the_steps():
    cfg, schedule = Sampling(steps=8, guidance_scale=0.5, guidance_interval=(0.25, 0.75)), Schedule()
    grid = levels(schedule, cfg)
    inside = guided_at(schedule, cfg, torch.device("cpu"))
    assert inside is not None and inside.tolist() == grid[2:6]
    assert [evaluations(cfg, n) for n in range(9)] == [0, 1, 2, 4, 6, 8, 10, 11, 12] and evaluations(cfg) == 12
    assert guided_at(schedule, Sampling(guidance_interval=(0, 1)), torch.device("cpu")) is None
    assert "guidance_interval" in cfg.model_dump()
    assert "guidance_interval" not in Sampling(guidance_scale=0, guidance_interval=(0, 0.5)).model_dump()
    with pytest.raises(ValueError, match="guidance_interval: expected the first number below the second"):
        Sampling(guidance_interval=(0.5, 0.5))


@pytest.mark.parametrize(
    "cfg",
    [Sampling(steps=4, eta=0.0), Sampling(solver="ddim", steps=4, eta=1.0), Sampling(steps=4, guidance_scale=0.5)],
    ids=["dpm", "ddpm", "guided"],
)
def test_an_image_depends_on_its_seed_and_class_alone(cfg):
    model, labels = tiny(4), [0, 1, 2, 0, 1]
    seeds = [image_seed(0, label, 0, i) for i, label in enumerate(labels)]
    together = sample(model, seeds, cfg, labels)
    backwards = sample(model, seeds[::-1], cfg, labels[::-1])[::-1]
    alone = np.concatenate([sample(model, [s], cfg, [label]) for s, label in zip(seeds, labels, strict=True)])
    for other in (backwards, alone):
        assert np.abs(together.astype(int) - other).max() <= 1
    assert together.std() > 10, "the pictures differ, or this test shows nothing"


def test_noise_of_an_image_is_its_own_generators():
    noise = ImageNoise([7, 9], (1, 2, 2), torch.device("cpu"))
    first, second = noise.draw(), noise.draw()
    g = torch.Generator().manual_seed(9)
    assert torch.equal(first[1], torch.randn(1, 2, 2, generator=g))
    assert torch.equal(second[1], torch.randn(1, 2, 2, generator=g))


def test_seeds_differ_in_every_part_and_fit_a_parquet_integer():
    seeds = {image_seed(*parts) for parts in np.ndindex(3, 3, 3, 3)}
    assert len(seeds) == 81 and all(0 <= s < 2**63 for s in seeds)


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("scale, unconditional", [(0.0, "row"), (0.5, "row"), (0.5, "pretrained"), (0.0, "pretrained")])
def test_evaluations_are_those_the_networks_count(monkeypatch, solver, scale, unconditional):
    passed = []
    forward = UNet.forward

    def counting(net, x, *rest):
        passed.append(len(x))
        return forward(net, x, *rest)

    monkeypatch.setattr(UNet, "forward", counting)
    cfg = Sampling(solver=solver, steps=5, eta=0.0, guidance_scale=scale, unconditional=unconditional)
    for each in (cfg, cfg.model_copy(update={"guidance_interval": (0.2, 0.7)})):
        passed.clear()
        sample(tiny(4), range(MOST["cpu"][0]), each, [i % 3 for i in range(MOST["cpu"][0])], tiny())
        assert sum(passed) == MOST["cpu"][0] * evaluations(each), "no row is there to fill up"
    assert evaluations(each) == (5 if not scale else 8)
