"""Guides: log p(y | x0), differentiable in the image, of an attribute or of a segmentation mask.

Ours read denoiser features (paper, 4.1); DDIM-I's, the baseline, read the image itself (5.1, 5.2).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Taps
from ddrep.data.batches import check_stored, finite, to_unit
from ddrep.data.masks import IGNORE
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import pixel_features, pooled_features
from ddrep.errors import UserError
from ddrep.files import load_tensors, save_tensors, sha256, written_whole

FORMAT = "ddrep.guide/1"


def attribute_cnn(channels: int, classes: int, hidden: int) -> nn.Sequential:
    """3 convolutions on features (N, channels, h, w) -> logits (N, classes) (paper, 5.1)."""
    widths = [channels, hidden, hidden, hidden]
    layers = [_layer(a, b, 3) for a, b in pairwise(widths)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, classes))


def image_cnn(channels: int, classes: int, hidden: int) -> nn.Sequential:
    """DDIM-I's attribute classifier: 3 strided convolutions on images (N, channels, H, W) -> logits (N, classes)."""
    layers = [_layer(a, b, 3, stride=2) for a, b in ((channels, hidden // 2), (hidden // 2, hidden), (hidden, hidden))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, classes))


def pixel_mlp(channels: int, classes: int, hidden: int) -> nn.Sequential:
    """A perceptron of 3 layers at every pixel: (N, channels, H, W) -> logits (N, classes, H, W) (Baranchuk et al.)."""
    return nn.Sequential(
        _layer(channels, hidden, 1), _layer(hidden, max(1, hidden // 4), 1), nn.Conv2d(max(1, hidden // 4), classes, 1)
    )


def image_segmenter(channels: int, classes: int, hidden: int) -> nn.Sequential:
    """DDIM-I's segmenter: dilated convolutions that see 31 pixels -> logits (N, classes, H, W)."""
    widths = [channels, *[hidden] * 4]
    layers = [_layer(a, b, 3, dilation=2**i) for i, (a, b) in enumerate(pairwise(widths))]
    return nn.Sequential(*layers, nn.Conv2d(hidden, classes, 1))


def _layer(in_ch: int, out_ch: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_ch, out_ch, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_ch), nn.SiLU())


NETWORKS = {
    ("attribute", "features"): attribute_cnn,
    ("attribute", "pixels"): image_cnn,
    ("mask", "features"): pixel_mlp,
    ("mask", "pixels"): image_segmenter,
}


@dataclass
class Guide:
    """A network with what it must know to be used: see `meta`."""

    net: nn.Sequential
    meta: dict[str, Any]
    """of ("attribute", "mask"), reads ("features", "pixels"), taps, hidden, channels, classes (names), image_shape
    (C, H, W) and denoiser_sha256."""
    denoiser: Denoiser
    """The one whose samples it guides; for features also the one it listens to."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.meta["classes"])

    def inputs(self, x0: Tensor) -> Tensor:
        """What the network reads of images (N, C, H, W) in [-1, 1], or of estimates of them."""
        self.denoiser.check(x0)
        if self.meta["reads"] == "pixels":
            return x0
        read = pooled_features if self.meta["of"] == "attribute" else pixel_features
        return read(self.denoiser, x0, Taps(**self.meta["taps"]))

    def log_likelihood(self, x0: Tensor, y: Tensor) -> Tensor:
        """log p(y | x0), (N,): of classes y (N,), or of label maps y (N, H, W), summed over pixels that are not 255."""
        logits = self.net(self.inputs(x0))
        loss = F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="none")
        return -loss.reshape(len(loss), -1).sum(dim=1)

    @torch.no_grad()
    def probabilities(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> float64 (N, classes), or (N, classes, H, W) for masks. Raises UserError."""
        device, name = self.denoiser.device, f"the guide of {self.denoiser.name}"
        check_stored(images, self.denoiser.image_shape, name)
        parts = [images[i : i + batch] for i in range(0, len(images), batch)]
        logits = [self.net(self.inputs(to_unit(part, device))).double().cpu() for part in parts]
        return F.softmax(finite(torch.cat(logits), name), dim=1).numpy()

    def save(self, path: Path) -> None:
        """Write weights and metadata to a safetensors file."""
        meta = {"format": FORMAT, "guide": json.dumps(self.meta, sort_keys=True)}
        with written_whole(path) as (draft,):
            save_tensors(self.net.state_dict(), draft, meta)

    @classmethod
    def load(cls, path: Path, denoiser: Path, device: torch.device) -> Guide:
        """Read a guide. Raises UserError if it was trained with another denoiser, or the file is none."""
        weights, raw = load_tensors(path, FORMAT, "a guide; train one with `ddrep guide`")
        meta = json.loads(raw["guide"])
        if meta["denoiser_sha256"] != sha256(denoiser):
            raise UserError(f"{path}: trained with another denoiser than {denoiser}; train it again with this one")
        net = build(meta)
        net.load_state_dict(weights)
        return cls(net.eval().requires_grad_(False).to(device), meta, Denoiser.load(denoiser, device))


def build(meta: dict[str, Any]) -> nn.Sequential:
    """The untrained network that a guide's metadata describes."""
    return NETWORKS[meta["of"], meta["reads"]](meta["channels"], len(meta["classes"]), meta["hidden"])
