"""What the measuring networks have in common: their file, and the images they take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddrep.data.batches import check_stored, to_unit
from ddrep.files import load_tensors, save_tensors, written_whole

WIDEST = 128
"""Most channels of any layer, so most features of an image: a Fréchet distance wants many more images than features."""


def save(path: Path, kind: str, net: nn.Module, meta: dict[str, Any]) -> None:
    """Write the weights and `meta` of a network of `kind` (evaluator, segmenter), whole or not at all."""
    text = {"format": _format(kind), kind: json.dumps(meta, sort_keys=True)}
    with written_whole(path) as (draft,):
        save_tensors(net.state_dict(), draft, text)


def read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and `meta` as `save` wrote them. Raises UserError for any other file."""
    weights, text = load_tensors(path, _format(kind), f"{_an(kind)}; train one with `ddrep {kind}`")
    return weights, json.loads(text[kind])


def _format(kind: str) -> str:
    return f"ddrep.{kind}/1"


def _an(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def batches(images: np.ndarray, net: nn.Module, meta: dict[str, Any], kind: str, batch: int) -> Iterator[Tensor]:
    """uint8 images (N, H, W, C) -> float32 (n, C, H, W) in [-1, 1] on the network's device, `batch` at a time.

    Raises UserError for images of another size than the network was trained on.
    """
    h, w, c = meta["image_shape"]
    check_stored(images, (c, h, w), f"{kind} (`ddrep {kind}` trains one on others)")
    device: torch.device = next(net.parameters()).device
    return (to_unit(images[i : i + batch], device) for i in range(0, len(images), batch))


def conv(in_ch: int, out_ch: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU."""
    layer = nn.Conv2d(in_ch, out_ch, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out_ch), nn.ReLU())


def widths(width: int, image_shape: tuple[int, int, int], smallest: int) -> list[int]:
    """Channels by resolution: doubled with each halving, which goes on until a side is at most `smallest` pixels."""
    side, channels = min(image_shape[:2]), [width]
    while side > smallest:
        side = -(-side // 2)
        channels.append(min(2 * channels[-1], WIDEST))
    return channels
