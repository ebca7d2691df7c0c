"""Training steps as CUDA graphs: small networks do not wait on their kernels, but on the launching of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddrep.device import autocast

LARGEST = 2**17
"""Pixels of a batch up to which a step's kernels end before the next ones are launched."""


class _Outer(nn.Module):
    """Holds the network, so that what is captured is not in its copies."""

    def __init__(self, net: nn.Module, precision: str):
        super().__init__()
        self.net, self.precision = net, precision

    def forward(self, *inputs: Tensor) -> Tensor:
        with autocast(self.precision, inputs[0].device):
            out: Tensor = self.net(*inputs)
        return out


def launched_slowly(device: torch.device, pixels: int) -> bool:
    """Whether launching the kernels of a batch of so many pixels takes longer than they do."""
    return device.type == "cuda" and pixels <= LARGEST


def captured(net: nn.Module, *inputs: Tensor, precision: str = "fp32") -> nn.Module:
    """`net` in mixed precision; on a GPU, for small images, its passes forward and back launched as one graph each.

    inputs: like those of every step, (N, C, H, W) first. Weights and statistics stay as they are.
    """
    outer = _Outer(net, precision)
    if not launched_slowly(inputs[0].device, inputs[0].shape[0] * inputs[0].shape[2:].numel()):
        return outer
    before = [buffer.clone() for buffer in net.buffers()]
    torch.cuda.make_graphed_callables(outer, inputs, allow_unused_input=True)
    for buffer, value in zip(net.buffers(), before, strict=True):  # what warming up has counted
        buffer.copy_(value)
    return outer
