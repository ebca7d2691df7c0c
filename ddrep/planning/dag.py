"""The jobs of an experiment as Snakemake plans them from nothing, read from its own DAG."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings import types
from snakemake_interface_executor_plugins.settings import ExecMode

from ddrep.config import Experiment
from ddrep.cost import Job
from ddrep.errors import UserError


def jobs_of(experiment: Experiment, cores: int) -> list[Job]:
    """Every job behind those that it waits for, and what refuses candidates behind what does not. Raises UserError.

    Read as Snakemake reads the workflow in a job's own process, where nobody asks for files that are not there yet.
    """
    found = dict[Any, Job]()
    with _workflow(experiment, cores, types.WorkflowSettings(exec_mode=ExecMode.SUBPROCESS), recover=False) as workflow:
        rules = [rule.name for rule in workflow.rules]
        for layer in workflow.dag.toposorted():
            made = {job: _job(job, rules, [found[other] for other in workflow.dag.dependencies[job]]) for job in layer}
            found |= dict(sorted(made.items(), key=lambda pair: (pair[1].refuses, *pair[1].outputs.values())))
    return list(found.values())


@contextlib.contextmanager
def _workflow(experiment: Experiment, cores: int, how: types.WorkflowSettings, recover: bool) -> Iterator[Any]:
    """Snakemake's workflow, its DAG built, whoever has locked the folder: of all jobs; or, unlocked before, of those
    left."""
    snakefile = Path("Snakefile")
    if not snakefile.is_file():
        raise UserError(f"{snakefile}: not in this folder; call ddrep where it lies beside config.yaml")
    config = types.ConfigSettings(config=experiment.model_dump(mode="json"), replace_workflow_config=True)
    resources = types.ResourceSettings(cores=cores)
    with SnakemakeApi(types.OutputSettings(quiet={types.Quietness.ALL})) as api:
        described = api.workflow(resources, config, workflow_settings=how, snakefile=snakefile)
        dag = described.dag(types.DAGSettings(forceall=not recover))
        if recover:
            dag.unlock()
        workflow = described._workflow  # what SnakemakeApi itself offers of a DAG has no threads and no params
        workflow._prepare_dag(forceall=not recover, ignore_incomplete=True, lock_warn_only=True, nolock=True)
        workflow._build_dag()
        yield workflow


@dataclass(frozen=True)
class Marked:
    """A job that Snakemake began and did not see end."""

    command: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    log: Path
    benchmark: Path | None
    begun: float
    """By the clock of the folder."""


def recovered(experiment: Experiment, cores: int, whole: Callable[[Marked], bool]) -> list[Path]:
    """Take away Snakemake's locks of this folder, and its marks of jobs that are `whole`, which it then knows as if it
    had seen them end; their first outputs. Raises UserError."""
    found = []
    with _workflow(experiment, cores, types.WorkflowSettings(), recover=True) as workflow:
        known = workflow.persistence
        workflow.execution_settings = types.ExecutionSettings()
        for job in workflow.dag.jobs:
            if workflow.async_run(known.incomplete(job)) and whole(marked := _marked(job, known)):
                workflow.async_run(known.finished(job))
                found.append(marked.outputs[0])
    return sorted(found)


def _marked(job: Any, known: Any) -> Marked:
    begun = min(known._get_recorded_starttime(known._get_key(file)) or math.inf for file in job.output)
    inputs, outputs = (tuple(map(Path, files)) for files in (job.input, job.output))
    benchmark = Path(job.benchmark) if job.benchmark else None
    return Marked(job.shellcmd or "", inputs, outputs, Path("".join(job.log)), benchmark, begun)


def _job(job: Any, rules: Sequence[str], after: Sequence[Job]) -> Job:
    gpus, of, words = job.resources.get("gpu", 0), dict(job.wildcards.items()), job.rule.params.get("words")
    verb = words(job.wildcards, job.output, job.resources).split()[0] if words else ""
    # other stages are told of their data sets, and the line of a data set takes a look at all of its files
    stage = json.loads(job.params.get("stage", "{}")) if gpus else {}
    rank = rules.index(job.rule.name) if job.output else len(rules)
    files = _paths(job.input), _paths(job.output)
    beside = "".join(job.log), str(job.benchmark or "")
    return Job(job.rule.name, verb, of, *files, stage, job.threads, gpus, rank, tuple(after), *beside)


def _paths(files: Any) -> dict[str, tuple[str, ...]]:
    """By name; "" is that of those without, which are the first."""
    named = {name: (given,) if isinstance(given, str) else tuple(given) for name, given in files.items()}
    return {"": tuple(files[: len(files) - sum(map(len, named.values()))]), **named}
