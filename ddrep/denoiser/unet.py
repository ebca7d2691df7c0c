"""The ADM U-Net of improved-diffusion and guided-diffusion, with their state-dict names.

Published files load with `strict=True` and blocks keep the numbers the papers use (`output_blocks.14`). What
differs from the published modules is the shape of the code, and that `encode` and `decode` are apart: features
from the bottleneck need no decoder.
Sources: Nichol & Dhariwal 2021 (improved DDPM), Dhariwal & Nichol 2021 (ADM, appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddrep.denoiser.network import GROUPS, UNetConfig
from ddrep.errors import UserError

__all__ = ["UNet", "UNetConfig", "timestep_embedding"]

Embedding = Tensor | tuple[Tensor, Tensor] | None
"""What blocks are told: of the time and the class; of the time, and a latent; or nothing (ddrep.generators)."""


def timestep_embedding(t: Tensor, dim: int, ho_details: bool = False) -> Tensor:
    """Sinusoidal embedding of times `t` (N,), in embedded units 0..1000 -> (N, dim), cosines first (Ho: sines)."""
    half = dim // 2
    last = half - 1 if ho_details else half
    freqs = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=t.dtype, device=t.device) / last)
    args = t[:, None] * freqs[None]
    waves = [args.sin(), args.cos()] if ho_details else [args.cos(), args.sin()]
    return F.pad(torch.cat(waves, dim=1), (0, dim % 2))


def group_norm(cfg: UNetConfig, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6 if cfg.ho_details else 1e-5)


def _zeroed(module: nn.Module) -> nn.Module:
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


class Downsample(nn.Module):
    """Halve the resolution by a strided convolution; Ho's, of even ones, is padded at the right and below alone."""

    def __init__(self, cfg: UNetConfig, channels: int):
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if cfg.ho_details else nn.Identity()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if cfg.ho_details else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(self.pad(x))


class Upsample(nn.Module):
    """Double the resolution by nearest neighbour, and a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class ResBlock(nn.Module):
    """Residual block told of the time (and class) by shift or by scale and shift of its second norm."""

    def __init__(self, cfg: UNetConfig, in_ch: int, out_ch: int, resample: nn.Module | None = None):
        """resample: of both branches, by what has no weights."""
        super().__init__()
        self.scale_shift = cfg.use_scale_shift_norm
        self.resample = resample or nn.Identity()
        self.in_layers = nn.Sequential(group_norm(cfg, in_ch), nn.SiLU(), nn.Conv2d(in_ch, out_ch, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(cfg.emb_dim, out_ch * (2 if self.scale_shift else 1)))
        last = _zeroed(nn.Conv2d(out_ch, out_ch, 3, padding=1))
        self.out_layers = nn.Sequential(group_norm(cfg, out_ch), nn.SiLU(), nn.Dropout(cfg.dropout), last)
        self.skip_connection = nn.Identity() if in_ch == out_ch else nn.Conv2d(in_ch, out_ch, 1)

    def forward(self, x: Tensor, emb: Embedding) -> Tensor:
        h, x = self.first_half(x)
        return self.skip_connection(x) + self.out_layers[1:](self.told(h, emb))

    def first_half(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `in_layers` make of x, and x itself: both resampled, if the block resamples."""
        norm, act, conv = self.in_layers
        return conv(self.resample(act(norm(x)))), self.resample(x)

    def told(self, h: Tensor, emb: Embedding) -> Tensor:
        """h behind the second norm, told of the embedding (N, emb_dim)."""
        assert isinstance(emb, Tensor)
        norm, e = self.out_layers[0], self.emb_layers(emb)[:, :, None, None]
        if not self.scale_shift:
            return norm(h + e)
        scale, shift = e.chunk(2, dim=1)
        return norm(h) * (1 + scale) + shift


class AttentionBlock(nn.Module):
    """Self-attention over pixels, in either published order of the qkv channels."""

    def __init__(self, cfg: UNetConfig, channels: int):
        super().__init__()
        self.heads = cfg.heads(channels)
        self.new_order = cfg.new_attention_order
        self.norm = group_norm(cfg, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        flat = x.flatten(2)  # of no images as well
        qkv = self.qkv(self.norm(flat))
        if self.new_order:
            q, k, v = qkv.reshape(n, 3, self.heads, c // self.heads, height * width).transpose(-1, -2).unbind(1)
        else:
            q, k, v = qkv.reshape(n, self.heads, 3, c // self.heads, height * width).transpose(-1, -2).unbind(2)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(n, c, height * width)
        return (flat + self.proj_out(h)).reshape(n, c, height, width)


class Block(nn.Sequential):
    """What one number of `input_blocks` or `output_blocks` stands for: layers of which some take the embedding."""

    def forward(self, x: Tensor, emb: Embedding) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class HalfUNet(nn.Module):
    """The encoder of a U-Net and its middle block. Raises UserError for no network."""

    BLOCK: type[ResBlock] = ResBlock

    def __init__(self, cfg: UNetConfig):
        super().__init__()
        if problems := list(cfg.problems()):
            raise UserError("network: " + "; ".join(problems))
        self.cfg = cfg
        self.gradient_checkpointing = False

    def _build_encoder(self) -> list[int]:
        """Fill `input_blocks` and `middle_block`; return the widths that the first leave for the skip connections."""
        cfg, width = self.cfg, self.cfg.widths[0]
        blocks, widths = [Block(nn.Conv2d(cfg.in_channels, width, 3, padding=1))], [width]
        for level, (size, out) in enumerate(zip(cfg.sizes, cfg.widths, strict=True)):
            for _ in range(cfg.num_res_blocks):
                blocks.append(Block(self.BLOCK(cfg, width, out), *self._attention(size, out)))
                widths.append(width := out)
            if level < len(cfg.channel_mult) - 1:
                blocks.append(Block(self._down(width)))
                widths.append(width)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = Block(
            self.BLOCK(cfg, width, width), AttentionBlock(cfg, width), self.BLOCK(cfg, width, width)
        )
        return widths

    def _down(self, width: int) -> nn.Module:
        if self.cfg.resblock_updown:
            return self.BLOCK(self.cfg, width, width, nn.AvgPool2d(2))
        return Downsample(self.cfg, width)

    def _attention(self, size: int, width: int) -> list[AttentionBlock]:
        return [AttentionBlock(self.cfg, width)] if size in self.cfg.attention_sizes else []

    def _run(self, block: nn.Module, x: Tensor, emb: Embedding) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, emb, use_reentrant=False)
        return block(x, emb)

    def encode(self, x: Tensor, emb: Embedding) -> tuple[Tensor, list[Tensor]]:
        """Images (N, C, H, W) -> bottleneck (the middle block's output) and the skip connections."""
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = self._run(block, x, emb)
            skips.append(x)
        return self._run(self.middle_block, x, emb), skips


class UNet(HalfUNet):
    """eps (and variance) of noisy images; see `UNetConfig`. Pixel range [-1, 1]. Raises UserError for no network."""

    def __init__(self, cfg: UNetConfig):
        super().__init__(cfg)
        ch, emb_dim = cfg.model_channels, cfg.emb_dim
        self.time_embed = nn.Sequential(nn.Linear(ch, emb_dim), nn.SiLU(), nn.Linear(emb_dim, emb_dim))
        if cfg.num_classes:
            self.label_emb = nn.Embedding(cfg.num_classes, emb_dim)
        self._build_decoder(self._build_encoder())
        last = _zeroed(nn.Conv2d(cfg.widths[0], cfg.out_channels, 3, padding=1))
        self.out = nn.Sequential(group_norm(cfg, cfg.widths[0]), nn.SiLU(), last)

    def _build_decoder(self, widths: list[int]) -> None:
        """Fill `output_blocks`."""
        cfg, widths, width = self.cfg, list(widths), widths[-1]
        blocks: list[Block] = []
        for level, size, out in reversed(list(zip(range(len(cfg.sizes)), cfg.sizes, cfg.widths, strict=True))):
            for i in range(cfg.num_res_blocks + 1):
                block = Block(self.BLOCK(cfg, width + widths.pop(), out), *self._attention(size, out))
                if level and i == cfg.num_res_blocks:
                    doubling = nn.Upsample(scale_factor=2)
                    block.append(self.BLOCK(cfg, out, out, doubling) if cfg.resblock_updown else Upsample(out))
                blocks.append(block)
                width = out
        self.output_blocks = nn.ModuleList(blocks)

    def embed(self, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Embedding (N, emb_dim) of times (N,) in embedded units and labels (N,) of a conditional network."""
        dtype = next(self.parameters()).dtype
        emb = self.time_embed(timestep_embedding(t.to(dtype), self.cfg.model_channels, self.cfg.ho_details))
        if self.cfg.num_classes:
            if y is None:
                raise ValueError("a class-conditional network needs labels; pass the null row for none")
            emb = emb + self.label_emb(y)
        return emb

    def decode(
        self, h: Tensor, skips: list[Tensor], emb: Embedding, taps: Collection[int] = (), stop: int | None = None
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Bottleneck and skips -> network output (N, out_channels, H, W) and the tapped output blocks by number.

        With `stop`, decoding ends behind that block and the output is None.
        """
        skips, tapped = list(skips), {}
        for i, block in enumerate(self.output_blocks):
            skip = skips.pop()
            # An odd width (7 -> 4 -> 8) comes back one pixel too wide: crop to the skip's size.
            h = self._run(block, torch.cat([h[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1), emb)
            if i in taps:
                tapped[i] = h
            if i == stop:
                return None, tapped
        return self.out(h), tapped

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """x (N, C, H, W), t (N,) in embedded units, labels y (N,) if conditional -> (N, out_channels, H, W)."""
        emb = self.embed(t, y)
        out, _ = self.decode(*self.encode(x, emb), emb)
        assert out is not None
        return out


def bytes_of(cfg: UNetConfig | None) -> int:
    """Of a denoiser's file; 0 where the network is not known."""
    if cfg is None:
        return 0
    with torch.device("meta"):
        return 4 * sum(p.numel() for p in UNet(cfg).parameters())
