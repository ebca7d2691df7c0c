"""What cannot come from a folder of diffusers or go to one: one line, which names what stands in the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddrep import cli
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.diffusers import import_folder
from ddrep.denoiser.diffusers_config import config_of
from ddrep.denoiser.importers import Settings
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNetConfig
from ddrep.errors import UserError
from tests import tiny
from tests.denoiser.unet2d import ADM, AT_1, exported, reference, saved

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "act_fn": ({"act_fn": "gelu"}, "act_fn: Input should be 'silu' or 'swish', got 'gelu'"),
    "centred": ({"center_input_sample": True}, "center_input_sample: "),
    "fourier": ({"time_embedding_type": "fourier"}, "time_embedding_type: "),
    "skip blocks": ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types.0: "),
    "no middle": ({"mid_block_type": None}, "mid_block_type: "),
    "no attention in the middle": ({"add_attention": False}, "add_attention: "),
    "class embedding": ({"class_embed_type": "timestep"}, "class_embed_type: "),
    "spatial norm": ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift: "),
    "groups": ({"norm_num_groups": 16}, "norm_num_groups: "),
    "channels in": ({"in_channels": 4}, "in_channels: "),
    "channels out": ({"out_channels": 4}, "out_channels 4: expected 3, or 6"),
    "middle's scale": ({"mid_block_scale_factor": 2}, "mid_block_scale_factor 2.0: expected 1"),
    "eps": ({"norm_eps": 1e-6}, "norm_eps 1e-06: expected 1e-05 with flip_sin_to_cos true"),
    "padding": ({"downsample_padding": 0}, "downsample_padding 0: expected 1 with flip_sin_to_cos true"),
    "sines first": ({"flip_sin_to_cos": False}, "freq_shift 0.0: expected 1 with flip_sin_to_cos false"),
    "time's width": ({"time_embedding_dim": 64}, "time_embedding_dim 64: expected 128, or null"),
    "middle's norm": ({"attn_norm_num_groups": None}, "attn_norm_num_groups null: expected 32"),
    "widths": ({"block_out_channels": [64, 96]}, "block_out_channels [64, 96]: expected multiples of the first"),
    "levels": ({"block_out_channels": [32]}, 'down_block_types ["DownBlock2D", "AttnDownBlock2D"]: expected 1'),
    "heads": ({"attention_head_dim": 24}, "attention_head_dim 24: expected a divisor of 64"),
    "attention above alone": ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "attention on the same levels in both"),
    "mixed resampling": ({"upsample_type": "resnet"}, "expected one way of resampling"),
    "oblong": ({"sample_size": [16, 8]}, "16x8 pixels; expected a square"),
    "odd": ({"sample_size": 15}, "15x15 pixels; expected a square of a multiple of 2"),
    "no size": ({"sample_size": None}, "sample_size is null; give --image-size"),
    "endless blocks": ({"layers_per_block": 100_000}, "layers_per_block: Input should be less than or equal to 100"),
    "endless width": ({"block_out_channels": [32, 32_000_000_000]}, "block_out_channels.1: Input should be less than"),
    "endless levels": (
        {"block_out_channels": [32] * 100_000},
        "block_out_channels: Tuple should have at most 12 items",
    ),
    "another network": ({"_class_name": "UNet2DConditionModel"}, "_class_name: Input should be 'UNet2DModel'"),
}
NOISE: dict[str, tuple[dict[str, Any], str]] = {
    "schedule": ({"beta_schedule": "scaled_linear"}, "beta_schedule: Input should be 'linear' or 'squaredcos_cap_v2'"),
    "betas": ({"beta_start": 0.0015}, "beta_start, beta_end 0.0015, 0.02: expected 0.0001, 0.02"),
    "trained betas": ({"trained_betas": [0.1, 0.2]}, "trained_betas: "),
    "v": ({"prediction_type": "v_prediction"}, "prediction_type: Input should be 'epsilon'"),
    "zero SNR": ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr: "),
    "variance": ({"variance_type": "learned"}, 'variance_type "learned": expected learned_range'),
    "endless steps": ({"num_train_timesteps": 10**12}, "num_train_timesteps: Input should be less than or equal to"),
    "another process": ({"_class_name": "ScoreSdeVeScheduler"}, "_class_name: "),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(reference({**AT_1, **ADM}), tmp_path_factory.mktemp("good"))


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command says of a folder that it refuses: one line, and nothing written."""
    before = set(folder.rglob("*"))
    out = folder / "out.safetensors"
    assert cli.main(["import", str(folder), "--out", str(out), "--log", str(folder / "log"), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ddrep: {folder}") and said.count("\n") == 1
    assert set(folder.rglob("*")) - before <= {folder / "log"}
    return said


def with_config(good: Path, folder: Path, name: str, **changes: Any) -> Path:
    """The good folder, with settings of one of its configs changed."""
    for file in good.rglob("*.*"):
        copy = folder / file.relative_to(good)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(file)
    path = folder / name
    content = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps(content))
    return folder


def test_the_good_folder_is_good(good: Path, tmp_path: Path) -> None:
    assert cli.main(["import", str(good), "--out", str(tmp_path / "out.safetensors")]) == 0
    denoiser = Denoiser.load(tmp_path / "out.safetensors")
    assert denoiser.learns_variance and denoiser.schedule == Schedule("linear", 1000, False)
    assert denoiser.provenance["format"] == "diffusers" and denoiser.provenance["file"] == good.name


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_stands_in_the_way_is_named(
    name: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, complaint = REFUSED[name]
    said = refused(with_config(good, tmp_path / "f", "unet/config.json", **changes), capsys)
    assert "unet/config.json: " in said and complaint in said


@pytest.mark.parametrize("name", NOISE)
def test_a_schedule_that_is_not_ours_is_named(
    name: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, complaint = NOISE[name]
    folder = with_config(good, tmp_path / "f", "scheduler/scheduler_config.json", **changes)
    assert f"scheduler_config.json: {complaint}" in refused(folder, capsys)


def spoil(kind: str, folder: Path) -> None:
    config, weights = folder / "unet/config.json", folder / "unet/diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    if kind == "no config":
        config.unlink()
    elif kind == "broken JSON":
        config.write_text(config.read_text()[:-20])
    elif kind == "a list":
        config.write_text("[]")
    elif kind == "not text":
        config.write_bytes(b"\xff\xfe{")
    elif kind == "no weights":
        weights.unlink()
    elif kind.startswith("cut at"):
        weights.unlink()
        weights.write_bytes(content[: int(kind.split()[-1])])
    elif kind == "pickle":
        weights.unlink()
        torch.save({}, weights)
    elif kind == "latents":
        (folder / "vqvae").mkdir()
    elif kind == "no schedule":
        (folder / "scheduler/scheduler_config.json").unlink()
    elif kind == "in shards":
        first = weights.rename(weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
        shutil.copy(first, weights.with_name("diffusion_pytorch_model-00002-of-00002.safetensors"))
        weights.with_name(f"{weights.name}.index.json").write_text("{}")
    elif kind == "two variants":
        for variant in ("fp16", "non_ema"):
            shutil.copy(weights, weights.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
        weights.unlink()
    elif kind.startswith("classes"):
        deep = "[" * 100_000 + "]" * 100_000
        names = {"no JSON": "x", "5": "5", "[1]": "[1]", "nested": deep, "too many": '["a", "b", "c"]'}
        state = load_file(weights)
        weights.unlink()
        save_file(state, weights, {"format": "pt", "ddrep.classes": names[kind.removeprefix("classes ")]})
    elif kind == "deep config":
        config.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    elif kind == "deep schedule":
        (folder / "scheduler/scheduler_config.json").unlink()
        (folder / "scheduler/scheduler_config.json").write_text("[" * 100_000 + "]" * 100_000)
    elif kind in ("nan", "names of OpenAI"):
        state = load_file(weights) | {"conv_out.bias": torch.full((6,), torch.nan)}
        weights.unlink()
        save_file(state if kind == "nan" else {"time_embed.0.weight": torch.zeros(2)}, weights)
    elif kind in ("names", "shapes"):
        state = load_file(weights)
        if kind == "names":
            state = {k.replace("norm1", "first_norm"): v for k, v in state.items()}
        else:
            state |= {"conv_in.bias": torch.zeros(7)}
            del state["conv_out.bias"]
        weights.unlink()
        save_file(state, weights)


SPOILT = {
    "no config": "no config.json; expected the folder of a diffusers UNet2DModel, or of its pipeline; it holds "
    "diffusion_pytorch_model.safetensors",
    "broken JSON": "config.json: not valid JSON (",
    "a list": "config.json: (whole): Input should be a valid dictionary",
    "not text": "config.json: not valid JSON (",
    "no weights": "diffusion_pytorch_model.safetensors: no such file; expected the weights; there are config.json",
    "in shards": "weights in several files (diffusion_pytorch_model-00001-of-00002.safetensors, "
    "diffusion_pytorch_model-00002-of-00002.safetensors, diffusion_pytorch_model.safetensors.index.json); save them in",
    "two variants": "diffusion_pytorch_model.fp16.safetensors, diffusion_pytorch_model.non_ema.safetensors: nothing",
    "nan": "conv_out.bias: holds NaN or infinite numbers",
    "names of OpenAI": "time_embed.0.weight: not names of diffusers; give the file by itself",
    "classes no JSON": "ddrep.classes of its metadata: (whole): Invalid JSON",
    "classes 5": "ddrep.classes of its metadata: (whole): Input should be a valid",
    "classes [1]": "ddrep.classes of its metadata: 0: Input should be a valid string",
    "classes nested": "ddrep.classes of its metadata: ",
    "classes too many": "ddrep.classes of its metadata names 3, its table has 0 rows",
    "deep config": "config.json: not valid JSON (",
    "deep schedule": "scheduler_config.json: not valid JSON (",
    "cut at 0": "diffusion_pytorch_model.safetensors: is empty",
    "cut at 100": "truncated, or not a safetensors file (",
    "cut at 100000": "truncated, or not a safetensors file (",
    "pickle": "truncated, or not a safetensors file (",
    "latents": "the pipeline has a vqvae: its denoiser is one of latents, not of images",
    "no schedule": "no scheduler_config.json, here or in scheduler/; give --schedule and --num-steps",
    "names": "missing: down_blocks.0.resnets.0.norm1.weight, down_blocks.0.resnets.0.norm1.bias, "
    "down_blocks.1.resnets.0.norm1.weight and 13 more; unexpected: ",
    "shapes": "missing: conv_out.bias; of another shape: conv_in.bias (7,) instead of (32,)",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_folder_is_one_line_and_nothing_written(
    kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_config(good, tmp_path / "f", "unet/config.json")
    spoil(kind, folder)
    assert SPOILT[kind] in refused(folder, capsys)


def test_options_give_the_schedule_and_the_size_but_no_heads(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_config(good, tmp_path / "f", "unet/config.json", sample_size=None)
    given = Settings(image_size=32, schedule="cosine", num_steps=4000, rescale_timesteps=True)
    denoiser = import_folder(folder, given)
    assert denoiser.schedule == Schedule("cosine", 4000, True) and denoiser.net.cfg.attention_sizes == (16,)
    (folder / "scheduler/scheduler_config.json").unlink()
    assert import_folder(folder, given).schedule == denoiser.schedule
    assert "leave out --num-heads" in refused(folder, capsys, "--num-heads", "2")


UNEXPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "heads of several widths": (
        {"channel_mult": (1, 2), "attention_sizes": (8, 4)},
        "num_heads 2: UNet2DModel has heads of one width everywhere, but attention here has 32 and 64 channels",
    ),
    "a wider first level": (
        {"channel_mult": (2, 2)},
        "channel_mult (2, 2): UNet2DModel can only express 1 as the first",
    ),
    "an odd size": ({"image_size": 9}, "image_size 9: UNet2DModel wants a multiple of 2"),
    "rescaled times": (
        {"schedule": Schedule("cosine", 4000, True)},
        "rescale_timesteps: UNet2DModel is told the index 0..3999, but this denoiser 0..1000",
    ),
}


@pytest.mark.parametrize("name", UNEXPORTED)
def test_a_denoiser_that_diffusers_cannot_express_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, complaint = UNEXPORTED[name]
    file = tmp_path / "denoiser.safetensors"
    tiny.denoiser(**settings).save(file)
    assert cli.main(["export", str(file), "--out", str(tmp_path / "out"), "--log", str(tmp_path / "log")]) == 2
    assert capsys.readouterr().err == f"ddrep: {file}: {complaint}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"denoiser.safetensors", "log"}


def test_export_by_command_writes_a_new_folder_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "denoiser.safetensors", tmp_path / "made/here"
    tiny.denoiser().save(file)
    assert cli.main(["export", str(file), "--out", str(out)]) == 0
    names = {"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"}
    assert {path.name for path in out.iterdir()} == names and list(out.parent.iterdir()) == [out]
    before = {path: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert cli.main(["export", str(file), "--out", str(out), "--log", str(tmp_path / "log")]) == 2
    assert capsys.readouterr().err == f"ddrep: --out {out}: is there already; give the name of a new folder\n"
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are written, and then the disk is full."""
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        exported(tiny.denoiser(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]


def test_the_published_imagenet64_network_cannot_be_expressed() -> None:
    """It has 4 heads at 384 and at 512 channels."""
    with pytest.raises(UserError, match=r"num_heads 4: .* 384 and 512 channels"):
        config_of(Path("imagenet64.safetensors"), UNetConfig(64, out_channels=6))
