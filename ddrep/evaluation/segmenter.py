"""Segmenter: an oracle that labels every pixel of generated images, and takes no part in making them (paper, 5.2)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.data.batches import finite
from ddrep.evaluation.saved import batches, conv, read, save, widths

KIND = "segmenter"


class SegmentationNet(nn.Module):
    """A U-Net: images (N, C, H, W) -> logits (N, classes, H, W), for any H and W.

    Halved until a side has 4 pixels at most, so that every pixel can see what the whole image shows.
    """

    def __init__(self, image_channels: int, channels: list[int], classes: int) -> None:
        """`channels`: of each resolution, the full one first."""
        super().__init__()
        inputs = [image_channels, *channels]
        self.down = nn.ModuleList(
            nn.Sequential(conv(narrow, wide, 1 if i == 0 else 2), conv(wide, wide))
            for i, (narrow, wide) in enumerate(zip(inputs, channels, strict=False))
        )
        self.up = nn.ModuleList(conv(narrow + wide, narrow) for narrow, wide in itertools.pairwise(channels))
        self.last = nn.Sequential(conv(channels[0], channels[0]), nn.Conv2d(channels[0], classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        for layer, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = layer(torch.cat([skip, F.interpolate(x, skip.shape[2:])], 1))
        return self.last(x)


@dataclass
class Segmenter:
    """The class of every pixel of uint8 images."""

    net: SegmentationNet
    meta: dict[str, Any]
    """image_shape (H, W, C), classes (names by number), width; provenance: data, section, seed, accuracy."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return tuple(self.meta["classes"])

    def save(self, path: Path) -> None:
        """Write weights and metadata to a safetensors file."""
        save(path, KIND, self.net, self.meta)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Segmenter:
        """Read a file written by `save`, in evaluation mode. Raises UserError for any other file."""
        weights, meta = read(path, KIND)
        net = build(meta)
        net.load_state_dict(weights)
        net.eval().requires_grad_(False).to(device)
        return cls(net, meta)

    @torch.inference_mode()
    def label_maps(self, images: np.ndarray, batch: int = 50) -> np.ndarray:
        """uint8 images (N, H, W, C) -> uint8 (N, H, W), the likeliest class of each pixel. Raises UserError."""
        inputs = batches(images, self.net, self.meta, KIND, batch)
        parts = [finite(self.net(x), "segmenter").argmax(1).to(torch.uint8).cpu() for x in inputs]
        return torch.cat(parts).numpy() if parts else np.zeros(images.shape[:3], np.uint8)


def build(meta: dict[str, Any]) -> SegmentationNet:
    """The untrained network that a segmenter's metadata describes."""
    channels = widths(meta["width"], meta["image_shape"], smallest=4)
    return SegmentationNet(meta["image_shape"][2], channels, len(meta["classes"]))
