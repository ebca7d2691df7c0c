"""The generation engine: class-exact shards of accepted images, and a row for every attempt they took.

An image is a function of (experiment seed, class, shard, attempt) and of the denoiser and the sampling settings; not of
the source, the batch or the order. Acceptance is p(its class) >= threshold (paper, 4.2), p being computed on the stored
uint8 image.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtr

from ddrep import stopping
from ddrep.data.shards import LabelledImages, write_with_attempts
from ddrep.errors import UserError
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.sampler import image_seed

log = logging.getLogger("ddrep")

NAMED = 10
"""Classes that a message names."""
BAD_LUCK = 1e-3
"""A class is given up when one whose acceptance just fills its quota would be as unlucky as rarely as this."""
ANY = -1
"""The class of candidates that are drawn of none: the judge's most probable one takes its place in what is written."""


@dataclass
class Tally:
    """What is known of one class: p of its attempts in order, and how many of them are accepted."""

    label: int
    threshold: float
    name: str = ""
    """Of the class, for people."""
    p: list[float] = field(default_factory=list)

    @property
    def verdicts(self) -> list[bool]:
        """Whether each attempt is accepted."""
        return [p >= self.threshold for p in self.p]

    @property
    def accepted(self) -> int:
        return sum(self.verdicts)

    @property
    def known(self) -> str:
        """Name, accepted, attempts and their ratio."""
        made = len(self.p)
        return f"{self.name or self.label} ({self.accepted}/{made} = {self.accepted / made:.1%})"

    def needed(self, quota: int) -> int:
        """Attempts up to the one that fills the quota, or all of them."""
        hits = [i for i, accepted in enumerate(self.verdicts) if accepted]
        return hits[quota - 1] + 1 if len(hits) >= quota else len(self.p)

    def enough(self, quota: int) -> float:
        """The largest threshold, in thousandths, at which the attempts made fill the quota; 0 if none does."""
        best = sorted(self.p)[-quota:]
        return max(0.0, math.floor(1000 * best[0]) / 1000) if len(best) == quota else 0.0

    def wanted(self, quota: int, budget: int) -> range:
        """The next attempts to make: as many as should fill the quota at the rate seen so far, within the budget.

        No more than make it four times as many, so that a class that accepts next to nothing is found out early.
        """
        made, missing = len(self.p), quota - self.accepted
        should = made + math.ceil(missing / (self.accepted + 1) * (made + 1))
        most = min(budget, max(quota, 4 * made))
        return range(made, min(should, most)) if missing > 0 else range(0)

    def given_up(self, quota: int, budget: int) -> bool:
        """Whether the quota is not filled, and will hardly be; see `hopeless`."""
        accepted = self.accepted
        return accepted < quota and hopeless(accepted, len(self.p), quota, budget)


def hopeless(accepted: int, made: int, quota: int, budget: int) -> bool:
    """Whether the budget is used up, or so few of the attempts made are accepted that it will not do.

    Where a share of quota / budget is accepted, which fills the quota with the last attempt, so few come about with a
    probability of less than `BAD_LUCK` (binomial).
    """
    return made >= budget or float(bdtr(accepted, made, quota / budget)) < BAD_LUCK


@dataclass
class Balanced(Tally):
    """What is known of candidates of no class, of which as many are accepted of each class as of any other."""

    said: Mapping[Attempt, np.ndarray] = field(default_factory=dict)
    """By the judge: probabilities of all classes, whose largest names the class."""
    each: int = 0
    """Accepted images of each class."""

    @property
    def verdicts(self) -> list[bool]:
        counts, found = Counter[int](), []
        for attempt, believed in enumerate(super().verdicts):
            label = int(np.argmax(self.said[self.label, attempt]))
            found.append(believed and counts[label] < self.each)
            counts[label] += found[-1]
        return found


Draw = Callable[[Sequence[Attempt]], np.ndarray]
"""(class, attempt) of each image -> uint8 images (N, H, W, C)."""
Probabilities = Callable[[np.ndarray], np.ndarray]
"""uint8 images (N, H, W, C) -> (N, classes)."""


class Engine:
    """Draws candidates of one shard through the pool and has them judged.

    evaluations: of denoisers, an attempt takes; those of judges and guides apart. `said` by the judge: probabilities of
    all classes, float16, of each attempt that was judged. `columns`: what is written of each beside that, or instead.
    `settings`: what `draw` obeys beside an attempt's seed, kept with the attempts so that they can be drawn again.
    """

    def __init__(self, draw: Draw, pool: Pool, batch: int, evaluations: int, settings: Mapping[str, Any] | None = None):
        self.draw, self.pool, self.batch, self.evaluations = draw, pool, batch, evaluations
        self.settings = dict(settings or {})
        self.said: dict[Attempt, np.ndarray] = {}
        self.columns: dict[Attempt, dict[str, int | bool]] = {}

    def candidates(self, attempts: Sequence[Attempt]) -> np.ndarray:
        """uint8 images (N, H, W, C) of the attempts, drawn now unless the pool has them."""
        with self.pool.locked(), stopping.saving():
            missing = [a for a in attempts if a not in self.pool.images]
            for i in range(0, len(missing), self.batch):
                part = missing[i : i + self.batch]
                self.pool.add(part, self.draw(part))
                if len(missing) > self.batch:
                    log.info("%d of %d candidates drawn", i + len(part), len(missing))
                stopping.stop_if_asked()
            log.info("%d candidates, %d of them drawn now", len(attempts), len(missing))
        return np.stack([self.pool.images[a] for a in attempts])

    def judged(self, attempts: Sequence[Attempt], judge: Probabilities) -> list[float]:
        """p(its class) of each attempt, of one of no class the most probable's; -1, which no threshold accepts, of an
        image of one level all over."""
        images = self.candidates(attempts)
        p = judge(images)
        self.said |= dict(zip(attempts, p.astype(np.float16), strict=True))
        of_class = [
            float(max(row) if label == ANY else row[label]) for row, (label, _) in zip(p, attempts, strict=True)
        ]
        return but_blank(np.array(of_class), images).tolist()

    def write_accepted(
        self, tallies: Sequence[Tally], quota: int, seed: int, shard: int, classes: tuple[str, ...], out: Path,
        soft: bool = False,
    ) -> None:  # fmt: skip
        """The first `quota` accepted images of each class, shuffled, as a shard; a row an attempt beside it.

        soft: with the judge's probabilities of all classes, in the shard and in a column `probabilities`.
        """
        rows = attempt_rows(tallies, quota, seed, shard).assign(evaluations=self.evaluations)
        attempts = list(zip(rows["class"], rows["attempt"], strict=True))
        rows["class"] = [int(np.argmax(self.said[a])) if a[0] == ANY else a[0] for a in attempts]
        if self.columns:
            rows = rows.assign(**pd.DataFrame([self.columns[attempt] for attempt in attempts]))
        if soft:
            rows = rows.assign(probabilities=pd.Series([self.said[a] for a in attempts], dtype=object))
        kept = rows[rows["accepted"]].sample(frac=1, random_state=np.random.RandomState(shard))
        images = np.stack([self.pool.images[attempts[i]] for i in kept.index])
        labels = np.stack(kept["probabilities"].tolist()) if soft else None
        accepted = LabelledImages(images, kept["class"].to_numpy(np.int64), list(kept["key"]), classes, labels)
        rows.attrs.update(self.settings)
        write_with_attempts(out, accepted, rows)


def but_blank(p: np.ndarray, images: np.ndarray) -> np.ndarray:
    """p (N,), but -1, which no threshold accepts, of those of uint8 images (N, H, W, C) that are of one level all over:
    a judge believes of a black image what it likes."""
    return np.where(np.ptp(images.reshape(len(images), -1), axis=1) == 0, -1.0, p)


def fill(
    tallies: Sequence[Tally],
    quota: int,
    budget: int,
    judge: Callable[[Sequence[Attempt]], list[float]],
    keys: tuple[str, str],
    threshold: str = "",
) -> None:
    """Make attempts until every class has its quota. Raises UserError once one will not have it (`check_full`)."""
    while wanted := [(t.label, attempt) for t in tallies for attempt in t.wanted(quota, budget)]:
        by_label = {t.label: t for t in tallies}
        for (label, _), p in zip(wanted, judge(wanted), strict=True):
            by_label[label].p.append(p)
        log.info("%s", progress(tallies, quota))
        if any(t.given_up(quota, budget) for t in tallies):
            break
    check_full(tallies, quota, budget, keys, threshold)


def check_full(tallies: Sequence[Tally], quota: int, budget: int, keys: tuple[str, str], threshold: str = "") -> None:
    """Raise UserError naming the classes for whose quota the budget does not do.

    keys: the budget's config key, and what else the user can do. threshold: the key of the tallies' threshold, if a
    lower one would do with the attempts made; the line then says which.
    """
    short = [t for t in tallies if t.given_up(quota, budget)]
    if short:
        log.error("%s", attempts_table(tallies, quota))
        rates = ", ".join(t.known for t in short[:NAMED])
        more = f" and {len(short) - NAMED} more (the log has a table)" if len(short) > NAMED else ""
        least = min(t.enough(quota) for t in tallies if t.accepted < quota) if threshold else 0.0
        would = f"; at a {threshold} of {least:g} the attempts made are enough" if least else ""
        raise UserError(
            f"{keys[0]}: classes {rates}{more} accept too few for the {quota} images asked for in {budget} attempts; "
            f"raise the budget, {keys[1]}{would}"
        )


def attempts(verdicts: Iterable[bool], quota: int, budget: int) -> int:
    """Attempts at a class that `fill` makes, rounds and all, given the verdict on each up to the last it needs."""
    tally, verdict = Tally(0, threshold=1), iter(verdicts)
    while not tally.given_up(quota, budget) and (wanted := tally.wanted(quota, budget)):
        tally.p += [float(next(verdict, True)) for _ in wanted]
    return len(tally.p)


@lru_cache
def likely_attempts(acceptance: float, quota: int, budget: int) -> np.ndarray:
    """Attempts at a class whose candidates are accepted at random, (256,)."""
    rng = np.random.default_rng(0)
    return np.array([attempts(rng.random(budget) < acceptance, quota, budget) for _ in range(256)])


def progress(tallies: Sequence[Tally], quota: int) -> str:
    """What has been accepted so far, in one line."""
    kept, made = sum(t.accepted for t in tallies), sum(len(t.p) for t in tallies)
    full = sum(t.accepted >= quota for t in tallies)
    slowest = min(tallies, key=lambda t: t.accepted / len(t.p))
    return (
        f"{kept} of {made} attempts accepted ({kept / made:.0%}); {full} of {len(tallies)} classes have their {quota} "
        f"images; least: {slowest.known}"
    )


def attempts_table(tallies: Sequence[Tally], quota: int) -> str:
    """A line a class, of what a used-up budget leaves to look at."""
    head = f"{'attempts':>8} {'accepted':>8} {'share':>6} {'median p':>8} {'90% p':>6}  class"
    lines = [
        f"{len(t.p):8d} {t.accepted:8d} {t.accepted / len(t.p):6.1%} {np.median(t.p):8.3f} {np.quantile(t.p, 0.9):6.3f}"
        f"  {t.name or t.label}{'' if t.accepted >= quota else f' ({quota - t.accepted} missing)'}"
        for t in tallies
    ]
    return "\n".join(
        [f"attempts at threshold {tallies[0].threshold:g}, {quota} images a class asked for:", head, *lines]
    )


def attempt_rows(tallies: Sequence[Tally], quota: int, seed: int, shard: int) -> pd.DataFrame:
    """One row an attempt, up to the last one needed of each class."""
    rows = [
        {
            "key": f"{'any' if t.label == ANY else f'{t.label:04d}'}-{shard:05d}-{attempt:06d}",
            "class": t.label,
            "attempt": attempt,
            "seed": image_seed(seed, t.label, shard, attempt),
            "p": t.p[attempt],
            "accepted": accepted,
        }
        for t in tallies
        for attempt, accepted in enumerate(t.verdicts[: t.needed(quota)])
    ]
    return pd.DataFrame(rows)
