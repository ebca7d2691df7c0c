"""The verb that draws samples by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import Field
from pydantic_settings import CliPositionalArg

from ddrep.cli.base import Verb
from ddrep.cli.outputs import OutputImage
from ddrep.config import Attributes, EvenSampling, Masks, Sampling
from ddrep.config.base import Batch, Seed, SolverSteps
from ddrep.errors import UserError
from ddrep.solvers import SolverName


class Sample(Verb):
    """Draw a grid of samples: unconditional, by class, by attribute, or for a mask; or one attempt of a shard again."""

    denoiser: CliPositionalArg[Path]
    """An unconditional or class-conditional denoiser."""
    guide: Path | None = None
    """A guide of an attribute or of masks, trained with this denoiser by `ddrep guide`."""
    name: str | None = None
    """A class of the denoiser or of the guide ("X" or "not X"); the default is a row for each."""
    mask: Path | None = None
    """Label map (.npy or .png) that a guide of masks steers towards."""
    images: Batch = 10
    """Samples a row."""
    seed: Seed = 0
    """Of the starting noise."""
    steps: SolverSteps | None = None
    """Solver steps: by default those of config.yaml's candidates, of its Table 1 with a guide."""
    solver: SolverName = Sampling().solver
    """ddim, dpm-solver++ (2M) or ipndm."""
    eta: Annotated[float, Ge(0), Le(1)] = Sampling().eta
    """Fresh noise in every step: 0 is deterministic."""
    guidance_scale: Annotated[float, Ge(0)] | None = None
    """w of classifier-free guidance (by default 0) or, with a guide, lambda (config.yaml's for attributes or masks)."""
    attempts: Annotated[Path | None, Field(alias="from")] = None
    """Attempts beside a shard (.parquet), one of which is drawn again by its own settings, whatever is said here."""
    row: Annotated[int, Ge(0)] = 0
    """Of the attempts, from 0."""
    pretrained: Path | None = None
    """The unconditional denoiser, for attempts of which eps(x, t) came from there."""
    out: OutputImage
    """PNG to write."""

    def run(self) -> None:
        from ddrep.sampling.by_hand import again, run

        if self.attempts:
            again(self.denoiser, self.pretrained, self.attempts, self.row, self.out)
            return
        if self.row or self.pretrained:
            raise UserError(
                f"--{'row' if self.row else 'pretrained'}: expected together with --from, of whose row it is"
            )
        w, scale = self.guidance_scale or 0.0, self.guidance_scale
        if scale is None:
            scale = (Masks() if self.mask else Attributes()).sampling.scale
        kind, w = (EvenSampling, 0.0) if self.guide else (Sampling, w)
        cfg = kind(solver=self.solver, steps=self.steps or kind().steps, eta=self.eta, guidance_scale=w)
        run(self.denoiser, self.guide, self.name, self.mask, self.images, cfg, scale, self.seed, self.out)
