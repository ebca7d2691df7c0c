"""config.json and scheduler_config.json of diffusers, as far as our U-Net and Schedule can express them.

Defaults are diffusers' own, for its older files leave settings out. A type says what is possible by itself; what
depends on other settings is in `network_of` and `schedule_of`. Unknown keys are ignored, as diffusers ignores them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ddrep.denoiser.importers import Settings
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNetConfig
from ddrep.errors import UserError

Count = Annotated[int, Gt(0), Le(2**16)]
Few = Annotated[int, Gt(0), Le(100)]
"""Bounds far beyond any network: what a file claims is not to fill the memory."""
Down = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
Up = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]


class Config(BaseModel):
    """Settings of a UNet2DModel."""

    model_config = ConfigDict(populate_by_name=True)
    class_name: Literal["UNet2DModel"] = Field(alias="_class_name")
    sample_size: Count | tuple[Count, Count] | None = None
    in_channels: Literal[1, 3] = 3
    out_channels: Count = 3
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: Count | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[Down, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    up_block_types: tuple[Up, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: Annotated[tuple[Count, ...], MinLen(1), MaxLen(12)] = (224, 448, 672, 896)
    layers_per_block: Few = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: Literal["conv", "resnet"] | None = "conv"
    upsample_type: Literal["conv", "resnet"] | None = "conv"
    dropout: Annotated[float, Ge(0), Le(1)] = 0.0
    act_fn: Literal["silu", "swish"] = "silu"
    attention_head_dim: Count | None = 8
    norm_num_groups: Literal[32] = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: Literal[True] = True
    class_embed_type: None = None
    num_class_embeds: Count | None = None

    @field_validator("down_block_types", "up_block_types", mode="before")
    @classmethod
    def _as_named_today(cls, names: Any) -> Any:
        """Files of 2022 have UNetResDownBlock2D and the like."""
        return [str(name).removeprefix("UNetRes") for name in names] if isinstance(names, list | tuple) else names


class SchedulerConfig(BaseModel):
    """What a scheduler says of the noise; how it samples is not ours to take over."""

    model_config = ConfigDict(populate_by_name=True)
    class_name: Literal["DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"] = Field(
        alias="_class_name"
    )
    num_train_timesteps: Count = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: None = None
    prediction_type: Literal["epsilon"] = "epsilon"
    rescale_betas_zero_snr: Literal[False] = False
    variance_type: str | None = None


def network_of(path: Path, config: Config, given: Settings) -> UNetConfig:
    """Our network of a config.json that was read from `path`. UserError names the setting that stands in the way."""
    for option in ("num_heads", "num_head_channels", "new_attention_order"):
        if getattr(given, option) is not None:
            raise UserError(f"{path}: it tells the attention heads; leave out --{option.replace('_', '-')}")
    resblock_updown = _resamples_by_blocks(path, config)
    _check_details(path, config, resblock_updown)
    size = _image_size(path, config, given)
    attention = _attention_levels(path, config)
    widths = config.block_out_channels
    for level in {*attention, len(widths) - 1}:
        if config.attention_head_dim and widths[level] % config.attention_head_dim:
            raise _refused(path, config, "attention_head_dim", f"a divisor of {widths[level]}, an attention's channels")
    return UNetConfig(
        image_size=size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        model_channels=widths[0],
        channel_mult=tuple(width // widths[0] for width in widths),
        num_res_blocks=config.layers_per_block,
        attention_sizes=tuple(size // 2**level for level in attention),
        num_heads=1,
        num_head_channels=config.attention_head_dim,
        use_scale_shift_norm=config.resnet_time_scale_shift == "scale_shift",
        resblock_updown=resblock_updown,
        dropout=config.dropout,
        num_classes=config.num_class_embeds or 0,
        ho_details=not config.flip_sin_to_cos,
    )


def config_of(path: Path, cfg: UNetConfig) -> Config:
    """The settings that make UNet2DModel our network, read from `path`. UserError says what stands in the way."""
    depth = len(cfg.channel_mult)
    if cfg.channel_mult[0] != 1:
        raise UserError(f"{path}: channel_mult {cfg.channel_mult}: UNet2DModel can only express 1 as the first")
    if cfg.image_size % 2 ** (depth - 1):
        raise UserError(f"{path}: image_size {cfg.image_size}: UNet2DModel wants a multiple of {2 ** (depth - 1)}")
    attention = [level for level, size in enumerate(cfg.sizes) if size in cfg.attention_sizes]
    down, up = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if cfg.resblock_updown else ("DownBlock2D", "UpBlock2D")
    )
    resampling = "resnet" if cfg.resblock_updown else "conv"
    fields: dict[str, Any] = {
        "class_name": "UNet2DModel",
        "sample_size": cfg.image_size,
        "in_channels": cfg.in_channels,
        "out_channels": cfg.out_channels,
        "flip_sin_to_cos": not cfg.ho_details,
        "down_block_types": ["AttnDownBlock2D" if level in attention else down for level in range(depth)],
        "up_block_types": ["AttnUpBlock2D" if level in attention else up for level in reversed(range(depth))],
        "block_out_channels": cfg.widths,
        "layers_per_block": cfg.num_res_blocks,
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": cfg.dropout,
        "attention_head_dim": _head_channels(path, cfg, {*attention, depth - 1}),
        "attn_norm_num_groups": 32,
        "resnet_time_scale_shift": "scale_shift" if cfg.use_scale_shift_norm else "default",
        "num_class_embeds": cfg.num_classes or None,
    }
    return Config(**fields, **_details(cfg.ho_details))


def schedule_of(path: Path, config: SchedulerConfig, cfg: UNetConfig, given: Settings) -> Schedule:
    """Our schedule of a scheduler_config.json that was read from `path`, unless the options say otherwise."""
    kind: Literal["linear", "cosine"] = "linear" if config.beta_schedule == "linear" else "cosine"
    betas = _linear_betas(config.num_train_timesteps)
    if kind == "linear" and not all(map(math.isclose, betas, (config.beta_start, config.beta_end))):
        raise _refused(path, config, "beta_start, beta_end", f"{betas[0]:g}, {betas[1]:g}")
    if cfg.out_channels == 2 * cfg.in_channels and config.variance_type == "learned":
        raise _refused(path, config, "variance_type", "learned_range")
    # UNet2DModel is told the index itself, however many steps there are.
    settings = Settings(schedule=kind, num_steps=config.num_train_timesteps, rescale_timesteps=False).overridden(given)
    assert settings.schedule and settings.num_steps and settings.rescale_timesteps is not None
    return Schedule(settings.schedule, settings.num_steps, settings.rescale_timesteps)


def scheduler_of(path: Path, schedule: Schedule, learns_variance: bool) -> SchedulerConfig:
    """The settings of a DDPMScheduler, which DDIMScheduler reads as well. UserError if it cannot express ours."""
    if schedule.rescale_timesteps and schedule.num_steps != 1000:
        raise UserError(
            f"{path}: rescale_timesteps: UNet2DModel is told the index 0..{schedule.num_steps - 1}, "
            "but this denoiser 0..1000"
        )
    start, end = _linear_betas(schedule.num_steps)
    return SchedulerConfig(
        class_name="DDPMScheduler",
        num_train_timesteps=schedule.num_steps,
        beta_start=start,
        beta_end=end,
        beta_schedule="linear" if schedule.kind == "linear" else "squaredcos_cap_v2",
        variance_type="learned_range" if learns_variance else "fixed_small",
    )


def _linear_betas(num_steps: int) -> tuple[float, float]:
    """First and last beta of our linear schedule."""
    betas = Schedule("linear", num_steps).betas
    return float(betas[0]), float(betas[-1])


def _refused(path: Path, config: BaseModel, keys: str, expected: str) -> UserError:
    values = ", ".join(json.dumps(getattr(config, key)) for key in keys.split(", "))
    return UserError(f"{path}: {keys} {values}: expected {expected}")


def _details(ho_details: bool) -> dict[str, float]:
    """What goes with either order of the time embedding."""
    if ho_details:
        return {"freq_shift": 1, "downsample_padding": 0, "norm_eps": 1e-6}
    return {"freq_shift": 0, "downsample_padding": 1, "norm_eps": 1e-5}


def _check_details(path: Path, config: Config, resblock_updown: bool) -> None:
    """Raise UserError if numbers that our U-Net has built in are others."""
    expected = {"mid_block_scale_factor": 1, **_details(not config.flip_sin_to_cos)}
    if resblock_updown or len(config.block_out_channels) == 1:
        del expected["downsample_padding"]  # there is no convolution to be padded
    for key, value in expected.items():
        if getattr(config, key) != value:
            where = f" with flip_sin_to_cos {json.dumps(config.flip_sin_to_cos)}" if key in _details(True) else ""
            raise _refused(path, config, key, f"{value:g}{where}")
    base = config.block_out_channels[0]
    if config.time_embedding_dim not in (None, 4 * base):
        raise _refused(path, config, "time_embedding_dim", f"{4 * base}, or null")
    # Without groups, scale_shift leaves out the norm before the middle's attention.
    allowed = (32,) if config.resnet_time_scale_shift == "scale_shift" else (32, None)
    if config.attn_norm_num_groups not in allowed:
        raise _refused(path, config, "attn_norm_num_groups", "32")
    if any(width % base or width % 32 for width in config.block_out_channels):
        raise _refused(path, config, "block_out_channels", "multiples of the first, and of 32")
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise _refused(path, config, "out_channels", f"{config.in_channels}, or {2 * config.in_channels}")


def _image_size(path: Path, config: Config, given: Settings) -> int:
    size = given.image_size or config.sample_size
    if size is None:
        raise UserError(f"{path}: sample_size is null; give --image-size")
    height, width = size if isinstance(size, tuple) else (size, size)
    step = 2 ** (len(config.block_out_channels) - 1)
    if height != width or height % step:
        raise UserError(f"{path}: {height}x{width} pixels; expected a square of a multiple of {step}")
    return height


def _resamples_by_blocks(path: Path, config: Config) -> bool:
    """Whether resolution changes in residual blocks; behind the last of either list it does not change."""
    depth = len(config.block_out_channels)
    for key in ("down_block_types", "up_block_types"):
        if len(getattr(config, key)) != depth:
            raise _refused(path, config, key, f"{depth}, as many as block_out_channels")
    # Blocks with attention take their way of resampling from a setting, the others have it in their name.
    by_block = {
        setting == "resnet" if kind.startswith("Attn") else kind.startswith("Resnet")
        for kinds, setting in (
            (config.down_block_types, config.downsample_type),
            (config.up_block_types, config.upsample_type),
        )
        for kind in kinds[:-1]
    }
    if len(by_block) > 1:
        keys = "down_block_types, up_block_types, downsample_type, upsample_type"
        raise _refused(path, config, keys, "one way of resampling, by convolutions or by residual blocks")
    return True in by_block


def _attention_levels(path: Path, config: Config) -> list[int]:
    """Levels with attention, 0 the one at full resolution."""
    down = [kind == "AttnDownBlock2D" for kind in config.down_block_types]
    up = [kind == "AttnUpBlock2D" for kind in reversed(config.up_block_types)]
    if down != up:
        raise _refused(path, config, "down_block_types, up_block_types", "attention on the same levels in both")
    return [level for level, here in enumerate(down) if here]


def _head_channels(path: Path, cfg: UNetConfig, levels: set[int]) -> int | None:
    """attention_head_dim, where None is one head; UserError if heads of one number have several widths."""
    if cfg.num_head_channels or cfg.num_heads == 1:
        return cfg.num_head_channels
    widths = sorted({cfg.widths[level] for level in levels})
    if len(widths) > 1:
        raise UserError(
            f"{path}: num_heads {cfg.num_heads}: UNet2DModel has heads of one width everywhere, "
            f"but attention here has {' and '.join(map(str, widths))} channels"
        )
    return widths[0] // cfg.num_heads
