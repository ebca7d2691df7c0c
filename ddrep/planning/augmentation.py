"""The stages behind Tables 3 and 4 as rows of a forecast."""

from __future__ import annotations

import math

from ddrep.config import Experiment, Head
from ddrep.data.batches import steps_for
from ddrep.derived import shard_of
from ddrep.planning.draws import Draws, draws_of
from ddrep.planning.plan import DENOISER, ENCODER, JUDGE, PIXEL_JUDGE, TRAINING, Job, Plan, Row, in_tar, weights
from ddrep.planning.sizes import Sizes
from ddrep.runs import Run, adapted_subsets, all_runs, shards_asked
from ddrep.sampling.sampler import evaluations
from ddrep.sources import synthetic
from ddrep.training.finetune import GRID_ATTEMPTS, MARGIN_EVERY, MARGIN_IMAGES

MARGIN_PASSES = 6
"""Of an image of a label margin: at three times with two labels each (training.finetune)."""


def rows(plan: Plan, assumed: float) -> list[Row]:
    """In the order in which they run. `assumed`: the acceptance of candidates where none has been seen."""
    return [
        *_data(plan), _finetune(plan), *_rejection(plan), *_synthesis(plan, assumed), *_classifiers(plan),
        *_reports(plan),
    ]  # fmt: skip


def _data(plan: Plan) -> list[Row]:
    subsets = {run.subset for run in all_runs(plan.experiment) if run.real} | set(adapted_subsets(plan.experiment))
    sizes, each = plan.sizes, in_tar(plan.sizes.image)
    return [
        Row("labelled_images", ({},) * len(subsets), disk=len(subsets) * sizes.real * each),
        Row("held_out_images", ({}, {}), disk=(sizes.validation + sizes.test) * each),
    ]


def _finetune(plan: Plan) -> Row:
    cfg, sizes = plan.experiment.finetune, plan.sizes
    margins = math.ceil(cfg.steps / MARGIN_EVERY) * min(MARGIN_IMAGES, sizes.validation) * MARGIN_PASSES
    grid = min(20, sizes.classes) * GRID_ATTEMPTS * 16
    job = {DENOISER + TRAINING: cfg.steps * cfg.batch, DENOISER: margins + grid}
    jobs = (job,) * len(adapted_subsets(plan.experiment))
    return Row("finetune", jobs, disk=len(jobs) * weights(plan.network), threads=plan.waited_for)


def _rejection(plan: Plan) -> list[Row]:
    """The classifiers that refuse candidates, and what they are made from."""
    e, sizes = plan.experiment, plan.sizes
    adapted = len(adapted_subsets(e))
    controlled = sum(source == PIXEL_JUDGE for _, source in shards_asked(e))
    views, times = 1 + e.features.flip, len(e.features.timesteps)
    read = sizes.real * views * times
    quota = sizes.classes * (e.synthesis.per_class // e.synthesis.shards_per_scale)
    matching = {ENCODER: quota * times, JUDGE: quota, PIXEL_JUDGE: quota}
    return [
        Row("features", ({ENCODER: read},) * adapted, disk=adapted * read * 4 * math.prod(plan.bottleneck)),
        Row("rejection", (_head(JUDGE, e.rejection, sizes),) * adapted),
        Row("pixel_rejection", (_head(PIXEL_JUDGE, e.pixel_rejection, sizes),) * controlled),
        Row("pixel_threshold", (matching,) * controlled, threads=plan.waited_for),
    ]


def _head(name: str, cfg: Head, sizes: Sizes) -> Job:
    """Each class holds some images out, which are looked at once an epoch and once in the end."""
    held_out = sum(max(1, round(cfg.holdout * n)) for n in sizes.train)
    per_epoch = steps_for(1, sizes.real - held_out, cfg.batch)
    return {name + TRAINING: per_epoch * cfg.epochs * cfg.batch, name: (cfg.epochs + 1) * held_out}


def _synthesis(plan: Plan, assumed: float) -> list[Row]:
    """A row a source; candidates that sources share are counted for the one that draws them."""
    e, classes = plan.experiment, plan.sizes.classes
    draws = draws_of(e, classes, plan.seen, assumed)
    quota = classes * (e.synthesis.per_class // e.synthesis.shards_per_scale)
    each, pixels = in_tar(plan.sizes.image), math.prod(plan.sizes.image)
    made = []
    for source in synthetic():
        mine = [draw for (_, name, _), draw in draws.items() if name == source]
        disk = len(mine) * quota * each + sum(draw.drawn * pixels for draw in mine)
        jobs = tuple(_shard(e, source, draw) for draw in mine)
        made.append(Row("synthesis", jobs, source, len(mine) * quota, disk))
    return [row for row in made if row.jobs]


def _shard(e: Experiment, source: str, draw: Draws) -> Job:
    drawn = {DENOISER: draw.drawn * evaluations(shard_of(source, e).sampling)}
    if source == PIXEL_JUDGE:
        return drawn | {PIXEL_JUDGE: draw.judged}
    return drawn | {ENCODER: draw.judged * len(e.features.timesteps), JUDGE: draw.judged}


def _classifiers(plan: Plan) -> list[Row]:
    """A row an architecture, for Table 4's runs and for those of Table 3 on synthetic images alone."""
    kinds: dict[tuple[str, str], list[Job]] = {}
    for run in all_runs(plan.experiment):
        rule = "classifier" if run.real else "classifier_on_synthetic_alone"
        kinds.setdefault((rule, run.architecture), []).append(_classifier(plan, run))
    each = 32 * plan.sizes.test  # of the predictions
    ordered = sorted(kinds.items(), key=lambda kind: kind[0][0])
    return [Row(rule, tuple(jobs), name, disk=each * len(jobs)) for (rule, name), jobs in ordered]


def _classifier(plan: Plan, run: Run) -> Job:
    """real-equal-steps takes the steps that as many synthetic images would."""
    cfg, sizes = plan.experiment.classifier, plan.sizes
    images = sizes.real * run.real + run.scale * plan.experiment.synthesis.per_class * sizes.classes
    steps = steps_for(cfg.epochs, images, cfg.batch, cfg.min_steps)
    return {run.architecture + TRAINING: steps * cfg.batch, run.architecture: sizes.test}


def _reports(plan: Plan) -> list[Row]:
    counts = {"shard_info": len(shards_asked(plan.experiment)), "table": 2}
    counts |= dict.fromkeys(("figure1", "figure3", "figure4"), 1)
    return [Row(rule, ({},) * n) for rule, n in counts.items()]
