"""What a judge is worth by itself: accuracy and calibration on images that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep.config import JudgeScore, Stage
from ddrep.cost import Cost, Job, costs, times
from ddrep.data.batches import stratified
from ddrep.data.shards import read_shards
from ddrep.device import pick_device
from ddrep.networks.judges import Judge
from ddrep.rows import write_rows


def run(
    stage: Stage[JudgeScore], *, judge: Path, denoiser: Path, test: Path, name: str, subset: int, out: Path
) -> None:  # fmt: skip
    """Write the row of a judge of a labelled subset on test images, of each class its share. Raises UserError."""
    images = read_shards([test])
    images = images.take(stratified(images.labels, stage.config.images, stage.seed).tolist())
    loaded = Judge.load(judge, denoiser, pick_device())
    loaded.check_classes(judge, images.classes, test)
    p = loaded.probabilities(images.images)
    found = quality(torch.as_tensor(p), torch.as_tensor(images.labels), len(images.classes))
    measures = ("n", "top1", "expected_calibration_error", "cross_entropy")
    row = {"judge": name, "subset": subset} | {measure: found[measure] for measure in measures}
    write_rows({out: pd.DataFrame([row])})


@costs("score-judge")
def cost(job: Job) -> Cost:
    return Cost(times(min(job.config(JudgeScore).images, job.images("test")), job.look("judge")))


def quality(p: Tensor, labels: Tensor, classes: int) -> dict[str, Any]:
    """Of probabilities (N, classes): top-1 (percent), cross-entropy, confusion (rows true) and calibration in ten bins
    of the top probability.
    """
    top, guess = p.max(dim=1)
    right = guess == labels
    confusion = torch.bincount(labels * classes + guess, minlength=classes**2).view(classes, classes)
    bins = (top * 10).long().clamp(max=9)
    calibration = [
        {"n": int(here.sum()), "confidence": float(top[here].mean()), "accuracy": float(right[here].double().mean())}
        for b in range(10)
        if (here := bins == b).any()
    ]
    gap = sum(c["n"] * abs(c["confidence"] - c["accuracy"]) for c in calibration) / len(labels)
    loss = float(F.nll_loss(p.clamp(min=1e-12).log(), labels))
    report = {"n": len(labels), "top1": 100 * float(right.double().mean()), "expected_calibration_error": gap}
    return {**report, "cross_entropy": loss, "confusion": confusion.tolist(), "calibration": calibration}
