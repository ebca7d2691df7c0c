"""What a sampler listens to: eps of the fine-tuned network, alone or against an unconditional estimate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddrep.denoiser.denoiser import Denoiser

EpsFunction = Callable[[Tensor, Tensor], Tensor]
"""(x_t (N, C, H, W), schedule indices (N,)) -> eps like x_t."""


def classifier_free(denoiser: Denoiser, y: Tensor, scale: float, pretrained: Denoiser | None = None) -> EpsFunction:
    """(1 + w) eps(x, t, y) - w eps(x, t) (Ho & Salimans 2022; paper, 5.3.1), w = `scale`.

    eps(x, t) is the fine-tuned network's null row or, if given, the `pretrained` network (paper, 5.3.2). w = 0 is
    plain conditional sampling and costs one evaluation. y (N,) is read, never written.
    """
    if scale == 0:
        return lambda x, index: denoiser.eps(x, index, y)
    if pretrained is not None:
        return lambda x, index: (1 + scale) * denoiser.eps(x, index, y) - scale * pretrained.eps(x, index)
    both = torch.cat([y, torch.full_like(y, denoiser.null_row)])

    def eps(x: Tensor, index: Tensor) -> Tensor:
        conditional, null = denoiser.eps(x.repeat(2, 1, 1, 1), index.repeat(2), both).chunk(2)
        return (1 + scale) * conditional - scale * null

    return eps
