"""What the probes gain by reading the labelled images moved as well (`probe.shift`), on finer averages (`probe.pool`).

    python -m benchmarks.probes

Of each embedded labelled subset the probes of every kind, and what they know of the training images that are not
labelled in it, and the validation images: 2,300 that nothing here has been trained on. No test image is looked at.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import page
from ddrep.config import Data, DenoiserFile, Probe, Stage
from ddrep.data.embedded import SUBSETS
from ddrep.data.readers import labelled
from ddrep.data.readers.embedded import embedded_images
from ddrep.data.shards import LabelledImages, together, write_shard
from ddrep.device import keep_freed_memory, set_threads
from ddrep.networks.judges import Judge
from ddrep.training import probe

KINDS = {
    f"{pool} x {pool} pixels, {'moved' if shift else 'as they are'}": Probe(pool=pool, shift=shift)
    for shift in (0.0, 0.04)
    for pool in (2, 3)
}


def unseen_of(given: LabelledImages) -> LabelledImages:
    """Training and validation images that are not among these."""
    every = together(
        [*(embedded_images("train", subset) for subset in range(SUBSETS)), embedded_images("validation", 0)]
    )
    return every.take([row for row, key in enumerate(every.keys) if key not in set(given.keys)])


def quality(cfg: Probe, subset: int) -> tuple[float, float]:
    """Top-1 in percent and cross-entropy in nats of the probes of a labelled subset, on what it has not."""
    given = labelled(Data(), "train", subset, 0)
    with tempfile.TemporaryDirectory() as folder:
        train, out, report = (Path(folder) / name for name in ("train.tar", "probe.safetensors", "report.json"))
        write_shard(train, given)
        probe.run(Stage[Probe](config=cfg), denoiser=DenoiserFile().path, train=train, out=out, report=report)
        unseen = unseen_of(given)
        p = Judge.load(out, DenoiserFile().path).probabilities(unseen.images)
    said = p[np.arange(len(p)), unseen.labels]
    return 100 * float((p.argmax(axis=1) == unseen.labels).mean()), float(-np.log(said.clip(1e-12)).mean())


def main() -> None:
    set_threads(1)
    keep_freed_memory()
    found = {name: [quality(cfg, subset) for subset in range(SUBSETS)] for name, cfg in KINDS.items()}
    rows: list[dict[str, Any]] = []
    for number, (quantity, unit) in enumerate((("top-1", "%"), ("cross-entropy", "nats"))):
        rows += page.compared(quantity, unit, {name: [each[number] for each in of] for name, of in found.items()})
    page.record("Probes on moved images", ABOUT, [{**row, "ratio": 0.0} for row in rows])


ABOUT = """`python -m benchmarks.probes`: probes of the three embedded labelled subsets, trained on 200 images as they \
are, or moved by a pixel as well, with features averaged to so many pixels; on 2,300 other images of the training \
split. Medians of the subsets and their range."""

if __name__ == "__main__":
    main()
