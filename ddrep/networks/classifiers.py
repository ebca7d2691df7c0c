"""The downstream classifiers: timm's networks, untrained, and what makes them fast on small images."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Literal

import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

from ddrep.errors import UserError
from ddrep.networks.metadata import ClassifierMeta
from ddrep.saved import checked


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


def check_classifier(
    architecture: str, stem: Literal["stock", "small"], image: tuple[int, int, int], num_classes: int
) -> None:
    """Raise UserError unless `build_classifier` makes a network that takes images (H, W, C), without computing any."""
    height, width, channels = image
    with torch.device("meta"):
        net = build_classifier(architecture, stem, channels, num_classes)
        with contextlib.suppress(NotImplementedError):  # what torch cannot follow without computing is left to the job
            _try_out(net, torch.zeros(2, channels, height, width))


class SmallMapConv(nn.Module):
    """A convolution in which every output pixel sees every input pixel, as one matrix product an output pixel.

    Such are the convolutions on maps of one or two pixels a side, the last stages of a ResNet on 28x28 images, where
    the common algorithms multiply mostly padding. Taps that only ever meet padding are left out: they change no output
    and their gradient is 0, so that Adam without weight decay never moves them.
    """

    def __init__(self, conv: nn.Conv2d, in_size: tuple[int, int], out_size: tuple[int, int]) -> None:
        """`conv`: to take the weights from, with `sees_all`; sizes: height and width of its input and output."""
        super().__init__()
        self.seen, self.kernel_size = _seen(conv, in_size, out_size), conv.kernel_size
        self.out_size = out_size
        (top, left), (down, right) = _padding(conv), conv.stride
        rows, columns = (range(n) for n in self.seen)
        meets = [
            (row - y * down + top, column - x * right + left)
            for y, x in itertools.product(*(range(n) for n in out_size))
            for row, column in itertools.product(rows, columns)
        ]
        self.taps = sorted(set(meets))
        self.register_buffer("met", torch.tensor([self.taps.index(tap) for tap in meets]), persistent=False)
        taps = [conv.weight.detach()[:, :, i, j].T for i, j in self.taps]
        self.weight = nn.Parameter(torch.stack(taps).contiguous())  # (taps, in, out)
        self.bias = conv.bias

    def kernel(self) -> Tensor:
        """The convolution's weights (out, in, height, width); 0 at the taps that only ever meet padding."""
        _, in_channels, out_channels = self.weight.shape
        kernel = self.weight.new_zeros(out_channels, in_channels, *self.kernel_size)
        rows, columns = zip(*self.taps, strict=True)
        kernel[:, :, rows, columns] = self.weight.permute(2, 1, 0)
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        pixels = x.permute(0, 2, 3, 1)[:, : self.seen[0], : self.seen[1]].reshape(len(x), -1)
        outputs, channels = math.prod(self.out_size), self.weight.shape[2]
        if outputs == 1:
            y = pixels @ self.weight.reshape(-1, channels)
        else:
            weights = self.weight.to(x.dtype).index_select(0, self.get_buffer("met")).reshape(outputs, -1, channels)
            y = torch.cat([pixels @ weight for weight in weights], 1)
        y = y.reshape(len(x), *self.out_size, channels).permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias[:, None, None]


def fit_to_size(net: nn.Module, channels: int, height: int, width: int) -> nn.Module:
    """Replace in `net` each convolution in which every pixel sees every pixel by an equal SmallMapConv, and return it.

    Computes the same function of images of this size, with the same gradients; these convolutions are half of a
    ResNet-18's time on 28x28 images otherwise. Raises UserError if `net` takes no images of this size.
    """
    shapes = _conv_shapes(net, torch.zeros(2, channels, height, width))
    for name, conv in list(net.named_modules()):
        if len(shapes[conv]) != 1 or not isinstance(conv, nn.Conv2d):
            continue
        ((in_size, out_size),) = shapes[conv]
        if sees_all(conv, in_size, out_size):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, SmallMapConv(conv, in_size, out_size))
    return net


@torch.no_grad()
def timm_weights(net: nn.Module) -> dict[str, Tensor]:
    """The weights of a network that may have been fitted to a size, with timm's names and shapes."""
    fitted = {f"{name}.weight": part.kernel() for name, part in net.named_modules() if isinstance(part, SmallMapConv)}
    return {**net.state_dict(), **fitted}


def load_classifier(path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, ClassifierMeta]:
    """A classifier that `ddrep classify --weights` kept, in evaluation mode, and its classes, image shape and so on.

    It reads float images (N, C, H, W) in [-1, 1], as `ddrep.to_unit` makes of uint8, and gives logits (N, classes).
    Raises UserError for any other file. With stem stock, `timm.create_model(..., checkpoint_path=...)` does the same.
    """
    meta, weights, _ = checked(Path(path), ClassifierMeta, _untrained)
    net = _untrained(meta)  # once more, with what some of timm's have beside weights
    net.load_state_dict(weights)
    return net.eval().to(device), meta


def _untrained(meta: ClassifierMeta) -> nn.Module:
    return build_classifier(meta.architecture, meta.stem, meta.image_shape[0], len(meta.classes))


def sees_all(conv: nn.Conv2d, in_size: tuple[int, int], out_size: tuple[int, int]) -> bool:
    """Whether every output pixel sees every input pixel that any of them sees, in a convolution without frills."""
    if type(conv) is not nn.Conv2d or conv.groups > 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
        return False
    if isinstance(conv.padding, str):
        return False
    sides = zip(_padding(conv), conv.stride, conv.kernel_size, _seen(conv, in_size, out_size), out_size, strict=True)
    return all((n - 1) * step <= pad and seen - 1 + pad < kernel for pad, step, kernel, seen, n in sides)


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    return int(conv.padding[0]), int(conv.padding[1])


def _seen(conv: nn.Conv2d, in_size: tuple[int, int], out_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the part of the input that the kernel reaches."""
    sides = zip(in_size, out_size, conv.stride, conv.kernel_size, _padding(conv), strict=True)
    height, width = (min(size, (n - 1) * step + kernel - pad) for size, n, step, kernel, pad in sides)
    return height, width


Sizes = tuple[tuple[int, int], tuple[int, int]]


def _conv_shapes(net: nn.Module, x: Tensor) -> dict[nn.Module, set[Sizes]]:
    """By convolution: height and width of its inputs and outputs, a pair for each that occurs."""
    shapes: dict[nn.Module, set[Sizes]] = defaultdict(set)

    def note(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[conv].add(((inputs[0].shape[2], inputs[0].shape[3]), (output.shape[2], output.shape[3])))

    hooks = [module.register_forward_hook(note) for module in net.modules() if isinstance(module, nn.Conv2d)]
    try:
        _try_out(net, x)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _try_out(net: nn.Module, x: Tensor) -> None:
    """Pass images x (N, C, H, W). Raises UserError if `net` takes none of this size."""
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(x)
    except NotImplementedError:
        raise
    except (AssertionError, RuntimeError, ValueError) as e:
        size = "x".join(map(str, x.shape[2:]))
        raise UserError(f"architecture {type(net).__name__}: takes no images of {size} pixels ({e})") from None
    finally:
        net.train(training)
