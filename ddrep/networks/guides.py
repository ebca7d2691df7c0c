"""Guides: log p(y | x0), differentiable in the image, of an attribute or of a segmentation mask.

Ours read denoiser features (paper, 4.1); DDIM-I's, the baseline, read the image itself (5.1, 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.data.masks import IGNORE
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.networks import architectures
from ddrep.networks.judges import Judging
from ddrep.networks.metadata import GuideFile, GuideMeta
from ddrep.saved import load


@dataclass
class Guide(Judging[GuideMeta]):
    """A judge with a gradient."""

    denoiser: Denoiser
    """The one whose samples it guides; for features also the one it listens to."""

    @property
    def name(self) -> str:
        return f"the guide of {self.denoiser.name}"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.meta.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.denoiser.image_shape

    @property
    def file(self) -> GuideFile:
        return GuideFile(guide=self.meta)

    def log_likelihood(self, x0: Tensor, y: Tensor) -> Tensor:
        """log p(y | x0), (N,): of classes y (N,), or of label maps y (N, H, W), summed over pixels that are not 255."""
        logits = self.net(self.inputs(x0))
        loss = F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="none")
        return -loss.reshape(len(loss), -1).sum(dim=1)

    @classmethod
    def load(cls, path: Path, denoiser: Path, device: torch.device) -> Guide:
        """Read a guide. Raises UserError if it was trained with another denoiser, or the file is none."""
        file, net = load(path, GuideFile, lambda file: architectures.build(file.guide), device)
        if file.guide.denoiser_sha256 != sha256(denoiser):
            raise UserError(f"{path}: trained with another denoiser than {denoiser}; train it again with this one")
        return cls(net, file.guide, Denoiser.load(denoiser, device))
