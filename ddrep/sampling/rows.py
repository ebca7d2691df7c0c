"""Networks that are always given as many images at once, in the precision that is asked for.

Matrix products of one shape give a row the same bits whatever the other rows are: so an image is a function of its own
seed and class alone, on one machine, whatever is drawn beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ddrep.config import Sampling
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import multiplies_in_bf16
from ddrep.graphs import replayed

log = logging.getLogger("ddrep")

MOST = {"cpu": (16, 2**14), "cuda": (256, 2**19)}
"""Images that a network is given at once, and their pixels in all: on a CPU, whose caches hold what comes of so many,
and which takes as long for the rows that fill up; on a GPU, which fewer leave idle."""


def rows_at_once(like: Tensor) -> int:
    """Of inputs like this one, (N, C, H, W) or (N, numbers)."""
    rows, pixels = MOST[like.device.type]
    return max(1, min(rows, pixels // like.shape[2:].numel()))


def in_rows(network: Callable[..., Tensor], *inputs: Tensor, rows: int | None = None) -> Tensor:
    """network(*inputs), always as many rows at once; the last are filled up with zeros, whose outputs are left out.

    rows: other than what suits a network of images.
    """
    n, rows = len(inputs[0]), rows or rows_at_once(inputs[0])
    padded = [torch.cat([each, each.new_zeros(-n % rows, *each.shape[1:])]) for each in inputs]
    parts = [network(*(each[i : i + rows] for each in padded)) for i in range(0, len(padded[0]), rows)]
    return torch.cat(parts)[:n]


class FixedRows(Denoiser):
    """A denoiser whose network always sees as many images; on a GPU, of small ones, by a pass that is captured once."""

    def eps(self, x: Tensor, index: Tensor, y: Tensor | None = None) -> Tensor:
        return in_rows(super().eps, x, index, *([] if y is None else [y]))

    def _passed(self, *inputs: Tensor) -> Tensor:
        return replayed(self.net, super()._passed, *inputs, how=self.precision)


def heard(denoiser: Denoiser, cfg: Sampling) -> FixedRows:
    """The denoiser as sampling listens to it."""
    if cfg.precision == "bf16" and not multiplies_in_bf16(denoiser.device):
        _warn()
    return FixedRows(**vars(denoiser) | {"precision": cfg.precision})


@lru_cache  # once
def _warn() -> None:
    log.warning("sampling.precision: bf16, which this processor emulates: many times as long as fp32")
