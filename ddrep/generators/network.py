"""What determines a DiffAE, and what its file says; without torch, for settings are held against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ConfigDict

from ddrep.config import AutoencoderNetwork, VAENetwork
from ddrep.denoiser.network import Few, Levels, ScheduleConfig, Size, UNetConfig
from ddrep.errors import UserError
from ddrep.networks.metadata import Names
from ddrep.saved import Saved


@dataclass(frozen=True)
class DiffAEConfig(UNetConfig):
    """A U-Net that is told a latent, its encoder and its latent DDIM (Preechakul et al. 2022, table 6); the defaults
    are those of the published configurations at 64 pixels (`autoenc_base`), but for the image's size."""

    model_channels: Size = 64
    channel_mult: Levels = (1, 2, 4, 8)
    num_res_blocks: Few = 2
    attention_sizes: Levels = (16,)
    num_heads: Size = 1
    resblock_updown: bool = True
    latent: Size = 512
    """Numbers in an image's latent, z_sem."""
    embed_channels: Size = 512
    """Of the time's embedding."""
    encoder_mult: Levels = (1, 2, 4, 8, 8)
    """Widths of the encoder's levels, in model_channels."""
    encoder_res_blocks: Few = 2
    latent_layers: Few = 10
    """Of the latent DDIM, and"""
    latent_width: Size = 2048
    """units in each."""

    @property
    def emb_dim(self) -> int:
        return self.embed_channels

    @property
    def encoder(self) -> UNetConfig:
        """Of the semantic encoder, half a U-Net."""
        return UNetConfig(
            image_size=self.image_size, in_channels=self.in_channels, out_channels=self.out_channels,
            model_channels=self.model_channels, channel_mult=self.encoder_mult, num_res_blocks=self.encoder_res_blocks,
            attention_sizes=self.attention_sizes, num_heads=self.num_heads, resblock_updown=self.resblock_updown,
        )  # fmt: skip

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from (f"encoder: {problem}" for problem in self.encoder.problems())
        if self.latent_layers < 2:
            yield f"latent_layers: {self.latent_layers}; expected 2 or more"
        if self.num_classes or self.ho_details or not self.use_scale_shift_norm or self.num_head_channels:
            yield "num_classes, ho_details, use_scale_shift_norm, num_head_channels: none of them is a DiffAE's to set"


class DiffAEFile(Saved):
    """What a DiffAE's file says of it, beside the weights; see ddrep.generators.diffae."""

    FORMAT = "ddrep.diffae/1"
    WHAT = "a DiffAE"
    HOW = "make one with `ddrep pretrain-diffae` or `ddrep import-diffae`"
    network: DiffAEConfig
    schedule: ScheduleConfig
    provenance: dict[str, Any]


def diffae_of(section: AutoencoderNetwork, size: int, channels: int) -> DiffAEConfig:
    """The whole configuration of a section's network for images of `size` pixels a side. Raises UserError."""
    cfg = DiffAEConfig(image_size=size, in_channels=channels, out_channels=channels, **section.model_dump())
    if problems := list(cfg.problems()):
        raise UserError("; ".join(f"network.{problem}" for problem in problems))
    return cfg


@dataclass(frozen=True)
class NVAEConfig:
    """What determines an NVAE (Vahdat & Kautz 2020); the defaults are those of the published CelebA-64 but for size."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    image_size: Size
    in_channels: Literal[1, 3] = 3
    channels: Size = 64
    """At full resolution; twice as many at each halving."""
    outer_blocks: Few = 1
    """Halvings of the image before the first latents, and"""
    outer_cells: Few = 2
    """cells in each."""
    groups: Annotated[tuple[Few, ...], MinLen(1), MaxLen(8)] = (5, 10, 20)
    """Of latents on each scale, the coarsest first."""
    cells: Few = 2
    """For each group, of the encoder and of the decoder."""
    latent: Size = 20
    """Channels of a group's latents."""
    flows: Annotated[int, Ge(0), Le(10)] = 0
    """Pairs of them behind each group's posterior."""
    mixtures: Few = 10
    """Logistic distributions in what is said of a pixel."""

    @property
    def halvings(self) -> int:
        """Of the padded image, down to the coarsest latents."""
        return self.outer_blocks + len(self.groups) - 1

    @property
    def padded(self) -> int:
        """Pixels a side, black ones around the image included, so that all halvings are even."""
        return -(-self.image_size // 2**self.halvings) * 2**self.halvings

    @property
    def scales(self) -> tuple[int, ...]:
        """Halvings down to each group's latents, the first group's first."""
        return tuple(self.halvings - scale for scale, count in enumerate(self.groups) for _ in range(count))

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of each group's latents."""
        return tuple((self.latent, self.padded >> halvings, self.padded >> halvings) for halvings in self.scales)

    def problems(self) -> Iterator[str]:
        """What makes it no network: a line for each setting."""
        if self.channels % 2:
            yield f"channels: {self.channels}; expected an even number"
        if 2**self.halvings > self.image_size:
            yield f"groups: {self.halvings} halvings of {self.image_size} pixels, outer_blocks included; expected fewer"


class NVAEFile(Saved):
    """What an NVAE's file says of it, beside the weights; see ddrep.generators.nvae."""

    FORMAT = "ddrep.nvae/1"
    WHAT = "an NVAE"
    HOW = "make one with `ddrep pretrain-nvae` or `ddrep import-nvae`"
    network: NVAEConfig
    temperature: Annotated[float, Gt(0), Le(2)]
    """Factor on the deviation of every drawn latent, for which the batch norms' statistics are."""
    provenance: dict[str, Any]


def nvae_of(section: VAENetwork, size: int, channels: int) -> NVAEConfig:
    """The whole configuration of a section's network for images of `size` pixels a side. Raises UserError."""
    if channels not in (1, 3):
        raise UserError(f"network: images have {channels} channels; an NVAE draws 1 or 3")
    cfg = NVAEConfig(image_size=size, in_channels=1 if channels == 1 else 3, **section.model_dump())
    if problems := list(cfg.problems()):
        raise UserError("; ".join(f"network.{problem}" for problem in problems))
    return cfg


class LatentJudgeFile(Saved):
    """Of a judge that reads a generator's normalised latents, by one linear layer."""

    KEY, FORMAT = "judge", "ddrep.latent-judge/1"
    WHAT, HOW = "a judge of latents", "train one with `ddrep judge-latents`"
    classes: Names
    latent: Size
    generator_sha256: str
    """Of the generator whose latents it reads."""
