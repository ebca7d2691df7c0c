"""Passes of small networks as CUDA graphs: they do not wait on their kernels, but on the launching of them."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ddrep.device import autocast

LARGEST = 2**17
"""Pixels of a batch up to which a step's kernels end before the next ones are launched."""
LARGEST_PASS = 2**18
"""The same of a pass forward without gradients."""


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


class _Pass:
    """A pass forward as one graph, of inputs of one shape."""

    def __init__(self, run: Callable[..., Tensor], inputs: tuple[Tensor, ...]):
        with torch.inference_mode(False), torch.no_grad():  # tensors made there may be written to anywhere
            self.inputs = [each.clone() for each in inputs]
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(3):  # by which kernels are chosen and memory is taken
                    run(*self.inputs)
            torch.cuda.current_stream().wait_stream(beside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # others, as NCCL's, go on
                self.output = run(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return self.output.clone()


_passes: WeakKeyDictionary[nn.Module, dict[object, _Pass]] = WeakKeyDictionary()


def replayed(net: nn.Module, run: Callable[..., Tensor], *inputs: Tensor, how: object = None) -> Tensor:
    """run(*inputs), which passes them through `net` and reads nothing else; on a GPU, for small images and without
    gradients, launched as one graph, which is captured once.

    inputs: (N, C, H, W) first. how: what else decides what `run` computes.
    """
    pixels = inputs[0].shape[0] * inputs[0].shape[2:].numel()
    small = inputs[0].device.type == "cuda" and pixels <= LARGEST_PASS
    # under autocast weights that it has cast before would be captured, not the weights
    if not small or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda"):
        return run(*inputs)
    mine, kinds = _passes.setdefault(net, {}), [(each.shape, each.dtype) for each in inputs]
    where = [p.data_ptr() for p in (*net.parameters(), *net.buffers())]  # a graph reads the weights of its capture
    key = (how, *kinds, *where)
    if key not in mine:
        mine[key] = _Pass(run, inputs)
    return mine[key](*inputs)
