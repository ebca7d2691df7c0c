"""A judge that reads latents by one linear layer: p(class | latent) of an image or of each pixel (paper, 5.1 and 5.2,
of the baselines)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.data.batches import finite, parts
from ddrep.data.masks import IGNORE
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.generators.network import LatentJudgeFile
from ddrep.saved import load, save

NUMBERS = 2**24
"""Of p(class) of each pixel, at once: 128 MB."""


def build(content: LatentJudgeFile) -> nn.Linear:
    """Untrained: normalised latents (N, latent) -> logits (N, classes), or (N, classes * size^2)."""
    return nn.Linear(content.latent, len(content.classes) * max(1, content.size) ** 2)


def logits_of(net: nn.Linear, content: LatentJudgeFile, latents: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Normalised latents (N, latent) -> logits (N, classes); of a judge of pixels (N, classes, *shape)."""
    found: Tensor = net(latents)
    if not content.size:
        return found
    maps = found.unflatten(1, (len(content.classes), content.size, content.size))
    return F.interpolate(maps, tuple(shape), mode="bilinear")


@dataclass
class LatentJudge:
    """Trained of one generator's latents."""

    net: nn.Linear
    meta: LatentJudgeFile

    @torch.no_grad()
    def probabilities(self, latents: Tensor) -> np.ndarray:
        """Normalised latents (N, latent) -> float64 (N, classes), on the CPU. Raises UserError if any is not finite."""
        return F.softmax(self.net(finite(latents.cpu(), "the generator")).double(), dim=1).numpy()

    @torch.no_grad()
    def log_likelihood(self, latents: Tensor, masks: np.ndarray) -> np.ndarray:
        """log p(mask | latent) a pixel, float64 (N,), of normalised latents (N, latent) and label maps uint8 (N, H, W);
        pixels of IGNORE count for nothing. Raises UserError if any latent is not finite."""
        z, said = finite(latents.cpu(), "the generator"), []
        for part in parts(len(z), max(1, NUMBERS // (len(self.meta.classes) * masks[0].size))):
            logits = logits_of(self.net, self.meta, z[part], masks.shape[1:]).double()
            y = torch.as_tensor(masks[part]).long()
            error = F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="none").sum(dim=(1, 2))
            said.append(-error / (y != IGNORE).sum(dim=(1, 2)).clamp(min=1))
        return torch.cat(said).numpy()

    def save(self, path: Path) -> None:
        """Write weights and metadata, whole or not at all."""
        save(path, self.meta, self.net.state_dict())

    @classmethod
    def load(cls, path: Path, generator: Path, of: Literal["attribute", "mask"] = "attribute") -> Self:
        """Raises UserError for any other file, and if it was trained with another generator or for something else."""
        meta, net = load(path, LatentJudgeFile, build)
        if meta.generator_sha256 != sha256(generator):
            raise UserError(f"{path}: trained with another generator than {generator}; train it again with this one")
        if (of == "mask") != bool(meta.size):
            raise UserError(f"{path}: a judge of {'masks' if meta.size else 'an attribute'}; expected one of {of}s")
        return cls(net, meta)
