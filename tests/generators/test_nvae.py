"""Our NVAE against the published code's stored outputs (see nvae_recipe.py), its file, and whose an image is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddrep.config import Sampling
from ddrep.denoiser.importers import shapes
from ddrep.errors import UserError
from ddrep.generators.cells import Flow, Normal
from ddrep.generators.files import load_generator
from ddrep.generators.import_nvae import config_of, import_nvae, in_our_names, layers, run
from ddrep.generators.logistic import LogisticMixture
from ddrep.generators.network import NVAEConfig, nvae_of
from ddrep.generators.nvae import NVAE, NVAENetwork
from ddrep.generators.settling import readjust
from tests.generators import nvae_recipe as recipe
from tests.generators.tiny_nvae import nvae, section

REFERENCE = np.load(Path(__file__).with_name("nvae_reference.npz"))
CELEBA64 = recipe.ARGS | {
    "dataset": "celeba_64", "num_latent_scales": 3, "num_groups_per_scale": 20, "num_latent_per_group": 20,
    "min_groups_per_scale": 1, "num_channels_enc": 64, "num_channels_dec": 64, "num_mixture_dec": 10,
}  # fmt: skip
"""The published command, and the defaults of the published code."""


def shape_of(name: str, net: NVAENetwork) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of one of our layers, by its name there."""
    ours, theirs = name.split(" ")
    layer = net.get_submodule(ours)
    own = {key: tuple(t.shape) for key, t in layer.state_dict().items() if t.is_floating_point()}
    normalised = isinstance(layer, torch.nn.Conv2d) and not any(
        f".{part}" in ours for part in ("expand", "depthwise", "reduce")
    )
    own |= {"log_weight_norm": (own["weight"][0], 1, 1, 1)} if normalised else {}
    if not theirs.endswith(".skip"):
        return {f"{theirs}.{key}": shape for key, shape in own.items()}
    quarter = {key: (shape[0] // 4, *shape[1:]) for key, shape in own.items()}
    return {f"{theirs}.conv_{corner}.{key}": shape for corner in (1, 2, 3, 4) for key, shape in quarter.items()}


def published(args: dict[str, Any] = recipe.ARGS) -> dict[str, Tensor]:
    """The state dict of the published network, by its own names."""
    with torch.device("meta"):
        net = NVAENetwork(config_of(Path("checkpoint.pt"), args))
    found: dict[str, Any] = {"prior_ftr0": net.start.shape}
    for ours, theirs in layers(net):
        found |= shape_of(f"{ours} {theirs}", net)
    return recipe.weights({name: torch.Size(shape) for name, shape in found.items()})


def checkpoint(path: Path, state: dict[str, Tensor] | None = None, **args: Any) -> Path:
    """Such a file as the published training writes."""
    state = published() if state is None else state
    others = {"epoch": 3, "optimizer": {"state": {}}, "arch_instance": {"normal_enc": ["res_bnswish"] * 2}}
    torch.save(others | {"state_dict": state, "args": argparse.Namespace(**(recipe.ARGS | args))}, path)
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> NVAE:
    return import_nvae(checkpoint(tmp_path_factory.mktemp("published") / "checkpoint.pt"))


def relative_error(ours: Tensor, name: str) -> float:
    reference = REFERENCE[name]
    ours = ours[..., ::8, ::8] if ours.ndim > 2 else ours
    difference = ours.double().numpy() - reference
    return float(np.sqrt(np.square(difference).mean() / np.square(reference).mean()))


def test_names_are_those_of_the_published_network() -> None:
    assert sorted(published()) == list(REFERENCE["names"])


@torch.no_grad()
def test_the_network_equals_the_published_one(imported: NVAE) -> None:
    """Through the importer, in single precision: the encoder, the residual posteriors, flows, the decoder."""
    x, noise = recipe.inputs()
    net, x0 = imported.net, (2 * x - 1).float()
    seen, kl = net.look(x0), list[Tensor]()

    def encoded(number: int, s: Tensor, prior: Normal) -> Tensor:
        group = net.levels[number]
        posterior = group.posterior_of(seen[number], s, prior)
        before = posterior.mu + posterior.sigma * noise[number].float()
        z = group.flows(before)
        kl.append((posterior.log_prob(before) - prior.log_prob(z)).sum(dim=(1, 2, 3)))
        return z

    def drawn(number: int, _: Tensor, prior: Normal) -> Tensor:
        return prior.mu + recipe.TEMPERATURE * prior.sigma * noise[number].float()

    said = net.out(net.after(net.descend(2, encoded)))
    assert relative_error(said, "said") < 1e-5
    assert relative_error(torch.stack(kl, dim=1), "kl") < 1e-5
    assert relative_error(net.out(net.after(net.descend(2, drawn))), "drawn") < 1e-5
    mixture = LogisticMixture(0.1 * said, 3)
    assert relative_error(mixture.log_prob(x0), "log_p") < 1e-5
    assert relative_error((mixture.mean() + 1) / 2, "mean") < 1e-5


def test_the_published_configuration_is_read_from_args() -> None:
    """CelebA-64 as the published command has it: latents of 8, 16 and 32 pixels, in 35 groups."""
    cfg = config_of(Path("checkpoint.pt"), CELEBA64)
    assert cfg == NVAEConfig(image_size=64, flows=1) and cfg.shapes[0] == (20, 8, 8) and cfg.shapes[-1] == (20, 32, 32)
    assert config_of(Path("c.pt"), recipe.ARGS).shapes == tuple(recipe.SHAPES)
    with torch.device("meta"):
        net = NVAENetwork(cfg)
    assert sum(p.numel() for p in net.parameters()) == 153_210_896, (
        "as the published code counts, but for norms of weights"
    )


def test_padding_is_cut_off_again() -> None:
    """28 pixels are 32 inside, halved three times."""
    net = NVAENetwork(nvae_of(section(network={"outer_blocks": 2}).network, 28, 1)).eval()
    assert net.cfg.padded == 32 and net.start.shape[1:] == (4, 4)
    seen = net.look(torch.zeros(1, 1, 28, 28))
    assert [s.shape[-1] for s in seen] == [shape[-1] for shape in net.cfg.shapes]
    said = net.say(net.descend(1, lambda _, s, prior: prior.mu))
    assert said.mean().shape == (1, 1, 28, 28)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_its_seeds_alone(channels: int) -> None:
    model, cfg = nvae(channels=channels), Sampling()
    readjust(model, 8, batches=3)
    many = model.images(model.latents([5, 6, 7], 1), [5, 6, 7], cfg)
    one = model.images(model.latents([6], 4), [6], cfg)
    np.testing.assert_array_equal(many[1:2], one)
    assert not np.array_equal(many[0], many[1]) and model.evaluations(cfg) == 1
    assert many.shape == (3, 8, 8, channels) and model.image_shape == (channels, 8, 8)
    assert model.encode(many).shape == (3, model.latent_size) == (3, 2 * 2 * 2)


def test_an_images_latent_is_its_pixels_alone() -> None:
    model = nvae()
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    one, many = model.encode(images[1:2]), model.encode(images)
    assert torch.allclose(one, many[1:2], atol=1e-5) and not torch.allclose(many[0], many[1])


def test_latents_of_images_are_spread_as_drawn_ones() -> None:
    """Where the posterior is the prior an image's latent is a draw of it, and not its mean."""
    model = nvae()
    model.temperature = 1.0
    readjust(model, 8, batches=3)
    for level in model.net.levels:
        for p in level.posterior.parameters():
            torch.nn.init.zeros_(p)
    latents = model.encode(np.random.default_rng(0).integers(0, 256, (1000, 8, 8, 1)).astype(np.uint8))
    assert latents.mean(dim=0).abs().max() < 0.2 and (latents.std(dim=0) - 1).abs().max() < 0.15


def test_an_image_is_of_its_latent_and_its_own_noise() -> None:
    model, cfg = nvae(), Sampling()
    readjust(model, 8, batches=3)
    latents = model.latents([1, 2], 1)
    same, other = model.images(latents[:1], [1], cfg), model.images(latents[:1], [2], cfg)
    assert not np.array_equal(same, other), "finer scales are drawn of the seed"
    assert not np.array_equal(same, model.images(latents[1:], [1], cfg)), "the coarsest is the latent"


def test_one_scale_leaves_no_noise() -> None:
    model = NVAE(NVAENetwork(nvae_of(section(network={"groups": [2]}).network, 8, 1)).eval())
    assert model.noise_size == 0 and model.images(model.latents([0], 1), [0], Sampling()).shape == (1, 8, 8, 1)


def test_drawn_latents_are_normalised_and_statistics_are_of_what_is_drawn() -> None:
    model = nvae()
    torch.manual_seed(0)
    readjust(model, 16)
    latents = model.latents(range(10_000, 12_000), 1)
    assert latents.mean(dim=0).abs().max() < 0.1 and (latents.std(dim=0) - 1).abs().max() < 0.1
    seen = list[Tensor]()
    norm = model.net.levels[-1].decoder.get_submodule("0.norms.0")
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.images(latents[:500], range(500), Sampling())
    x = torch.cat(seen)
    assert torch.allclose(norm.running_mean, x.mean(dim=(0, 2, 3)), atol=0.1)
    assert torch.allclose(norm.running_var, x.var(dim=(0, 2, 3)), rtol=0.2)


def test_kl_is_that_of_torchs_distributions() -> None:
    g = torch.Generator().manual_seed(0)
    said = torch.randn(2, 4, 3, 3, generator=g)
    prior = Normal.of(torch.randn(2, 4, 3, 3, generator=g))
    posterior = prior.relative(said)
    known = [torch.distributions.Normal(normal.mu, normal.sigma) for normal in (posterior, prior)]
    assert torch.allclose(posterior.kl_to(prior), torch.distributions.kl_divergence(*known), atol=1e-6)
    z = torch.randn(posterior.mu.shape, generator=g)
    constant = 0.5 * np.log(2 * np.pi)
    assert torch.allclose(posterior.log_prob(z) - constant, known[0].log_prob(z), atol=1e-5)
    same = prior.relative(torch.zeros_like(said))
    assert same.kl_to(prior).abs().max() == 0, "a posterior that says nothing costs nothing"


def test_a_flow_keeps_volumes(imported: NVAE) -> None:
    """The Jacobian is triangular with ones, whichever way pixels are ordered."""
    for flow in imported.net.levels[0].flows:
        assert isinstance(flow, Flow)
        z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        jacobian = torch.autograd.functional.jacobian(lambda z, flow=flow: flow(z).flatten(), z).reshape(64, 64)
        assert torch.linalg.slogdet(jacobian.double()).logabsdet.abs() < 1e-5
        assert jacobian.triu(1).any() or jacobian.tril(-1).any()


def test_a_file_gives_the_same_images(tmp_path: Path) -> None:
    model = nvae()
    readjust(model, 8, batches=3)
    model.save(tmp_path / "n.safetensors")
    model.save(tmp_path / "half.safetensors", torch.float16)
    again = load_generator(tmp_path / "n.safetensors")
    assert isinstance(again, NVAE) and again.temperature == 0.7 and again.provenance == model.provenance
    for name, value in model.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], value)
    halved = NVAE.load(tmp_path / "half.safetensors").net
    assert halved.stem.weight.dtype == torch.float32 and not torch.equal(halved.stem.weight, model.net.stem.weight)
    assert torch.equal(halved.latent_std, model.net.latent_std), "statistics are not rounded"


def test_the_command_settles_for_its_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddrep.generators.import_nvae.BATCHES", 1)
    monkeypatch.setattr("ddrep.generators.settling.DRAWN", 20)
    file = checkpoint(tmp_path / "checkpoint.pt")
    run(file=file, temperature=0.6, half=True, out=tmp_path / "n.safetensors")
    made = NVAE.load(tmp_path / "n.safetensors")
    assert made.temperature == 0.6 and made.provenance["format"] == "nvlabs-nvae"
    assert made.net.latent_std.min() > 0 and not torch.equal(made.net.latent_mean, torch.zeros(made.latent_size))
    assert made.images(made.latents([0], 1), [0], Sampling()).shape == (1, 32, 32, 3)


def test_a_file_without_flows_or_with_what_older_ones_leave_out(tmp_path: Path) -> None:
    old = {name: value for name, value in recipe.ARGS.items() if name not in ("num_mixture_dec", "num_x_bits")}
    cfg = config_of(tmp_path, old | {"num_nf": 0, "ada_groups": False})
    assert cfg.mixtures == 10 and cfg.groups == (3, 3) and cfg.flows == 0
    with torch.device("meta"):
        net = NVAENetwork(cfg)
    ours = in_our_names(tmp_path, net, published(old | {"num_nf": 0, "ada_groups": False}))
    assert set(shapes(net.state_dict()).items()) - set(shapes(ours).items()) == {
        (name, (3 * 4 * 8 * 8,)) for name in ("latent_mean", "latent_std")
    }


def test_what_is_no_nvae_is_one_line(tmp_path: Path) -> None:
    state = published()
    without = {name: t for name, t in state.items() if name != "stem.bias"}
    wrong: list[tuple[Any, str]] = [
        ([1, 2], "holds a list; expected a checkpoint"),
        ({"state_dict": state}, "holds state_dict; expected a checkpoint"),
        ({"state_dict": state, "args": {}}, "args: arch_instance None"),
    ]
    for content, said in wrong:
        torch.save(content, tmp_path / "wrong.pt")
        with pytest.raises(UserError, match=said):
            import_nvae(tmp_path / "wrong.pt")
    for given, args, said in (
        (state, {"arch_instance": "res_elu"}, "args: arch_instance res_elu: another network than is made here"),
        (state, {"dataset": "mnist"}, "args: dataset mnist"),
        (state, {"num_channels_dec": 16}, "num_channels_enc 8, num_channels_dec 16"),
        (state, {"num_mixture_dec": 1}, "num_mixture_dec 1"),
        (
            state,
            {
                "num_latent_scales": 3,
                "num_groups_per_scale": 100,
                "num_cell_per_cond_enc": 100,
                "num_cell_per_cond_dec": 100,
            },
            "args: more layers by the header than the file's",
        ),
        (state, {"num_nf": torch.ones(3)}, "args has no num_nf"),
        (state | {"stem.weight": torch.ones(2, 2).to_sparse()}, {}, "stem.weight: sparse tensors"),
        (state, {"num_nf": 99}, "flows: .* less than or equal to 10"),
        (state, {"num_latent_scales": 10**9}, "num_latent_scales, .* expected 1 to 100"),
        (state, {"num_latent_scales": "two"}, "num_latent_scales, .* expected 1 to 100"),
        (state | {"enc0.1.log_weight_norm": torch.zeros(3, 1, 1, 1)}, {}, r"enc0\.1: of another"),
        (without, {}, r"missing: stem\.bias"),
        (state | {"stem.bias": torch.full((8,), torch.nan)}, {}, r"stem\.bias: holds NaN"),
        (state | {"stem.weight": torch.zeros(8, 3, 5, 5)}, {}, r"not quite an NVAE .* stem\.weight \(8, 3, 5, 5\)"),
    ):
        with pytest.raises(UserError, match=said):
            import_nvae(checkpoint(tmp_path / "wrong.pt", given, **args))
    with pytest.raises(UserError, match="4 channels; an NVAE draws 1 or 3"):
        nvae_of(section().network, 8, 4)
