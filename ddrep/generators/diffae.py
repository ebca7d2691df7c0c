"""DiffAE: a diffusion autoencoder and a latent DDIM (Preechakul, Chatthee, Wizadwongsa & Suwajanakorn, CVPR 2022).

An encoder makes a latent of an image, z_sem; a U-Net denoises images when told z_sem; a perceptron denoises latents.
To draw an image, a latent is drawn first. The networks compute what those of github.com/phizaz/diffae (MIT) do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Sampling
from ddrep.data.batches import to_uint8
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import Embedding, HalfUNet, ResBlock, UNet, UNetConfig, group_norm, timestep_embedding
from ddrep.device import autocast
from ddrep.generators.base import Diffused, drawn
from ddrep.generators.network import DiffAEConfig, DiffAEFile
from ddrep.sampling.rows import in_rows
from ddrep.sampling.sampler import ImageNoise, solve

TIME_CHANNELS = 64
"""Of the sines and cosines that the latent DDIM is told the time by."""


class ConstantSchedule(Schedule):
    """Of latents: every beta is 0.008 on 1000 steps (Preechakul et al., D.1; `const0.008` in the published code)."""

    @cached_property
    def betas(self) -> Tensor:
        return torch.full((self.num_steps,), 8 / self.num_steps, dtype=torch.float64)


LATENT_SCHEDULE = ConstantSchedule()


class ToldBlock(ResBlock):
    """AdaGN(h, t, z) = z_s (t_s GroupNorm(h) + t_b) (eq. 7): z scales what the time has scaled and shifted."""

    def __init__(self, cfg: UNetConfig, in_ch: int, out_ch: int, resample: nn.Module | None = None):
        super().__init__(cfg, in_ch, out_ch, resample)
        assert isinstance(cfg, DiffAEConfig)
        self.cond_emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(cfg.latent, out_ch))

    def told(self, h: Tensor, emb: Embedding) -> Tensor:
        assert isinstance(emb, tuple)
        time, z = emb
        return super().told(h, time) * (1 + self.cond_emb_layers(z)[:, :, None, None])


class PlainBlock(ResBlock):
    """A block that is told nothing, and has no second half."""

    def __init__(self, cfg: UNetConfig, in_ch: int, out_ch: int, resample: nn.Module | None = None):
        super().__init__(cfg, in_ch, out_ch, resample)
        del self.emb_layers, self.out_layers

    def forward(self, x: Tensor, emb: Embedding = None) -> Tensor:
        h, x = self.first_half(x)
        return self.skip_connection(x) + h


class ToldUNet(UNet):
    """eps(x_t, t, z), whose blocks are told the time and a latent."""

    BLOCK = ToldBlock

    def eps(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_t (N, C, H, W), times (N,) in embedded units, latents (N, latent) as the encoder gives them -> like x."""
        emb = self.embed(t), z
        out, _ = self.decode(*self.encode(x, emb), emb)
        assert out is not None
        return out


class SemanticEncoder(HalfUNet):
    """z_sem = Enc(x0) (section 3.2): half a U-Net without time, averaged over the image."""

    BLOCK = PlainBlock

    def __init__(self, cfg: UNetConfig, latent: int):
        super().__init__(cfg)
        width = self._build_encoder()[-1]
        last = nn.Conv2d(width, latent, 1)
        self.out = nn.Sequential(group_norm(cfg, width), nn.SiLU(), nn.AdaptiveAvgPool2d(1), last, nn.Flatten())

    def forward(self, x0: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] -> (N, latent)."""
        return self.out(self.encode(x0, None)[0])


class LatentLayer(nn.Module):
    """Linear, scaled by what the time says, LayerNorm, SiLU; the last one is linear alone."""

    def __init__(self, width: int, out: int, told: int | None):
        """told: channels of the time's embedding; None for the last."""
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.linear_emb = nn.Linear(told, out) if told else None
        self.norm = nn.LayerNorm(out) if told else None
        for layer in (self.linear, self.linear_emb) if told else ():
            assert layer is not None
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.linear(x)
        if self.linear_emb is None or self.norm is None:
            return x
        return F.silu(self.norm(x * (1 + self.linear_emb(F.silu(emb)))))


class LatentNet(nn.Module):
    """eps(z_t, t) of normalised latents: a perceptron, into each of whose layers z_t goes again (appendix A)."""

    def __init__(self, latent: int, width: int, layers: int):
        super().__init__()
        told = nn.Linear(TIME_CHANNELS, latent), nn.SiLU(), nn.Linear(latent, latent)
        self.time_embed = nn.Sequential(*told)
        first = LatentLayer(latent, width, latent)
        inner = (LatentLayer(width + latent, width, latent) for _ in range(layers - 2))
        self.layers = nn.ModuleList([first, *inner, LatentLayer(width + latent, latent, None)])

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """z_t (N, latent), times (N,) in 0..1000 -> (N, latent)."""
        emb = self.time_embed(timestep_embedding(t.to(z.dtype), TIME_CHANNELS))
        h = z
        for i, layer in enumerate(self.layers):
            h = layer(torch.cat([h, z], dim=1) if i else h, emb)
        return h


class DiffAENetwork(nn.Module):
    """All that a DiffAE's file holds. Raises UserError for a configuration that makes no network."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, cfg: DiffAEConfig):
        super().__init__()
        self.cfg = cfg
        self.unet = ToldUNet(cfg)
        self.encoder = SemanticEncoder(cfg.encoder, cfg.latent)
        self.latent_net = LatentNet(cfg.latent, cfg.latent_width, cfg.latent_layers)
        self.register_buffer("latent_mean", torch.zeros(cfg.latent))
        self.register_buffer("latent_std", torch.ones(cfg.latent))


@dataclass
class DiffAE(Diffused):
    """Latents are normalised by the mean and the deviation of those of the training images (section 4)."""

    FILE, NETWORK = DiffAEFile, DiffAENetwork
    net: DiffAENetwork

    @property
    def latent_size(self) -> int:
        return self.net.cfg.latent

    def evaluations(self, cfg: Sampling) -> int:
        return cfg.steps

    def encoded(self, x0: Tensor) -> Tensor:
        return (self.net.encoder(x0) - self.net.latent_mean) / self.net.latent_std

    def latents(self, seeds: Sequence[int], steps: int) -> Tensor:
        """By DDIM without noise, and without clipping (`latent_clip_sample` in the published code)."""
        return drawn(self.net.latent_net, LATENT_SCHEDULE, (self.latent_size,), seeds, steps, self.device)

    @torch.no_grad()
    def images(self, latents: Tensor, seeds: Sequence[int], cfg: Sampling) -> np.ndarray:
        """By any solver from noise of the seed, told the latent."""
        z = latents.to(self.device) * self.net.latent_std + self.net.latent_mean

        def eps(x: Tensor, index: Tensor) -> Tensor:
            with autocast(cfg.precision, x.device):
                said = in_rows(self.net.unet.eps, x, self.schedule.embedded(index).to(x.dtype), z)
            return said.to(x.dtype)

        noise = ImageNoise(seeds, self.image_shape, self.device)
        return to_uint8(solve(eps, self.schedule, noise, cfg), self.name)
