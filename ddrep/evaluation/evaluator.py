"""Evaluator: a small classifier that measures generated images, and takes no part in making them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ddrep.data.batches import finite
from ddrep.evaluation.saved import batches, conv, read, save, widths

KIND = "evaluator"


@dataclass
class Evaluator:
    """p(class | image) and the features behind it, of uint8 images."""

    net: nn.Sequential
    meta: dict[str, Any]
    """name, image_shape (H, W, C), classes (names by number), width; provenance: data, section, seed, accuracy."""

    @property
    def metric(self) -> str:
        """What a Fréchet distance on these features is called; FID is for Inception's alone."""
        return f"FD-{self.meta['name']}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return tuple(self.meta["classes"])

    def save(self, path: Path) -> None:
        """Write weights and metadata to a safetensors file."""
        save(path, KIND, self.net, self.meta)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Evaluator:
        """Read a file written by `save`, in evaluation mode. Raises UserError for any other file."""
        weights, meta = read(path, KIND)
        net = build(meta)
        net.load_state_dict(weights)
        net.eval().requires_grad_(False).to(device)
        return cls(net, meta)

    @torch.inference_mode()
    def features(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> the last hidden layer (N, D) float64, non-negative. Raises UserError."""
        parts = [self.net[:-1](x).double().cpu() for x in batches(images, self.net, self.meta, KIND, batch)]
        features = torch.cat(parts) if parts else torch.zeros(0, self._last.in_features, dtype=torch.float64)
        return finite(features, self._name).numpy()

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> (N, number of classes) float64, summing to 1. Raises UserError."""
        features = torch.from_numpy(self.features(images, batch))
        weight, bias = (p.double().cpu() for p in (self._last.weight, self._last.bias))
        logits = finite(F.linear(features, weight, bias), self._name)
        return F.softmax(logits, dim=1).numpy()

    @property
    def _name(self) -> str:
        return f"{KIND} {self.meta['name']}"

    @property
    def _last(self) -> nn.Linear:
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        return last


def build(meta: dict[str, Any]) -> nn.Sequential:
    """The untrained network that an evaluator's metadata describes: convolutions, average over the image, linear.

    Two convolutions at each resolution down to 8 pixels a side; 157,330 parameters and 96 features at width 24 on
    28x28 grey images of 10 classes.
    """
    channels = widths(meta["width"], meta["image_shape"], smallest=8)
    layers = [conv(meta["image_shape"][2], channels[0])]
    for narrow, wide in itertools.pairwise(channels):
        layers += [conv(narrow, wide, 2), conv(wide, wide)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], len(meta["classes"])))
