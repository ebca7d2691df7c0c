"""The denoising loss of a batch, in parts: each process has a share of the batch, and its memory a share of that.

However a batch is parted its images, times, noise and dropout are the same: the result differs by rounding alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddrep.config import FineTune, Pretrain
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.loss import denoising_loss
from ddrep.device import autocast
from ddrep.errors import UserError
from ddrep.graphs import captured, launched_slowly
from ddrep.training import parallel

COMPILE_STEPS = 2000
"""Steps from which torch.compile is worth the minute or so that it takes."""

BatchLoss = Callable[..., Iterator[Tensor]]
"""(x0, index, noise[, y]) of a whole batch -> losses whose sum is this process's share of the batch's, in the mean."""


class _Loss(nn.Module):
    """`denoising_loss` as a module, for DistributedDataParallel wants one whose forward it can watch."""

    def __init__(self, denoiser: Denoiser, precision: str):
        super().__init__()
        self.net, self.denoiser, self.precision = denoiser.net, denoiser, precision

    def forward(self, x0: Tensor, index: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        with autocast(self.precision, x0.device):
            if torch.is_autocast_enabled("cpu"):  # where images that lie channels last take half as long again
                x0, noise = x0.contiguous(), noise.contiguous()
            return denoising_loss(self.denoiser, x0, index, noise, y)


def loss_in_parts(denoiser: Denoiser, cfg: FineTune | Pretrain, micro_batch: int | None = None) -> BatchLoss:
    """The loss that each process calls with the same whole batch, and whose parts it goes backward through in turn.

    micro_batch: images computed at once; None for as many of the process's share as the GPU's memory allows.
    """
    mine, loss = parallel.share(cfg.batch), _Loss(denoiser, cfg.precision)
    size = micro_batch or _micro_batch(loss, mine.stop - mine.start)
    parts = [slice(start, min(start + size, mine.stop)) for start in range(mine.start, mine.stop, size)]
    dropouts = _share_dropout(denoiser.net, cfg.batch)
    whole: nn.Module = loss
    if not dropouts:  # compiled code would draw other masks, and a graph those of one part for all
        alone = len(parts) == 1 and parallel.processes() == 1
        if alone and launched_slowly(denoiser.device, cfg.batch * math.prod(denoiser.image_shape[1:])):
            whole = captured(loss, *_blank(denoiser, cfg.batch))
        else:
            compile_where_it_pays(denoiser.net, denoiser.device, cfg.steps)
    team = DistributedDataParallel(loss, gradient_as_bucket_view=True) if parallel.processes() > 1 else None
    gpus = [torch.cuda.current_device()] if denoiser.device.type == "cuda" else []

    def losses(x0: Tensor, index: Tensor, noise: Tensor, y: Tensor | None = None) -> Iterator[Tensor]:
        for part in parts:
            for dropout in dropouts:
                dropout.rows = part
            # Gradients are averaged behind the last part, and that is decided in the forward pass.
            with team.no_sync() if team and part is not parts[-1] else contextlib.nullcontext():
                with torch.random.fork_rng(gpus, enabled=bool(dropouts)):
                    inputs = [x0[part], index[part], noise[part], *([] if y is None else [y[part]])]
                    value = (team or whole)(*inputs)
                yield value * ((part.stop - part.start) * parallel.processes() / cfg.batch)

    return losses


def compile_where_it_pays(net: nn.Module, device: torch.device, steps: int) -> None:
    """torch.compile `net` in place: on a GPU, for long runs; names of weights stay, and copies are not compiled."""
    if device.type == "cuda" and steps >= COMPILE_STEPS:
        torch._dynamo.config.suppress_errors = True  # a machine without a C compiler trains all the same
        net.compile()


class PartDropout(nn.Dropout):
    """Dropout of `rows` of a batch of `batch` images, with the masks that the whole batch would have."""

    def __init__(self, p: float, batch: int):
        super().__init__(p)
        self.batch, self.rows = batch, slice(0, batch)

    def forward(self, x: Tensor) -> Tensor:
        """x (rows, C, H, W)."""
        if not self.training:
            return x
        # Masks are drawn in the order of memory, and x may lie channels last in one part and not in another.
        return x * F.dropout(x.new_ones(self.batch, *x.shape[1:]), self.p)[self.rows]


def _share_dropout(net: nn.Module, batch: int) -> list[PartDropout]:
    """Replace the dropout layers in place."""
    made = []
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout) and child.p:
                made.append(PartDropout(child.p, batch))
                parent.add_module(name, made[-1])
    return made


def _micro_batch(loss: _Loss, share: int) -> int:
    """Images of a share to compute at once: all, or on a GPU as many as fit it (the least over the processes)."""
    denoiser = loss.denoiser
    if denoiser.device.type != "cuda":
        return share
    room = [torch.empty_like(p) for p in loss.parameters() for _ in range(3)]  # for Adam's moments and the EMA

    def attempt(size: int) -> None:
        loss(*_blank(denoiser, size)).backward()

    torch.cuda.set_per_process_memory_fraction(0.9)  # what is in pieces cannot all be used
    size = largest_that_fits(attempt, share)
    torch.cuda.set_per_process_memory_fraction(1.0)
    loss.zero_grad()
    del room
    torch.cuda.empty_cache()
    return parallel.minimum(size, denoiser.device)


def _blank(denoiser: Denoiser, images: int) -> list[Tensor]:
    """Inputs of the loss of so many images."""
    x = torch.zeros(images, *denoiser.image_shape, device=denoiser.device)
    zeros = torch.zeros(images, dtype=torch.long, device=denoiser.device)
    return [x, zeros, torch.zeros_like(x), *([zeros.clone()] if denoiser.net.cfg.num_classes else [])]


def largest_that_fits(attempt: Callable[[int], None], most: int) -> int:
    """The first of most, most / 2, most / 4, ... images for which attempt(images) does not run out of GPU memory."""
    size = most
    while True:
        try:
            attempt(size)
            return size
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise UserError("training: the GPU has not the memory for a single image; use a larger one") from None
        size = -(-size // 2)
