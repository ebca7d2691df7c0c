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
from ddrep.rules import named_files, without_name


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
    verb, gpus = getattr(job.rule.params.get("words"), "verb", ""), job.resources.get("gpu", 0)
    # other stages are told of their data sets, and the line of a data set takes a look at all of its files
    told = job.params.get("stage") if gpus else None
    inputs, outputs = ({name: tuple(of) for name, of in named_files(files)} for files in (job.input, job.output))
    inputs[""] = tuple(without_name(job.input))
    names = job.rule.name, verb, dict(job.wildcards.items())
    rank = rules.index(job.rule.name) if job.output else len(rules)
    return Job(*names, inputs, outputs, json.loads(told) if told else {}, job.threads, gpus, rank, tuple(after))
