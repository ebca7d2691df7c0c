"""Train a generator beside the denoiser, whichever its section is of, and write it with a grid of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ddrep.config import PretrainD2C, PretrainDiffAE, PretrainNVAE, Stage, UnlabelledImages
from ddrep.data.digest import unchanged
from ddrep.device import pick_device
from ddrep.files import state_path
from ddrep.generators.base import Generator
from ddrep.grids import save_grid
from ddrep.sampling.sampler import image_seed
from ddrep.training import d2c, diffae, nvae
from ddrep.training.pretrain import GRID_IMAGES, provenance_of, unlabelled_images


class Training(NamedTuple):
    """How a generator is made of images, and what is drawn of it."""

    name: str
    """In `generators` of config.yaml."""
    pretrain: Callable[..., Generator]
    samples: Callable[[Any, Sequence[int]], np.ndarray]
    """An image a seed, for the grid."""
    parts: tuple[str, ...] = ("images", "latents")
    """What is trained, one after the other: each has a state of its own."""


TRAININGS: dict[type[UnlabelledImages], Training] = {
    PretrainDiffAE: Training("diffae", diffae.pretrain, diffae.samples),
    PretrainD2C: Training("d2c", d2c.pretrain, d2c.samples),
    PretrainNVAE: Training("nvae", nvae.pretrain, nvae.samples, ("images",)),
}


def run(
    stage: Stage[UnlabelledImages], *, apart_from: Sequence[Path] = (), half: bool = False, out: Path, grid: Path | None
) -> None:
    """Train on the images that the section names; write the generator and, if asked, a grid of samples.

    apart_from: shards of held-out images, whose pixels are left out of a data set's. half: weights are written as
    float16. Raises UserError.
    """
    cfg = stage.config
    name, pretrain, samples, parts = TRAININGS[type(cfg)]
    with unchanged(stage):
        images, digest = unlabelled_images(cfg, stage.seed, apart_from, f"generators.{name}.pretrain")
    told = stage.model_dump_json(exclude={"files"})
    states = [state_path(f"pretrain-{name}-{part}", told, digest) for part in parts]
    model = pretrain(images, cfg, seed=stage.seed, device=pick_device(), states=states)
    model.provenance = provenance_of(f"pretrain-{name}", cfg, stage.seed, len(images), digest)
    if grid:
        save_grid(samples(model, [image_seed(stage.seed, 0, 0, attempt) for attempt in range(GRID_IMAGES)]), 8, grid)
    model.save(out, torch.float16 if half else torch.float32)
    for state in states:
        state.unlink(missing_ok=True)
