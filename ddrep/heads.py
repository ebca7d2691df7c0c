"""The small networks on top: the rejection CNN on denoiser features, its control on pixels, and the Judge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Features
from ddrep.data.batches import check_stored, finite, to_unit
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.errors import UserError
from ddrep.files import load_tensors, save_tensors, sha256, written_whole

FORMAT = "ddrep.judge/1"


def _layer(in_ch: int, out_ch: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_ch, out_ch, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_ch), nn.ReLU())


def feature_cnn(channels: int, num_classes: int, hidden: int, dropout: float) -> nn.Sequential:
    """4-layer CNN: features (N, channels, h, w) -> logits (N, num_classes).

    At hidden 192, 1024 channels and 200 classes it has the paper's 1.2M parameters.
    """
    layers = [_layer(channels, hidden, 1), *(_layer(hidden, hidden, 3) for _ in range(3))]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
    )


def pixel_cnn(channels: int, num_classes: int, hidden: int, dropout: float) -> nn.Sequential:
    """The control: a CNN of 4 layers on pixels (N, channels, H, W) in [-1, 1], halving the resolution thrice."""
    layers = [
        _layer(channels, hidden // 4, 3),
        _layer(hidden // 4, hidden // 2, 3, 2),
        _layer(hidden // 2, hidden, 3, 2),
    ]
    layers.append(_layer(hidden, hidden, 3, 2))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
    )


@dataclass
class Judge:
    """p(class | image) of stored uint8 images, by denoiser features or by pixels."""

    net: nn.Sequential
    meta: dict[str, Any]
    """kind ("features" or "pixels"), channels, num_classes, hidden, dropout; for features their settings and
    denoiser_sha256, for pixels the image_shape (C, H, W), which older files have not."""
    denoiser: Denoiser | None = None

    def save(self, path: Path) -> None:
        """Write weights and metadata to a safetensors file."""
        meta = {"format": FORMAT, "judge": json.dumps(self.meta, sort_keys=True)}
        with written_whole(path) as (draft,):
            save_tensors(self.net.state_dict(), draft, meta)

    @classmethod
    def load(cls, path: Path, denoiser: Path, device: torch.device) -> Judge:
        """Read a judge, with the denoiser it listens to. Raises UserError if it was trained on another one."""
        weights, raw = load_tensors(path, FORMAT, "a rejection classifier; train one with `ddrep rejection`")
        meta = json.loads(raw["judge"])
        listens = meta["kind"] == "features"
        if listens and meta["denoiser_sha256"] != sha256(denoiser):
            raise UserError(f"{path}: trained on the features of another denoiser than {denoiser}; train it again")
        net = build(meta)
        net.load_state_dict(weights)
        net.eval().requires_grad_(False).to(device)
        return cls(net, meta, Denoiser.load(denoiser, device) if listens else None)

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> (N, num_classes) float64, summing to 1. Raises UserError for any others."""
        if self._image_shape:
            check_stored(images, self._image_shape, self._name)
        device = next(self.net.parameters()).device
        parts = [self._logits(to_unit(images[i : i + batch], device)) for i in range(0, len(images), batch)]
        logits = torch.cat(parts) if parts else torch.zeros(0, self.meta["num_classes"])
        return F.softmax(finite(logits, self._name).double(), dim=1).cpu().numpy()

    @property
    def _name(self) -> str:
        listens = f", listening to {self.denoiser.name}" if self.denoiser else ""
        return f"the rejection classifier on {self.meta['kind']}{listens}"

    @property
    def _image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W): on features the denoiser knows it, on pixels the training noted it."""
        return self.denoiser.image_shape if self.denoiser else self.meta.get("image_shape")

    def _logits(self, x: Tensor) -> Tensor:
        if self.denoiser is None:
            return self.net(x)
        return self.net(bottleneck_features(self.denoiser, x, Features(**self.meta["features"])))


def build(meta: dict[str, Any]) -> nn.Sequential:
    """The untrained network that a judge's metadata describes."""
    make = feature_cnn if meta["kind"] == "features" else pixel_cnn
    return make(meta["channels"], meta["num_classes"], meta["hidden"], meta["dropout"])
