"""A judge that reads latents: p(class | latent), by one linear layer (paper, 5.1, of the baselines)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.data.batches import finite
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.generators.network import LatentJudgeFile
from ddrep.saved import load, save


def build(content: LatentJudgeFile) -> nn.Linear:
    """Untrained: normalised latents (N, latent) -> logits (N, classes)."""
    return nn.Linear(content.latent, len(content.classes))


@dataclass
class LatentJudge:
    """Trained of one generator's latents."""

    net: nn.Linear
    meta: LatentJudgeFile

    @torch.no_grad()
    def probabilities(self, latents: Tensor) -> np.ndarray:
        """Normalised latents (N, latent) -> float64 (N, classes), on the CPU. Raises UserError if any is not finite."""
        return F.softmax(self.net(finite(latents.cpu(), "the generator")).double(), dim=1).numpy()

    def save(self, path: Path) -> None:
        """Write weights and metadata, whole or not at all."""
        save(path, self.meta, self.net.state_dict())

    @classmethod
    def load(cls, path: Path, generator: Path) -> Self:
        """Raises UserError for any other file, and if it was trained with another generator."""
        meta, net = load(path, LatentJudgeFile, build)
        if meta.generator_sha256 != sha256(generator):
            raise UserError(f"{path}: trained with another generator than {generator}; train it again with this one")
        return cls(net, meta)
