"""A generator's images of an attribute and of its absence, or for masks, by rejection (paper, 5.1 and 5.2, of the
baselines).

Latents are drawn unconditionally, a judge reads them, and those that it believes are made images: an attempt that is
refused costs a latent, and no image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ddrep.config import Generated, GeneratedMasks, GeneratedShard, Stage
from ddrep.cost import DENOISER, Cost, Job, Passes, Wanted, costs, draws
from ddrep.data.batches import parts
from ddrep.data.masks import MaskedImages, read_masked_shards, write_masked_shard
from ddrep.derived import drawn_by
from ddrep.device import pick_device
from ddrep.files import fingerprint, sha256
from ddrep.generators.base import Generator
from ddrep.generators.files import load_generator
from ddrep.generators.judge import LatentJudge
from ddrep.methods import METHODS
from ddrep.sampling.engine import Engine, Tally, fill
from ddrep.sampling.guided import KEYS, THRESHOLD, check_masks, dealt, noise_number
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.sampler import image_seed

log = logging.getLogger("ddrep")

LATENTS_AT_ONCE = 1000


class Drawing:
    """The attempts of one shard: their latents, and the images of some."""

    def __init__(self, model: Generator, judge: LatentJudge, stage: Stage[Any], number: int):
        self.model, self.judge, self.seed, self.number = model, judge, stage.seed, number
        self.cfg: Generated = stage.config

    def seeds(self, attempts: Sequence[Attempt]) -> list[int]:
        return [image_seed(self.seed, label, self.number, attempt) for label, attempt in attempts]

    def latents(self, attempts: Sequence[Attempt]) -> Iterator[tuple[Tensor, Sequence[Attempt]]]:
        """Those of the attempts, some at once."""
        for part in parts(len(attempts), LATENTS_AT_ONCE):
            yield self.model.latents(self.seeds(attempts[part]), self.cfg.latent_steps), attempts[part]

    def judged(self, attempts: Sequence[Attempt]) -> list[float]:
        """p(its target) of each attempt's latent."""
        p = np.concatenate([self.judge.probabilities(latents) for latents, _ in self.latents(attempts)])
        return [float(row[label]) for row, (label, _) in zip(p, attempts, strict=True)]

    def chosen(self, masks: np.ndarray, candidates: int) -> list[Attempt]:
        """For each label map (N, H, W), in place of a class, the attempt under whose latent it is most probable."""
        attempts = [(row, attempt) for row in range(len(masks)) for attempt in range(candidates)]
        said = [self.judge.log_likelihood(z, masks[[row for row, _ in of]]) for z, of in self.latents(attempts)]
        best = np.concatenate(said).reshape(len(masks), candidates).argmax(axis=1)
        return [(row, int(attempt)) for row, attempt in enumerate(best)]

    def images(self, attempts: Sequence[Attempt]) -> np.ndarray:
        """uint8 (N, H, W, C)."""
        seeds = self.seeds(attempts)
        return self.model.images(self.model.latents(seeds, self.cfg.latent_steps), seeds, self.cfg.sampling)


def attribute_shard(
    stage: Stage[GeneratedShard], *, generator: Path, judge: Path, subset: int, run_seed: int, pool: Path, out: Path,
    batch: int,
) -> None:  # fmt: skip
    """Write as many images of class 1, which has the attribute, as of class 0, which has not; attempts beside them.

    Of an attempt that is refused `evaluations` is 0. Raises UserError.
    """
    loaded, number, cfg = LatentJudge.load(judge, generator), noise_number(subset, run_seed), stage.config
    drawing = Drawing(load_generator(generator, pick_device()), loaded, stage, number)
    engine = _engine(drawing, generator, pool, batch)
    tallies = [Tally(label, cfg.threshold, name) for label, name in enumerate(loaded.meta.classes)]
    fill(tallies, cfg.images, cfg.images * cfg.max_attempts, drawing.judged, KEYS, THRESHOLD)
    _decode(engine, tallies, cfg.images)
    engine.write_accepted(tallies, cfg.images, stage.seed, number, loaded.meta.classes, out)


def _decode(engine: Engine, tallies: Sequence[Tally], quota: int) -> None:
    """Have the images drawn of the attempts that are kept, and only theirs counted."""
    kept = []
    for tally in tallies:
        for number, accepted in enumerate(tally.verdicts[: tally.needed(quota)]):
            engine.columns[tally.label, number] = {"evaluations": engine.evaluations if accepted else 0}
            kept += [(tally.label, number)] if accepted else []
    engine.candidates(kept)


def mask_shard(
    stage: Stage[GeneratedMasks], *, generator: Path, judge: Path, masks: Path, subset: int, run_seed: int, pool: Path,
    out: Path, batch: int,
) -> None:  # fmt: skip
    """Write images with the target masks of a shard that they were drawn for, from the section's `first` on.

    For each mask some latents are drawn, and the one under which it is most probable is made an image: rejection of all
    but one, for no mask is met by chance. Raises UserError.
    """
    loaded, targets = LatentJudge.load(judge, generator, "mask"), read_masked_shards([masks])
    number, cfg = noise_number(subset, run_seed), stage.config
    model, rows = load_generator(generator, pick_device()), dealt(cfg.first, cfg.images, len(targets))
    check_masks(masks, targets.masks, targets.classes, model.image_shape, loaded.meta.classes)
    drawing, wanted = Drawing(model, loaded, stage, number), targets.masks[rows]
    images = _engine(drawing, generator, pool, batch, "masks").candidates(drawing.chosen(wanted, cfg.candidates))
    keys = [f"{i:05d}-{targets.keys[row]}" for i, row in enumerate(rows)]
    write_masked_shard(out, MaskedImages(images, wanted, keys, targets.classes))


def _engine(drawing: Drawing, generator: Path, pool: Path, batch: int, *of: str) -> Engine:
    """of: what else names the candidates, which are then shared with no other shard."""
    cfg, model = drawing.cfg, drawing.model
    settings = cfg.sampling.model_dump_json(), str(cfg.latent_steps), str(drawing.seed), *drawn_by("generated")
    key = fingerprint(*settings, sha256(generator), *of)
    kept = Pool(pool, key, drawing.number, model.image_shape)
    return Engine(drawing.images, kept, batch, model.evaluations(cfg.sampling))


@draws("generate-attribute")
def wanted(job: Job, _: int) -> Wanted:
    """Candidates are latents, which cost next to nothing."""
    cfg, number = job.config(GeneratedShard), noise_number(int(job.wildcards["subset"]), int(job.wildcards["run"]))
    of = job.wildcards["attribute"], job.wildcards["method"]
    pool = job.inputs["generator"], cfg.sampling.model_dump_json(), job.stage["seed"], number, *of
    return Wanted((cfg.images,) * 2, cfg.images * cfg.max_attempts, pool)


@draws("generate-masks")
def wanted_for_masks(job: Job, _: int) -> Wanted:
    """An image for each, which no other job draws."""
    images = job.config(GeneratedMasks).images
    return Wanted((images,), images, tuple(job.outputs["out"]))


@costs("generate-attribute", "generate-masks")
def cost(job: Job) -> Cost:
    """Of the kept images, as through the denoiser, whose network is taken to be as large."""
    cfg = job.config(GeneratedShard if job.part == "attributes" else GeneratedMasks)
    evaluations = 1 if METHODS[job.wildcards["method"]].one_pass else cfg.sampling.steps
    return Cost(Passes({DENOISER: (2 if job.part == "attributes" else 1) * cfg.images * evaluations}))
