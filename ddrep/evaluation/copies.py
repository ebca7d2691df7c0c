"""Does a source repeat its training images? How near its images are to the labelled ones, beside real unseen images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ddrep.config import Copies, ProbeReading, Stage, Tap
from ddrep.cost import ENCODER, Cost, Job, Passes, costs
from ddrep.data.batches import finite, stratified, to_unit
from ddrep.data.disjoint import check_disjoint
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import probe_features
from ddrep.device import pick_device
from ddrep.rows import write_rows

READ_AT_ONCE = 250
NEAR = 0.01
"""Share of the real validation images that are nearer to a labelled one than the distance below which an image counts
as a near copy."""
TEST = "test images"
"""Stands for a source: what real images that nobody has trained on give."""


def run(
    stage: Stage[Copies], *, denoiser: Path, labelled: Path, validation: Path, test: Path, shards: Sequence[Path],
    subset: int, out: Path,
) -> None:  # fmt: skip
    """A row for each source (the folder of its shards), and for real test images: n, the median distance of an image to
    the nearest labelled one, the share of near copies, and the nearest pair.

    Distances are Euclidean, between the standardised features of a decoder block, in units of the validation images'
    median. The validation images say what a near copy is, the test images how many of such there are by chance. Raises
    UserError where a validation image is a labelled one.
    """
    from sklearn.neighbors import NearestNeighbors  # a second, which those that read the cost alone do without

    model, cfg = Denoiser.load(denoiser, pick_device()), stage.config
    real = read_shards([labelled])
    known = _features(model, real, cfg)
    mean, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    nearest = NearestNeighbors(n_neighbors=1).fit((known - mean) / scale)

    def distances(images: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
        found, index = nearest.kneighbors((_features(model, images, cfg) - mean) / scale)
        return found[:, 0], index[:, 0]

    others = read_shards([validation])
    check_disjoint(others, real, (validation, labelled))
    unseen = distances(_some(others, cfg.images, stage.seed))[0]
    unit, near = float(np.median(unseen)), float(np.quantile(unseen, NEAR))
    by_source: dict[str, list[Path]] = {}
    for path in shards:
        by_source.setdefault(path.parent.name, []).append(path)
    sets = {TEST: _some(read_shards([test]), cfg.images, stage.seed)}
    sets |= {source: read_shards(paths) for source, paths in by_source.items()}
    rows = []
    for source, images in sets.items():
        found, index = distances(images)
        first = int(found.argmin())
        rows.append(
            {"subset": subset, "source": source, "n": len(found), "median": float(np.median(found)) / unit,
             "near_copies": float((found < near).mean()), "least": float(found[first]) / unit,
             "image": images.keys[first], "labelled_image": real.keys[index[first]]}
        )  # fmt: skip
    write_rows({out: pd.DataFrame(rows)})


def _some(images: LabelledImages, n: int, seed: int) -> LabelledImages:
    return images.take(stratified(images.labels, n, seed).tolist())


@torch.inference_mode()
def _features(model: Denoiser, images: LabelledImages, cfg: Copies) -> np.ndarray:
    reading = ProbeReading(taps=(Tap(block=cfg.block, timestep=cfg.timestep),), pool=cfg.pool, noises=1)
    batches = (images.images[i : i + READ_AT_ONCE] for i in range(0, len(images), READ_AT_ONCE))
    parts = [finite(probe_features(model, to_unit(x, model.device), reading), model.name).cpu() for x in batches]
    return torch.cat(parts).double().numpy()


@costs("copies")
def cost(job: Job) -> Cost:
    cfg = job.config(Copies)
    unseen = sum(min(cfg.images, job.images(name)) for name in ("validation", "test"))
    return Cost(Passes({ENCODER: unseen + job.images("labelled") + job.images()}))
