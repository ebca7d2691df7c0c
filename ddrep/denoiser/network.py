"""What determines the ADM U-Net, and what follows from it: sizes, widths, names of blocks.

Without torch, for settings are held against it before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Le, MaxLen
from pydantic import ConfigDict, model_validator

from ddrep.config import Network
from ddrep.config.base import Share
from ddrep.errors import UserError
from ddrep.saved import Saved

MIDDLE = "middle"
GROUPS = 32
"""Of all group normalisations: every width is a multiple of it."""
Size = Annotated[int, Ge(1), Le(2**16)]
"""Pixels or channels, or layers at most, of a network that a file may ask for."""
Few = Annotated[int, Ge(1), Le(100)]
Levels = Annotated[tuple[Size, ...], MaxLen(16)]


@dataclass(frozen=True)
class UNetConfig:
    """What determines the network. `attention_sizes` are feature-map widths in pixels. Files are held to the bounds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    image_size: Size
    in_channels: Size = 3
    out_channels: Size = 3
    model_channels: Size = 128
    channel_mult: Levels = (1, 2, 3, 4)
    num_res_blocks: Few = 3
    attention_sizes: Levels = (16, 8)
    num_heads: Size = 4
    num_head_channels: Size | None = None
    """If set, the number of heads is width / num_head_channels and `num_heads` is ignored."""
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    """Resample by residual blocks; otherwise by convolutions."""
    new_attention_order: bool = False
    """Split q, k, v before the heads (guided-diffusion's option) instead of after."""
    dropout: Share = 0.0
    num_classes: Annotated[int, Ge(0), Le(2**20)] = 0
    """Rows of the label table, the null row included; 0 for an unconditional network."""
    ho_details: bool = False
    """Times embedded, strided convolutions padded and norms' eps as in the DDPM U-Net of ermongroup/ddim."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Height, width, channels of its images."""
        return self.image_size, self.image_size, self.in_channels

    @property
    def sizes(self) -> tuple[int, ...]:
        """Width of the feature maps of each level in pixels, full resolution first; an odd one is halved upwards."""
        return tuple(-(-self.image_size // 2**level) for level in range(len(self.channel_mult)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(self.model_channels * mult for mult in self.channel_mult)

    @property
    def emb_dim(self) -> int:
        """Channels of the embedding that blocks are told."""
        return 4 * self.model_channels

    def heads(self, width: int) -> int:
        """Of attention over feature maps of `width` channels."""
        return width // self.num_head_channels if self.num_head_channels else self.num_heads

    @property
    def level_ends(self) -> dict[str, int]:
        """{"up1": number of the last block of the decoder level next to the bottleneck, ...}."""
        return {f"up{i}": i * (self.num_res_blocks + 1) - 1 for i in range(1, len(self.channel_mult) + 1)}

    def block_numbers(self, blocks: Sequence[str]) -> list[int | None]:
        """Number in `output_blocks` of each named block; None for the middle block. upL is the last of decoder level L.

        Raises UserError for a block that the network has not.
        """
        last = len(self.channel_mult) * (self.num_res_blocks + 1) - 1
        known: dict[str, int | None] = {MIDDLE: None, **self.level_ends}
        known |= {f"output_blocks.{i}": i for i in range(last + 1)}
        if unknown := [name for name in blocks if name not in known]:
            levels = ", ".join(self.level_ends)
            raise UserError(
                f"blocks: no {unknown[0]} in this denoiser; it has {MIDDLE}, {levels}, output_blocks.0 to {last}"
            )
        return [known[name] for name in blocks]

    def problems(self) -> Iterator[str]:
        """What makes it no network: a line for each setting."""
        if not self.channel_mult:
            yield "channel_mult: empty; expected a number for each level"
            return
        if odd := sorted({width for width in self.widths if width % GROUPS}):
            yield f"model_channels x channel_mult: {_listed(odd)} channels; expected multiples of {GROUPS}"
        attended = {width for width, size in zip(self.widths, self.sizes, strict=True) if size in self.attention_sizes}
        if wrong := sorted(w for w in {*attended, self.widths[-1]} if not self.heads(w) or w % self.heads(w)):
            setting = (
                f"num_head_channels: {self.num_head_channels}"
                if self.num_head_channels
                else f"num_heads: {self.num_heads}"
            )
            yield f"{setting} does not divide the {_listed(wrong)} channels where attention is"
        if (self.resblock_updown or self.ho_details) and (halves := [size for size in self.sizes[:-1] if size % 2]):
            yield f"image_size: {self.image_size}; {halves[0]} pixels cannot be halved by such a network"


@dataclass(frozen=True)
class ScheduleConfig:
    """What determines a noise schedule (ddrep.denoiser.schedule)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kind: Literal["cosine", "linear"] = "cosine"
    num_steps: Annotated[int, Ge(1), Le(10**6)] = 1000
    rescale_timesteps: bool = True
    """Embed times in 0..1000 whatever `num_steps` is; otherwise embed the index itself."""


class DenoiserFile(Saved):
    """What a denoiser's file says of it, beside the weights; see Denoiser."""

    FORMAT = "ddrep.denoiser/1"
    WHAT = "a denoiser"
    HOW = "make one with `ddrep pretrain` or `ddrep import`"
    network: UNetConfig
    schedule: ScheduleConfig
    provenance: dict[str, Any]
    classes: tuple[str, ...]

    @model_validator(mode="after")
    def _names_its_rows(self) -> Self:
        rows, names = self.network.num_classes, len(self.classes)
        if names and names not in (rows, rows - 1):
            raise ValueError(
                f"classes: {names} names, but the label table has {rows} rows; expected {rows - 1} or {rows}"
            )
        return self


def network_of(section: Network, size: int, channels: int) -> UNetConfig:
    """The whole configuration of a section's network for images of `size` pixels a side.

    Raises UserError for settings that make none, and for attention at sizes that it has not: it would be left out.
    """
    cfg = UNetConfig(image_size=size, in_channels=channels, out_channels=channels, **section.model_dump())
    problems = list(cfg.problems())
    if absent := [each for each in cfg.attention_sizes if each not in cfg.sizes]:
        here = f"with {size} pixels and {len(cfg.channel_mult)} levels it has {_listed(cfg.sizes)}"
        problems.append(f"attention_sizes: no level of {_listed(absent)} pixels; {here}")
    if problems:
        raise UserError("; ".join(f"denoiser.pretrain.network.{problem}" for problem in problems))
    return cfg


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
