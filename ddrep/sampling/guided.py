"""Guided images as shards: of an attribute and of its absence (paper, 5.1), or one for each target mask (5.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddrep.config import GuidedShard, Stage
from ddrep.cost import DENOISER, GUIDED, Cost, Job, Passes, Wanted, costs, draws, times
from ddrep.data.masks import IGNORE, MaskedImages, read_masked_shards, write_masked_shard
from ddrep.derived import drawn_by
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import fingerprint, sha256
from ddrep.networks.guides import Guide
from ddrep.sampling.engine import Engine, Tally, fill
from ddrep.sampling.guidance import EpsFunction, guided
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.rows import in_rows, rows_at_once
from ddrep.sampling.sampler import draw, evaluations, image_seed, levels

CHECKPOINTED = 128
"""Width in pixels from which gradients recompute each block: a guided step then keeps one block's activations, and
the blocks' outputs, where it would keep all."""
THRESHOLD = "table1.threshold"
KEYS = ("table1.max_attempts", f"lower {THRESHOLD}")
SUBSETS = 1000
"""Labelled subsets whose noise is numbered apart."""

ROWS, PIXELS = 10, 2**17
"""Images at once on a CPU, where more are no faster, and what fills up the last of them takes as long; and pixels at
once, which bounds the memory of the gradient: 167 images of 28x28, 32 of 64x64, 2 of 256x256."""

Targets = Callable[[Sequence[Attempt]], np.ndarray]
"""(target, attempt) of each image -> what it is to be: classes (N,) or label maps (N, H, W)."""


def noise_number(subset: int, run: int) -> int:
    """The shard number under which a run draws its starting noise: its own for each labelled subset and seed, the same
    for every method. Raises UserError where two runs would have one, or none that a generator takes as its seed."""
    number = subset + SUBSETS * run
    if subset >= SUBSETS or number >= 2**32:
        raise UserError(
            f"subset {subset}, seed {run}: expected a subset below {SUBSETS} and a seed below {2**32 // SUBSETS}, for "
            "together they number the run's noise"
        )
    return number


def dealt(first: int, images: int, masks: int) -> np.ndarray:
    """Which of the target masks a run's images are drawn for, (images,): in order, and from the start when all are
    used."""
    return (first + np.arange(images)) % masks


def towards(guide: Guide, y: Tensor, scale: float) -> EpsFunction:
    """What sampling listens to that a guide steers to classes y (N,) or to label maps y (N, H, W).

    Always as many images at once (ddrep.sampling.rows): many guided steps make another image of a rounding.
    """

    def eps(x: Tensor, index: Tensor, goal: Tensor) -> Tensor:
        model = guide.denoiser
        return guided(model.eps, model.schedule, lambda x0: guide.log_likelihood(x0, goal), scale)(x, index)

    def in_parts(x: Tensor, index: Tensor) -> Tensor:
        most = rows_at_once(x) if x.device.type == "cuda" else min(ROWS, rows_at_once(x))
        return in_rows(eps, x, index, y, rows=max(1, min(most, PIXELS // x.shape[2:].numel())))

    return in_parts


def attribute_shard(
    stage: Stage[GuidedShard], *, denoiser: Path, guide: Path, subset: int, run_seed: int, pool: Path, out: Path,
    batch: int | None = None,
) -> None:  # fmt: skip
    """Write as many images of class 1, which has the attribute, as of class 0, which has not; attempts beside them.

    With a threshold the guide refuses images as well: guidance and rejection compose.
    """
    loaded = Guide.load(guide, denoiser, pick_device(), "attribute")
    number, cfg = noise_number(subset, run_seed), stage.config
    targets: Targets = lambda attempts: np.array([label for label, _ in attempts])  # noqa: E731
    engine = _engine(stage, loaded, targets, [denoiser, guide], number, pool, batch)
    tallies = [Tally(label, cfg.threshold, name) for label, name in enumerate(loaded.classes)]
    judged = lambda attempts: engine.judged(attempts, loaded.probabilities)  # noqa: E731
    fill(tallies, cfg.images, cfg.images * cfg.max_attempts, judged, KEYS, THRESHOLD)
    engine.write_accepted(tallies, cfg.images, stage.seed, number, loaded.classes, out)


def mask_shard(
    stage: Stage[GuidedShard], *, denoiser: Path, guide: Path, masks: Path, subset: int, run_seed: int, pool: Path,
    out: Path, batch: int | None = None,
) -> None:  # fmt: skip
    """Write images with the target masks of a shard that they were drawn for, from the section's `first` on.

    Raises UserError.
    """
    loaded, targets = Guide.load(guide, denoiser, pick_device(), "mask"), read_masked_shards([masks])
    check_masks(masks, targets.masks, targets.classes, loaded.meta.image_shape, loaded.classes)
    number, n = noise_number(subset, run_seed), stage.config.images
    rows = dealt(stage.config.first, n, len(targets))
    chosen: Targets = lambda attempts: targets.masks[rows[[i for _, i in attempts]]]  # noqa: E731
    engine = _engine(stage, loaded, chosen, [denoiser, guide, masks], number, pool, batch)
    images = engine.candidates([(0, i) for i in range(n)])
    keys = [f"{i:05d}-{targets.keys[row]}" for i, row in enumerate(rows)]
    write_masked_shard(out, MaskedImages(images, targets.masks[rows], keys, targets.classes))


@draws("guide-attribute", "guide-masks")
def wanted(job: Job, _: int) -> Wanted:
    """What is guided shares its candidates with no other job."""
    cfg, number = job.config(GuidedShard), noise_number(int(job.wildcards["subset"]), int(job.wildcards["run"]))
    guided_by = job.outputs if cfg.scale else None
    pool = job.inputs["denoiser"], cfg.sampling.model_dump_json(), job.stage["seed"], number, str(guided_by)
    labels = 2 if job.part == "attributes" else 1
    return Wanted((cfg.images,) * labels, cfg.images * cfg.max_attempts, pool)


@costs("guide-attribute", "guide-masks")
def cost(job: Job) -> Cost:
    """In a guided step the guide looks at each image as well, and in the end at those of an attribute."""
    cfg, look, denoiser = job.config(GuidedShard), job.look("guide"), Passes([DENOISER])
    step = times(1, denoiser + look, GUIDED) if cfg.scale else denoiser
    judged = times(job.judged, look) if job.part == "attributes" else Passes()
    return Cost(times(job.drawn * evaluations(cfg.sampling), step) + judged)


def check_masks(
    path: Path, masks: np.ndarray, classes: tuple[str, ...], image_shape: Sequence[int], known: tuple[str, ...]
) -> None:
    """Raise UserError unless label maps (N, H, W) are of the size of images (C, H, W) that are drawn for them, and of
    the classes that the guide knows."""
    _, height, width = image_shape
    if masks.shape[1:] != (height, width):
        got = f"{masks.shape[1]}x{masks.shape[2]}"
        raise UserError(f"{path}: masks of {got} pixels; the denoiser's images have {height}x{width}: resize them")
    if odd := sorted({int(c) for c in np.unique(masks)} - {IGNORE, *range(len(known))}):
        raise UserError(f"{path}: class {odd[0]} in a mask; the guide knows 0..{len(known) - 1}, and {IGNORE} for any")
    if classes and classes != known:
        theirs, ours = (", ".join(names[:3]) for names in (classes, known))
        raise UserError(f"{path}: classes {theirs}, ...; the guide was trained on {ours}, ...")


def _engine(
    stage: Stage[GuidedShard], guide: Guide, targets: Targets, inputs: Sequence[Path], number: int, pool: Path,
    batch: int | None,
) -> Engine:  # fmt: skip
    denoiser, cfg = guide.denoiser, stage.config
    denoiser.net.gradient_checkpointing = denoiser.image_shape[-1] >= CHECKPOINTED

    def draw_guided(attempts: Sequence[Attempt]) -> np.ndarray:
        seeds = [image_seed(stage.seed, label, number, attempt) for label, attempt in attempts]
        y = torch.as_tensor(targets(attempts)).long().to(denoiser.device)
        return draw(denoiser, seeds, cfg.sampling, towards(guide, y, cfg.scale))

    # what does not steer does not name its candidates: unguided sampling and its rejection share them
    steering = [str(cfg.scale), str(cfg.first), *map(sha256, inputs[1:])] if cfg.scale else []
    grid = levels(denoiser.schedule, cfg.sampling)
    settings = cfg.sampling.model_dump_json(), str(grid), str(stage.seed), *drawn_by("guided")
    key = fingerprint(*settings, sha256(inputs[0]), *steering)
    _, height, width = denoiser.image_shape
    at_once = batch or max(1, PIXELS // (height * width))
    return Engine(draw_guided, Pool(pool, key, number, denoiser.image_shape), at_once, cfg.sampling.steps)
