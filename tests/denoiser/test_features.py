import pytest
import torch

from ddrep.config import Features
from ddrep.denoiser.features import bottleneck_features
from ddrep.denoiser.schedule import Schedule
from tests import tiny

SETTINGS = [Features(), Features(noise="fixed"), Features(timesteps=(50,), pool=2)]


def _x0(n: int = 5) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_only_the_encoder_and_the_middle_run():
    denoiser, ran = tiny.denoiser(), []
    parts = {"input": denoiser.net.input_blocks[-1], "middle": denoiser.net.middle_block, "out": denoiser.net.out}
    parts |= {f"output {i}": block for i, block in enumerate(denoiser.net.output_blocks)}
    for name, block in parts.items():
        block.register_forward_hook(lambda *_, name=name: ran.append(name))
    bottleneck_features(denoiser, _x0(), Features(timesteps=(300, 800)))
    assert ran == ["input", "middle"] * 2
    denoiser.eps(_x0(), torch.zeros(5, dtype=torch.long))
    assert {"out", "output 0"} <= set(ran), "the hooks see a whole pass"


@pytest.mark.parametrize("cfg", SETTINGS, ids=str)
def test_each_timestep_of_an_image_has_unit_rms(cfg):
    features = bottleneck_features(tiny.denoiser(), _x0(), cfg)
    size = cfg.pool or 4
    assert features.shape == (5, 32 * len(cfg.timesteps), size, size)
    rms = features.unflatten(1, (len(cfg.timesteps), 32)).square().mean(dim=(2, 3, 4)).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), rtol=1e-5, atol=0)


@pytest.mark.parametrize("cfg", SETTINGS, ids=str)
def test_features_of_an_image_do_not_depend_on_its_neighbours(cfg):
    denoiser, x0 = tiny.denoiser(), _x0()
    together = bottleneck_features(denoiser, x0, cfg)
    alone = torch.cat([bottleneck_features(denoiser, x0[i : i + 1], cfg) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01, "images differ, or this test shows nothing"


def test_they_are_the_middle_blocks_output_at_each_timestep_in_order():
    denoiser, x0 = tiny.denoiser(), _x0()
    caught = []
    denoiser.net.middle_block.register_forward_hook(lambda module, args, out: caught.append(out))
    for t in (800, 20):
        denoiser.net(x0, torch.full((5,), float(t)))
    expected = torch.cat([h / h.pow(2).mean(dim=(1, 2, 3), keepdim=True) ** 0.5 for h in caught], dim=1)
    torch.testing.assert_close(bottleneck_features(denoiser, x0, Features(timesteps=(800, 20))), expected)
    backwards = bottleneck_features(denoiser, x0, Features(timesteps=(20, 800)))
    torch.testing.assert_close(backwards, expected.roll(32, dims=1))


def test_a_timestep_is_the_same_on_1000_and_4000_rescaled_steps():
    x0 = _x0()
    of = {n: bottleneck_features(tiny.denoiser(schedule=Schedule(num_steps=n)), x0, Features()) for n in (1000, 4000)}
    assert torch.equal(of[1000], of[4000])
    unscaled = tiny.denoiser(schedule=Schedule(num_steps=4000, rescale_timesteps=False))
    assert not torch.allclose(bottleneck_features(unscaled, x0, Features()), of[1000], atol=1e-3)
    noised = [
        bottleneck_features(tiny.denoiser(schedule=Schedule(num_steps=n)), x0, Features(noise="fixed"))
        for n in (1000, 4000)
    ]
    torch.testing.assert_close(*noised, rtol=0.02, atol=0.02)  # the noise levels differ by a step's fraction


def test_fixed_noise_is_always_the_same_and_leaves_the_generator_alone():
    denoiser, x0, cfg = tiny.denoiser(), _x0(), Features(noise="fixed")
    torch.manual_seed(7)
    first = bottleneck_features(denoiser, x0, cfg)
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, bottleneck_features(denoiser, x0, cfg))
    assert not torch.allclose(first, bottleneck_features(denoiser, x0, Features()), atol=1e-2)


def test_fixed_noise_brings_the_image_to_the_noise_level_of_t():
    denoiser, x0 = tiny.denoiser(), _x0()
    caught = []
    denoiser.net.input_blocks[0].register_forward_hook(lambda module, args, out: caught.append(args[0]))
    bottleneck_features(denoiser, x0, Features(timesteps=(300, 800), noise="fixed"))
    for t, x in zip((300, 800), caught, strict=True):
        abar = denoiser.schedule.abar[t].float()
        noise = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        torch.testing.assert_close(noise, noise[:1].expand_as(noise), rtol=1e-3, atol=1e-4)
        assert 0.7 < noise[0].std() < 1.3 and abs(noise[0].mean()) < 0.4


def test_pooling_averages_before_the_scale_is_taken():
    denoiser, x0 = tiny.denoiser(), _x0()
    whole = bottleneck_features(denoiser, x0, Features(timesteps=(300,)))
    pooled = whole.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5))
    pooled = pooled / pooled.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(bottleneck_features(denoiser, x0, Features(timesteps=(300,), pool=2)), pooled)


def test_a_conditional_denoiser_is_listened_to_through_its_null_row():
    denoiser, x0, cfg = tiny.denoiser(4), _x0(), Features(timesteps=(300,))
    with torch.no_grad():
        emb = denoiser.net.embed(torch.full((5,), 300.0), torch.full((5,), 3))
        h = denoiser.net.encode(x0, emb)[0]
    expected = h / h.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(bottleneck_features(denoiser, x0, cfg), expected)
