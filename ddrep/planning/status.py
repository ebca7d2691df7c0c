"""How far an experiment is, from its files alone: outputs, logs, benchmarks and Snakemake's lock, on whatever machine.

A job is done when its outputs are there; what is there but out of date, `snakemake -n` says.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ddrep.config import Experiment
from ddrep.cost import Job
from ddrep.errors import LOGGED
from ddrep.files import tail
from ddrep.planning.forecast import Step, by_row, elapsed
from ddrep.planning.report import Forecast, forecast_of, time_text
from ddrep.reporting.markdown import grid

DONE, RUNNING, FAILED, STOPPED, LEFT = "done", "running", "failed", "stopped", "left"
STATES = (DONE, RUNNING, FAILED, STOPPED, LEFT)
LOCKS = Path(".snakemake/locks")
SILENCE = 900.0
"""Seconds without a line in its log after which a job is not taken for running."""
EVERY = 30.0
"""Seconds between two looks."""
PICTURES = 3
"""Newest grids of samples that are named."""
STEPS = re.compile(r"step (\d+)/(\d+) .*?([\d.]+) steps/s")
COMMAND = re.compile(r"^(\S+ ddrep \S+) -.*")
"""A log's first line, which has all options."""


@dataclass(frozen=True)
class At:
    """Where a job is: its state, the last line of its log, seconds since that, and those left if the log says them."""

    state: str
    line: str = ""
    since: float = 0.0
    left: float | None = None


def run(experiment: Experiment, cores: int | None, gpus: int | None, startup: float, watch: bool) -> None:
    """Print how far the experiment is; again and again, until it is done, if it is to be watched. Raises UserError."""
    made = forecast_of(experiment, cores, gpus, startup, patience=1.0)
    while True:
        said, over = status(made, time.time())
        print("\033[2J\033[H" * (watch and sys.stdout.isatty()) + said, flush=True)
        if over or not watch:
            return
        time.sleep(EVERY)


def status(made: Forecast, now: float) -> tuple[str, bool]:
    """The text, and whether all is done."""
    steps = [step for step in made.steps if step.job.verb]
    at = {step.job: where(step.job, now) for step in steps}
    counts = {state: sum(each.state == state for each in at.values()) for state in STATES}
    left = _seconds_left(made, steps, at)
    parts = [f"{n} {state}" for state, n in counts.items() if n and state != DONE]
    head = f"{made.plan.experiment.experiment}: {counts[DONE]} of {len(steps)} jobs done"
    if parts:
        to_go = elapsed(steps, lambda step: left[step.job], made.cores, made.gpus)
        head += f", {', '.join(parts)}; about {time_text(to_go)} to go"
    begun = [(job.log, found) for job, found in at.items() if found.state in (RUNNING, FAILED, STOPPED)]
    lines = [f"{found.state}: {log}, {time_text(found.since)} ago: {found.line}" for log, found in begun]
    said = [head, _table(steps, at, left), *lines, *_pictures(made.plan.experiment)]
    return "\n".join(said), counts[DONE] == len(steps)


def where(job: Job, now: float) -> At:
    """State of a job. A running one has written to its log, and Snakemake has the folder."""
    log = Path(job.log)
    if all(Path(path).exists() for paths in job.outputs.values() for path in paths):
        return At(DONE)
    if not log.is_file():
        return At(LEFT)
    text, since = tail(log), now - log.stat().st_mtime
    line = COMMAND.sub(r"\1", text.splitlines()[-1]) if text else ""
    if complaints := LOGGED.findall(text):
        return At(FAILED, complaints[-1], since)
    locked = [lock.stat().st_mtime for lock in LOCKS.glob("*")]
    if not locked or now - since < min(locked) - 1 or since > SILENCE:
        return At(STOPPED, line, since)
    found = STEPS.findall(text)
    left = (int(found[-1][1]) - int(found[-1][0])) / float(found[-1][2]) if found and float(found[-1][2]) else None
    return At(RUNNING, line, since, left)


def _seconds_left(made: Forecast, steps: Sequence[Step], at: dict[Job, At]) -> dict[Job, float]:
    """Of each job: what its log says; or what jobs of its kind took, or its forecast, as wrong as the others' were."""
    took = {step.job: seconds for step in steps if (seconds := _took(step.job)) is not None}
    planned = sum(made.seconds(step) for step in steps if step.job in took)
    wrong = sum(took.values()) / planned if planned else 1.0
    ended = by_row(step for step in steps if step.job in took)
    mean = {row: sum(took[step.job] for step in of) / len(of) for row, of in ended.items()}
    whole = {step.job: mean.get(step.row, wrong * made.seconds(step)) for step in steps}
    return {
        job: 0.0 if each.state == DONE else whole[job] if each.left is None else each.left for job, each in at.items()
    }


def _took(job: Job) -> float | None:
    """Seconds of a job that is done, if Snakemake has noted them."""
    try:
        return float(pd.read_csv(job.benchmark, sep="\t")["s"].iloc[-1])
    except (OSError, ValueError, LookupError):
        return None


def _table(steps: Sequence[Step], at: dict[Job, At], left: dict[Job, float]) -> str:
    """A line a stage."""
    lines = []
    for row, of in by_row(steps).items():
        counts = [sum(at[step.job].state == state for step in of) for state in STATES]
        time_left = sum(left[step.job] for step in of)
        lines.append([row, *(str(n or "") for n in counts), time_text(time_left) if time_left else ""])
    return grid(["stage", *STATES, "to do"], lines, 1)


def _pictures(experiment: Experiment) -> Iterator[str]:
    """The newest grids of samples, by which a bad run is seen early."""
    results = Path("results", experiment.experiment)
    found = [*results.glob("*.png"), *results.glob("subset*/*.png"), *results.glob("logs/**/*.png")]
    newest = sorted(found, key=lambda path: path.stat().st_mtime)[-PICTURES:]
    if newest:
        yield f"pictures: {', '.join(map(str, newest))}"
