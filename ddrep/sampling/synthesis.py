"""Shards of a denoiser's images that a judge accepts, and the threshold of a matched judge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ddrep.config import Sampling, Shard, Stage, explain
from ddrep.config.base import Share
from ddrep.cost import DENOISER, Cost, Job, Passes, Wanted, costs, draws, times
from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.derived import drawn_by
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import fingerprint, sha256
from ddrep.networks.judges import Judge
from ddrep.sampling import early
from ddrep.sampling.engine import ANY, Balanced, Engine, Tally, check_full, fill
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.sampler import evaluations, image_seed, levels, sample
from ddrep.sampling.slots import Slots
from ddrep.saved import read_json, write_json

log = logging.getLogger("ddrep")

MATCHED = "the threshold of a judge; make it with `ddrep pixel-threshold`"
FITTED = "the time grid of this denoiser for as many steps; make it with `ddrep fit-grid`"
KEYS = ("synthesis.max_attempts", "lower synthesis.threshold or fine-tune longer")
"""The budget's key, and what else to do when it is used up."""


class Matched(BaseModel):
    """What `match_threshold` writes."""

    model_config = ConfigDict(strict=True)
    threshold: Share


class TimeGrid(BaseModel):
    """What `ddrep fit-grid` writes."""

    model_config = ConfigDict(strict=True)
    levels: tuple[int, ...]
    """Indices into the schedule, as in `Sampling.grid`."""
    cost: float
    """Of its steps, and"""
    cost_even: float
    """of as many even ones (ddrep.sampling.time_grid)."""
    denoiser_sha256: str
    """Of the pretrained one, to which it is fitted."""


@dataclass(frozen=True)
class Drawer:
    """What draws candidates."""

    denoiser: Denoiser
    """The fine-tuned one; or the pretrained one, for candidates of no class."""
    other: Denoiser | None
    """Where eps(x, t) comes from, if not from it."""
    key: str
    """Names all that determines a candidate beside its class, shard and attempt."""


def drawer_of(stage: Stage[Shard], finetuned: Path | None, pretrained: Path) -> Drawer:
    """The fine-tuned denoiser or, without one, the pretrained one. Raises UserError for others."""
    if not finetuned:
        denoiser = unconditional(stage.config.sampling.guidance_scale, pretrained)
        return Drawer(denoiser, None, _key(stage, denoiser, pretrained))
    device = pick_device()
    denoiser = Denoiser.load(finetuned, device)
    if not denoiser.net.cfg.num_classes:
        raise UserError(f"{finetuned}: an unconditional denoiser; expected one made by `ddrep finetune`")
    assert len(denoiser.classes) == denoiser.null_row  # which is a UserError where every row is a class
    apart = stage.config.sampling.unconditional == "pretrained"
    other = Denoiser.load(pretrained, device) if apart else None
    return Drawer(denoiser, other, _key(stage, denoiser, finetuned, *([pretrained] if apart else [])))


def unconditional(scale: float, pretrained: Path) -> Denoiser:
    """The pretrained denoiser, which has one evaluation a step. scale: of guidance. Raises UserError."""
    denoiser = Denoiser.load(pretrained, pick_device())
    if denoiser.net.cfg.num_classes:
        raise UserError(f"{pretrained}: a class-conditional denoiser; expected an unconditional one, or --finetuned")
    if scale:
        raise UserError(f"sampling.guidance_scale: {scale:g}; expected 0, for there are no classes without --finetuned")
    return denoiser


def _with_grid(stage: Stage[Shard], file: Path | None, pretrained: Path) -> Stage[Shard]:
    """With the fitted grid in the place of its name, where one is asked for. Raises UserError for another's."""
    sampling = stage.config.sampling
    if sampling.grid != "fitted" or not file:
        return stage
    found = read_json(file, TimeGrid, FITTED)
    if found.denoiser_sha256 != sha256(pretrained):
        raise UserError(f"{file}: fitted to another denoiser than {pretrained}; expected {FITTED}")
    try:
        sampling = Sampling.model_validate(sampling.model_dump() | {"grid": found.levels})
    except ValidationError as e:
        raise UserError(f"{file}: {explain(e)}; expected {FITTED}") from None
    return stage.model_copy(update={"config": stage.config.model_copy(update={"sampling": sampling})})


def _key(stage: Stage[Shard], denoiser: Denoiser, *files: Path) -> str:
    sampling = stage.config.sampling
    grid = levels(denoiser.schedule, sampling)
    settings = sampling.model_dump_json(), str(grid), str(stage.seed), *drawn_by("synthesis")
    return fingerprint(*settings, *map(sha256, files))


def engine_of(drawer: Drawer, stage: Stage[Shard], shard: int, pool: Path, batch: int) -> Engine:
    """What draws and judges candidates of one shard."""
    denoiser, sampling = drawer.denoiser, stage.config.sampling

    def draw(attempts: Sequence[Attempt]) -> np.ndarray:
        seeds = [image_seed(stage.seed, label, shard, attempt) for label, attempt in attempts]
        labels = [label for label, _ in attempts] if denoiser.classes else None
        return sample(denoiser, seeds, sampling, labels, drawer.other)

    candidates = Pool(pool, drawer.key, shard, denoiser.image_shape)
    return Engine(draw, candidates, batch, evaluations(sampling), {"sampling": sampling.model_dump(mode="json")})


def run(
    stage: Stage[Shard],
    *,
    finetuned: Path | None,
    labelled: Path | None,
    pretrained: Path,
    judge: Path,
    threshold_file: Path | None,
    grid: Path | None = None,
    index: int,
    pool: Path,
    out: Path,
    batch: int,
) -> None:
    """Write shard `index`, and its attempts beside it: exactly the same number of accepted images of each class.

    Without `finetuned` as many in all, of the classes of the shard `labelled` as they come. Raises UserError.
    """
    stage = _with_grid(stage, grid, pretrained)
    if not finetuned and not labelled:
        raise UserError("synthesize: expected --finetuned, or --labelled for images of no class")
    drawer = drawer_of(stage, finetuned, pretrained)
    classes = read_shards([labelled]).classes if labelled and not finetuned else drawer.denoiser.classes
    engine = engine_of(drawer, stage, index, pool, batch)
    loaded = Judge.load(judge, pretrained, pick_device())
    loaded.check_classes(judge, classes, finetuned or labelled)
    cfg = stage.config.synthesis
    quota = cfg.per_class // cfg.shards_per_scale
    threshold = read_json(threshold_file, Matched, MATCHED).threshold if threshold_file else cfg.threshold
    if finetuned:
        tallies = [Tally(label, threshold, name) for label, name in enumerate(classes)]
    else:
        balanced = Balanced(ANY, threshold, "any", said=engine.said, each=quota)
        tallies, quota = [balanced if cfg.balance else Tally(ANY, threshold, "any")], quota * len(classes)
    if cfg.early_refusal and threshold and finetuned and stage.config.labels == "hard":
        judged_by = fingerprint(drawer.key, sha256(judge), str(threshold), str(cfg.early_refusal))
        engine.pool = Pool(pool, judged_by, index, drawer.denoiser.image_shape)
        engine.columns = _refuse_early(drawer, stage, loaded, engine.pool, tallies, batch)
        check_full(tallies, quota, quota * cfg.max_attempts, KEYS)
    else:
        judged = lambda attempts: engine.judged(attempts, loaded.probabilities)  # noqa: E731
        # a matched threshold is no setting, and of candidates of no class a lower one lets other classes in
        setting = "" if threshold_file or not finetuned else "synthesis.threshold"
        fill(tallies, quota, quota * cfg.max_attempts, judged, KEYS, setting)
    engine.write_accepted(tallies, quota, stage.seed, index, classes, out, stage.config.labels == "soft")


def _refuse_early(
    drawer: Drawer, stage: Stage[Shard], judge: Judge, pool: Pool, tallies: Sequence[Tally], batch: int
) -> dict[Attempt, dict[str, int | bool]]:
    """Fill the tallies by way of early refusal; what is written of each attempt beside its p.

    What is refused depends on judge and threshold, so that the pool is of these alone.
    """
    cfg, sampling = stage.config.synthesis, stage.config.sampling
    quota, whole = cfg.per_class // cfg.shards_per_scale, evaluations(sampling)
    slots, threshold = Slots(drawer.denoiser, sampling, drawer.other), tallies[0].threshold
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


@draws("synthesize", "pixel-threshold")
def wanted(job: Job, classes: int) -> Wanted:
    """Of a shard, or of a threshold, which is chosen on the first attempts at shard 0."""
    cfg, number = job.config(Shard), int(job.wildcards.get("index", 0))
    quota = cfg.synthesis.per_class // cfg.synthesis.shards_per_scale
    denoiser = job.inputs.get("finetuned") or job.inputs["pretrained"]
    pool = denoiser, cfg.sampling.model_dump_json(), job.stage["seed"], number
    images = (quota,) * classes if job.inputs.get("finetuned") else (quota * classes,)
    return Wanted(images, max(images, default=0) * cfg.synthesis.max_attempts, pool)


@costs("synthesize", "pixel-threshold")
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
    grid: Path | None = None,
    pool: Path,
    out: Path,
    batch: int,
) -> None:
    """Write the threshold at which the control on pixels accepts as large a share as the rejection classifier does.

    Both judge the first `per_class` attempts of each class of shard 0, which `improved-ddpm` needs anyway.
    """
    stage = _with_grid(stage, grid, pretrained)
    drawer = drawer_of(stage, finetuned, pretrained)
    engine, classes = engine_of(drawer, stage, 0, pool, batch), drawer.denoiser.classes
    cfg, judges = stage.config.synthesis, [Judge.load(path, pretrained, pick_device()) for path in (judge, pixel_judge)]
    for path, each in zip((judge, pixel_judge), judges, strict=True):
        each.check_classes(path, classes, finetuned)
    quota = cfg.per_class // cfg.shards_per_scale
    attempts = [(label, attempt) for label in range(len(classes)) for attempt in range(quota)]
    ours, pixels = (np.array(engine.judged(attempts, each.probabilities)) for each in judges)
    share = float((ours >= cfg.threshold).mean())
    threshold = matched(pixels, share)
    content = {
        "threshold": threshold,
        "acceptance": share,
        "pixel_acceptance": float((pixels >= threshold).mean()),
        "n": len(ours),
    }
    log.info("%s", content)
    write_json(out, content)


def matched(p: np.ndarray, share: float) -> float:
    """The largest threshold that accepts at least `share` of p (N,)."""
    keep = max(1, round(share * len(p)))
    return float(np.sort(p)[len(p) - keep])
