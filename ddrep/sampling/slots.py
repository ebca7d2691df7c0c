"""Candidates on their way through the solver's steps, each in a slot with a timestep of its own.

A slot whose candidate is finished or stopped is free for the next at once. Networks are always given as many images
together (ddrep.sampling.rows), so an image is a function of its own seed and class alone, on one machine, however many
slots there are and whatever lies in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddrep.config import Sampling
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import x0_from_eps
from ddrep.sampling.guidance import classifier_free
from ddrep.sampling.pool import Attempt
from ddrep.sampling.rows import heard
from ddrep.sampling.sampler import guided_at, levels
from ddrep.solvers import SOLVERS, Estimate


class Slots:
    """The candidates that are being drawn: `attempts` by row, with the number of steps that each has taken."""

    def __init__(self, denoiser: Denoiser, cfg: Sampling, pretrained: Denoiser | None = None):
        """pretrained: where eps(x, t) comes from, if not from the null row."""
        self.denoiser, self.cfg = heard(denoiser, cfg), cfg
        self.pretrained = heard(pretrained, cfg) if pretrained else None
        self.grid = torch.tensor([*levels(denoiser.schedule, cfg), -1], device=denoiser.device)
        self.where = guided_at(denoiser.schedule, cfg, denoiser.device)
        self.attempts: list[Attempt] = []
        self.generators: list[torch.Generator] = []
        self.x = self.x0 = torch.zeros(0, *denoiser.image_shape, device=denoiser.device)
        none = Estimate(self.x, self.x, self.x[:, :1, :1, :1])
        self.before = [none] * SOLVERS[cfg.solver].memory
        self.taken = torch.zeros(0, dtype=torch.long, device=denoiser.device)
        self.finite = torch.zeros(0, dtype=torch.bool, device=denoiser.device)

    def start(self, attempts: Sequence[Attempt], seeds: Sequence[int]) -> None:
        """Put candidates into slots; an attempt's class is what the denoiser is told."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.randn(self.denoiser.image_shape, generator=g) for g in generators]
        self.attempts += attempts
        self.generators += generators
        self.x = torch.cat([self.x, *(each[None].to(self.x) for each in noise)])
        new = self.x[len(self.x0) :]  # in place of earlier estimates, which no first step reads
        self.x0 = torch.cat([self.x0, new])
        unread = Estimate(new, new, new[:, :1, :1, :1])
        self.before = [Estimate(*map(torch.cat, zip(each, unread, strict=True))) for each in self.before]
        self.taken = torch.cat([self.taken, self.taken.new_zeros(len(seeds))])
        self.finite = torch.cat([self.finite, self.finite.new_ones(len(seeds))])

    def advance(self) -> None:
        """One step of every candidate; see ddrep.sampling.sampler.solve. Then x0 is the estimate that it was by."""
        here, after = self.grid[self.taken], self.grid[self.taken + 1]
        abar, abar_next = (self.denoiser.schedule.abar_at(i, self.x) for i in (here, after))
        y = torch.tensor([label for label, _ in self.attempts], device=self.x.device)
        said = classifier_free(self.denoiser, y, self.cfg.guidance_scale, self.pretrained, self.where)(self.x, here)
        self.finite &= said.isfinite().flatten(1).all(dim=1)
        self.x0 = x0_from_eps(self.x, said, abar).clamp(-1, 1)
        z = self._noise(after) if self.cfg.eta else None
        now = Estimate(self.x, self.x0, abar)
        before = self._before(now)
        self.x = SOLVERS[self.cfg.solver].step(now, before, abar_next, self.cfg.eta, z)
        self.before, self.taken = [now, *before][: len(before)], self.taken + 1

    def _before(self, now: Estimate) -> list[Estimate]:
        """The earlier estimates; those that a candidate has not are repeats of its first."""
        found, newer = [], now
        for number, each in enumerate(self.before):
            there = (self.taken > number)[:, None, None, None]
            newer = Estimate(*(torch.where(there, a, b) for a, b in zip(each, newer, strict=True)))
            found.append(newer)
        return found

    def _noise(self, after: Tensor) -> Tensor:
        """Fresh noise for each; none for what is clean after this step."""
        shape, last = self.denoiser.image_shape, (after < 0).tolist()
        drawn = [
            torch.zeros(shape) if clean else torch.randn(shape, generator=g)
            for clean, g in zip(last, self.generators, strict=True)
        ]
        return torch.stack(drawn).to(self.x)

    @property
    def images(self) -> Tensor:
        """(N, C, H, W), final where all steps are taken; NaN where eps was ever infinite or NaN."""
        return self.x.masked_fill(~self.finite[:, None, None, None], torch.nan)

    def free(self, gone: Tensor) -> None:
        """Take out the candidates of these rows, bool (N,)."""
        stay, rows = ~gone, (~gone).nonzero()[:, 0].tolist()
        self.attempts, self.generators = [self.attempts[i] for i in rows], [self.generators[i] for i in rows]
        self.x, self.x0, self.taken, self.finite = (t[stay] for t in (self.x, self.x0, self.taken, self.finite))
        self.before = [Estimate(*(t[stay] for t in each)) for each in self.before]
