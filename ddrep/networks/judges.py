"""Judges: p(class | image) by denoiser features or by pixels, which decides what candidates are kept (paper, 4.2).

A guide (ddrep.networks.guides) is a judge with a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ddrep.data.batches import finite
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.networks import architectures
from ddrep.networks.metadata import FeatureJudge, JudgeFile, PixelJudge
from ddrep.networks.network import M, Network
from ddrep.saved import load


@dataclass
class Judging(Network[M]):
    """A network that gives class probabilities of stored images."""

    @torch.no_grad()
    def probabilities(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> float64 (N, classes), or (N, classes, H, W) for masks; classes sum to 1.

        Raises UserError for any others, and for a network that is broken.
        """
        logits = [self.net(x).double().cpu() for x in self.batches(images, batch)]
        return F.softmax(finite(torch.cat(logits), self.name), dim=1).numpy()


@dataclass
class Judge(Judging[FeatureJudge | PixelJudge]):
    """A rejection classifier."""

    @property
    def name(self) -> str:
        listens = f", listening to {self.denoiser.name}" if self.denoiser else ""
        return f"the rejection classifier on {self.meta.kind}{listens}"

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W): on features the denoiser knows it, on pixels the training noted it."""
        if self.denoiser:
            return self.denoiser.image_shape
        return self.meta.image_shape if isinstance(self.meta, PixelJudge) else None

    @property
    def file(self) -> JudgeFile:
        return JudgeFile(judge=self.meta)

    @classmethod
    def load(cls, path: Path, denoiser: Path, device: torch.device) -> Judge:
        """Read a judge, with the denoiser it listens to. Raises UserError if it was trained on another one."""
        file, net = load(path, JudgeFile, lambda file: architectures.build(file.judge), device)
        if isinstance(file.judge, PixelJudge):
            return cls(net, file.judge)
        if file.judge.denoiser_sha256 != sha256(denoiser):
            raise UserError(f"{path}: trained on the features of another denoiser than {denoiser}; train it again")
        return cls(net, file.judge, Denoiser.load(denoiser, device))
