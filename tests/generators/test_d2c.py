"""A D2C's diffusion of latents against the published code's stored outputs (see d2c_recipe.py), its file, and that an
image is its seed's."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddrep.config import PretrainD2C, Sampling
from ddrep.denoiser import ho
from ddrep.denoiser.network import UNetConfig
from ddrep.denoiser.schedule import Schedule
from ddrep.errors import UserError
from ddrep.generators.d2c import D2C, D2CNetwork
from ddrep.generators.files import load_generator
from ddrep.generators.network import D2CConfig, d2c_of
from tests.denoiser.recipe import fill
from tests.generators import d2c_recipe as recipe
from tests.generators.tiny_d2c import d2c, section

REFERENCE = np.load(Path(__file__).with_name("d2c_reference.npz"))
PUBLISHED = UNetConfig(
    image_size=recipe.SIDE, in_channels=recipe.CHANNELS, out_channels=recipe.CHANNELS, model_channels=32,
    channel_mult=(1, 2), num_res_blocks=1, attention_sizes=(4,), num_heads=1, use_scale_shift_norm=False,
    ho_details=True,
)  # fmt: skip
FAST = Sampling(steps=2, eta=0)


@pytest.fixture(scope="module")
def published() -> D2C:
    """With the published U-Net of latents, in float64."""
    net = D2CNetwork(D2CConfig(image_size=16, in_channels=1, unet=PUBLISHED, autoencoder_widths=(8, 8))).double()
    shapes = {name: torch.Size(shape) for name, shape in json.loads(str(REFERENCE["shapes"])).items()}
    net.unet.load_state_dict(ho.in_our_names(fill(shapes)), strict=True)
    for name, values in (("latent_mean", recipe.MEAN), ("latent_std", recipe.STD)):
        getattr(net, name).copy_(torch.tensor(values)[:, None, None])
    return D2C(net.eval().requires_grad_(False), Schedule("linear"))


def relative_error(ours: Tensor, name: str) -> float:
    difference = ours.double().numpy() - REFERENCE[name]
    return float(np.sqrt(np.square(difference).mean() / np.square(REFERENCE[name]).mean()))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_diffusion_of_latents_equals_the_published_one(
    published: D2C, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = dataclasses.replace(published, net=copy.deepcopy(published.net).to(dtype))
    x, t = (given.to(dtype) for given in recipe.inputs().values())
    with torch.no_grad():
        assert relative_error(model.net.unet(x, t), "eps") < bound
    noises = iter(x)
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: next(noises))
    drawn = model.latents([0, 1], len(recipe.SEQUENCE)).unflatten(1, model.net.cfg.latent_shape)
    assert relative_error(drawn * model.net.latent_std + model.net.latent_mean, "latent") < bound


def test_an_image_is_its_seeds_alone() -> None:
    model = d2c()
    many = model.images(model.latents([5, 6, 7], 4), [5, 6, 7], FAST)
    one = model.images(model.latents([6], 4), [6], FAST)
    assert many.shape == (3, 8, 8, 1) and many.dtype == np.uint8
    np.testing.assert_array_equal(many[1:2], one)
    assert not np.array_equal(many[0], many[1])
    assert model.encode(many).shape == (3, model.latent_size) == (3, 32)
    assert model.evaluations(FAST) == 1, "the decoder's one pass, however many steps latents take"


def test_encoded_images_are_decoded_by_what_normalised_them() -> None:
    model, x0 = d2c(), torch.rand(4, 1, 8, 8) * 2 - 1
    model.net.latent_mean.fill_(0.3)
    model.net.latent_std.fill_(0.7)
    mean, _ = model.net.encoder.posterior(x0)
    z = model.encoded(x0)
    assert torch.allclose(z.reshape(4, 2, 4, 4) * 0.7 + 0.3, mean, atol=1e-6)
    expected = (model.net.decoder(mean).clamp(-1, 1) + 1) * 127.5
    drawn = model.images(z, range(4), FAST)
    assert np.abs(drawn.transpose(0, 3, 1, 2) - expected.numpy()).max() < 0.51


def test_a_file_gives_the_same_images(tmp_path: Path) -> None:
    model = d2c()
    model.save(tmp_path / "d.safetensors")
    model.save(tmp_path / "half.safetensors", torch.float16)
    again = load_generator(tmp_path / "d.safetensors")
    assert isinstance(again, D2C) and again.schedule == model.schedule and again.provenance == model.provenance
    assert again.net.cfg == model.net.cfg and again.name == str(tmp_path / "d.safetensors")
    for name, value in model.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], value)
    half = D2C.load(tmp_path / "half.safetensors")
    assert half.net.latent_std.dtype == torch.float32
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "d")]
    assert sizes[0] < 0.6 * sizes[1]


def test_broken_weights_are_one_line() -> None:
    model = d2c()
    model.net.decoder[-1].bias.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(UserError, match="the D2C: gave values that are not finite for 2 of 2 images"):
        model.images(model.latents([1, 2], 2), [1, 2], FAST)


def test_the_defaults_make_a_small_file_of_embedded_images() -> None:
    with torch.device("meta"):
        net = D2CNetwork(d2c_of(PretrainD2C().network, 28, 1))
    assert 2 * sum(p.numel() for p in net.parameters()) < 5e6, "bytes in half precision"
    assert net.encoder(torch.zeros(1, 1, 28, 28, device="meta")).shape[2:] == net.cfg.latent_shape[1:] == (7, 7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"autoencoder_widths": [8, 16, 16, 16, 16]}, "network.autoencoder_widths: 5 levels are too many for 8 pixels"),
        ({"autoencoder_widths": [8, 12]}, "network.autoencoder_widths: 12 channels; expected multiples of 8"),
        ({"model_channels": 10}, "network.unet: model_channels x channel_mult: 10 channels; expected multiples of 32"),
    ],
)
def test_what_makes_no_network_is_one_line(settings: dict[str, Any], said: str) -> None:
    cfg = section(network=section().network.model_dump() | settings)
    with pytest.raises(UserError, match=said):
        d2c_of(cfg.network, 8, 1)


def test_images_that_cannot_be_halved_so_often_are_one_line() -> None:
    with pytest.raises(UserError, match="autoencoder_widths: 2 levels; 9 pixels cannot be halved 1 times"):
        d2c_of(section().network, 9, 1)
