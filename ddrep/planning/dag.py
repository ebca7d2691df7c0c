"""The jobs of an experiment as Snakemake plans them from nothing, read from its own DAG."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    snakefile = Path("Snakefile")
    if not snakefile.is_file():
        raise UserError("Snakefile: not in this folder; call `ddrep plan` where it lies beside config.yaml")
    config = types.ConfigSettings(config=experiment.model_dump(mode="json"), replace_workflow_config=True)
    as_a_job, resources = types.WorkflowSettings(exec_mode=ExecMode.SUBPROCESS), types.ResourceSettings(cores=cores)
    with SnakemakeApi(types.OutputSettings(quiet={types.Quietness.ALL})) as api:
        described = api.workflow(resources, config, workflow_settings=as_a_job, snakefile=snakefile)
        described.dag(types.DAGSettings(forceall=True))
        workflow = described._workflow  # what SnakemakeApi itself offers of a DAG has no threads and no params
        workflow._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True, nolock=True)
        workflow._build_dag()
        rules, found = [rule.name for rule in workflow.rules], dict[Any, Job]()
        for layer in workflow.dag.toposorted():
            made = {job: _job(job, rules, [found[other] for other in workflow.dag.dependencies[job]]) for job in layer}
            found |= dict(sorted(made.items(), key=lambda pair: (pair[1].refuses, *pair[1].outputs.values())))
    return list(found.values())


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
