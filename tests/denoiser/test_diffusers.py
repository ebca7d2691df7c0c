"""Networks and schedules from and to folders of diffusers, against diffusers' own UNet2DModel and schedulers."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from ddrep.denoiser.diffusers import import_folder
from ddrep.denoiser.diffusers_config import Config, network_of
from ddrep.denoiser.diffusers_names import in_their_names
from ddrep.denoiser.importers import Settings, describe, import_checkpoint
from ddrep.denoiser.unet import UNet
from ddrep.errors import UserError
from ddrep.files import sha256
from tests import tiny
from tests.denoiser import recipe
from tests.denoiser.test_importers import published_shapes
from tests.denoiser.unet2d import CASES, exported, reference, saved


def inputs(net: UNet2DModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    size = net.config.sample_size
    x, t, y = recipe.inputs()
    return x[:, : net.config.in_channels, :size, :size], t, y if net.config.num_class_embeds else None


class ExactTimes(torch.nn.Module):
    """diffusers' formula of the time embedding in float64; its own is float32 always."""

    def __init__(self, config: Any):
        super().__init__()
        self.pairs = config.block_out_channels[0] // 2
        self.shift, self.flip = config.freq_shift, config.flip_sin_to_cos

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        powers = torch.arange(self.pairs, dtype=torch.float64) / (self.pairs - self.shift)
        args = t[:, None] * torch.exp(-math.log(10000) * powers)
        parts = [args.sin(), args.cos()]
        return torch.cat(parts[::-1] if self.flip else parts, dim=1)


def theirs(net: UNet2DModel, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Output, bottleneck, and what leaves each block of the decoder, by our number."""
    found: dict[str, torch.Tensor] = {}
    number = 0
    watched = {"middle": net.mid_block}
    for level in net.up_blocks:
        layers = list(getattr(level, "attentions", level.resnets))
        layers[-1] = level.upsamplers[0] if level.upsamplers is not None else layers[-1]
        for layer in layers:
            watched[str(number)] = layer
            number += 1
    for name, layer in watched.items():
        layer.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
    with torch.no_grad():
        found["out"] = net(x, t, y).sample
    return found


def ours(net: UNet, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        emb = net.embed(t, y)
        h, skips = net.encode(x, emb)
        out, taps = net.decode(h, skips, emb, taps=range(len(net.output_blocks)))
    assert out is not None
    return {"out": out, "middle": h} | {str(number): tap for number, tap in taps.items()}


def worst(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest relative error, RMS, of any block."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[k] - v).norm() / v.norm()) for k, v in theirs.items())


@pytest.mark.parametrize("name", CASES)
def test_output_and_every_block_equal_diffusers(name: str, tmp_path: Path) -> None:
    net = reference(CASES[name])
    single = import_folder(saved(net, tmp_path)).net
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    x, t, y = inputs(net)
    single_theirs = UNet2DModel.from_pretrained(tmp_path / "unet", torch_dtype=torch.float32).eval()
    assert worst(ours(single, x.float(), t.float(), y), theirs(single_theirs, x.float(), t.float(), y)) < 1e-5
    exact = single_theirs.double()
    exact.time_proj = ExactTimes(net.config)
    assert worst(ours(single.double(), x, t, y), theirs(exact, x, t, y)) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_exported_again_it_is_the_same_network_to_diffusers(name: str, tmp_path: Path) -> None:
    net = reference(CASES[name]).float()
    denoiser = import_folder(saved(net, tmp_path / "first"))
    exported(denoiser, tmp_path / "second")
    again = UNet2DModel.from_pretrained(tmp_path / "second").eval()
    assert again.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in again.state_dict().items())
    x, t, y = inputs(net)
    with torch.no_grad():
        assert torch.equal(again(x.float(), t, y).sample, net(x.float(), t, y).sample)


OURS: dict[str, dict[str, Any]] = {
    "demo's": {"channel_mult": (1, 2, 2), "image_size": 16, "attention_sizes": (4,)},
    "odd number of blocks, colour": {"in_channels": 3, "out_channels": 6, "num_res_blocks": 3},
    "ho": {"ho_details": True, "use_scale_shift_norm": False, "num_heads": 1, "channel_mult": (1, 2)},
    "residual resampling": {"resblock_updown": True, "num_head_channels": 16, "channel_mult": (1, 2), "dropout": 0.1},
    "classes": {"num_classes": 4},
    "new order": {"new_attention_order": True, "num_heads": 4},
}


@pytest.mark.parametrize("name", OURS)
def test_an_exported_network_gives_its_outputs_in_diffusers_and_here_again(name: str, tmp_path: Path) -> None:
    denoiser = tiny.denoiser(**OURS[name])
    exported(denoiser, tmp_path / "out")
    again, net = import_folder(tmp_path / "out"), UNet2DModel.from_pretrained(tmp_path / "out").eval()
    assert (again.schedule.kind, again.schedule.num_steps) == (denoiser.schedule.kind, denoiser.schedule.num_steps)
    assert again.classes == denoiser.classes
    torch.manual_seed(0)
    t, y = torch.tensor([3.0, 871.0]), torch.tensor([0, 2]) if denoiser.classes else None
    x = torch.randn(2, *denoiser.image_shape)
    here = ours(denoiser.net, x, t, y)
    assert worst(ours(again.net, x, t, y), here) < 1e-6
    assert worst(here, theirs(net, x, t, y)) < 1e-5
    if name != "new order":  # which is written down as the other order, for the same function
        assert all(torch.equal(v, denoiser.net.state_dict()[k]) for k, v in again.net.state_dict().items())


def test_a_class_conditional_export_keeps_its_null_row_and_a_foreign_one_has_none(tmp_path: Path) -> None:
    exported(tiny.denoiser(num_classes=4), tmp_path / "out")
    assert import_folder(tmp_path / "out").null_row == 3
    foreign = import_folder(saved(reference(CASES["scale and shift, classes"]), tmp_path / "foreign"))
    assert foreign.classes == tuple("01234")
    with pytest.raises(UserError, match="foreign: all 5 rows of its label table are classes"):
        _ = foreign.null_row


SCHEDULES = [
    {"beta_schedule": "linear", "num_train_timesteps": 1000},
    {"beta_schedule": "linear", "num_train_timesteps": 250, "beta_start": 4e-4, "beta_end": 0.08},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
]


@pytest.mark.parametrize("settings", SCHEDULES, ids=lambda s: f"{s['beta_schedule']} {s['num_train_timesteps']}")
@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler, PNDMScheduler])
def test_the_schedule_is_the_same_in_both_directions(kind: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    scheduler = kind(**settings)
    net = reference(CASES["one level"])
    net.save_pretrained(tmp_path / "flat")
    scheduler.save_pretrained(tmp_path / "flat")  # scheduler_config.json beside config.json, as google's files have it
    denoiser = import_folder(tmp_path / "flat")
    expected = torch.cumprod(1 - scheduler.betas.double(), 0)
    assert torch.allclose(denoiser.schedule.abar, expected, rtol=2e-4, atol=1e-9)
    index = torch.tensor([0, 100, settings["num_train_timesteps"] - 1])
    assert torch.equal(denoiser.schedule.embedded(index), index.double())
    exported(denoiser, tmp_path / "out")
    back = kind.from_pretrained(tmp_path / "out")
    assert torch.equal(back.alphas_cumprod, scheduler.alphas_cumprod)
    assert back.config.prediction_type == "epsilon"


def test_one_step_of_ddpm_with_learned_variance_is_read_by_diffusers(tmp_path: Path) -> None:
    denoiser = tiny.denoiser(in_channels=3, out_channels=6)
    exported(denoiser, tmp_path / "out")
    net, scheduler = UNet2DModel.from_pretrained(tmp_path / "out"), DDPMScheduler.from_pretrained(tmp_path / "out")
    assert scheduler.config.variance_type == "learned_range"
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        step = scheduler.step(net(x, 500).sample, 500, x)
        eps = denoiser.eps(x, torch.tensor([500]))
    abar = denoiser.schedule.abar[500].float()
    guess = ((x - (1 - abar).sqrt() * eps) / abar.sqrt()).clamp(-1, 1)
    assert torch.allclose(step.pred_original_sample, guess, atol=1e-4)


GOOGLE = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": None,
    "center_input_sample": False, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3,
    "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3,
    "time_embedding_type": "positional",
}  # fmt: skip
PLACES = {"cifar10": (32, [128, 256, 256, 256], 1), "church": (256, [128, 128, 256, 256, 512, 512], 4)}


@pytest.mark.parametrize("name", PLACES)
def test_googles_config_is_the_network_of_ermongroups_file(name: str) -> None:
    """google/ddpm-cifar10-32 and google/ddpm-celebahq-256 are Ho's networks, as are those of ermongroup/ddim."""
    size, widths, level = PLACES[name]
    down = ["UNetResAttnDownBlock2D" if i == level else "DownBlock2D" for i in range(len(widths))]
    up = ["AttnUpBlock2D" if i == level else "UNetResUpBlock2D" for i in reversed(range(len(widths)))]
    config = GOOGLE | {
        "sample_size": size,
        "block_out_channels": widths,
        "down_block_types": down,
        "up_block_types": up,
    }
    cfg = network_of(Path("config.json"), Config.model_validate(config), Settings())
    assert cfg == describe(Path(name), published_shapes(f"ddim/{name}", ours=True), Settings(), ho_details=True)[0]


def test_attention_layers_may_have_their_names_of_2022(tmp_path: Path) -> None:
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    folder = saved(reference(CASES["ho"]), tmp_path)
    today = import_folder(folder).net.state_dict()
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for new, name in old.items():
        weights = {k.replace(new, name): v for k, v in weights.items()}
    assert sum(".query." in k or ".proj_attn." in k for k in weights) == 24
    save_file(weights, file)
    assert all(torch.equal(v, today[k]) for k, v in import_folder(folder).net.state_dict().items())


def _checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """checkpoint-N as diffusers' train_unconditional.py --use_ema writes it; the weights as trained, and their EMA."""
    net = reference(CASES["one level"]).float()
    ema = EMAModel(net.parameters(), model_cls=UNet2DModel, model_config=net.config)
    averaged = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    ema.save_pretrained(folder / "unet_ema")
    saved(net, folder)
    torch.save({}, folder / "optimizer.bin")
    return net.state_dict(), averaged


def _imported(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    denoiser = import_folder(folder)
    return in_their_names(denoiser.net.state_dict(), denoiser.net.cfg), denoiser.provenance


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_of_a_checkpoint_the_ema_is_taken_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ddrep")
    raw, averaged = _checkpoint(tmp_path / "checkpoint-500")
    found, provenance = _imported(tmp_path / "checkpoint-500")
    assert _same(found, averaged) and not _same(found, raw)
    assert provenance["weights"] == "unet_ema/diffusion_pytorch_model.safetensors (EMA)"
    assert provenance["sha256"] == sha256(tmp_path / "checkpoint-500/unet_ema/diffusion_pytorch_model.safetensors")
    assert "the EMA's weights, of unet_ema; left: unet" in caplog.text
    shutil.rmtree(tmp_path / "checkpoint-500/unet")
    assert _same(_imported(tmp_path / "checkpoint-500")[0], averaged)


def test_the_folder_that_is_given_is_taken_and_its_ema_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, averaged = _checkpoint(tmp_path)
    for name in ("scheduler/scheduler_config.json", "unet_ema/scheduler_config.json", "unet/scheduler_config.json"):
        shutil.copy(tmp_path / "scheduler/scheduler_config.json", tmp_path / "s.json")
        shutil.copy(tmp_path / "s.json", tmp_path / name)
    assert _same(_imported(tmp_path / "unet_ema")[0], averaged) and "better give that" not in caplog.text
    assert _imported(tmp_path / "unet_ema")[1]["weights"] == "diffusion_pytorch_model.safetensors (EMA)"
    found, provenance = _imported(tmp_path / "unet")
    assert _same(found, raw) and provenance["weights"] == "diffusion_pytorch_model.safetensors"
    assert caplog.text.count("their EMA is in unet_ema beside it: better give that") == 1
    monkeypatch.chdir(tmp_path / "unet")
    assert _same(_imported(Path())[0], raw)
    assert caplog.text.count("their EMA is in unet_ema beside it: better give that") == 2


def test_a_file_of_diffusers_by_itself_is_told_to_be_given_as_a_folder(tmp_path: Path) -> None:
    folder = saved(reference(CASES["one level"]), tmp_path) / "unet"
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"):
        with pytest.raises(UserError, match=rf"{name}: weights of diffusers, .* give the folder, {folder}$"):
            import_checkpoint(folder / name)


VARIANTS = [
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.ema.bin",
]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_only_file_of_weights_is_taken_and_the_plain_one_before_others(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ddrep")
    folder = saved(reference(CASES["one level"]).float(), tmp_path)
    expected, plain = _imported(folder)[0], folder / "unet/diffusion_pytorch_model.safetensors"
    state = {f"_orig_mod.{k}": v + 1 for k, v in load_file(plain).items()}
    save_file(state, folder / "unet" / name) if name.endswith("safetensors") else torch.save(
        state, folder / "unet" / name
    )
    found, provenance = _imported(folder)
    assert _same(found, expected) and provenance["weights"] == f"unet/{plain.name}"
    assert f"weights of {plain.name}; left: {name}" in caplog.text
    plain.unlink()
    found, provenance = _imported(folder)
    assert _same(found, {k: v + 1 for k, v in expected.items()}) and provenance["weights"] == f"unet/{name}"
