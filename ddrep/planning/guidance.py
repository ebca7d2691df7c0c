"""The stages behind Tables 1 and 2 as rows of a forecast: guidance by attributes and by masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ddrep.config import Attributes, Experiment, MaskData, Masks, Oracle
from ddrep.config.masks import CELEBA_19
from ddrep.data import embedded
from ddrep.data.batches import steps_for
from ddrep.data.idx import read_idx
from ddrep.derived import guided_of
from ddrep.planning.draws import Draws, Seen, counted, trials
from ddrep.planning.plan import (
    DENOISER,
    ENCODER,
    EVALUATOR,
    INCEPTION,
    SEGMENTER,
    TRAINING,
    WITHIN,
    Job,
    Plan,
    Row,
    in_tar,
)
from ddrep.runs import GuidedRun, guide_folders, guided_runs, table1_runs, table2_runs
from ddrep.sampling.guided import noise_number
from ddrep.sampling.sampler import evaluations

Part = Literal["attributes", "masks"]
Reads = Literal["features", "pixels"]
BOTH: tuple[Reads, ...] = ("features", "pixels")


def guide(part: Part, reads: Reads) -> str:
    """Name of a guide's network."""
    return f"{part}-guide-on-{reads}"


def read(part: Part) -> str:
    """Name of what reads features for a part's guides: the denoiser as far as the last tapped block."""
    return f"{ENCODER}/{part}"


def steered(part: Part, reads: Reads) -> str:
    """Name of a guided step: the denoiser, what the guide reads, the guide, and the gradient through them."""
    return f"{DENOISER}/{part}-{reads}"


def attributes(plan: Plan, assumed: float) -> list[Row]:
    """Of Table 1 and the robustness table. `assumed`: the acceptance of rejection's candidates where none was seen."""
    e, sizes, runs = plan.experiment, plan.sizes, table1_runs(plan.experiment)
    having, folders, images = len(e.attributes.groups), len(guide_folders(e)), 2 * e.table1.images
    examples, each, trained = 2 * e.attributes.examples, in_tar(sizes.image), e.evaluation.evaluator is None
    split = sizes.test + trained * sizes.real
    fitted = tuple(_fit(e, "attributes", reads, examples) for reads in BOTH)
    rows = [
        Row("attribute_images", ({},) * having * (1 + trained), disk=having * split * each),
        Row("attribute_examples", ({},) * folders, disk=folders * examples * each),
        Row("attribute_guide", fitted * folders),
    ]
    if trained:
        job = _oracle(EVALUATOR, e.evaluation.evaluator_training, sizes.real)
        rows.append(Row("attribute_evaluator", (job,) * having, threads=plan.waited_for))
    rows += _shards(plan, "attribute_shard", runs, guided_draws(e, plan.seen, assumed), images)
    return [
        *rows,
        Row("attribute_real_features", (_measured(e, sizes.test, EVALUATOR),) * having),
        Row("attribute_score", (_sum({EVALUATOR: images}, _measured(e, images, EVALUATOR)),) * len(runs)),
        Row("robustness", (_robustness(plan),) * folders),
        *(Row(rule, ({},)) for rule in ("table1", "robustness_table", "robustness_figure")),
    ]


def masks(plan: Plan, assumed: float) -> list[Row]:
    """Of Table 2 and Figure 2. Nothing is refused, so nothing hangs on `assumed`."""
    e, runs = plan.experiment, table2_runs(plan.experiment)
    train, test, oracle = mask_images(e.masks.data)
    trained, subsets = e.evaluation.segmenter is None, len({run.subset for run in runs})
    height, width, _ = plan.sizes.image
    each = in_tar(plan.sizes.image) + in_tar((height, width, 1))
    made = [_fit(e, "masks", reads, train) for _, reads in sorted({(run.folder, run.reads) for run in runs})]
    rows = [
        Row("mask_images", ({},) * (1 + trained), disk=(test + trained * oracle) * each),
        Row("mask_examples", ({},) * subsets, disk=subsets * train * each),
        Row("mask_guide", tuple(made)),
    ]
    if trained:
        job = _oracle(SEGMENTER, e.evaluation.segmenter_training, oracle)
        rows.append(Row("mask_segmenter", (job,), threads=plan.waited_for))
    rows += _shards(plan, "mask_shard", runs, guided_draws(e, plan.seen, assumed), e.table2.images)
    by = EVALUATOR if e.evaluation.evaluator else None  # none is trained for masks
    scored = _sum({SEGMENTER: e.table2.images}, _measured(e, e.table2.images, by))
    return [
        *rows,
        Row("mask_real_features", (_measured(e, test, by),)),
        Row("mask_score", (scored,) * len(runs)),
        *(Row(rule, ({},)) for rule in ("table2", "figure2")),
    ]


def mask_images(data: MaskData) -> tuple[int, int, int]:
    """Images with masks: for the guides, of the targets, and for an oracle."""
    if data.kind == "embedded":
        oracle = sum(read_idx(embedded.path(split, "labels")).size for split in ("train", "validation"))
        return data.embedded.train, data.embedded.test, oracle
    faces, ours = data.celebamask_hq, data.few_shot
    oracle = faces.images - faces.train - faces.test if faces else 0
    if data.kind == "few-shot" and ours:
        return ours.train, ours.test, oracle
    return (faces.train, faces.test, oracle) if faces else (0, 0, 0)


def mask_classes(data: MaskData) -> int:
    """Classes of a pixel; of each garment one, and the background."""
    if data.kind == "embedded":
        return 1 + len(embedded.CLASSES)
    return len(data.few_shot.classes if data.kind == "few-shot" and data.few_shot else CELEBA_19)


def _fit(e: Experiment, part: Part, reads: Reads, examples: int) -> Job:
    """What it reads of its examples is read once, and they are looked at once in the end."""
    cfg = _section(e, part).training
    return {guide(part, reads) + TRAINING: cfg.steps * cfg.batch, **_looked_at(e, part, reads, examples)}


def _looked_at(e: Experiment, part: Part, reads: Reads, images: int) -> Job:
    """Images through a guide and what it reads them by."""
    by = {read(part): images * len(_section(e, part).taps.timesteps)} if reads == "features" else {}
    return {guide(part, reads): images, **by}


def _section(e: Experiment, part: Part) -> Attributes | Masks:
    return e.attributes if part == "attributes" else e.masks


def _part(run: GuidedRun) -> Part:
    return "attributes" if run.attribute else "masks"


def _oracle(name: str, cfg: Oracle, images: int) -> Job:
    return {name + TRAINING: steps_for(cfg.epochs, images, cfg.batch) * cfg.batch}


def _measured(e: Experiment, images: int, by: str | None) -> Job:
    """Images through what Fréchet distances are taken on: Inception, else `by`, if that is there."""
    return {INCEPTION: images} if e.evaluation.inception else {by: images} if by else {}


def _robustness(plan: Plan) -> Job:
    e, cfg = plan.experiment, plan.experiment.robustness
    images = len(cfg.timesteps) * min(cfg.images, plan.sizes.test)
    return _sum({DENOISER: images}, *(_looked_at(e, "attributes", reads, images) for reads in BOTH))


def _shards(
    plan: Plan, rule: str, runs: Sequence[GuidedRun], draws: Mapping[GuidedRun, Draws], images: int
) -> list[Row]:
    """A row a method."""
    pixels, each, made = math.prod(plan.sizes.image), in_tar(plan.sizes.image), []
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method]
        disk = sum(images * each + draws[run].drawn * pixels for run in mine)
        jobs = tuple(_shard(plan.experiment, run, draws[run]) for run in mine)
        made.append(Row(rule, jobs, method, len(mine) * images, disk))
    return made


def _shard(e: Experiment, run: GuidedRun, draw: Draws) -> Job:
    """A step with a guide looks at as many images as the denoiser does; the images of an attribute are judged too."""
    part = _part(run)
    cfg = guided_of(_section(e, part), run.method, run.steps, e)
    steps = draw.drawn * evaluations(cfg.sampling)
    drawn: Job = {DENOISER: steps}
    if cfg.scale:
        inside = _looked_at(e, part, run.reads, steps)
        drawn = {steered(part, run.reads): steps, **{key + WITHIN: n for key, n in inside.items()}}
    return _sum(drawn, _looked_at(e, part, run.reads, draw.judged) if run.attribute else {})


def _sum(*jobs: Job) -> Job:
    """All passes of several jobs as one."""
    return {key: sum(job.get(key, 0) for job in jobs) for job in jobs for key in job}


def guided_draws(e: Experiment, seen: Seen, assumed: float) -> dict[GuidedRun, Draws]:
    """What every guided run draws. Without a guide's steps, runs of equal settings and noise share their candidates,
    across methods, attributes and masks; each is counted once, and rejection's last."""
    there: dict[tuple[str, int], np.ndarray] = {}
    draws = {}
    for run in sorted(guided_runs(e), key=lambda run: run.method == "rejection"):
        cfg = guided_of(_section(e, _part(run)), run.method, run.steps, e)
        wanted = _attempts(e, run, seen, assumed) if run.attribute else np.array([cfg.images, 0])
        place = cfg.sampling.model_dump_json(), noise_number(run.subset, run.seed)
        known = np.zeros(2, int) if cfg.scale else there.get(place, np.zeros(2, int))
        draws[run] = Draws(int(wanted.sum()), int((wanted - known).clip(min=0).sum()))
        if not cfg.scale:
            there[place] = np.maximum(known, wanted)
    return draws


def _attempts(e: Experiment, run: GuidedRun, seen: Seen, assumed: float) -> np.ndarray:
    """At images without an attribute and with it (2,)."""
    cfg = guided_of(e.attributes, run.method, run.steps, e)
    quota, budget = cfg.images, cfg.images * cfg.max_attempts
    if (known := counted(seen.guided.get(run, {}), 2, quota, budget)) is not None:
        return known
    if not cfg.threshold:
        return np.full(2, quota)
    shares = [seen.guided_acceptance(run.attribute, label) for label in (0, 1)]
    return np.array([round(trials(assumed if s is None else s, quota, budget).mean()) for s in shares])
