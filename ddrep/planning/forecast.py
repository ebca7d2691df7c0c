"""The walk along the jobs: what each passes through which network, keeps on disk, and how long all of them take."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

from ddrep import evaluation, generators, sampling, training
from ddrep.checks.sets import shard_counts
from ddrep.config import Experiment
from ddrep.cost import COSTS, DENOISER, DRAWS, ENCODER, Cost, Job, Passes
from ddrep.data.tars import most_bytes
from ddrep.denoiser.network import UNetConfig
from ddrep.planning.draws import ASSUMED, Pools, Seen
from ddrep.planning.sizes import Sizes

for _room in (evaluation, generators, sampling, training):  # what each stage costs is said beside its `run`
    for _module in pkgutil.iter_modules(_room.__path__):
        importlib.import_module(f"{_room.__name__}.{_module.name}")
KINDS = {
    "synthesize": "source", "guide-attribute": "method", "guide-masks": "method", "generate-attribute": "method",
    "generate-masks": "method", "classify": "architecture",
}  # fmt: skip
"""Verb -> the wildcard that tells its rows in the table apart."""


@dataclass(frozen=True)
class Plan:
    """What is planned with: the settings, the jobs, the sizes, the network if it is known, and the verdicts so far."""

    experiment: Experiment
    jobs: Sequence[Job]
    sizes: Sizes
    network: UNetConfig | None
    seen: Seen


@dataclass(frozen=True)
class Step:
    """A job, and what it does."""

    job: Job
    row: str  # of the table
    passes: Passes
    images: int
    """Accepted images, generated."""
    disk: int
    """Bytes of the outputs, at most."""

    def through(self, *networks: str) -> int:
        """Images through networks of these names, trained or not; without names through the classifiers."""
        every = [(key.split("/")[0], n) for key, n in self.passes.items()]
        return sum(n for name, n in every if (name in networks if networks else name not in (DENOISER, ENCODER)))


def forecast(plan: Plan, assumed: float = ASSUMED) -> list[Step]:
    """What every job will do. `assumed`: the share of candidates accepted where none has been seen."""
    pools, steps, image = Pools(plan.jobs, plan.seen, assumed), [], plan.sizes.image
    shards, looks = dict[str, tuple[int, ...]](), dict[str, Passes]()
    for job in plan.jobs:
        job.shards, job.looks, job.network = shards, looks, plan.network
        made = shard_counts(job, plan.experiment, plan.sizes.splits)
        if draws := job.verb in DRAWS:
            wanted = DRAWS[job.verb](job, plan.sizes.classes)
            job.judged, job.drawn = pools.draw(job, wanted)
            made = () if job.verb == "pixel-threshold" else wanted.images
        cost = COSTS[job.verb](job) if job.verb in COSTS else Cost(Passes())
        for path in (path for paths in job.outputs.values() for path in paths):
            shards[path], looks[path] = made, cost.look
        sizes = (image, (*image[:2], 1)) if job.verb in ("masks", "guide-masks", "generate-masks") else (image,)
        disk = cost.disk + sum(made) * sum(map(most_bytes, sizes)) + job.drawn * prod(image)
        row = f"{job.rule} {job.wildcards.get(KINDS.get(job.verb, ''), '')}".strip()
        steps.append(Step(job, row, cost.passes, sum(made) if draws else 0, disk))
    return steps


def by_row(steps: Iterable[Step]) -> dict[str, list[Step]]:
    """By their rows of the table, in the workflow's order."""
    rows: dict[str, list[Step]] = {}
    for step in sorted(steps, key=lambda step: step.job.rank):
        rows.setdefault(step.row, []).append(step)
    return rows


def elapsed(steps: Sequence[Step], seconds: Callable[[Step], float], cores: int, gpus: int) -> float:
    """Seconds from start to end: as long as the cores, the GPUs, or the longest chain of waiting jobs take."""
    on_cores, on_gpus, ends = 0.0, 0.0, dict[Job, float]()
    for step in steps:
        job, time = step.job, seconds(step)
        ends[job] = time + max((ends[other] for other in job.after), default=0.0)
        on_cores, on_gpus = on_cores + time * job.threads, on_gpus + time * job.gpus
    return max(on_cores / cores, on_gpus / gpus if gpus else 0.0, *ends.values())
