"""Shards of a denoiser's images that a judge accepts, and the threshold of a matched judge."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from ddrep.config import Shard, Stage
from ddrep.config.base import Share
from ddrep.cost import DENOISER, Cost, Job, Passes, Wanted, times
from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import fingerprint, sha256, written_whole
from ddrep.networks.judges import Judge
from ddrep.sampling.engine import ANY, Draw, Engine, Tally, fill
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.sampler import evaluations, image_seed, sample
from ddrep.saved import read_json
from ddrep.solvers import time_grid

log = logging.getLogger("ddrep")

MATCHED = "the threshold of a judge; make it with `ddrep pixel-threshold`"
KEYS = ("synthesis.max_attempts", "lower synthesis.threshold or fine-tune longer")
"""The budget's key, and what else to do when it is used up."""


class Matched(BaseModel):
    """What `match_threshold` writes."""

    model_config = ConfigDict(strict=True)
    threshold: Share


def class_conditional(
    stage: Stage[Shard], finetuned: Path, pretrained: Path, shard: int, pool: Path, batch: int
) -> tuple[Engine, tuple[str, ...]]:
    """The engine of a fine-tuned denoiser's shard, and the names of its classes."""
    device, sampling = pick_device(), stage.config.sampling
    denoiser = Denoiser.load(finetuned, device)
    if not denoiser.net.cfg.num_classes:
        raise UserError(f"{finetuned}: an unconditional denoiser; expected one made by `ddrep finetune`")
    assert len(denoiser.classes) == denoiser.null_row  # which is a UserError where every row is a class
    mixes = sampling.unconditional == "pretrained"
    other = Denoiser.load(pretrained, device) if mixes else None
    digests = [sha256(finetuned), *([sha256(pretrained)] if mixes else [])]

    def draw(attempts: Sequence[Attempt]) -> np.ndarray:
        seeds = [image_seed(stage.seed, label, shard, attempt) for label, attempt in attempts]
        return sample(denoiser, seeds, sampling, [label for label, _ in attempts], other)

    return _engine(stage, denoiser, draw, digests, pool, shard, batch), denoiser.classes


def unconditional(stage: Stage[Shard], pretrained: Path, shard: int, pool: Path, batch: int) -> Engine:
    """The engine of a pretrained denoiser's shard: one evaluation a step. Raises UserError."""
    denoiser = Denoiser.load(pretrained, pick_device())
    if denoiser.net.cfg.num_classes:
        raise UserError(f"{pretrained}: a class-conditional denoiser; expected an unconditional one, or --finetuned")
    if stage.config.sampling.guidance_scale:
        scale = f"sampling.guidance_scale: {stage.config.sampling.guidance_scale:g}"
        raise UserError(f"{scale}; expected 0, for there are no classes without --finetuned")

    def draw(attempts: Sequence[Attempt]) -> np.ndarray:
        seeds = [image_seed(stage.seed, ANY, shard, attempt) for _, attempt in attempts]
        return sample(denoiser, seeds, stage.config.sampling)

    return _engine(stage, denoiser, draw, [sha256(pretrained)], pool, shard, batch)


def _engine(
    stage: Stage[Shard], denoiser: Denoiser, draw: Draw, digests: Sequence[str], pool: Path, shard: int, batch: int
) -> Engine:
    sampling = stage.config.sampling
    grid = time_grid(denoiser.schedule, sampling.solver, sampling.steps)
    key = fingerprint(sampling.model_dump_json(), str(grid), str(stage.seed), *digests)
    return Engine(draw, Pool(pool, key, shard, denoiser.image_shape), batch, evaluations(sampling))


def run(
    stage: Stage[Shard],
    *,
    finetuned: Path | None,
    labelled: Path | None,
    pretrained: Path,
    judge: Path,
    threshold_file: Path | None,
    index: int,
    pool: Path,
    out: Path,
    batch: int,
) -> None:
    """Write shard `index`, and its attempts beside it: exactly the same number of accepted images of each class.

    Without `finetuned` as many in all, of the classes of the shard `labelled` as they come. Raises UserError.
    """
    if finetuned:
        engine, classes = class_conditional(stage, finetuned, pretrained, index, pool, batch)
    elif labelled:
        engine, classes = unconditional(stage, pretrained, index, pool, batch), read_shards([labelled]).classes
    else:
        raise UserError("synthesize: expected --finetuned, or --labelled for images of no class")
    loaded = Judge.load(judge, pretrained, pick_device())
    if (known := loaded.meta.num_classes) != len(classes):
        other = finetuned or labelled
        raise UserError(f"{judge}: knows {known} classes, {other} {len(classes)}; train both on the same labels")
    cfg = stage.config.synthesis
    quota = cfg.per_class // cfg.shards_per_scale
    threshold = read_json(threshold_file, Matched, MATCHED).threshold if threshold_file else cfg.threshold
    if finetuned:
        tallies = [Tally(label, threshold, name) for label, name in enumerate(classes)]
    else:
        tallies, quota = [Tally(ANY, threshold, "any")], quota * len(classes)
    judged = lambda attempts: engine.judged(attempts, loaded.probabilities)  # noqa: E731
    fill(tallies, quota, quota * cfg.max_attempts, judged, KEYS)
    engine.write_accepted(tallies, quota, stage.seed, index, classes, out, stage.config.labels == "soft")


def wanted(job: Job, classes: int) -> Wanted:
    """Of a shard, or of a threshold, which is chosen on the first attempts at shard 0."""
    cfg, number = job.config(Shard), int(job.wildcards.get("index", 0))
    quota = cfg.synthesis.per_class // cfg.synthesis.shards_per_scale
    denoiser = job.inputs.get("finetuned") or job.inputs["pretrained"]
    pool = denoiser, cfg.sampling.model_dump_json(), job.stage["seed"], number
    images = (quota,) * classes if job.inputs.get("finetuned") else (quota * classes,)
    return Wanted(images, max(images, default=0) * cfg.synthesis.max_attempts, pool)


def cost(job: Job) -> Cost:
    """Of a shard, or of a threshold, for which two judges look at the same candidates."""
    drawn = Passes({DENOISER: job.drawn * evaluations(job.config(Shard).sampling)})
    return Cost(drawn + times(job.judged, job.look("judge", "pixel_judge")))


def match_threshold(
    stage: Stage[Shard],
    *,
    finetuned: Path,
    pretrained: Path,
    judge: Path,
    pixel_judge: Path,
    pool: Path,
    out: Path,
    batch: int,
) -> None:
    """Write the threshold at which the control on pixels accepts as large a share as the rejection classifier does.

    Both judge the first `per_class` attempts of each class of shard 0, which classifier-free needs anyway.
    """
    engine, classes = class_conditional(stage, finetuned, pretrained, 0, pool, batch)
    cfg, device = stage.config.synthesis, pick_device()
    quota = cfg.per_class // cfg.shards_per_scale
    attempts = [(label, attempt) for label in range(len(classes)) for attempt in range(quota)]
    ours = np.array(engine.judged(attempts, Judge.load(judge, pretrained, device).probabilities))
    pixels = np.array(engine.judged(attempts, Judge.load(pixel_judge, pretrained, device).probabilities))
    share = float((ours >= cfg.threshold).mean())
    threshold = matched(pixels, share)
    content = {
        "threshold": threshold,
        "acceptance": share,
        "pixel_acceptance": float((pixels >= threshold).mean()),
        "n": len(ours),
    }
    log.info("%s", content)
    with written_whole(out) as (draft,):
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")


def matched(p: np.ndarray, share: float) -> float:
    """The largest threshold that accepts at least `share` of p (N,)."""
    keep = max(1, round(share * len(p)))
    return float(np.sort(p)[len(p) - keep])
