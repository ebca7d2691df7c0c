"""What all networks on top have in common: what they read of images, and their file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ddrep.data.batches import check_stored, to_unit
from ddrep.denoiser.denoiser import Denoiser
from ddrep.networks.architectures import ARCHITECTURES
from ddrep.networks.metadata import NetworkMeta
from ddrep.saved import Saved, save

M = TypeVar("M", bound=NetworkMeta)


def inputs(meta: NetworkMeta, denoiser: Denoiser | None, x0: Tensor) -> Tensor:
    """What a network reads of images (N, C, H, W) in [-1, 1], or of estimates of them. Raises UserError for others."""
    if denoiser is None:
        return x0
    denoiser.check(x0)
    read = ARCHITECTURES[meta.key].read
    return read(denoiser, x0, meta.settings) if read else x0


@dataclass
class Network(Generic[M]):
    """A network with what it must know to be used."""

    net: nn.Module
    meta: M
    denoiser: Denoiser | None = None
    """The one it listens to, or whose samples it guides."""

    @property
    def name(self) -> str:
        """What messages call it."""
        raise NotImplementedError

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of the images that it was trained on, if it is known."""
        raise NotImplementedError

    @property
    def file(self) -> Saved:
        """What its file says beside the weights."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Write weights and metadata to a safetensors file."""
        save(path, self.file, self.net.state_dict())

    def inputs(self, x0: Tensor) -> Tensor:
        """What it reads of images (N, C, H, W) in [-1, 1], or of estimates of them."""
        return inputs(self.meta, self.denoiser, x0)

    def batches(self, images: np.ndarray, batch: int) -> Iterator[Tensor]:
        """What it reads of uint8 images (N, H, W, C), `batch` at a time; of none, a batch of none. Raises UserError."""
        if self.image_shape:
            check_stored(images, self.image_shape, self.name)
        device: torch.device = next(self.net.parameters()).device
        for start in range(0, max(1, len(images)), batch):
            yield self.inputs(to_unit(images[start : start + batch], device))
