"""Shards of a class-conditional denoiser's images that a judge accepts, and the threshold of a matched judge."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddrep.config import Shard, Stage
from ddrep.cost import DENOISER, Cost, Job, Passes, Wanted, times
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import fingerprint, sha256, written_whole
from ddrep.networks.judges import Judge
from ddrep.sampling import early
from ddrep.sampling.engine import Engine, Tally, check_full, fill
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.sampler import evaluations, image_seed, sample
from ddrep.sampling.slots import Slots
from ddrep.solvers import time_grid

log = logging.getLogger("ddrep")

KEYS = ("synthesis.max_attempts", "lower synthesis.threshold or fine-tune longer")
"""The budget's key, and what else to do when it is used up."""


@dataclass(frozen=True)
class Source:
    """What draws candidates."""

    denoiser: Denoiser
    """The fine-tuned one."""
    other: Denoiser | None
    """Where eps(x, t) comes from, if not from it."""
    key: str
    """Names all that determines a candidate beside its class, shard and attempt."""


def _load(stage: Stage[Shard], finetuned: Path, pretrained: Path) -> Source:
    device, sampling = pick_device(), stage.config.sampling
    denoiser = Denoiser.load(finetuned, device)
    if not denoiser.net.cfg.num_classes:
        raise UserError(f"{finetuned}: an unconditional denoiser; expected one made by `ddrep finetune`")
    assert len(denoiser.classes) == denoiser.null_row  # which is a UserError where every row is a class
    mixes = sampling.unconditional == "pretrained"
    other = Denoiser.load(pretrained, device) if mixes else None
    digests = [sha256(finetuned), *([sha256(pretrained)] if mixes else [])]
    grid = time_grid(denoiser.schedule, sampling.solver, sampling.steps)
    return Source(denoiser, other, fingerprint(sampling.model_dump_json(), str(grid), str(stage.seed), *digests))


def class_conditional(
    stage: Stage[Shard], finetuned: Path, pretrained: Path, shard: int, pool: Path, batch: int
) -> tuple[Engine, tuple[str, ...]]:
    """The engine of a fine-tuned denoiser's shard, and the names of its classes."""
    source = _load(stage, finetuned, pretrained)
    return _engine(source, stage, shard, pool, batch), source.denoiser.classes


def _engine(source: Source, stage: Stage[Shard], shard: int, pool: Path, batch: int) -> Engine:
    denoiser, sampling = source.denoiser, stage.config.sampling

    def draw(attempts: Sequence[Attempt]) -> np.ndarray:
        seeds = [image_seed(stage.seed, label, shard, attempt) for label, attempt in attempts]
        return sample(denoiser, seeds, sampling, [label for label, _ in attempts], source.other)

    return Engine(draw, Pool(pool, source.key, shard, denoiser.image_shape), batch, evaluations(sampling))


def run(
    stage: Stage[Shard],
    *,
    finetuned: Path,
    pretrained: Path,
    judge: Path,
    threshold_file: Path | None,
    index: int,
    pool: Path,
    out: Path,
    batch: int,
) -> None:
    """Write shard `index`: exactly the same number of accepted images of each class, and its attempts beside it."""
    source = _load(stage, finetuned, pretrained)
    engine, classes = _engine(source, stage, index, pool, batch), source.denoiser.classes
    loaded = Judge.load(judge, pretrained, pick_device())
    if loaded.meta.num_classes != len(classes):
        known = loaded.meta.num_classes
        raise UserError(f"{judge}: knows {known} classes, {finetuned} {len(classes)}; train both on the same labels")
    cfg = stage.config.synthesis
    quota = cfg.per_class // cfg.shards_per_scale
    threshold = json.loads(threshold_file.read_text("utf-8"))["threshold"] if threshold_file else cfg.threshold
    tallies = [Tally(label, threshold, name) for label, name in enumerate(classes)]
    if cfg.early_refusal and threshold and stage.config.labels == "hard":
        judged_by = fingerprint(source.key, sha256(judge), str(threshold), str(cfg.early_refusal))
        engine.pool = Pool(pool, judged_by, index, source.denoiser.image_shape)
        engine.columns = _refuse_early(source, stage, loaded, engine.pool, tallies, batch)
        check_full(tallies, quota, KEYS)
    else:
        judged = lambda attempts: engine.judged(attempts, loaded.probabilities)  # noqa: E731
        fill(tallies, quota, quota * cfg.max_attempts, judged, KEYS)
    engine.write_accepted(tallies, quota, stage.seed, index, classes, out, stage.config.labels == "soft")


def _refuse_early(
    source: Source, stage: Stage[Shard], judge: Judge, pool: Pool, tallies: Sequence[Tally], batch: int
) -> dict[Attempt, dict[str, int | bool]]:
    """Fill the tallies by way of early refusal; what is written of each attempt beside its p.

    What is refused depends on judge and threshold, so that the pool is of these alone.
    """
    cfg, sampling = stage.config.synthesis, stage.config.sampling
    quota, whole = cfg.per_class // cfg.shards_per_scale, evaluations(sampling)
    slots, threshold = Slots(source.denoiser, sampling, source.other), tallies[0].threshold
    numbered = lambda shard: lambda attempt: image_seed(stage.seed, attempt[0], shard, attempt[1])  # noqa: E731
    file = pool.folder.parent / "checks.json"
    checks = early.checks_of(
        file, slots, judge, numbered(early.PILOT_SHARD), len(tallies), threshold, cfg.early_refusal
    )
    filling = early.Filling(tallies, quota, quota * cfg.max_attempts)
    early.fill(slots, batch, pool, judge, numbered(int(pool.folder.name)), checks, filling)
    spent = {a: evaluations(sampling, each.refused_at) if each.stopped else whole for a, each in filling.known.items()}
    return {
        attempt: {
            "evaluations": spent[attempt],
            "saved": whole - spent[attempt],
            "refused_at": each.refused_at,
            "audited": early.audited(attempt),
        }
        for attempt, each in filling.known.items()
    }


def wanted(job: Job, classes: int) -> Wanted:
    """Of a shard, or of a threshold, which is chosen on the first attempts at shard 0."""
    cfg, number = job.config(Shard), int(job.wildcards.get("index", 0))
    quota = cfg.synthesis.per_class // cfg.synthesis.shards_per_scale
    pool = job.inputs["finetuned"], cfg.sampling.model_dump_json(), job.stage["seed"], number
    return Wanted((quota,) * classes, quota * cfg.synthesis.max_attempts, pool)


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
