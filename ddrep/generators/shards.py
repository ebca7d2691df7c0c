"""A generator's images of an attribute and of its absence, by rejection (paper, 5.1, of the baselines).

Latents are drawn unconditionally, a judge reads them, and those that it believes are made images: an attempt that is
refused costs a latent, and no image.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddrep.config import GeneratedShard, Stage
from ddrep.cost import DENOISER, Cost, Job, Passes, Wanted, costs, draws
from ddrep.data.batches import parts
from ddrep.device import pick_device
from ddrep.files import fingerprint, sha256
from ddrep.generators.base import Generator
from ddrep.generators.files import load_generator
from ddrep.generators.judge import LatentJudge
from ddrep.methods import METHODS
from ddrep.sampling.engine import Engine, Tally, fill
from ddrep.sampling.guided import KEYS, noise_number
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.sampler import image_seed

log = logging.getLogger("ddrep")

LATENTS_AT_ONCE = 1000


class Drawing:
    """The attempts of one shard: their latents, and the images of some."""

    def __init__(self, model: Generator, judge: LatentJudge, stage: Stage[GeneratedShard], number: int):
        self.model, self.judge, self.cfg, self.seed, self.number = model, judge, stage.config, stage.seed, number

    def seeds(self, attempts: Sequence[Attempt]) -> list[int]:
        return [image_seed(self.seed, label, self.number, attempt) for label, attempt in attempts]

    def judged(self, attempts: Sequence[Attempt]) -> list[float]:
        """p(its target) of each attempt's latent."""
        seeds = self.seeds(attempts)
        found = [self.model.latents(seeds[part], self.cfg.latent_steps) for part in parts(len(seeds), LATENTS_AT_ONCE)]
        p = np.concatenate([self.judge.probabilities(latents) for latents in found])
        return [float(row[label]) for row, (label, _) in zip(p, attempts, strict=True)]

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
    model = load_generator(generator, pick_device())
    drawing = Drawing(model, loaded, stage, number)
    sampling = cfg.sampling.model_dump_json(), str(cfg.latent_steps)
    key = fingerprint(*sampling, str(stage.seed), sha256(generator))
    engine = Engine(drawing.images, Pool(pool, key, number, model.image_shape), batch, model.evaluations(cfg.sampling))
    tallies = [Tally(label, cfg.threshold, name) for label, name in enumerate(loaded.meta.classes)]
    fill(tallies, cfg.images, cfg.images * cfg.max_attempts, drawing.judged, KEYS)
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


@draws("generate-attribute")
def wanted(job: Job, _: int) -> Wanted:
    """Candidates are latents, which cost next to nothing."""
    cfg, number = job.config(GeneratedShard), noise_number(int(job.wildcards["subset"]), int(job.wildcards["run"]))
    of = job.wildcards["attribute"], job.wildcards["method"]
    pool = job.inputs["generator"], cfg.sampling.model_dump_json(), job.stage["seed"], number, *of
    return Wanted((cfg.images,) * 2, cfg.images * cfg.max_attempts, pool)


@costs("generate-attribute")
def cost(job: Job) -> Cost:
    """Of the kept images, as through the denoiser, whose network is taken to be as large."""
    cfg = job.config(GeneratedShard)
    evaluations = 1 if METHODS[job.wildcards["method"]].one_pass else cfg.sampling.steps
    return Cost(Passes({DENOISER: 2 * cfg.images * evaluations}))
