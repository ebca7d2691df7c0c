"""The generation engine: class-exact shards of accepted images, and a row for every attempt they took.

An image is a function of (experiment seed, class, shard, attempt) and of the denoiser and the sampling settings; not of
the source, the batch or the order. Acceptance is p(its class) >= threshold (paper, 4.2), p being computed on the stored
uint8 image.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ddrep.config import Sampling, Shard, Stage
from ddrep.data.shards import LabelledImages, write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import fingerprint, sha256, written_whole
from ddrep.heads import Judge
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.sampler import image_seed, sample

log = logging.getLogger("ddrep")


@dataclass
class Tally:
    """What is known of one class: p of its attempts in order, and how many of them are accepted."""

    label: int
    threshold: float
    p: list[float] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        return sum(p >= self.threshold for p in self.p)

    def needed(self, quota: int) -> int:
        """Attempts up to the one that fills the quota, or all of them."""
        hits = [i for i, p in enumerate(self.p) if p >= self.threshold]
        return hits[quota - 1] + 1 if len(hits) >= quota else len(self.p)

    def wanted(self, quota: int, budget: int) -> range:
        """The next attempts to make: as many as should fill the quota at the rate seen so far, within the budget."""
        missing = quota - self.accepted
        rate = (self.accepted + 1) / (len(self.p) + 1)
        return range(len(self.p), min(budget, len(self.p) + math.ceil(missing / rate))) if missing > 0 else range(0)


class Engine:
    """Draws candidates of one shard through the pool and has them judged."""

    def __init__(self, stage: Stage[Shard], finetuned: Path, pretrained: Path, shard: int, pool: Path, batch: int):
        device = pick_device()
        self.seed, self.shard, self.batch = stage.seed, shard, batch
        self.sampling: Sampling = stage.config.sampling
        self.denoiser = Denoiser.load(finetuned, device)
        if not self.denoiser.net.cfg.num_classes:
            raise UserError(f"{finetuned}: an unconditional denoiser; expected one made by `ddrep finetune`")
        self.num_classes = self.denoiser.null_row
        mixes = self.sampling.unconditional == "pretrained"
        self.pretrained = Denoiser.load(pretrained, device) if mixes else None
        digests = [sha256(finetuned), *([sha256(pretrained)] if mixes else [])]
        self.pool = Pool(pool, fingerprint(self.sampling.model_dump_json(), str(self.seed), *digests), shard)

    def candidates(self, attempts: Sequence[Attempt]) -> np.ndarray:
        """uint8 images (N, H, W, C) of the attempts, drawn now unless the pool has them."""
        with self.pool.locked():
            missing = [a for a in attempts if a not in self.pool.images]
            for i in range(0, len(missing), self.batch):
                part = missing[i : i + self.batch]
                seeds = [image_seed(self.seed, label, self.shard, attempt) for label, attempt in part]
                labels = [label for label, _ in part]
                self.pool.add(part, sample(self.denoiser, seeds, self.sampling, labels, self.pretrained))
            log.info("%d candidates, %d of them drawn now", len(attempts), len(missing))
        return np.stack([self.pool.images[a] for a in attempts])

    def judged(self, attempts: Sequence[Attempt], judge: Judge) -> list[float]:
        """p(its class) of each attempt."""
        p = judge.probabilities(self.candidates(attempts))
        return [float(row[label]) for row, (label, _) in zip(p, attempts, strict=True)]


def run(
    stage: Stage[Shard],
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
    engine = Engine(stage, finetuned, pretrained, index, pool, batch)
    critic = Judge.load(judge, pretrained, pick_device())
    if critic.meta["num_classes"] != engine.num_classes:
        known = critic.meta["num_classes"]
        raise UserError(
            f"{judge}: knows {known} classes, {finetuned} {engine.num_classes}; train both on the same labels"
        )
    cfg = stage.config.synthesis
    quota = cfg.per_class // cfg.shards_per_scale
    threshold = json.loads(threshold_file.read_text())["threshold"] if threshold_file else cfg.threshold
    tallies = [Tally(label, threshold) for label in range(engine.num_classes)]
    fill(tallies, quota, quota * cfg.max_attempts, lambda attempts: engine.judged(attempts, critic))
    rows = attempt_rows(tallies, quota, stage.seed, index)
    kept = rows[rows["accepted"]].sample(frac=1, random_state=np.random.RandomState(index))
    images = np.stack([engine.pool.images[a] for a in zip(kept["class"], kept["attempt"], strict=True)])
    table = out.with_suffix(".parquet")
    with written_whole(out, table) as (shard_draft, table_draft):
        write_shard(
            shard_draft,
            LabelledImages(images, kept["class"].to_numpy(np.int64), list(kept["key"]), engine.denoiser.classes),
        )
        rows.to_parquet(table_draft, index=False)


def fill(tallies: Sequence[Tally], quota: int, budget: int, judge: Callable[[Sequence[Attempt]], list[float]]) -> None:
    """Make attempts until every class has its quota. Raises UserError naming the classes that used up the budget."""
    while wanted := [(t.label, attempt) for t in tallies for attempt in t.wanted(quota, budget)]:
        by_label = {t.label: t for t in tallies}
        for (label, _), p in zip(wanted, judge(wanted), strict=True):
            by_label[label].p.append(p)
    short = [t for t in tallies if t.accepted < quota]
    if short:
        rates = ", ".join(f"{t.label} ({t.accepted}/{len(t.p)} = {t.accepted / len(t.p):.1%})" for t in short)
        raise UserError(
            f"synthesis.max_attempts: classes {rates} accepted fewer than the {quota} images asked for; "
            "raise the budget, lower synthesis.threshold or fine-tune longer"
        )


def attempt_rows(tallies: Sequence[Tally], quota: int, seed: int, shard: int) -> pd.DataFrame:
    """One row an attempt, up to the last one needed of each class."""
    rows = [
        {
            "key": f"{t.label:04d}-{shard:05d}-{attempt:06d}",
            "class": t.label,
            "attempt": attempt,
            "seed": image_seed(seed, t.label, shard, attempt),
            "p": t.p[attempt],
            "accepted": t.p[attempt] >= t.threshold,
        }
        for t in tallies
        for attempt in range(t.needed(quota))
    ]
    return pd.DataFrame(rows)


def match_threshold(
    stage: Stage[Shard],
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
    engine = Engine(stage, finetuned, pretrained, 0, pool, batch)
    cfg, device = stage.config.synthesis, pick_device()
    quota = cfg.per_class // cfg.shards_per_scale
    attempts = [(label, attempt) for label in range(engine.num_classes) for attempt in range(quota)]
    ours = np.array(engine.judged(attempts, Judge.load(judge, pretrained, device)))
    pixels = np.array(engine.judged(attempts, Judge.load(pixel_judge, pretrained, device)))
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
        draft.write_text(json.dumps(content, indent=1))


def matched(p: np.ndarray, share: float) -> float:
    """The largest threshold that accepts at least `share` of p (N,)."""
    keep = max(1, round(share * len(p)))
    return float(np.sort(p)[len(p) - keep])
