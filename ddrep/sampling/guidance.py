"""What a sampler listens to: eps of a network, alone, against an unconditional estimate, or steered by a guide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule, x0_from_eps

EpsFunction = Callable[[Tensor, Tensor], Tensor]
"""(x_t (N, C, H, W), schedule indices (N,)) -> eps like x_t."""


def classifier_free(
    denoiser: Denoiser, y: Tensor, scale: float, pretrained: Denoiser | None = None, where: Tensor | None = None
) -> EpsFunction:
    """(1 + w) eps(x, t, y) - w eps(x, t) (Ho & Salimans 2022; paper, 5.3.1), w = `scale`.

    eps(x, t) is the fine-tuned network's null row or, if given, the `pretrained` network (paper, 5.3.2). w = 0 is
    plain conditional sampling and costs one evaluation, as it is at schedule indices that are not among those of
    `where`, if any are given. y (N,) is read, never written.
    """
    if scale == 0:
        return lambda x, index: denoiser.eps(x, index, y)

    def eps(x: Tensor, index: Tensor) -> Tensor:
        n, rows = len(x), (torch.ones_like(index) if where is None else torch.isin(index, where)).nonzero()[:, 0]
        if not len(rows):
            return denoiser.eps(x, index, y)
        if pretrained is not None:
            conditional, null = denoiser.eps(x, index, y), pretrained.eps(x[rows], index[rows])
        else:
            both = torch.cat([y, torch.full_like(y[rows], denoiser.null_row)])
            said = denoiser.eps(torch.cat([x, x[rows]]), torch.cat([index, index[rows]]), both)
            conditional, null = said[:n], said[n:]
        steered = (1 + scale) * conditional[rows] - scale * null
        return steered if len(rows) == n else conditional.index_copy(0, rows, steered)

    return eps


def guided(
    eps: EpsFunction, schedule: Schedule, log_likelihood: Callable[[Tensor], Tensor], scale: float
) -> EpsFunction:
    """eps - lambda sqrt(1 - abar) grad_{x_t} log p(y | x0hat(x_t)) (paper, eq. 10, 11 and 13), lambda = `scale`.

    log_likelihood: images (N, C, H, W) -> (N,). The gradient runs through x0hat, what the guide reads, and the
    denoiser, which costs about three evaluations of each. lambda = 0 is `eps` itself.
    """
    if scale == 0:
        return eps

    def steered(x: Tensor, index: Tensor) -> Tensor:
        abar = schedule.abar_at(index, x)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            plain = eps(x, index)
            (gradient,) = torch.autograd.grad(log_likelihood(x0_from_eps(x, plain, abar)).sum(), x)
        return plain.detach() - scale * (1 - abar).sqrt() * gradient

    return steered
