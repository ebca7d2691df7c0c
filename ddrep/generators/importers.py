"""Published checkpoints of DiffAE -> DiffAE: github.com/phizaz/diffae's Lightning files.

The architecture is read from the names and shapes of the state dict. What they cannot say is the same in all published
configurations (`templates.py`): attention at 16 pixels, which tells the image size, with one head; two blocks a level
of the encoder; 1000 steps, linear for images and constant for latents.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddrep.denoiser.checkpoints import check_finite, check_plain, read_content
from ddrep.denoiser.importers import Shapes, architecture_of, differences, shapes
from ddrep.denoiser.schedule import Schedule
from ddrep.errors import UserError, some
from ddrep.files import sha256
from ddrep.generators.diffae import DiffAE, DiffAENetwork
from ddrep.generators.network import DiffAEConfig

log = logging.getLogger("ddrep")

EMA = "ema_model."
ATTENTION = 16
"""Pixels a side where attention is, and"""
ENCODER_BLOCKS = 2
"""residual blocks a level of the encoder, in all published configurations."""
STATISTICS = {"latent_mean": "conds_mean", "latent_std": "conds_std"}
EXPECTED = (
    "a Lightning checkpoint of phizaz/diffae's latent DDIM (..._latent/last.ckpt), with ema_model.* in state_dict"
)


def run(*, file: Path, latents: Path | None, half: bool, out: Path) -> None:
    """Import, and write. Raises UserError."""
    import_diffae(file, latents).save(out, torch.float16 if half else torch.float32)


def import_diffae(file: Path, latents: Path | None = None) -> DiffAE:
    """The DiffAE of a published checkpoint in float32, in evaluation mode.

    latents: latent.pkl, for the mean and deviation of latents where the checkpoint has none. Raises UserError.
    """
    state = _tensors(file, _content(file).get("state_dict"))
    ema = {name.removeprefix(EMA): t for name, t in state.items() if name.startswith(EMA)}
    if not ema:
        raise UserError(f"{file}: holds {some(state, 3)}; expected {EXPECTED}")
    weights = _in_our_names(ema) | _statistics(file, state, latents)
    cfg = _config(file, shapes(weights))
    with torch.device("meta"):
        net = DiffAENetwork(cfg)
    if text := differences(shapes(weights), shapes(net.state_dict())):
        raise UserError(f"{file}: not quite a DiffAE (names are ours): {text}")
    check_finite(file, weights)
    net.load_state_dict({name: t.float() for name, t in weights.items()}, strict=True, assign=True)
    log.info("%s: a DiffAE of %d pixels, %d numbers in a latent", file, cfg.image_size, cfg.latent)
    provenance = {"kind": "import", "file": file.name, "sha256": sha256(file), "format": "phizaz-diffae"}
    schedule = Schedule("linear", rescale_timesteps=False)
    return DiffAE(net.eval().requires_grad_(False), schedule, provenance=provenance)


def _content(file: Path) -> dict[str, Any]:
    content = read_content(file, inert="pytorch_lightning.")
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds a {type(content).__name__}; expected {EXPECTED}")
    return content


def _tensors(file: Path, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        raise UserError(f"{file}: no state_dict in it; expected {EXPECTED}")
    tensors = {str(name): t for name, t in state.items() if isinstance(t, Tensor)}
    check_plain(file, tensors)
    return tensors


def _in_our_names(ema: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published perceptron holds each layer that the time goes through under two names."""
    found = {}
    for name, t in ema.items():
        if ".cond_layers." in name:
            continue
        ours = re.sub(r"^time_embed\.time_embed\.", "time_embed.", name)
        found[ours if ours.startswith(("encoder.", "latent_net.")) else f"unet.{ours}"] = t
    return found


def _statistics(file: Path, state: Mapping[str, Tensor], latents: Path | None) -> dict[str, Tensor]:
    """Mean and deviation of latents, from the checkpoint or from latent.pkl, which takes precedence."""
    source, place = (_tensors(latents, _content(latents)), latents) if latents else (state, file)
    found = {ours: source.get(theirs) for ours, theirs in STATISTICS.items()}
    if missing := [STATISTICS[name] for name, t in found.items() if t is None]:
        raise UserError(f"{place}: no {' or '.join(missing)}; name the autoencoder's latent.pkl by --latents")
    return {name: t[0] if t.ndim == 2 and len(t) == 1 else t for name, t in found.items() if t is not None}


def _config(file: Path, found: Shapes) -> DiffAEConfig:
    unet = architecture_of(file, {n.removeprefix("unet."): s for n, s in found.items() if n.startswith("unet.")})
    layers = sorted(
        int(m[1]) for n in found if (m := re.fullmatch(r"latent_net\.layers\.(\d{1,3})\.linear\.weight", n))
    )
    if not layers:
        raise UserError(f"{file}: no latent_net in it: an autoencoder alone, which draws nothing; expected {EXPECTED}")
    if len(unet.attention_levels) != 1:
        raise UserError(f"{file}: attention on {len(unet.attention_levels)} levels; expected one of {ATTENTION} pixels")
    cfg = DiffAEConfig(
        image_size=ATTENTION * 2 ** unet.attention_levels[0], in_channels=unet.in_channels,
        out_channels=unet.out_channels, model_channels=unet.model_channels, channel_mult=unet.channel_mult,
        num_res_blocks=unet.num_res_blocks, attention_sizes=(ATTENTION,), resblock_updown=unet.resblock_updown,
        latent=_first(file, found, "encoder.out.3.weight"),
        embed_channels=_first(file, found, "unet.time_embed.0.weight"),
        encoder_mult=_encoder_mult(file, found, unet.model_channels), encoder_res_blocks=ENCODER_BLOCKS,
        latent_layers=len(layers), latent_width=_first(file, found, "latent_net.layers.0.linear.weight"),
    )  # fmt: skip
    if problems := list(cfg.problems()):
        raise UserError(f"{file}: {'; '.join(problems)}; expected {EXPECTED}")
    return cfg


def _first(file: Path, found: Shapes, name: str) -> int:
    """Rows of a weight."""
    if not found.get(name):
        raise UserError(f"{file}: no {name} (names are ours) in it; expected {EXPECTED}")
    return found[name][0]


def _encoder_mult(file: Path, found: Shapes, base: int) -> tuple[int, ...]:
    """Widths of the encoder's levels, by the first block of each."""
    blocks = [n for n in found if re.fullmatch(r"encoder\.input_blocks\.\d{1,4}\.0\.in_layers\.2\.weight", n)]
    first = range(1, 1 + len(blocks), ENCODER_BLOCKS + 1)
    return tuple(_first(file, found, f"encoder.input_blocks.{i}.0.in_layers.2.weight") // base for i in first)
