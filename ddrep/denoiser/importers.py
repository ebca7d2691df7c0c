"""Published checkpoints -> Denoiser: OpenAI's improved-diffusion and guided-diffusion, and ermongroup/ddim.

The architecture is read from the names and shapes of the state dict. What they cannot say (the image size, the heads,
the schedule) is known for the published files, from the flags in OpenAI's READMEs and the configs of ermongroup/ddim,
and given by options for any other.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ddrep.denoiser import checkpoints, ho
from ddrep.denoiser.checkpoints import check_finite, read_weights
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.errors import UserError, some
from ddrep.files import sha256

log = logging.getLogger("ddrep")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """What names and shapes tell; see `UNetConfig`."""

    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[int, ...]
    """Levels of the U-Net with attention, 0 the one at full resolution."""
    out_channels: int
    num_classes: int = 0
    resblock_updown: bool = False
    use_scale_shift_norm: bool = True
    in_channels: int = 3
    ho_details: bool = False


@dataclass(frozen=True)
class Settings:
    """What names and shapes do not tell; None where it is not known either. Of the two head settings one is wanted."""

    image_size: int | None = None
    num_heads: int | None = None
    num_head_channels: int | None = None
    new_attention_order: bool | None = None
    schedule: Literal["cosine", "linear"] | None = None
    num_steps: int | None = None
    rescale_timesteps: bool | None = None

    def overridden(self, given: Settings) -> Settings:
        """These, except where `given` says otherwise; heads given in one way replace heads known in the other."""
        changes = {k: v for k, v in dataclasses.asdict(given).items() if v is not None}
        if {"num_heads", "num_head_channels"} & set(changes):
            changes = {"num_heads": None, "num_head_channels": None, **changes}
        return dataclasses.replace(self, **changes)

    def missing(self) -> list[str]:
        """The options that are still wanted."""
        lacks = [k for k, v in dataclasses.asdict(self).items() if v is None and "head" not in k]
        if self.num_heads is None and self.num_head_channels is None:
            lacks.append("num_heads (or --num-head-channels)")
        toggles = {"new_attention_order", "rescale_timesteps"}
        return [f"--{'[no-]' if name in toggles else ''}{name.replace('_', '-')}" for name in lacks]


# The READMEs' flags; where they say nothing, the defaults of script_util.py (improved-diffusion rescales timesteps,
# guided-diffusion does not); ddim's configs. Files trained alike with other data or another loss share a line.
PUBLISHED: dict[Architecture, tuple[str, Settings]] = {
    Architecture(128, (1, 2, 3, 4), 3, (2, 3), 6): (
        "imagenet64_uncond_100M_1500K.pt",
        Settings(64, 4, None, False, "cosine", 4000, True),
    ),
    Architecture(192, (1, 2, 3, 4), 3, (2, 3), 6, 1000): (
        "imagenet64_cond_270M_250K.pt",
        Settings(64, 4, None, False, "cosine", 4000, False),
    ),
    Architecture(128, (1, 2, 2, 2), 3, (1, 2), 6): (
        "cifar10_uncond_50M_500K.pt",
        Settings(32, 4, None, False, "cosine", 4000, True),
    ),
    Architecture(128, (1, 1, 2, 2, 4, 4), 2, (4,), 6, use_scale_shift_norm=False): (
        "lsun_uncond_100M_1200K_bs128.pt",
        Settings(256, 1, None, False, "linear", 1000, False),
    ),
    Architecture(192, (1, 2, 3, 4), 3, (1, 2, 3), 6, 1000, resblock_updown=True): (
        "64x64_diffusion.pt",
        Settings(64, None, 64, True, "cosine", 1000, False),
    ),
    Architecture(256, (1, 1, 2, 3, 4), 2, (2, 3, 4), 6, 1000, resblock_updown=True): (
        "128x128_diffusion.pt",
        Settings(128, 4, None, False, "linear", 1000, False),
    ),
    Architecture(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 6, 1000, resblock_updown=True): (
        "256x256_diffusion.pt",
        Settings(256, None, 64, False, "linear", 1000, False),
    ),
    Architecture(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 6, resblock_updown=True): (
        "256x256_diffusion_uncond.pt, lsun_*.pt or ffhq.pt",
        Settings(256, None, 64, False, "linear", 1000, False),
    ),
    Architecture(128, (1, 2, 2, 2, 4), 2, (2,), 3, use_scale_shift_norm=False, ho_details=True): (
        "ermongroup/ddim's CelebA-64 checkpoint",
        Settings(64, 1, None, False, "linear", 1000, False),
    ),
    Architecture(128, (1, 2, 2, 2), 2, (1,), 3, use_scale_shift_norm=False, ho_details=True): (
        "ermongroup/ddim's CIFAR-10 checkpoint",
        Settings(32, 1, None, False, "linear", 1000, False),
    ),
    Architecture(128, (1, 1, 2, 2, 4, 4), 2, (4,), 3, use_scale_shift_norm=False, ho_details=True): (
        "ermongroup/ddim's LSUN checkpoints",
        Settings(256, 1, None, False, "linear", 1000, False),
    ),
}
HO = Settings(num_heads=1, new_attention_order=False, rescale_timesteps=False)
"""What the layout of ermongroup/ddim says of every network."""


def published(name: str, image_size: int) -> tuple[str, UNetConfig] | None:
    """The unconditional published file whose name begins with `name`, and its network; None if there is none."""
    for architecture, (files, settings) in PUBLISHED.items():
        named = any(file.startswith(name) for file in files.replace(" or ", ", ").split(", "))
        if named and settings.image_size == image_size and not architecture.num_classes:
            return files, _config(Path(files), architecture, settings)
    return None


def import_checkpoint(file: Path, given: Settings | None = None) -> Denoiser:
    """The Denoiser of a published checkpoint in float32, in evaluation mode. Raises UserError for any other file.

    The weights stay in the mapped file until they are used, so this takes little memory.
    """
    given, found = given or Settings(), read_weights(file)
    if found.first == checkpoints.DIFFUSERS:
        raise UserError(f"{file}: weights of diffusers, with settings in another file; give the folder, {file.parent}")
    ho_details = found.first == checkpoints.HO
    weights = ho.in_our_names(found.tensors) if ho_details else found.tensors
    cfg, schedule, known = describe(file, shapes(weights), given, ho_details)
    check_finite(file, found.tensors)
    _say_of_sibling(file)
    with torch.device("meta"):
        net = UNet(cfg)
    net.load_state_dict({name: t.float() for name, t in weights.items()}, strict=True, assign=True)
    provenance = {
        "kind": "import",
        "file": file.name,
        "sha256": sha256(file),
        "format": "ermongroup-ddim" if ho_details else "openai-adm",
        "weights": str(found),
        "settings_of": known,
        "given": {k: v for k, v in dataclasses.asdict(given).items() if v is not None},
    }
    # The file names no classes. As many names as rows also says that there is no null row: see Denoiser.null_row.
    classes = tuple(str(label) for label in range(cfg.num_classes))
    return Denoiser(net.eval().requires_grad_(False), schedule, provenance, classes)


def _say_of_sibling(file: Path) -> None:
    """OpenAI's trainers save model012345.pt and, beside it, ema_0.9999_012345.pt."""
    if m := re.fullmatch(r"model(\d+)\.pt", file.name):
        for ema in sorted(file.parent.glob(f"ema_*_{m[1]}.pt")):
            log.warning("%s: the weights as trained; their EMA is in %s beside it: better give that", file, ema)


def shapes(weights: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(t.shape) for name, t in weights.items()}


def describe(
    file: Path, found: Shapes, given: Settings, ho_details: bool = False
) -> tuple[UNetConfig, Schedule, str | None]:
    """Network, schedule and the published file whose settings were taken, of a state dict's names (ours) and shapes.

    Raises UserError, with what differs, unless names and shapes are all those of the network.
    """
    architecture = dataclasses.replace(architecture_of(file, found), ho_details=ho_details)
    known, settings = PUBLISHED.get(architecture, (None, HO if ho_details else Settings()))
    settings = settings.overridden(given)
    if missing := settings.missing():
        raise UserError(f"{file}: not the architecture of a published file known here; give {', '.join(missing)}")
    cfg = _config(file, architecture, settings)
    with torch.device("meta"):
        expected = shapes(UNet(cfg).state_dict())
    if text := differences(found, expected):
        kind = "the U-Net of ermongroup/ddim (names are ADM's)" if ho_details else "an ADM U-Net"
        raise UserError(f"{file}: not quite {kind}: {text}")
    assert settings.schedule and settings.num_steps and settings.rescale_timesteps is not None
    log.info("%s: the architecture of %s; %s", file, known or "no published file", settings)
    return cfg, Schedule(settings.schedule, settings.num_steps, settings.rescale_timesteps), known


def architecture_of(file: Path, found: Shapes) -> Architecture:
    """Read off the architecture; whether every other tensor agrees is not looked at. Raises UserError for no U-Net."""

    def shape(name: str, ndim: int = 4) -> tuple[int, ...]:
        if len(found.get(name, ())) != ndim or 0 in found[name]:
            got = f"is {found[name]}" if name in found else "is not there"
            raise UserError(f"{file}: {name} {got}; expected an ADM U-Net of improved-diffusion or guided-diffusion")
        return found[name]

    blocks = sorted({int(m[1]) for name in found if (m := re.match(r"output_blocks\.(\d{1,4})(?:\.|\Z)", name))})
    # The last block of each decoder level but one resamples: by a second residual block, or by a convolution.
    by_block = [i for i in blocks if _layer(found, i, "in_layers.2.weight")]
    ends = by_block or [i for i in blocks if _layer(found, i, "conv.weight")]
    num_res_blocks = ends[0] if ends else len(blocks) - 1
    levels = range(len(ends) + 1)
    base = shape("time_embed.0.weight", 2)[1]
    first = [1 + level * (num_res_blocks + 1) for level in levels]  # the first input block of each level
    widths = [shape(f"input_blocks.{i}.0.out_layers.3.weight")[0] for i in first]
    if odd := [width for width in widths if width % base or width % 32]:
        raise UserError(f"{file}: {odd[0]} channels; expected a multiple of {base} (time_embed's) and of 32")
    in_channels, out_channels = shape("input_blocks.0.0.weight")[1], shape("out.2.weight")[0]
    if in_channels not in (1, 3) or out_channels not in (in_channels, 2 * in_channels):
        raise UserError(f"{file}: {in_channels} channels in, {out_channels} out; expected 1 or 3 in (up-samplers are "
                        "not imported), and as many or twice as many out")  # fmt: skip
    return Architecture(
        model_channels=base,
        channel_mult=tuple(width // base for width in widths),
        num_res_blocks=num_res_blocks,
        attention_levels=tuple(i for i in levels if f"input_blocks.{first[i]}.1.qkv.weight" in found),
        out_channels=out_channels,
        num_classes=shape("label_emb.weight", 2)[0] if "label_emb.weight" in found else 0,
        resblock_updown=bool(by_block),
        use_scale_shift_norm=shape("middle_block.0.emb_layers.1.weight", 2)[0] == 2 * widths[-1],
        in_channels=in_channels,
    )


def _layer(found: Shapes, block: int, name: str) -> bool:
    """Whether an output block has this layer behind its first, be there attention between or not."""
    return any(f"output_blocks.{block}.{i}.{name}" in found for i in (1, 2))


def _config(file: Path, architecture: Architecture, settings: Settings) -> UNetConfig:
    """The network's configuration; UserError if image size or heads do not go with the widths."""
    assert settings.image_size is not None and settings.new_attention_order is not None
    heads, head_channels = settings.num_heads, settings.num_head_channels
    fields: dict[str, Any] = dataclasses.asdict(architecture)
    levels: tuple[int, ...] = fields.pop("attention_levels")
    cfg = UNetConfig(
        **fields, image_size=settings.image_size, num_heads=heads or UNetConfig.num_heads,
        num_head_channels=head_channels, new_attention_order=settings.new_attention_order,
    )  # fmt: skip
    sizes = cfg.sizes
    if len(set(sizes)) < len(sizes):
        raise UserError(f"{file}: --image-size {settings.image_size}: too small for {len(sizes)} levels")
    if architecture.ho_details and settings.image_size % 2 ** (len(sizes) - 1):
        raise UserError(f"{file}: --image-size {settings.image_size}: expected a multiple of {2 ** (len(sizes) - 1)}")
    if heads is not None and head_channels is not None:
        raise UserError(f"{file}: --num-heads and --num-head-channels: give one of them")
    for width in sorted(cfg.widths[i] for i in {*levels, len(sizes) - 1}):
        if width % (heads or head_channels or 1):
            option = f"--num-heads {heads}" if heads else f"--num-head-channels {head_channels}"
            raise UserError(f"{file}: {option} does not divide an attention layer's {width} channels")
    return dataclasses.replace(cfg, attention_sizes=tuple(sizes[i] for i in levels))


def differences(found: Shapes, expected: Shapes) -> str:
    """How names and shapes differ, in short; empty if they do not."""
    parts = {
        "missing": [k for k in expected if k not in found],
        "unexpected": [k for k in found if k not in expected],
        "of another shape": [f"{k} {found[k]} instead of {v}" for k, v in expected.items() if found.get(k, v) != v],
    }
    return "; ".join(f"{what}: {some(names, 3)}" for what, names in parts.items() if names)
