"""Weights in what trainers wrap them in. Right is known: the network that was wrapped, and another beside it, worse."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ddrep.denoiser.checkpoints import read_weights
from ddrep.denoiser.importers import Settings, import_checkpoint
from ddrep.errors import UserError
from tests import tiny
from tests.denoiser.test_importers import HO_SETTINGS, SETTINGS, _weights

State = dict[str, Any]
GOOD: State = {k: v.float() for k, v in _weights("improved_scale_shift").items()}
RAW: State = {k: v + 1 for k, v in GOOD.items()}
GIVEN = SETTINGS["improved_scale_shift"]
OPTIMIZER: State = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}


def imported(content: Any, path: Path, given: Settings = GIVEN) -> tuple[State, str]:
    """The weights that were taken, and what the provenance says of them."""
    torch.save(content, path)
    denoiser = import_checkpoint(path, given)
    return denoiser.net.state_dict(), denoiser.provenance["weights"]


def equal(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def named(prefix: str, state: State) -> State:
    return {prefix + k: v for k, v in state.items()}


PREFIXES = ["module", "_orig_mod", "model", "ema_model", "net", "network", "unet", "diffusion_model", "a.b_c.d1"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_dropped(prefix: str, tmp_path: Path) -> None:
    found, told = imported(named(f"{prefix}.", GOOD), tmp_path / "m.pt")
    assert equal(found, GOOD)
    assert prefix == "_orig_mod" or f"{prefix}.*" in told


@pytest.mark.parametrize("seed", range(6))
def test_prefixes_in_any_order_and_nested(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    prefix = ".".join(draw.sample(PREFIXES, draw.randint(2, 5))) + "."
    assert equal(imported(named(prefix, GOOD), tmp_path / "m.pt")[0], GOOD)


def test_what_torch_itself_puts_before_names() -> None:
    """Compiled as a whole, in part, and within DataParallel: names as torch makes them, with the network's in order."""
    net = tiny.denoiser().net
    expected = list(net.state_dict())
    compiled: Callable[[nn.Module], Any] = torch.compile
    wrapped: list[Callable[[], nn.Module]] = [
        lambda: compiled(net),
        lambda: nn.DataParallel(compiled(net)),
        lambda: compiled(nn.DataParallel(net)),
    ]
    for wrap in wrapped:
        names = list(wrap().state_dict())
        assert names != expected and len(names) == len(expected)
        _check_names(wrap().state_dict(), expected)
    net.input_blocks[1] = compiled(net.input_blocks[1])
    assert any("._orig_mod." in name for name in net.state_dict())
    _check_names(net.state_dict(), expected)


def _check_names(state: State, expected: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "m.pt")
        assert list(read_weights(Path(folder) / "m.pt").tensors) == expected


def _lightning_ema(state: State) -> State:
    """latent-diffusion's LitEma, in its words: `s_name = name.replace('.', '')`, beside the model in one state dict."""
    names = {name: name.removeprefix("model.").replace(".", "") for name in state}
    return {f"model_ema.{names[name]}": v for name, v in state.items()}


DECAY = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
BUFFERS = {"betas": torch.zeros(9), "logvar": torch.zeros(9), "posterior_variance": torch.zeros(9)}
RAW_ALONE: dict[str, Any] = {
    **{entry: {entry: GOOD, "epoch": 3} for entry in ("state_dict", "model", "model_state_dict", "params", "net")},
    "lightning": {
        "state_dict": named("model.", GOOD) | BUFFERS,
        "epoch": 3,
        "callbacks": {},
        "optimizer_states": [OPTIMIZER],
    },
    "deep": {"a": {"b": [{"c": named("module.", GOOD)}]}},
    "beside an optimizer": {"model": GOOD, "optimizer": OPTIMIZER, "step": 5, "args": {"lr": 0.1}},
}
BOTH: dict[str, Any] = {
    "model and ema": {"model": RAW, "ema": GOOD},
    "guided": {"state_dict": RAW, "ema_state_dict": GOOD},
    "model_ema": {"model": RAW, "model_ema": GOOD, "optimizer": OPTIMIZER},
    "ema_model": {"model": named("module.", RAW), "ema_model": named("module.", GOOD)},
    "params": {"params": RAW, "params_ema": GOOD},
    "module names": {"state_dict": named("unet.", RAW) | named("ema_unet.", GOOD)},
    "modelema": {"net": RAW, "netEMA": GOOD},
    "ema before": {"ema": {"state_dict": GOOD, "decay": 0.999}, "model": {"state_dict": RAW}},
    "ema_pytorch": {
        "model": RAW,
        "ema": named("online_model.", RAW) | named("ema_model.", GOOD) | {"step": torch.tensor([1])},
    },
    "swa": {"model": RAW, "averaged": named("module.", GOOD) | {"n_averaged": torch.tensor(3)}},
    "in one state dict": RAW | named("ema.", GOOD),
    "latent-diffusion's, of pixels": {
        "state_dict": named("model.diffusion_model.", RAW)
        | _lightning_ema(named("model.diffusion_model.", GOOD))
        | DECAY
        | BUFFERS
    },
    "a list": [RAW, OPTIMIZER, 3, 7, GOOD],
    "a list in a dict": {"states": [named("module.", RAW), OPTIMIZER, named("module.", GOOD)]},
}


@pytest.mark.parametrize("kind", RAW_ALONE)
def test_weights_in_any_entry(kind: str, tmp_path: Path) -> None:
    found, told = imported(RAW_ALONE[kind], tmp_path / "m.pt")
    assert equal(found, GOOD) and "EMA" not in told


@pytest.mark.parametrize("kind", BOTH)
def test_of_raw_and_averaged_weights_the_averaged_are_taken_and_both_are_named(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ddrep")
    found, told = imported(BOTH[kind], tmp_path / "m.pt")
    assert equal(found, GOOD) and told.endswith("(EMA)")
    lines = [record.getMessage() for record in caplog.records if "weights of" in record.getMessage()]
    assert len(lines) == 1 and told in lines[0] and "; left: " in lines[0]


def test_ddims_layout_in_wrappers(tmp_path: Path) -> None:
    good = {k: v.float() for k, v in _weights("ho_unet").items()}
    worse = {k: v + 1 for k, v in good.items()}
    plain, _ = imported(good, tmp_path / "plain.pt", HO_SETTINGS)
    for i, content in enumerate([{"model": worse, "ema": named("module.", good)}, {"state_dict": named("net.", good)}]):
        assert equal(imported(content, tmp_path / f"{i}.pt", HO_SETTINGS)[0], plain)


def test_a_checkpoint_of_safetensors(tmp_path: Path) -> None:
    for name in ("m.safetensors", "m.pt"):
        save_file(named("model.", GOOD), tmp_path / name)
        assert equal(import_checkpoint(tmp_path / name, GIVEN).net.state_dict(), GOOD)


ODD: dict[str, tuple[Any, str]] = {
    "two of one kind": (
        {"generator": GOOD, "teacher": RAW},
        "a U-Net in each of generator; teacher: nothing tells which; save the one you want by itself",
    ),
    "two averages": ({"ema1": GOOD, "ema2": RAW, "ema": GOOD}, "nothing tells which"),
    "two prefixes": (named("a.", GOOD) | named("b.", RAW), "state dict, b.*: nothing tells which"),
    "latents": (
        {"state_dict": named("model.diffusion_model.", GOOD) | {"first_stage_model.a": torch.zeros(2)}},
        "holds a first_stage_model: its denoiser is one of latents, not of images",
    ),
    "diffusers": (
        {"time_embedding.linear_1.weight": torch.zeros(2), "conv_in.weight": torch.zeros(2)},
        "weights of diffusers, with settings in another file; give the folder, ",
    ),
    "one without its prefix": (
        {k if k == "out.2.bias" else f"module.{k}": v for k, v in GOOD.items()}, "missing: out.2.bias",
    ),
    "integers": ({"model": GOOD | {"out.2.bias": torch.zeros(6, dtype=torch.long)}}, "out.2.bias: not floating-point"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_told_is_said_in_one_line(kind: str, tmp_path: Path) -> None:
    content, complaint = ODD[kind]
    with pytest.raises(UserError) as said:
        imported(content, tmp_path / "m.pt")
    assert str(said.value).startswith(f"{tmp_path}/m.pt: ") and complaint in str(said.value)


def test_a_denoiser_of_this_project_needs_no_import(tmp_path: Path) -> None:
    tiny.denoiser().save(tmp_path / "d.safetensors")
    with pytest.raises(UserError, match=r"d.safetensors: is of ddrep already \(ddrep.denoiser/1\)"):
        import_checkpoint(tmp_path / "d.safetensors", GIVEN)


def test_openais_ema_beside_the_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("model500000.pt", "ema_0.9999_500000.pt", "ema_0.9999_400000.pt"):
        torch.save(GOOD, tmp_path / name)
    for name, warned in (("model500000.pt", 1), ("ema_0.9999_500000.pt", 0)):
        caplog.clear()
        import_checkpoint(tmp_path / name, GIVEN)
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == warned and all("ema_0.9999_500000.pt" in line for line in warnings)


def test_the_search_for_weights_ends(tmp_path: Path) -> None:
    """Lists of one list twice: 2^50 entries, if all of them were looked at."""
    content: Any = [GOOD, 1]
    for _ in range(50):
        content = [content, content]
    with pytest.raises(UserError, match="expected a U-Net's state dict"):
        imported(content, tmp_path / "m.pt")
