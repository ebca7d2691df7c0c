"""The published procedure, written plainly: the reference of all costs (Graikos et al. 2023, 4.2, 5.3 and their code).

Of every candidate: DDIM of 100 steps; in each the class's estimate and the null estimate in two calls, in single
precision and the default memory format, although w is 0.01; then two whole forward passes of the unconditional
network, of which the middle block's output is read, at t = 300 and 800; the rejection classifier; the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddrep.denoiser.denoiser import Denoiser

STEPS, SCALE, TIMESTEPS = 100, 0.01, (300, 800)


def draw(model: Denoiser, y: Tensor, noise: Tensor, steps: int = STEPS, scale: float = SCALE) -> Tensor:
    """Noise (N, C, H, W) and labels (N,) -> images (N, C, H, W) in [-1, 1] by DDIM, in two calls a step."""
    null, abar = torch.full_like(y, model.null_row), model.schedule.abar.float()
    times = range(0, model.schedule.num_steps, model.schedule.num_steps // steps)[:steps]
    x = noise
    for t in reversed(times):
        index = torch.full_like(y, t)
        eps = (1 + scale) * model.eps(x, index, y) - scale * model.eps(x, index, null)
        here, after = abar[t], abar[t - times.step] if t else torch.tensor(1.0)
        x0 = ((x - (1 - here).sqrt() * eps) / here.sqrt()).clamp(-1, 1)
        eps = (x - here.sqrt() * x0) / (1 - here).sqrt()
        x = after.sqrt() * x0 + (1 - after).sqrt() * eps
    return x


def features(base: Denoiser, x: Tensor) -> Tensor:
    """Of images (N, C, H, W), (N, channels * timesteps, h, w), each timestep's at unit RMS: by whole passes."""
    read: list[Tensor] = []
    hook = base.net.middle_block.register_forward_hook(lambda _, inputs, output: read.append(output))
    for t in TIMESTEPS:
        index = torch.full((len(x),), base.schedule.index(t), device=x.device)
        base.net(x, base.schedule.embedded(index).to(x.dtype))
    hook.remove()
    return torch.cat([h / h.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() for h in read], dim=1)
