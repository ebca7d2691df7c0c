"""Images that are there already, with a judge's probabilities as their soft labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ddrep.config import Stage, Synthesis
from ddrep.cost import Cost, Job, costs, times
from ddrep.data.shards import LabelledImages, read_shards, read_unlabelled, write_shard, write_with_attempts
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.networks.judges import Judge


def run(
    stage: Stage[Synthesis],
    *,
    images: Path,
    denoiser: Path,
    judge: Path,
    index: int | None,
    labelled: Path | None,
    out: Path,
) -> None:
    """Write a shard of labelled images with the judge's probabilities beside their classes.

    With `index` of images without labels: as many as a synthetic shard has, from number `index` times as many on, their
    class the judge's most probable one of those of the shard `labelled`, and a row each beside the shard, as attempts
    have. Raises UserError.
    """
    data = read_shards([images]) if index is None else read_unlabelled(images)
    classes = read_shards([labelled]).classes if labelled else data.classes
    loaded = Judge.load(judge, denoiser, pick_device())
    loaded.check_classes(judge, classes, labelled or images)
    if index is None:
        soft = loaded.probabilities(data.images).astype(np.float16)
        write_shard(out, LabelledImages(data.images, data.labels, data.keys, data.classes, soft))
        return
    cfg = stage.config
    n = cfg.per_class // cfg.shards_per_scale * len(classes)
    if (index + 1) * n > len(data):
        raise UserError(
            f"{images}: {len(data)} images without labels, too few for shard {index} of {n}; give more, or ask for "
            f"scales up to {len(data) // (n * cfg.shards_per_scale)}"
        )
    part = data.take(range(index * n, (index + 1) * n))
    p = loaded.probabilities(part.images)
    soft, labels = p.astype(np.float16), p.argmax(axis=1)
    rows = pd.DataFrame({"key": part.keys, "class": labels, "attempt": range(n), "seed": 0, "p": p.max(axis=1)})
    rows = rows.assign(accepted=True, evaluations=0, probabilities=pd.Series(list(soft), dtype=object))
    write_with_attempts(out, LabelledImages(part.images, labels, part.keys, classes, soft), rows)


@costs("label")
def cost(job: Job) -> Cost:
    cfg = job.config(Synthesis)
    part = cfg.per_class // cfg.shards_per_scale * len(job.of_class("labelled"))
    return Cost(times(part if "index" in job.wildcards else job.images("images"), job.look("judge")))
