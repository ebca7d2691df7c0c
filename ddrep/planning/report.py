"""The forecast as a table that reads well in a terminal: what an experiment will make, and what it will cost."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ddrep.checks import paths
from ddrep.config import Experiment
from ddrep.cost import DENOISER, ENCODER
from ddrep.planning.dag import jobs_of
from ddrep.planning.draws import ASSUMED, RANGE, beside, read_verdicts, shares_of, source
from ddrep.planning.forecast import Plan, Step, by_row, elapsed, forecast
from ddrep.planning.sizes import denoiser_of, sizes_of
from ddrep.planning.speed import measure
from ddrep.reporting.markdown import grid

EXPLANATION = (
    "Images: accepted ones. Denoiser, encoder (the part of it that features need), classifiers (and guides): images "
    "passed through these networks, once each; passes backward are in the time alone. Disk: at most, of what stays. "
    "Time: of all jobs one after another, with denoisers and classifiers; what is small beside them is left out."
)


@dataclass(frozen=True)
class Forecast:
    """What an experiment will cost on so many cores and GPUs. `seconds` is of a step, `remarks` what was not there."""

    plan: Plan
    steps: list[Step]
    seconds: Callable[[Step], float]
    cores: int
    gpus: int
    where: str
    remarks: list[str]

    @property
    def elapsed(self) -> float:
        """Seconds from start to end, with nothing else to do."""
        return elapsed(self.steps, self.seconds, self.cores, self.gpus)

    @property
    def whole(self) -> str:
        """How long it takes from start to end, and on what."""
        machine = f"{self.cores} cores" + (f" and {self.gpus} GPUs" if self.gpus else "")
        return f"On {machine} with nothing else to do, going by {self.where}: about {time_text(self.elapsed)}."


def forecast_of(
    experiment: Experiment, cores: int | None, gpus: int | None, startup: float, patience: float = 5.0
) -> Forecast:
    """The forecast on so many cores and GPUs; by default those at hand.

    startup: seconds that this process took before it imported torch, which jobs do not (ddrep.warm); patience: seconds
    of measurement. Raises UserError.
    """
    cores, gpus = cores or len(os.sched_getaffinity(0)), torch.cuda.device_count() if gpus is None else gpus
    jobs, (sizes, remarks) = jobs_of(experiment, cores), sizes_of(experiment)
    network, more = denoiser_of(experiment, sizes.image)
    missing = [said.partition(";")[0] for said in paths.absent(experiment) if not said.startswith("denoiser.file")]
    plan = Plan(experiment, jobs, sizes, network, read_verdicts(jobs))
    steps, speeds = forecast(plan), measure(plan, startup, seconds=patience)
    seconds = lambda step: speeds.of(step.passes, step.job.threads) if step.job.verb else 0.0  # noqa: E731
    where = torch.cuda.get_device_name() if speeds.device.type == "cuda" else "this CPU"
    return Forecast(plan, steps, seconds, cores, gpus, where, [*missing, *remarks, *more])


def run(experiment: Experiment, cores: int | None, gpus: int | None, startup: float) -> None:
    """Print the forecast of the whole experiment. Raises UserError."""
    made = forecast_of(experiment, cores, gpus, startup)
    notes = [EXPLANATION, _acceptance(made.plan), *(f"Note: {it}." for it in made.remarks), made.whole]
    wrapped = [textwrap.fill(note, width=100) for note in notes]
    print("\n\n".join([f"# {experiment.experiment}", _table(made.steps, made.seconds), *wrapped]))


def _table(steps: Sequence[Step], seconds: Callable[[Step], float]) -> str:
    titles = ["Stage", "Jobs", "Images", "Denoiser", "Encoder", "Classifiers", "Disk", "Time"]
    return grid(titles, [_line(name, of, seconds) for name, of in {**by_row(steps), "total": steps}.items()], 1)


def _line(name: str, steps: Sequence[Step], seconds: Callable[[Step], float]) -> list[str]:
    counts = [len(steps), sum(step.images for step in steps)]
    counts += [sum(step.through(*names) for step in steps) for names in ((DENOISER,), (ENCODER,), ())]
    disk, work = sum(step.disk for step in steps), sum(map(seconds, steps))
    return [name, *(f"{n:,}" if n else "" for n in counts), _bytes(disk), time_text(work)]


def _acceptance(plan: Plan) -> str:
    """What the numbers of candidates rest on."""
    refusing = (source(job) for job in plan.jobs if job.refuses and beside(job))
    shares, sources = shares_of(plan.jobs, plan.seen), list(dict.fromkeys(refusing))
    known = ", ".join(f"{shares[name, None]:.1%} of {name}" for name in sources if (name, None) in shares)
    guessed = ", ".join(name for name in sources if (name, None) not in shares)
    parts = [f"Accepted of the candidates, as seen in results: {known}."] if known else []
    if guessed:
        low, high = (sum(step.through(DENOISER) for step in forecast(plan, share)) for share in RANGE)
        parts.append(
            f"Assumed that {ASSUMED:.0%} of the candidates of {guessed} are accepted; at {RANGE[0]:.0%} the denoiser's "
            f"total is {low:,}, at {RANGE[1]:.0%} {high:,}. What does not hang on that is exact."
        )
    return " ".join(parts) or "Nothing is refused: all numbers are exact."


def _bytes(n: int) -> str:
    return f"{n / 1e9:,.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB" if n else ""


def time_text(seconds: float) -> str:
    """In the unit that reads best."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
