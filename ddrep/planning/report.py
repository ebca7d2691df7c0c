"""The forecast as a table that reads well in a terminal: what an experiment will make, and what it will cost."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Sequence

import torch

from ddrep.config import Experiment
from ddrep.derived import shard_of
from ddrep.planning.draws import ASSUMED, RANGE, read_verdicts
from ddrep.planning.plan import DENOISER, ENCODER, Plan, Row
from ddrep.planning.sizes import denoiser_of, sizes_of
from ddrep.planning.speed import Speeds, measure
from ddrep.planning.stages import rows
from ddrep.reporting.markdown import grid
from ddrep.runs import shards_asked
from ddrep.sources import synthetic

WIDTH = 100
MEASUREMENT = 5.0
"""Seconds."""
EXPLANATION = (
    "Images: accepted ones. Denoiser, encoder (the part of it that features need), classifiers (and guides): images "
    "passed through these networks, once each; passes backward are in the time alone. Disk: at most, of what stays. "
    "Time: of all jobs one after another."
)
CHAINS = (
    ("pretrain", "finetune", "pixel_threshold", "synthesis", "classifier"),
    ("pretrain", "attribute_guide", "attribute_shard", "attribute_score"),
    ("pretrain", "mask_guide", "mask_shard", "mask_score"),
)
"""Stages that wait for each other, and whose jobs are the longest."""


def run(experiment: Experiment, cores: int | None, gpus: int | None, light_startup: float) -> None:
    """Print the forecast of the whole experiment on so many cores and GPUs; by default those at hand.

    light_startup: seconds that this process took before it imported torch.
    """
    startups = time.process_time(), light_startup  # this very process has imported what the jobs import
    cores = cores or len(os.sched_getaffinity(0))
    sizes, remarks = sizes_of(experiment)
    network, more = denoiser_of(experiment, sizes.image)
    plan = Plan(experiment, sizes, network, cores, read_verdicts(experiment))
    speeds, slow = measure(plan, startups, MEASUREMENT)
    print(report(plan, speeds, gpus or torch.cuda.device_count(), [*remarks, *more, *slow]))


def report(plan: Plan, speeds: Speeds, gpus: int, remarks: Sequence[str]) -> str:
    """The whole text. gpus: how many there are; 0 for none."""
    stages = rows(plan)
    titles = ["Stage", "Jobs", "Images", "Denoiser", "Encoder", "Classifiers", "Disk", "Time"]
    lines = [_line(f"{row.rule} {row.what}".strip(), [row], speeds) for row in stages]
    table = grid(titles, [*lines, _line("total", stages, speeds)], 1)
    machine = f"{plan.cores} cores" + (f" and {gpus} GPUs" if gpus else "")
    where = torch.cuda.get_device_name() if speeds.device.type == "cuda" else "this CPU"
    seconds = elapsed(plan, stages, speeds, gpus)
    whole = f"On {machine} with nothing else to do, going by {where}: about {_time(seconds)}."
    notes = [EXPLANATION, _acceptance(plan), *(f"Note: {remark}." for remark in remarks), whole]
    return "\n\n".join([f"# {plan.experiment.experiment}", table, *(textwrap.fill(note, WIDTH) for note in notes)])


def _line(name: str, stages: Sequence[Row], speeds: Speeds) -> list[str]:
    """Jobs, images, passes through denoisers, their encoders and classifiers, disk and time."""
    counts = [sum(len(row.jobs) for row in stages), sum(row.images for row in stages)]
    counts += [sum(row.passes(*names) for row in stages) for names in ((DENOISER,), (ENCODER,), ())]
    disk, seconds = sum(row.disk for row in stages), sum(sum(_seconds(row, speeds)) for row in stages)
    return [name, *(f"{n:,}" if n else "" for n in counts), _bytes(disk), _time(seconds)]


def _seconds(row: Row, speeds: Speeds) -> list[float]:
    """Of each job; `all` is a target without work."""
    return [speeds.of(job, row.threads) for job in row.jobs if row.rule != "all"]


def elapsed(plan: Plan, stages: Sequence[Row], speeds: Speeds, gpus: int) -> float:
    """Seconds from start to end: as long as the cores, the GPUs, or the longest chain of waiting jobs take."""
    seconds = {row: _seconds(row, speeds) for row in stages}
    cores = sum(sum(of) * row.threads for row, of in seconds.items()) / plan.cores
    devices = sum(sum(of) for row, of in seconds.items() if any(row.jobs)) / gpus if gpus else 0.0
    longest = {row.rule: 0.0 for row in stages}
    for row, of in seconds.items():
        longest[row.rule] = max(longest[row.rule], *of, 0.0)
    return max(cores, devices, *(sum(longest.get(rule, 0.0) for rule in chain) for chain in CHAINS))


def _acceptance(plan: Plan) -> str:
    """What the numbers of candidates rest on."""
    e, seen, results = plan.experiment, plan.seen, f"results/{plan.experiment.experiment}"
    shares: dict[str, float | None] = {}
    if "attributes" in e.parts and "rejection" in e.table1.methods and e.table1.threshold:
        shares |= {f"rejection for {name}": seen.guided_acceptance(name, 0, 1) for name in e.attributes.having}
    if "augmentation" in e.parts:
        asked = {source for _, source in shards_asked(e)}
        shares |= {s: seen.acceptance(s) for s in synthetic() if s in asked and shard_of(s, e).synthesis.threshold}
    known = ", ".join(f"{share:.1%} of {source}" for source, share in shares.items() if share is not None)
    guessed = ", ".join(source for source, share in shares.items() if share is None)
    parts = [f"Accepted of the candidates, as seen in {results}: {known}."] if known else []
    if guessed:
        low, high = (sum(row.passes(DENOISER) for row in rows(plan, share)) for share in RANGE)
        parts.append(
            f"Assumed that {ASSUMED:.0%} of the candidates of {guessed} are accepted; at {RANGE[0]:.0%} the denoiser's "
            f"total is {low:,}, at {RANGE[1]:.0%} {high:,}. What does not hang on that is exact."
        )
    return " ".join(parts) or "Nothing is refused: all numbers are exact."


def _bytes(n: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n / 1e3:.0f} kB" if n else ""


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
