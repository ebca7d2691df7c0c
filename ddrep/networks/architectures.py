"""The small networks on top, by what they are of and what they read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features, pixel_features, pooled_features, probe_features
from ddrep.networks.metadata import WIDEST, NetworkMeta


def conv_norm(
    in_ch: int, out_ch: int, kernel: int = 3, stride: int = 1, dilation: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolution, padded so that stride 1 keeps the size, BatchNorm, activation."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_ch, out_ch, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_ch), act())


def _classifier(layers: list[nn.Sequential], width: int, num_classes: int, *between: nn.Module) -> nn.Sequential:
    """Layers that leave `width` channels, the average over the image, a linear layer."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *between, nn.Linear(width, num_classes))


def feature_cnn(channels: int, num_classes: int, hidden: int, dropout: float = 0.0) -> nn.Sequential:
    """4-layer CNN: features (N, channels, h, w) -> logits (N, num_classes).

    At hidden 192, 1024 channels and 200 classes it has the paper's 1.2M parameters.
    """
    layers = [conv_norm(channels, hidden, 1), *(conv_norm(hidden, hidden) for _ in range(3))]
    return _classifier(layers, hidden, num_classes, nn.Dropout(dropout))


def pixel_cnn(channels: int, num_classes: int, hidden: int, dropout: float = 0.0) -> nn.Sequential:
    """The control: a CNN of 4 layers on pixels (N, channels, H, W) in [-1, 1], halving the resolution thrice."""
    widths = [channels, hidden // 4, hidden // 2, hidden, hidden]
    layers = [conv_norm(a, b, stride=2 if i else 1) for i, (a, b) in enumerate(pairwise(widths))]
    return _classifier(layers, hidden, num_classes, nn.Dropout(dropout))


class Probes(nn.Module):
    """Linear classifiers, each of its own part of features (N, channels), -> logits (N, num_classes) of their mean.

    The logits are those of the mean of their probabilities, over a temperature: at 1 they are as sure as they agree.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int) -> None:
        """widths: features of each part."""
        super().__init__()
        self.widths = widths
        self.linear = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        logits = [linear(part) for linear, part in zip(self.linear, x.split(self.widths, dim=1), strict=True)]
        mean = torch.stack([each.log_softmax(dim=1) for each in logits]).logsumexp(dim=0) - math.log(len(logits))
        return mean / self.get_buffer("temperature")


def attribute_cnn(channels: int, num_classes: int, hidden: int) -> nn.Sequential:
    """3 convolutions on features (N, channels, h, w) -> logits (N, num_classes) (paper, 5.1)."""
    widths = [channels, hidden, hidden, hidden]
    return _classifier([conv_norm(a, b, act=nn.SiLU) for a, b in pairwise(widths)], hidden, num_classes)


def image_cnn(channels: int, num_classes: int, hidden: int) -> nn.Sequential:
    """DDIM-I's attribute classifier: 3 strided convolutions on images (N, channels, H, W) -> (N, num_classes)."""
    widths = [channels, hidden // 2, hidden, hidden]
    return _classifier([conv_norm(a, b, stride=2, act=nn.SiLU) for a, b in pairwise(widths)], hidden, num_classes)


def pixel_mlp(channels: int, num_classes: int, hidden: int) -> nn.Sequential:
    """A perceptron of 3 layers at every pixel: (N, channels, H, W) -> (N, num_classes, H, W) (Baranchuk et al.)."""
    widths = [channels, hidden, max(1, hidden // 4)]
    layers = [conv_norm(a, b, 1, act=nn.SiLU) for a, b in pairwise(widths)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], num_classes, 1))


def image_segmenter(channels: int, num_classes: int, hidden: int) -> nn.Sequential:
    """DDIM-I's segmenter: dilated convolutions that see 31 pixels -> logits (N, num_classes, H, W)."""
    widths = [channels, *[hidden] * 4]
    layers = [conv_norm(a, b, dilation=2**i, act=nn.SiLU) for i, (a, b) in enumerate(pairwise(widths))]
    return nn.Sequential(*layers, nn.Conv2d(hidden, num_classes, 1))


def evaluator_cnn(image_shape: tuple[int, int, int], num_classes: int, width: int) -> nn.Sequential:
    """Two convolutions at each resolution down to 8 pixels a side; images (N, C, H, W) of shape (H, W, C) -> logits.

    157,330 parameters and 96 features at width 24 on 28x28 grey images of 10 classes.
    """
    channels = _widths(width, image_shape, smallest=8)
    layers = [conv_norm(image_shape[2], channels[0])]
    for narrow, wide in pairwise(channels):
        layers += [conv_norm(narrow, wide, stride=2), conv_norm(wide, wide)]
    return _classifier(layers, channels[-1], num_classes)


class SegmentationNet(nn.Module):
    """A U-Net: images (N, C, H, W) -> logits (N, num_classes, H, W), for any H and W.

    Halved until a side has 4 pixels at most, so that every pixel can see what the whole image shows.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        """Images of shape (H, W, C), and `width` channels at full resolution."""
        super().__init__()
        channels = _widths(width, image_shape, smallest=4)
        self.down = nn.ModuleList(
            nn.Sequential(conv_norm(narrow, wide, stride=2 if i else 1), conv_norm(wide, wide))
            for i, (narrow, wide) in enumerate(pairwise([image_shape[2], *channels]))
        )
        self.up = nn.ModuleList(conv_norm(narrow + wide, narrow) for narrow, wide in pairwise(channels))
        self.last = nn.Sequential(conv_norm(channels[0], channels[0]), nn.Conv2d(channels[0], num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        for layer, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = layer(torch.cat([skip, F.interpolate(x, skip.shape[2:])], 1))
        return self.last(x)


def _widths(width: int, image_shape: tuple[int, int, int], smallest: int) -> list[int]:
    """Channels by resolution: doubled with each halving, which goes on until a side is at most `smallest` pixels."""
    side, channels = min(image_shape[:2]), [width]
    while side > smallest:
        side = -(-side // 2)
        channels.append(min(2 * channels[-1], WIDEST))
    return channels


@dataclass(frozen=True)
class Architecture:
    """How such a network is made, untrained, and what it reads of images."""

    make: Callable[..., nn.Module]
    """Its arguments are what the metadata call so."""
    read: Callable[[Denoiser, Tensor, Any], Tensor] | None = None
    """(denoiser, images in [-1, 1] or estimates of them, the metadata's `settings`) -> its inputs; None for pixels."""


ARCHITECTURES = {
    ("class", "features"): Architecture(feature_cnn, bottleneck_features),
    ("class", "pixels"): Architecture(pixel_cnn),
    ("class", "probe"): Architecture(Probes, probe_features),
    ("attribute", "features"): Architecture(attribute_cnn, pooled_features),
    ("attribute", "pixels"): Architecture(image_cnn),
    ("mask", "features"): Architecture(pixel_mlp, pixel_features),
    ("mask", "pixels"): Architecture(image_segmenter),
    ("evaluator", "pixels"): Architecture(evaluator_cnn),
    ("segmenter", "pixels"): Architecture(SegmentationNet),
}


def build(meta: NetworkMeta) -> Any:
    """The untrained network that metadata describe, initialised from torch's global generator."""
    make = ARCHITECTURES[meta.of, meta.reads].make
    return make(**{name: getattr(meta, name) for name in inspect.signature(make).parameters})


def inputs(meta: NetworkMeta, denoiser: Denoiser | None, x0: Tensor) -> Tensor:
    """What such a network reads of images (N, C, H, W) in [-1, 1], or of estimates of them. Raises UserError."""
    if denoiser is None:
        return x0
    denoiser.check(x0)
    read = ARCHITECTURES[meta.of, meta.reads].read
    return read(denoiser, x0, meta.settings) if read else x0
