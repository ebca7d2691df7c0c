"""Guides: log p(y | x0), differentiable in the image, of an attribute or of a segmentation mask.

Ours read denoiser features (paper, 4.1); DDIM-I's, the baseline, read the image itself (5.1, 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.data.masks import IGNORE
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.networks.judges import Judging
from ddrep.networks.metadata import GuideMeta, Of


@dataclass
class Guide(Judging[GuideMeta]):
    """A judge with a gradient."""

    META = GuideMeta
    denoiser: Denoiser
    """The one whose samples it guides; for features also the one it listens to."""

    @classmethod
    def load(
        cls, path: str | Path, denoiser: str | Path | None = None, device: str | torch.device = "cpu",
        of: Of | None = None,
    ) -> Self:  # fmt: skip
        """As any judge; of an attribute or of masks, where only such a one will do."""
        loaded = super().load(path, denoiser, device)
        if of and loaded.meta.of != of:
            raise UserError(
                f"{path}: a guide of {loaded.meta.of}; expected one of {of}; train it with `ddrep guide --of {of}`"
            )
        return loaded

    @property
    def classes(self) -> tuple[str, ...]:
        return self.meta.classes

    def log_likelihood(self, x0: Tensor, y: Tensor) -> Tensor:
        """log p(y | x0), (N,): of classes y (N,), or of label maps y (N, H, W), summed over pixels that are not 255."""
        logits = self.net(self.inputs(x0))
        loss = F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="none")
        return -loss.reshape(len(loss), -1).sum(dim=1)
