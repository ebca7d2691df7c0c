"""Our DiffAE against the published code's stored outputs (see recipe.py), its file, and that an image is its seed's."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddrep.config import EvenSampling, Sampling
from ddrep.denoiser.importers import shapes
from ddrep.denoiser.schedule import Schedule
from ddrep.errors import UserError
from ddrep.generators import diffae
from ddrep.generators.base import latent_seed
from ddrep.generators.diffae import DiffAE, DiffAENetwork
from ddrep.generators.importers import _config, _in_our_names, import_diffae
from ddrep.generators.network import DiffAEConfig
from tests.generators import recipe

FFHQ256 = {"model_channels": 128, "channel_mult": (1, 1, 2, 2, 4, 4), "encoder_mult": (1, 1, 2, 2, 4, 4, 4)}
REFERENCE = np.load(Path(__file__).with_name("diffae_reference.npz"))


def published() -> dict[str, Tensor]:
    """The state dict of the published network, by its own names."""
    with torch.device("meta"):
        net = DiffAENetwork(DiffAEConfig(**recipe.SIZES))
    return recipe.weights(recipe.published_names({k: v.shape for k, v in net.state_dict().items()}))


def checkpoint(path: Path, **others: Any) -> Path:
    """Such a file as Lightning writes, with the mean and deviation of latents at 0.5 and 2."""
    state = {f"ema_model.{name}": t for name, t in published().items()}
    state |= {f"model.{name}": t + 1 for name, t in published().items()}
    state |= {"x_T": torch.zeros(4), "conds_mean": torch.full((1, 32), 0.5), "conds_std": torch.full((1, 32), 2.0)}
    torch.save({"state_dict": state, "global_step": 7, "epoch": 1} | others, path)
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> DiffAE:
    return import_diffae(checkpoint(tmp_path_factory.mktemp("published") / "last.ckpt"))


def relative_error(ours: Tensor, name: str) -> float:
    reference = REFERENCE[name]
    ours = ours[:, :, ::4, ::4] if ours.ndim == 4 else ours
    difference = ours.double().numpy() - reference
    return float(np.sqrt(np.square(difference).mean() / np.square(reference).mean()))


def test_names_are_those_of_the_published_network() -> None:
    assert sorted(published()) == list(REFERENCE["names"])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_networks_equal_the_published_ones(dtype: torch.dtype, bound: float) -> None:
    net, given = DiffAENetwork(DiffAEConfig(**recipe.SIZES)).double(), recipe.inputs()
    state = {name.removeprefix("ema_model."): t for name, t in published().items()}
    net.load_state_dict(_in_our_names(state), strict=False)
    net, (x, x0, zt, t) = net.to(dtype).eval(), (each.to(dtype) for each in given.values())
    with torch.no_grad():
        z = net.encoder(x0)
        assert relative_error(z, "z") < bound
        assert relative_error(net.unet.eps(x, t, z), "eps") < bound
        assert relative_error(net.latent_net(zt, t), "latent") < bound


def test_sampling_equals_the_published_ddim(imported: DiffAE, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: t.float() for name, t in recipe.inputs().items()}
    noises = iter(given["zt"])
    monkeypatch.setattr(diffae.torch, "randn", lambda *shape, generator: next(noises))
    drawn = imported.latents([0, 1], recipe.LATENT_STEPS)
    assert relative_error(drawn, "drawn") < 1e-5
    monkeypatch.undo()
    monkeypatch.setattr(diffae.ImageNoise, "draw", lambda self: given["x"])
    cfg = EvenSampling(solver="ddim", steps=recipe.STEPS, eta=0)
    z = imported.encoded(given["x0"])
    assert torch.allclose(z, (torch.from_numpy(REFERENCE["z"]).float() - 0.5) / 2, atol=1e-5)
    images = imported.images(z, [0, 1], cfg)
    expected = (REFERENCE["image"].clip(-1, 1) + 1) * 127.5
    assert np.abs(images[:, ::4, ::4].transpose(0, 3, 1, 2) - expected).max() < 0.51


def test_an_image_is_its_seeds_alone(imported: DiffAE) -> None:
    cfg = Sampling(steps=2)
    many = imported.images(imported.latents([5, 6, 7], 4), [5, 6, 7], cfg)
    one = imported.images(imported.latents([6], 4), [6], cfg)
    np.testing.assert_array_equal(many[1:2], one)
    assert not np.array_equal(many[0], many[1])
    latents = imported.encode(many)
    assert latents.shape == (3, imported.latent_size) and imported.evaluations(cfg) == 2


def test_a_latents_noise_is_not_the_images_again() -> None:
    seeds = range(100)
    assert not {latent_seed(seed) for seed in seeds} & set(seeds)


def test_a_file_gives_the_same_images(imported: DiffAE, tmp_path: Path) -> None:
    imported.save(tmp_path / "d.safetensors")
    imported.save(tmp_path / "half.safetensors", torch.float16)
    again = DiffAE.load(tmp_path / "d.safetensors")
    assert again.schedule == Schedule("linear", rescale_timesteps=False) and again.provenance == imported.provenance
    for name, value in imported.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], value)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "d")]
    assert (
        sizes[0] < 0.6 * sizes[1] and DiffAE.load(tmp_path / "half.safetensors").net.latent_std.dtype == torch.float32
    )


def test_latents_have_the_published_schedule() -> None:
    """abar of a constant beta is a power."""
    abar = diffae.LATENT_SCHEDULE.abar
    assert abar.shape == (1000,) and torch.allclose(abar, 0.992 ** torch.arange(1, 1001).double(), rtol=1e-10)


@pytest.mark.parametrize(
    ("image_size", "settings", "millions"), [(64, {}, 138.23), (256, FFHQ256, 212.29)], ids=["celeba64", "ffhq256"]
)
def test_published_configurations_are_read_from_shapes(
    image_size: int, settings: dict[str, Any], millions: float
) -> None:
    """2^20 parameters: of ffhq256 as sample.ipynb prints it, of celeba64 as the published code counts."""
    cfg = DiffAEConfig(image_size=image_size, **settings)
    with torch.device("meta"):
        net = DiffAENetwork(cfg)
    assert _config(Path("last.ckpt"), shapes(net.state_dict())) == cfg
    assert round(sum(p.numel() for p in net.parameters()) / 2**20, 2) == millions


def test_callbacks_are_left_and_statistics_may_lie_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = ModuleType("pytorch_lightning")
    callback = type("ModelCheckpoint", (), {"__module__": lightning.__name__})
    monkeypatch.setattr(lightning, "ModelCheckpoint", callback, raising=False)
    monkeypatch.setitem(sys.modules, lightning.__name__, lightning)
    whole = checkpoint(tmp_path / "whole.ckpt", callbacks={callback: {"best": 1.0}})
    monkeypatch.delitem(sys.modules, lightning.__name__)
    assert import_diffae(whole).net.latent_mean.tolist() == [0.5] * 32
    content = torch.load(checkpoint(tmp_path / "plain.ckpt"))
    for name in ("conds_mean", "conds_std"):
        del content["state_dict"][name]
    torch.save(content, tmp_path / "without.ckpt")
    with pytest.raises(UserError, match=r"without\.ckpt: no conds_mean or conds_std; name .* by --latents"):
        import_diffae(tmp_path / "without.ckpt")
    torch.save({"conds": torch.zeros(3, 32), "conds_mean": torch.ones(32), "conds_std": torch.ones(32)}, tmp_path / "l")
    assert import_diffae(tmp_path / "without.ckpt", tmp_path / "l").net.latent_mean.tolist() == [1.0] * 32


def test_what_is_no_diffae_is_one_line(tmp_path: Path) -> None:
    whole = torch.load(checkpoint(tmp_path / "whole.ckpt"))["state_dict"]
    ema = {name: t for name, t in whole.items() if not name.startswith("model.")}
    wrong: list[tuple[Any, str]] = [
        ([1, 2], "holds a list; expected a Lightning checkpoint"),
        ({"a": 1}, "no state_dict in it"),
        ({"state_dict": {"model.x": torch.zeros(2)}}, r"holds model\.x; expected"),
        (
            {"state_dict": {k: v for k, v in ema.items() if "latent_net" not in k}},
            "no latent_net in it",
        ),
        ({"state_dict": {k: v for k, v in ema.items() if "encoder.out" not in k}}, r"no encoder\.out\.3\.weight"),
        ({"state_dict": ema | {"conds_mean": torch.ones(2, 2).to_sparse()}}, "conds_mean: sparse tensors"),
        ({"state_dict": ema | {"conds_mean": torch.ones(1).expand(2**20, 2**20)}}, r"latent_mean \(1048576, 1048576\)"),
        ({"state_dict": ema | {"ema_model.extra": torch.zeros(1)}}, r"not quite a DiffAE .*unexpected: unet\.extra"),
        ({"state_dict": ema | {"ema_model.out.2.bias": torch.full((3,), torch.nan)}}, r"unet\.out\.2\.bias: holds NaN"),
    ]
    for content, said in wrong:
        torch.save(content, tmp_path / "wrong.ckpt")
        with pytest.raises(UserError, match=said):
            import_diffae(tmp_path / "wrong.ckpt")
