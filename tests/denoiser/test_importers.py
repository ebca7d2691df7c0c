"""Importing published checkpoints, against the published code's names, flags and outputs.

`published_shapes.json.gz` holds, for each published file, the flags that the README of openai/improved-diffusion or
openai/guided-diffusion gives for it (with the code's defaults), and the names and shapes of the network which that code
makes of them; the same of the configs of ermongroup/ddim; also those of the networks of recipe.py, and of two published
files that are no denoisers of images. `ho_reference.npz` holds outputs of ermongroup/ddim's `Model` in float64 with the
recipe's weights (ch 32, ch_mult 1, 2, 2 res blocks, attention at 8 of 16 pixels): the noise, every 4th channel of the
middle, and of output blocks 0, 2 and 5 every 8th channel and 2nd pixel.
"""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddrep import cli
from ddrep.denoiser import ho
from ddrep.denoiser.checkpoints import read_weights
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.importers import Settings, describe, import_checkpoint
from ddrep.denoiser.unet import UNet
from ddrep.errors import UserError
from ddrep.files import sha256
from tests.denoiser import recipe

HERE = Path(__file__).parent
REFERENCE = np.load(HERE / "unet_reference.npz")
PUBLISHED = json.loads(gzip.decompress((HERE / "published_shapes.json.gz").read_bytes()))
SAYS_512 = "512x512_diffusion.pt"
DENOISERS = sorted(name for name, entry in PUBLISHED.items() if "flags" in entry and name != SAYS_512)
SETTINGS = {
    "improved_scale_shift": Settings(16, 2, None, False, "cosine", 4000, True),
    "improved_classes": Settings(16, 2, None, False, "linear", 1000, False),
    "guided_updown": Settings(16, None, 32, False, "linear", 1000, False),
    "guided_new_order": Settings(16, 4, None, True, "cosine", 1000, False),
}


def published_shapes(name: str, ours: bool = False) -> dict[str, tuple[int, ...]]:
    """Shapes by the published names, or by our names of the layout of ermongroup/ddim."""
    shapes = {k: tuple(v) for k, v in PUBLISHED[name]["shapes"].items()}
    if not ours:
        return shapes
    weights = ho.in_our_names({k: torch.empty(v, device="meta") for k, v in shapes.items()})
    return {k: tuple(v.shape) for k, v in weights.items()}


def _weights(name: str) -> dict[str, torch.Tensor]:
    """The recipe's weights under the published code's names, float64."""
    return recipe.fill({k: torch.Size(v) for k, v in published_shapes(name).items()})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "ema.pt"
    torch.save({k: v.float() for k, v in _weights("improved_scale_shift").items()}, path)
    return path


def _error(ours: torch.Tensor, reference: np.ndarray) -> float:
    return float(np.sqrt(np.square(ours.double().numpy() - reference).mean() / np.square(reference).mean()))


@pytest.mark.parametrize("name", DENOISERS)
def test_a_published_file_is_recognised_and_its_flags_are_known(name: str) -> None:
    """The flags are the oracle: `describe` has found every name and shape in our network."""
    flags = PUBLISHED[name]["flags"]
    cfg, schedule, known = describe(Path(name), published_shapes(name), Settings())
    assert known
    ours = {
        "image_size": cfg.image_size, "num_channels": cfg.model_channels, "num_res_blocks": cfg.num_res_blocks,
        "attention_resolutions": sorted(cfg.attention_sizes), "learn_sigma": cfg.out_channels == 6,
        "class_cond": cfg.num_classes == 1000, "use_scale_shift_norm": cfg.use_scale_shift_norm,
        "noise_schedule": schedule.kind, "diffusion_steps": schedule.num_steps,
        "rescale_timesteps": schedule.rescale_timesteps,
    }  # fmt: skip
    attention = sorted(int(size) for size in flags["attention_resolutions"].split(","))
    assert ours == {k: flags[k] for k in ours} | {"attention_resolutions": attention}
    assert cfg.resblock_updown == flags.get("resblock_updown", False)
    assert cfg.new_attention_order == flags.get("use_new_attention_order", False)
    if flags.get("num_head_channels", -1) > 0:
        assert cfg.num_head_channels == flags["num_head_channels"]
    else:
        assert (cfg.num_head_channels, cfg.num_heads) == (None, flags["num_heads"])


@pytest.mark.parametrize("name", SETTINGS)
def test_imported_networks_give_the_published_outputs(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "model.pt", tmp_path / "denoiser.safetensors"
    torch.save(_weights(name), path)
    weights = read_weights(path).tensors
    cfg, _, known = describe(path, {k: tuple(v.shape) for k, v in weights.items()}, SETTINGS[name])
    assert known is None
    exact = UNet(cfg).double().eval()
    exact.load_state_dict(weights, strict=True)
    import_checkpoint(path, SETTINGS[name]).save(out)
    for net, bound in ((exact, 1e-12), (Denoiser.load(out).net, 1e-5)):
        dtype = next(net.parameters()).dtype
        x, t, y = recipe.inputs()
        with torch.no_grad():
            emb = net.embed(t.to(dtype), y if net.cfg.num_classes else None)
            h, skips = net.encode(x.to(dtype), emb)
            eps, taps = net.decode(h, skips, emb, taps=recipe.TAPS)
        assert eps is not None and _error(eps, REFERENCE[f"{name}/out"]) < bound
        assert _error(h[:, ::4], REFERENCE[f"{name}/middle"]) < bound
        for i in recipe.TAPS:
            assert _error(taps[i][:, ::8, ::2, ::2], REFERENCE[f"{name}/{i}"]) < bound


@pytest.mark.parametrize("name", ["celeba", "cifar10", "bedroom", "church"])
def test_the_layout_of_ddim_is_recognised_and_its_configs_are_known(name: str) -> None:
    config = PUBLISHED[f"ddim/{name}"]["config"]
    assert "temb.dense.0.weight" in published_shapes(f"ddim/{name}")
    found = published_shapes(f"ddim/{name}", ours=True)
    cfg, schedule, known = describe(Path(name), found, Settings(), ho_details=True)
    model, diffusion = config["model"], config["diffusion"]
    assert known and cfg.image_size == config["image_size"] and cfg.ho_details
    assert (cfg.model_channels, list(cfg.channel_mult)) == (model["ch"], model["ch_mult"])
    assert (cfg.num_res_blocks, list(cfg.attention_sizes)) == (model["num_res_blocks"], model["attn_resolutions"])
    assert (schedule.kind, schedule.num_steps) == (diffusion["beta_schedule"], diffusion["num_diffusion_timesteps"])
    assert (schedule.betas[0], schedule.betas[-1]) == (diffusion["beta_start"], diffusion["beta_end"])
    assert schedule.embedded(torch.tensor([300])) == 300


HO_SETTINGS = Settings(image_size=16, schedule="linear", num_steps=1000)


@pytest.mark.parametrize("wrapped", ["bare", "list with EMA", "list without EMA"])
def test_ddims_network_gives_its_published_outputs(wrapped: str, tmp_path: Path) -> None:
    reference = np.load(HERE / "ho_reference.npz")
    path, out = tmp_path / "ckpt.pth", tmp_path / "denoiser.safetensors"
    weights = {f"module.{k}" if wrapped != "bare" else k: v for k, v in _weights("ho_unet").items()}
    worse, optimizer = {k: v + 1 for k, v in weights.items()}, {"state": {}, "param_groups": [{"lr": 2e-4}]}
    lists = {"list with EMA": [worse, optimizer, 1, 2, weights], "list without EMA": [weights, optimizer, 1, 2]}
    torch.save(lists.get(wrapped, weights), path)
    import_checkpoint(path, HO_SETTINGS).save(out)
    single = Denoiser.load(out).net
    exact = UNet(single.cfg).double().eval()
    exact.load_state_dict(ho.in_our_names(read_weights(path).tensors), strict=True)
    x, t, _ = recipe.inputs()
    for net, bound in ((exact, 1e-12), (single, 1e-5)):
        dtype = next(net.parameters()).dtype
        with torch.no_grad():
            emb = net.embed(t.to(dtype))
            h, skips = net.encode(x.to(dtype), emb)
            eps, taps = net.decode(h, skips, emb, taps=(0, 2, 5))
        assert eps is not None and _error(eps, reference["out"]) < bound
        assert _error(h[:, ::4], reference["middle"]) < bound
        for i in (0, 2, 5):
            assert _error(taps[i][:, ::8, ::2, ::2], reference[str(i)]) < bound


@pytest.mark.parametrize("left_out", ["mid.attn_1.k.weight", "down.0.block.1.conv1.bias", "up.0.block.2.norm1.weight"])
def test_a_tensor_missing_in_the_layout_of_ddim_is_one_line(left_out: str, tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pth"
    torch.save({k: v for k, v in _weights("ho_unet").items() if k != left_out}, path)
    with pytest.raises(UserError, match=r"not quite the U-Net of ermongroup/ddim .*missing: "):
        import_checkpoint(path, HO_SETTINGS)


def _options(settings: Settings) -> list[str]:
    words = []
    for name, value in vars(settings).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words += [f"--{option}", str(value)]
    return words


def test_by_command_with_its_provenance(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "denoiser.safetensors"
    settings = SETTINGS["improved_scale_shift"]
    assert cli.main(["import", str(checkpoint), "--out", str(out), *_options(settings)]) == 0
    denoiser = Denoiser.load(out)
    assert denoiser.schedule.num_steps == 4000 and denoiser.schedule.rescale_timesteps
    assert denoiser.provenance["file"] == "ema.pt"
    assert denoiser.provenance["sha256"] == sha256(checkpoint)
    assert denoiser.provenance["given"]["num_heads"] == 2


def test_options_override_what_is_known_of_a_published_file() -> None:
    name = "imagenet64_uncond_100M_1500K.pt"
    given = Settings(image_size=128, num_head_channels=32, schedule="linear", num_steps=1000, rescale_timesteps=False)
    cfg, schedule, known = describe(Path(name), published_shapes(name), given)
    assert known == name
    assert (cfg.image_size, cfg.attention_sizes, cfg.num_head_channels) == (128, (32, 16), 32)
    assert (schedule.kind, schedule.num_steps, schedule.rescale_timesteps) == ("linear", 1000, False)


def test_published_class_conditional_files_have_no_null_row(tmp_path: Path) -> None:
    path, out = tmp_path / "model.pt", tmp_path / "denoiser.safetensors"
    torch.save(_weights("improved_classes"), path)
    import_checkpoint(path, SETTINGS["improved_classes"]).save(out)
    denoiser = Denoiser.load(out)
    x, _, y = recipe.inputs()
    assert denoiser.eps(x.float(), torch.tensor([3, 5]), y).shape == (2, 3, 16, 16)
    with pytest.raises(UserError, match=r"model.pt: all 5 rows of its label table are classes"):
        _ = denoiser.null_row


class Marker:
    """On unpickling, makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _spoilt(kind: str, folder: Path) -> Path:
    """A file that is not to be imported; what it would do if it ran is to make `ran`."""
    path, good = folder / "bad.pt", _weights("improved_scale_shift")
    if kind == "code":
        torch.save(good | {"extra": Marker(folder / "ran")}, path)
    elif kind == "code, legacy layout":
        torch.save(good | {"extra": Marker(folder / "ran")}, path, _use_new_zipfile_serialization=False)
    elif kind.startswith("code, plain pickle"):
        path.write_bytes(pickle.dumps({"extra": Marker(folder / "ran")}, protocol=int(kind[-1])))
    elif kind.startswith("truncated"):
        torch.save(good, path, _use_new_zipfile_serialization="legacy" not in kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "text":
        path.write_text("not found")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "no tensors":
        torch.save({"epoch": 3, "args": {"lr": 1e-4}}, path)
    elif kind == "another network":
        torch.save({"model": {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, "epoch": 3}, path)
    elif kind == "meta":
        torch.save({k: v.to("meta") for k, v in good.items()}, path)
    elif kind in ("nan", "inf"):
        torch.save(good | {"out.2.bias": torch.full((6,), float(kind))}, path)
    elif kind == "no width":
        torch.save(good | {"time_embed.0.weight": torch.zeros(128, 0)}, path)
    elif kind == "a number of 5000 digits":
        torch.save(good | {f"output_blocks.{'9' * 5000}.0.in_layers.2.weight": torch.zeros(1)}, path)
    elif kind == "names":
        names = {k.replace("proj_out", "proj"): v for k, v in good.items()}
        torch.save(names | {"time_embed.0.bias": torch.zeros(7)}, path)
    elif kind == "heads":
        torch.save(good, path)
    elif kind in PUBLISHED:  # whole-sized, but only named: one number stands for every element
        torch.save({k: torch.zeros(1).expand(v) for k, v in published_shapes(kind).items()}, path)
    return path


SPOILT = {
    "gone": "no such file",
    "code": "refused: it holds Python objects",
    "code, legacy layout": "refused: it holds Python objects",
    "code, plain pickle 2": "refused: it holds Python objects",
    "code, plain pickle 4": "not a readable PyTorch checkpoint",
    "truncated": "truncated: its end is missing",
    "truncated, legacy layout": "not a readable PyTorch checkpoint",
    "text": "not a readable PyTorch checkpoint",
    "empty": "is empty",
    "list": "holds a list without a tensor; expected a U-Net's state dict",
    "no tensors": "holds epoch, args; expected a U-Net's state dict",
    "another network": "holds conv1.weight, fc.bias in model; expected a U-Net's state dict, with time_embed.0.weight",
    "meta": "time_embed.0.weight, time_embed.0.bias, time_embed.2.weight and ",
    "nan": "out.2.bias: holds NaN or infinite numbers",
    "inf": "out.2.bias: holds NaN or infinite numbers",
    "no width": "time_embed.0.weight is (128, 0)",
    "a number of 5000 digits": "unexpected: output_blocks.999",
    "names": "not quite an ADM U-Net: missing: input_blocks.3.1.proj_out.weight, input_blocks.3.1.proj_out.bias, "
    "middle_block.1.proj_out.weight and 5 more; unexpected: input_blocks.3.1.proj.weight, "
    "input_blocks.3.1.proj.bias, middle_block.1.proj.weight and 5 more; "
    "of another shape: time_embed.0.bias (7,) instead of (128,)",
    "heads": "--num-heads 3 does not divide an attention layer's 64 channels",
    "64x64_classifier.pt": "expected",
    "upsample_cond_500K.pt": "6 channels in, 6 out",
    SAYS_512: "128 channels; expected a multiple of 256",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_file_that_cannot_be_imported_is_one_line_and_nothing_written(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _spoilt(kind, tmp_path)
    before = set(tmp_path.iterdir())
    settings = Settings(16, 3 if kind == "heads" else 2, None, False, "cosine", 4000, True)
    out, log = tmp_path / "out.safetensors", tmp_path / "log"
    assert cli.main(["import", str(path), "--out", str(out), *_options(settings), "--log", str(log)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ddrep: {path}: ") and said.count("\n") == 1 and SPOILT[kind] in said
    assert set(tmp_path.iterdir()) == before | {log}


def test_the_marker_works(tmp_path: Path) -> None:
    """The refused pickles would have run."""
    torch.load(_spoilt("code", tmp_path), weights_only=False)
    assert (tmp_path / "ran").exists()


def test_an_unknown_file_names_the_options_that_are_wanted(checkpoint: Path) -> None:
    with pytest.raises(UserError) as said:
        import_checkpoint(checkpoint, Settings(image_size=16, schedule="cosine"))
    assert str(said.value).endswith(
        "give --[no-]new-attention-order, --num-steps, --[no-]rescale-timesteps, --num-heads (or --num-head-channels)"
    )


def test_an_image_size_must_suffice_for_the_levels() -> None:
    name = "256x256_diffusion_uncond.pt"
    with pytest.raises(UserError, match="--image-size 8: too small for 6 levels"):
        describe(Path(name), published_shapes(name), Settings(image_size=8))


def test_importing_again_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        import_checkpoint(checkpoint, SETTINGS["improved_scale_shift"]).save(tmp_path / name)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(("dtype", "most"), [(torch.half, 5e-3), (torch.float8_e4m3fn, 0.5)])
def test_other_precisions_become_single(dtype: torch.dtype, most: float, tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    torch.save({k: v.to(dtype) for k, v in _weights("improved_scale_shift").items()}, path)
    imported = import_checkpoint(path, SETTINGS["improved_scale_shift"])
    assert {p.dtype for p in imported.net.parameters()} == {torch.float32}
    x, t, _ = recipe.inputs()
    assert _error(imported.net(x.float(), t.float()), REFERENCE["improved_scale_shift/out"]) < most


def test_the_layout_of_ddim_halves_even_sizes_alone(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pth"
    torch.save(_weights("ho_unet"), path)
    with pytest.raises(UserError, match="--image-size 15: expected a multiple of 2"):
        import_checkpoint(path, Settings(image_size=15, schedule="linear", num_steps=1000))
