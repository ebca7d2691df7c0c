"""How many candidates the engine will draw: exactly where nothing is refused and where shards are there, else guessed.

Sources of the same sampling settings share their candidates through the pool; each is counted once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ddrep.config import SYNTHETIC, Experiment, shard_of
from ddrep.runs import shard_paths, shards_asked
from ddrep.sampling.synthesis import Tally

ASSUMED = 0.5
"""Share of the candidates that a rejection classifier accepts, where none has been judged."""
RANGE = (0.8, 0.3)
"""Shares that a sensible threshold gives: the cheapest and the dearest."""
TRIALS = 256

Place = tuple[int, str, int]
"""Labelled subset, source, number of the shard."""


@dataclass(frozen=True)
class Draws:
    """Of one shard. `judged`: candidates the source looks at; `drawn`: those that no source before it has drawn."""

    judged: int
    drawn: int


@dataclass(frozen=True)
class Seen:
    """The verdicts on the attempts of shards that are there, in order, by class."""

    verdicts: dict[Place, dict[int, list[bool]]] = field(default_factory=dict)

    def acceptance(self, source: str) -> float | None:
        """Share accepted of all attempts of a source; None where there are none."""
        every = [v for (_, name, _), by_class in self.verdicts.items() if name == source for v in by_class.values()]
        attempts = sum(map(len, every))
        return sum(map(sum, every)) / attempts if attempts else None


def read_verdicts(experiment: Experiment) -> Seen:
    """From the attempts beside the shards in results/{experiment}."""
    results, per_scale, seen = Path("results", experiment.experiment), experiment.synthesis.shards_per_scale, Seen()
    for (subset, source), scale in shards_asked(experiment).items():
        for index, shard in enumerate(shard_paths(subset, source, scale, per_scale)):
            if (table := results / shard.with_suffix(".parquet")).is_file():
                rows = pd.read_parquet(table, columns=["class", "accepted"])
                by_class = {int(str(label)): part.tolist() for label, part in rows.groupby("class")["accepted"]}
                seen.verdicts[subset, source, index] = by_class
    return seen


def draws_of(experiment: Experiment, classes: int, seen: Seen, assumed: float = ASSUMED) -> dict[Place, Draws]:
    """What every shard takes. `assumed`: the acceptance where none has been seen."""
    sharing: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    asked = shards_asked(experiment)
    for source in SYNTHETIC:
        settings = shard_of(source, experiment).sampling.model_dump_json()
        for subset in {subset for subset, name in asked if name == source}:
            for index in range(asked[subset, source] * experiment.synthesis.shards_per_scale):
                sharing[settings, subset, index].append(source)
    draws: dict[Place, Draws] = {}
    for (_, subset, index), sources in sharing.items():
        there = np.zeros(classes, int)
        for name in sources:
            place = (subset, name, index)
            judged = _judged(experiment, place, classes, seen, assumed)
            draws[place] = Draws(int(judged.sum()), int((judged - there).clip(min=0).sum()))
            there = np.maximum(there, judged)
    return draws


def _judged(experiment: Experiment, place: Place, classes: int, seen: Seen, assumed: float) -> np.ndarray:
    """Attempts at each class (classes,)."""
    subset, source, index = place
    cfg = shard_of(source, experiment).synthesis
    quota = cfg.per_class // cfg.shards_per_scale
    verdicts = seen.verdicts.get(place, {})
    if len(verdicts) == classes and all(sum(of_class) == quota for of_class in verdicts.values()):
        return np.array([attempts(verdicts[label], quota, quota * cfg.max_attempts) for label in range(classes)])
    if not cfg.threshold:
        return np.full(classes, quota)
    found = seen.acceptance(source)
    trials = _trials(assumed if found is None else found, quota, quota * cfg.max_attempts)
    return np.random.default_rng((subset, SYNTHETIC.index(source), index)).choice(trials, size=classes)


def attempts(verdicts: Iterable[bool], quota: int, budget: int) -> int:
    """Attempts at a class that the engine makes, rounds and all, given the verdict on each up to the last it needs."""
    tally, verdict = Tally(0, threshold=1), iter(verdicts)
    while wanted := tally.wanted(quota, budget):
        tally.p += [float(next(verdict, True)) for _ in wanted]
    return len(tally.p)


@lru_cache
def _trials(acceptance: float, quota: int, budget: int) -> np.ndarray:
    """Attempts at a class whose candidates are accepted at random, (TRIALS,)."""
    rng = np.random.default_rng(0)
    return np.array([attempts(rng.random(budget) < acceptance, quota, budget) for _ in range(TRIALS)])
