"""How many candidates the engine will draw: exactly where nothing is refused and where shards are there, else guessed.

Sources of the same sampling settings share their candidates through the pool; each is counted once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ddrep.config import Experiment
from ddrep.derived import shard_of
from ddrep.runs import GuidedRun, shard_paths, shards_asked, table1_runs
from ddrep.sampling.engine import Tally
from ddrep.sources import SOURCES, synthetic

ASSUMED = 0.5
"""Share of the candidates that a rejection classifier accepts, where none has been judged."""
RANGE = (0.8, 0.3)
"""Shares that a sensible threshold gives: the cheapest and the dearest."""
TRIALS = 256
DRAWING = sorted(synthetic(), key=lambda source: SOURCES[source].judge.matched)
"""The sources in the order in which they come to draw: the control waits for its threshold."""

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
    guided: dict[GuidedRun, dict[int, list[bool]]] = field(default_factory=dict)
    """Of Table 1's method rejection; class 1 has the attribute."""

    def acceptance(self, source: str) -> float | None:
        """Share accepted of all attempts of a source; None where there are none."""
        return _share(
            v for (_, name, _), by_class in self.verdicts.items() if name == source for v in by_class.values()
        )

    def guided_acceptance(self, attribute: str | None, *labels: int) -> float | None:
        """The same of the images that were to have an attribute (1), or not to (0)."""
        return _share(v[label] for run, v in self.guided.items() if run.attribute == attribute for label in labels)


def _share(verdicts: Iterable[list[bool]]) -> float | None:
    every = list(verdicts)
    attempts = sum(map(len, every))
    return sum(map(sum, every)) / attempts if attempts else None


def read_verdicts(experiment: Experiment) -> Seen:
    """From the attempts beside the shards in results/{experiment}."""
    results, per_scale, seen = Path("results", experiment.experiment), experiment.synthesis.shards_per_scale, Seen()
    for (subset, source), scale in shards_asked(experiment).items():
        for index, shard in enumerate(shard_paths(subset, source, scale, per_scale)):
            if (table := results / shard.with_suffix(".parquet")).is_file():
                seen.verdicts[subset, source, index] = _by_class(table)
    for run in table1_runs(experiment):
        if run.method == "rejection" and (table := results / run.attempts).is_file():
            seen.guided[run] = _by_class(table)
    return seen


def _by_class(attempts: Path) -> dict[int, list[bool]]:
    rows = pd.read_parquet(attempts, columns=["class", "accepted"])
    return {int(str(label)): part.tolist() for label, part in rows.groupby("class")["accepted"]}


def draws_of(experiment: Experiment, classes: int, seen: Seen, assumed: float = ASSUMED) -> dict[Place, Draws]:
    """What every shard takes. `assumed`: the acceptance where none has been seen."""
    sharing: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    asked = shards_asked(experiment)
    for source in DRAWING:
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
    budget = quota * cfg.max_attempts
    if (known := counted(seen.verdicts.get(place, {}), classes, quota, budget)) is not None:
        return known
    if not cfg.threshold:
        return np.full(classes, quota)
    found = seen.acceptance(source)
    likely = trials(assumed if found is None else found, quota, budget)
    return np.random.default_rng((subset, synthetic().index(source), index)).choice(likely, size=classes)


def counted(verdicts: Mapping[int, list[bool]], classes: int, quota: int, budget: int) -> np.ndarray | None:
    """Attempts at each class (classes,) that led to these verdicts; None where they are of another quota."""
    if len(verdicts) == classes and all(sum(of_class) == quota for of_class in verdicts.values()):
        return np.array([attempts(verdicts[label], quota, budget) for label in range(classes)])
    return None


def attempts(verdicts: Iterable[bool], quota: int, budget: int) -> int:
    """Attempts at a class that the engine makes, rounds and all, given the verdict on each up to the last it needs."""
    tally, verdict = Tally(0, threshold=1), iter(verdicts)
    while wanted := tally.wanted(quota, budget):
        tally.p += [float(next(verdict, True)) for _ in wanted]
    return len(tally.p)


@lru_cache
def trials(acceptance: float, quota: int, budget: int) -> np.ndarray:
    """Attempts at a class whose candidates are accepted at random, (TRIALS,)."""
    rng = np.random.default_rng(0)
    return np.array([attempts(rng.random(budget) < acceptance, quota, budget) for _ in range(TRIALS)])
