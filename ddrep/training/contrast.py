"""Contrastive learning of an encoder as MoCo has it: two views of an image, a queue of earlier images' keys, and an
encoder of keys that follows that of queries (He et al., CVPR 2020; v2: Chen, Fan, Girshick & He 2020)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Contrast
from ddrep.generators.d2c import Encoder

SMALLEST = 0.3
"""Share of an image's area in the smallest crop; v2 has 0.2 of larger images, and another aspect ratio."""
JITTER = 0.4
"""Of brightness, contrast and saturation: each times 0.6 to 1.4, as in v2."""
GREY = 0.2
"""Share of colour images that are made grey, as in v2."""
LUMA = 0.299, 0.587, 0.114


def view(x: Tensor) -> Tensor:
    """A random view of each image (N, C, H, W) in [-1, 1], in the same range: a crop, flipped or not, of other
    brightness, contrast and colour. v2's blur is left out: images here are as small as its kernel."""
    return _recoloured(_cropped(x))


def _cropped(x: Tensor) -> Tensor:
    """A square of the image, of a random size, place and side, at the image's size again."""
    area, left, top, flip = torch.rand(4, len(x), device=x.device)
    scale = (SMALLEST + (1 - SMALLEST) * area).sqrt()
    zero, room = torch.zeros_like(scale), 1 - scale
    across = torch.stack([scale * (flip - 0.5).sign(), zero, room * (2 * left - 1)], dim=1)
    down = torch.stack([zero, scale, room * (2 * top - 1)], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _recoloured(x: Tensor) -> Tensor:
    factors = 1 + JITTER * (2 * torch.rand(3, len(x), 1, 1, 1, device=x.device) - 1)
    x = ((x + 1) * factors[0] - 1).clamp(-1, 1)
    x = torch.lerp(x.mean(dim=(1, 2, 3), keepdim=True), x, factors[1])
    if x.shape[1] == 3:
        grey = torch.einsum("nchw,c->nhw", x, x.new_tensor(LUMA))[:, None]
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= GREY
        x = torch.lerp(grey.expand_as(x), x, factors[2] * kept)
    return x.clamp(-1, 1)


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """-log of the share that a query's own key has in exp(q k / temperature) over it and the queue (MoCo, eq. 1).

    Unit vectors (N, width), (N, width) and (K, width), of images in the same order -> the mean over queries.
    """
    logits = torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


class Projected(nn.Module):
    """What makes unit vectors (N, width) of a map of latents (N, C, h, w): a hidden layer and a linear one (v2)."""

    def __init__(self, latents: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(latents, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, latents: Tensor) -> Tensor:
        return F.normalize(self.layers(latents).float(), dim=1)


class Keys(nn.Module):
    """The encoder of keys with its projection, and the queue; nothing in it has a gradient."""

    queue: Tensor

    def __init__(self, encoder: Encoder, projected: Projected, cfg: Contrast):
        super().__init__()
        self.encoder, self.projected = copy.deepcopy(encoder), copy.deepcopy(projected)
        self.requires_grad_(False)
        self.momentum = cfg.momentum
        self.register_buffer("queue", F.normalize(torch.randn(cfg.queue, cfg.width), dim=1))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] -> unit vectors (N, width)."""
        return self.projected(self.encoder.posterior(x)[0])

    @torch.no_grad()
    def follow(self, encoder: Encoder, projected: Projected) -> None:
        """Own weights = momentum x own + (1 - momentum) x theirs (MoCo, eq. 2)."""
        own: list[Tensor] = [*self.parameters()]
        theirs: list[Tensor] = [*encoder.parameters(), *projected.parameters()]
        torch._foreach_lerp_(own, theirs, 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, step: int) -> None:
        """Put keys (N, width) in the place of the oldest: where, is the step's alone, so that a resumed run agrees."""
        rows = (step * len(keys) + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys
