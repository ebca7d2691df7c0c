"""How many candidates jobs will draw: exactly where nothing is refused and where shards are there, else guessed.

Jobs share their candidates through the pool; each is counted once.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ddrep.cost import Job, Wanted
from ddrep.rows import Kind, read_rows
from ddrep.sampling.engine import attempts, likely_attempts

ASSUMED = 0.5
"""Share of the candidates that are accepted, where none has been judged."""
VERDICTS: dict[str, Kind] = {"class": "whole", "accepted": "flag"}
SHARD = "a shard's attempts; make the shard anew"
RANGE = (0.8, 0.3)
"""Shares that a sensible threshold gives: the cheapest and the dearest."""
Seen = Mapping[str, Mapping[int, list[bool]]]
"""Path of a shard's attempts -> class -> whether each was accepted, in order; of the shards that are there."""
Key = tuple[str, int | None]
"""A source, and a class, or None for all."""


def beside(job: Job) -> str:
    """The attempts that a job writes beside its shard; "" where it writes none (beside a figure lies its PDF)."""
    return next((path for path in job.outputs.get("beside", ()) if path.endswith(".parquet")), "")


def read_verdicts(jobs: Iterable[Job]) -> Seen:
    """From the attempts that are there."""
    paths = [path for path in map(beside, jobs) if path and Path(path).is_file()]
    tables = {path: read_rows(Path(path), VERDICTS, SHARD).groupby("class") for path in paths}
    return {path: {int(str(label)): rows["accepted"].tolist() for label, rows in t} for path, t in tables.items()}


def source(job: Job) -> str:
    """What a job draws: a source of images, or a method and its attribute."""
    of = job.wildcards
    return of["source"] if "source" in of else f"{of['method']} for {of['attribute']}"


def shares_of(jobs: Iterable[Job], seen: Seen) -> dict[Key, float]:
    """Share of the candidates that are accepted, where some have been judged."""
    tried, kept = Counter[Key](), Counter[Key]()
    for job in jobs:
        for label, verdicts in seen.get(beside(job), {}).items():
            for of in (None, label):
                tried[source(job), of] += len(verdicts)
                kept[source(job), of] += sum(verdicts)
    return {key: kept[key] / n for key, n in tried.items()}


class Pools:
    """The candidates that jobs have drawn, while they are walked in order. `assumed`: the share accepted of others."""

    def __init__(self, jobs: Iterable[Job], seen: Seen, assumed: float):
        self.seen, self.shares, self.assumed = seen, shares_of(jobs, seen), assumed
        self.drawn = Counter[tuple[object, ...]]()  # attempts at a class, by pool and class

    def draw(self, job: Job, wanted: Wanted) -> tuple[int, int]:
        """Candidates that a job looks at, and those that no job before it has drawn."""
        tried, missing = self._attempts(job, wanted), 0
        for key, n in (((*wanted.pool, label), n) for label, n in enumerate(tried)):
            missing += max(0, n - self.drawn[key])
            self.drawn[key] = max(n, self.drawn[key])
        return sum(tried), missing

    def _attempts(self, job: Job, wanted: Wanted) -> list[int]:
        """At each class."""
        if not job.refuses or not (path := beside(job)):
            return list(wanted.images)
        budget = wanted.budget
        known, quotas = self.seen.get(path, {}), dict(enumerate(wanted.images))
        if len(known) == len(quotas) and all(sum(known[label]) == quota for label, quota in quotas.items()):
            return [attempts(known[label], quota, budget) for label, quota in quotas.items()]
        rng, alike = np.random.default_rng(zlib.crc32(path.encode())), "attribute" not in job.wildcards
        shares = {label: self.shares.get((source(job), None if alike else label), self.assumed) for label in quotas}
        return [int(rng.choice(likely_attempts(shares[label], quota, budget))) for label, quota in quotas.items()]
