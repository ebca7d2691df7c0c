"""What one image costs in each network on the device at hand, from some seconds of measurement.

On a CPU it is the processor time of one thread, so that other work beside it hardly matters: several threads, one
of them without a core, burn time in waiting for it. More threads are taken to be faster in proportion.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.planning.plan import TRAINING, Job, Plan
from ddrep.planning.trials import Pass, Trial, trials

INFERENCE = 1 / 3
"""Of a training pass: the usual rule that a backward pass costs two forward passes."""
LONG, REPEATED = 0.3, 3
"""Seconds of trials that need not be repeated; how often others are."""


@dataclass(frozen=True)
class Speeds:
    """Seconds an image by network, of one thread on a CPU, and before a job's work begins, with torch and without."""

    seconds: dict[str, float]
    startup: float
    light_startup: float
    device: torch.device

    def of(self, job: Job, threads: int) -> float:
        """Seconds of a job; networks that could not be measured take none."""
        work = sum(self.seconds.get(key, 0.0) * n for key, n in job.items())
        return (self.startup if job else self.light_startup) + work / (threads if self.device.type == "cpu" else 1)


def measure(plan: Plan, startups: tuple[float, float], seconds: float) -> tuple[Speeds, list[str]]:
    """Speeds, and remarks on what could not be measured; in about `seconds`, but one pass of each network at least.

    startups: seconds before a job's work begins, with torch and without.
    """
    device, found, remarks = pick_device(), {}, []
    torch.set_num_threads(1)
    clock, wanted = _clock(device), trials(plan, device)
    ends = clock() + seconds
    for i, trial in enumerate(wanted):
        try:
            found[trial.network] = trial.worth * _per_image(
                trial, clock, clock() + (ends - clock()) / (len(wanted) - i)
            )
        except UserError as e:
            remarks.append(f"time of {trial.network} left out: {e}")
    for key in [key for key in found if key.endswith(TRAINING)]:
        found.setdefault(key.removesuffix(TRAINING), INFERENCE * found[key])
    return Speeds(found, *startups, device), remarks


def _per_image(trial: Trial, clock: Callable[[], float], ends: float) -> float:
    """Seconds an image in batches of trial.batch, from smaller ones if the clock would pass `ends` with these.

    No more than an image in a smaller batch takes: the first large one pays for memory that a job gets once.
    """
    run, batch, times = trial.make(), min(trial.smallest, trial.batch), dict[int, float]()
    while True:
        times[batch] = _least(run, batch, clock)
        larger = min(4 * batch, trial.batch)
        if larger == batch or clock() + times[batch] * larger / batch > ends:
            return min(_extrapolated(times, trial.batch) / trial.batch, *(t / n for n, t in times.items()))
        batch = larger


def _least(run: Pass, batch: int, clock: Callable[[], float]) -> float:
    """Seconds of a batch. The first is the dearest, for kernels are chosen and memory taken; long ones count as is."""
    costs: list[float] = []
    while len(costs) < REPEATED and sum(costs) < LONG:
        before = clock()
        run(batch)
        costs.append(clock() - before)
    return min(costs)


def _extrapolated(times: dict[int, float], batch: int) -> float:
    """Seconds of a batch along the line through the two largest measured: part of a step costs the same at any size."""
    (small, least), (large, most) = sorted({0: 0.0, **times}.items())[-2:]
    return most + max(0.0, most - least) / (large - small) * (batch - large)


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds; on a CPU those for which this process has had a core."""
    if device.type == "cpu":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised
