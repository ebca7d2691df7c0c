"""The downstream classifiers: timm's networks, untrained, and what makes them fast on small images."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from typing import Literal

import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import ResNet
from torch import Tensor, nn

from ddrep.errors import UserError


def build_classifier(architecture: str, stem: Literal["stock", "small"], channels: int, num_classes: int) -> nn.Module:
    """timm's untrained `architecture`, initialised from torch's global generator.

    Stem "small" is for small images, and for ResNets: 3x3 stride 1 in place of 7x7 stride 2, and no max-pooling.
    Raises UserError for a name that timm does not have, and for stem "small" of anything but a ResNet.
    """
    if not timm.is_model(architecture):
        near = ", ".join(difflib.get_close_matches(architecture, timm.list_models(), n=3)) or "resnet18"
        raise UserError(f"architecture {architecture}: timm has no such model; did you mean {near}?")
    net = timm.create_model(architecture, pretrained=False, num_classes=num_classes, in_chans=channels)
    if stem == "small":
        if not isinstance(net, ResNet):
            raise UserError(f"architecture {architecture}: stem small is for ResNets; set classifier.stem to stock")
        width = net.get_parameter("bn1.weight").numel()
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as timm's own stem
        net.add_module("conv1", conv)
        net.add_module("maxpool", nn.Identity())
    return net


class OnePixelConv(nn.Module):
    """A convolution whose output is one pixel, as the matrix product that it is.

    Taps that only ever meet the padding are left out: they change no output and their gradient is 0, so that Adam
    without weight decay never moves them. In the last stage of a ResNet on 28x28 images these are 8 of 9.
    """

    def __init__(self, conv: nn.Conv2d, height: int, width: int) -> None:
        """`conv` with weights to take over; `height`, `width`: of its input."""
        super().__init__()
        (kh, kw), (top, left) = conv.kernel_size, (int(p) for p in conv.padding)
        self.height, self.width, self.groups = min(height, kh - top), min(width, kw - left), conv.groups
        met = conv.weight.detach()[:, :, top : top + self.height, left : left + self.width]
        self.weight = nn.Parameter(met.reshape(conv.groups, conv.out_channels // conv.groups, -1).clone())
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, 1, 1)."""
        x = x[:, :, : self.height, : self.width].reshape(len(x), self.groups, -1)
        if self.groups == 1:
            y = F.linear(x[:, 0], self.weight[0])
        else:
            y = torch.bmm(x.transpose(0, 1), self.weight.transpose(1, 2)).transpose(0, 1).reshape(len(x), -1)
        return (y if self.bias is None else y + self.bias)[:, :, None, None]


def fit_to_size(net: nn.Module, channels: int, height: int, width: int) -> nn.Module:
    """Replace in `net` each convolution whose output is a single pixel by an equal OnePixelConv, and return `net`.

    Computes the same function of images of this size, with the same gradients; a third of a ResNet-18's time on
    28x28 images goes into such convolutions. Raises UserError if `net` takes no images of this size.
    """
    shapes = _conv_shapes(net, torch.zeros(2, channels, height, width))
    for name, conv in list(net.named_modules()):
        if len(shapes[name]) != 1 or not _is_plain(conv):
            continue
        ((h, w, outputs),) = shapes[name]
        if outputs == 1:
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, OnePixelConv(conv, h, w))
    return net


def _is_plain(conv: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.dilation == (1, 1)
    )


def _conv_shapes(net: nn.Module, x: Tensor) -> dict[str, set[tuple[int, int, int]]]:
    """By name of the convolution: heights and widths of its inputs, with the number of output pixels."""
    shapes: dict[str, set[tuple[int, int, int]]] = defaultdict(set)

    def note(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shapes[name].add((*inputs[0].shape[2:], math.prod(output.shape[2:])))

        return net.get_submodule(name).register_forward_hook(hook)

    hooks = [note(name) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(x)
    except (AssertionError, RuntimeError, ValueError) as e:
        size = "x".join(map(str, x.shape[2:]))
        raise UserError(f"architecture {type(net).__name__}: takes no images of {size} pixels ({e})") from None
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return shapes
