"""How well guided images are what they were to be, by networks that had no part in making them (paper, 5.1 and 5.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddrep.config import AttributeScores, Stage
from ddrep.cost import INCEPTION, Cost, Job, Passes, costs, times
from ddrep.data.masks import read_masked_shards
from ddrep.data.shards import read_shards
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.evaluation.inception import Inception
from ddrep.evaluation.segmentation import confusion, miou
from ddrep.files import read_arrays, written_whole
from ddrep.networks.measures import Evaluator, Segmenter
from ddrep.rows import read_rows, write_rows


def features_of(images: np.ndarray, evaluator: Path | None, inception: Path | None) -> tuple[str, np.ndarray]:
    """Name of the distance, and features (N, D) of uint8 images: Inception's if its file is given; none of neither."""
    if inception:
        net = Inception.load(inception, pick_device())
        return net.metric, net.features(images)
    if evaluator is None:
        return "", np.zeros((len(images), 0))
    made = Evaluator.load(evaluator, pick_device())
    return made.metric, made.features(images)


def save_features(path: Path, metric: str, features: np.ndarray, labels: np.ndarray) -> None:
    """Features (N, D) as float32 with the label of each image."""
    with written_whole(path) as (draft,):
        np.savez(draft, metric=np.array(metric), features=features.astype(np.float32), labels=labels)


def read_features(path: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """What `save_features` wrote: metric, features (N, D) float64, labels (N,). Raises UserError."""
    expected = "features of images; make them anew"
    metric, features, labels = read_arrays(path, ("metric", "features", "labels"), expected)
    sound = metric.dtype.kind == "U" and features.dtype == np.float32 and labels.dtype.kind in "iu"
    if not sound or features.ndim != 2 or labels.shape != (len(features),) or not np.isfinite(features).all():
        there = f"{features.dtype} {features.shape} with labels {labels.dtype} {labels.shape}"
        raise UserError(f"{path}: {there}, or not finite; expected {expected}")
    return str(metric), features.astype(np.float64), labels


def real_features(*, images: Path, of: str, evaluator: Path | None, inception: Path | None, out: Path) -> None:
    """Write the features of a shard of real images, with their classes; those of masked images have class 0."""
    if of == "mask":
        pixels = read_masked_shards([images]).images
        labels = np.zeros(len(pixels), np.int64)
    else:
        labelled = read_shards([images])
        pixels, labels = labelled.images, labelled.labels
    save_features(out, *features_of(pixels, evaluator, inception), labels)


def score_attribute(
    stage: Stage[AttributeScores], *, shard: Path, evaluator: Path | None, inception: Path | None, method: str,
    steps: int, subset: int, run_seed: int, out: Path, features_out: Path,
) -> None:  # fmt: skip
    """Write two rows, for the attribute and its absence: the share (percent) of images that show what they were to.

    An image has the attribute where the evaluator gives the classes that have it more than one half.
    """
    if evaluator is None:
        raise UserError("--evaluator: missing; it says which images have the attribute")
    images, judge = read_shards([shard]), Evaluator.load(evaluator, pick_device())
    if (of := images.classes[-1]) != stage.config.attribute:
        raise UserError(
            f"{shard}: images of {of}, to be scored as of {stage.config.attribute}; name their own attribute"
        )
    names = stage.config.having
    if unknown := [name for name in names if name not in judge.classes]:
        raise UserError(f"{evaluator}: knows no class {unknown[0]}; it has {', '.join(judge.classes)}")
    p = judge.probabilities(images.images)[:, [judge.classes.index(name) for name in names]].sum(axis=1)
    right = (p > 0.5) == (images.labels == 1)
    attempts = read_rows(shard.with_suffix(".parquet"), {"class": "whole"}, f"the attempts of {shard}; draw it anew")
    rows = []
    for target in (1, 0):
        mine = images.labels == target
        row: dict[str, Any] = {"attribute": stage.config.attribute, "present": bool(target), "method": method}
        row |= {"steps": steps, "subset": subset, "seed": run_seed, "share": 100 * float(right[mine].mean())}
        rows.append(row | {"n": int(mine.sum()), "attempts": int((attempts["class"] == target).sum())})
    save_features(features_out, *features_of(images.images, evaluator, inception), images.labels)
    write_rows({out: pd.DataFrame(rows)})


def score_masks(
    *, shard: Path, segmenter: Path, evaluator: Path | None, inception: Path | None, method: str, steps: int,
    subset: int, run_seed: int, out: Path, features_out: Path,
) -> None:  # fmt: skip
    """Write a row: the mean intersection over union of the segmenter's label maps with the target masks, 0..1."""
    images, oracle = read_masked_shards([shard]), Segmenter.load(segmenter, pick_device())
    if oracle.classes != images.classes:
        raise UserError(f"{segmenter}: its classes are not those of {shard}; train one on images with such masks")
    counts = confusion(oracle.label_maps(images.images), images.masks, len(images.classes))
    labels = np.zeros(len(images), np.int64)
    save_features(features_out, *features_of(images.images, evaluator, inception), labels)
    row = {"method": method, "steps": steps, "subset": subset, "seed": run_seed, "miou": miou(counts), "n": len(images)}
    write_rows({out: pd.DataFrame([row])})


@costs("real-features", "score-attribute", "score-masks")
def cost(job: Job) -> Cost:
    """Of real or guided images: what says what they show, and what distances are taken on (`features_of`)."""
    judge = {"score-attribute": "evaluator", "score-masks": "segmenter"}.get(job.verb)
    measures = [name for name in (INCEPTION, "evaluator") if job.inputs.get(name)][:1]
    return Cost(times(job.images("shard") + job.images(), Passes([*measures, judge] if judge else measures)))
