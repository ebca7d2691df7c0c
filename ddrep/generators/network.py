"""What determines a DiffAE, and what its file says; without torch, for settings are held against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ConfigDict

from ddrep.config import AutoencoderNetwork, LatentMapNetwork, VAENetwork
from ddrep.denoiser.network import Few, Levels, ScheduleConfig, Size, UNetConfig
from ddrep.errors import UserError
from ddrep.networks.metadata import Names
from ddrep.saved import Saved

LARGEST_MAP = 32
"""Pixels in width and height of the map of classes that is read of a latent, at most."""
AUTOENCODER_GROUPS = 8
"""Of the group normalisations of a D2C's autoencoder."""


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
class D2CConfig:
    """An autoencoder with a map of latents, and the U-Net that denoises these (Sinha et al. 2021)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    image_size: Size
    in_channels: Size
    unet: UNetConfig
    """Of latents: its size and channels are theirs."""
    autoencoder_widths: Levels = (16, 32, 64)
    """Channels of each level of encoder and decoder, full resolution first; the last has the latents."""
    autoencoder_blocks: Few = 1
    """A level, in each of them."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return self.unet.in_channels, self.unet.image_size, self.unet.image_size

    def problems(self) -> Iterator[str]:
        """What makes it no network: a line for each setting."""
        levels = len(self.autoencoder_widths)
        if not levels:
            yield "autoencoder_widths: empty; expected a number for each level"
        if odd := [width for width in self.autoencoder_widths if width % AUTOENCODER_GROUPS]:
            yield f"autoencoder_widths: {odd[0]} channels; expected multiples of {AUTOENCODER_GROUPS}"
        if self.unet.image_size * 2 ** max(0, levels - 1) != self.image_size:
            yield f"autoencoder_widths: {levels} levels; {self.image_size} pixels cannot be halved {levels - 1} times"
        if self.unet.out_channels != self.unet.in_channels or self.unet.num_classes:
            yield "unet: out_channels, num_classes: neither is a D2C's to set"
        yield from (f"unet: {problem}" for problem in self.unet.problems())


class D2CFile(Saved):
    """What a D2C's file says of it, beside the weights; see ddrep.generators.d2c."""

    FORMAT = "ddrep.d2c/1"
    WHAT = "a D2C"
    HOW = "make one with `ddrep pretrain-d2c`"
    network: D2CConfig
    schedule: ScheduleConfig
    provenance: dict[str, Any]


def d2c_of(section: LatentMapNetwork, size: int, channels: int) -> D2CConfig:
    """The whole configuration of a section's network for images of `size` pixels a side. Raises UserError."""
    given = section.model_dump()
    latents, widths = given.pop("latent_channels"), given.pop("autoencoder_widths")
    blocks, side = given.pop("autoencoder_blocks"), size // 2 ** max(0, len(widths) - 1)
    if not side:
        raise UserError(f"network.autoencoder_widths: {len(widths)} levels are too many for {size} pixels")
    unet = UNetConfig(image_size=side, in_channels=latents, out_channels=latents, **given)
    cfg = D2CConfig(size, channels, unet, widths, blocks)
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


GENERATORS: dict[str, tuple[Any, Callable[[Any, int, int], object]]] = {
    "diffae": (DiffAEFile, diffae_of),
    "d2c": (D2CFile, d2c_of),
    "nvae": (NVAEFile, nvae_of),
}
"""By their names in `generators` of config.yaml: what a file says, whose network has image_size and in_channels, and
what makes a network of the section's."""


class LatentJudgeFile(Saved):
    """Of a judge that reads a generator's normalised latents, by one linear layer: of an image, or of its pixels."""

    KEY, FORMAT = "judge", "ddrep.latent-judge/1"
    WHAT, HOW = "a judge of latents", "train one with `ddrep judge-latents`"
    classes: Names
    latent: Size
    size: Annotated[int, Ge(0), Le(LARGEST_MAP)] = 0
    """Pixels in width and height of the map of classes that it sees; 0 where it sees one class of the whole image."""
    generator_sha256: str
    """Of the generator whose latents it reads."""
