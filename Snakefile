"""Labelled training images from an unconditional diffusion model: the whole experiment of config.yaml.

A rule runs one `ddrep` command, and the one param that Snakemake tracks is the canonical JSON of the section that the command
obeys: a changed setting replans its own stage, and what follows from it, alone.
"""

import shlex
import sys
from functools import partial
from pathlib import Path

from snakemake.utils import min_version

from ddrep import config as settings
from ddrep import runs, warm
from ddrep.derived import network_path, pretrained_on_data, shard_of
from ddrep.errors import UserError
from ddrep.methods import METHODS, generated, generators, guided
from ddrep.registry import declare_members
from ddrep.rules import (
    any_of,
    check_call,
    constrained,
    files,
    growing,
    look_when_jobs_end,
    on_gpu,
    params,
    resolve_first,
)
from ddrep.sources import SOURCES, in_figure, judges, of_origin

min_version("9.13")


configfile: "config.yaml"


try:
    declare_members()
    EXPERIMENT = settings.parse(config)
    if workflow.is_main_process:  # not in every job as well
        from ddrep.checks import check

        check_call(sys.argv)
        for file in workflow.config_settings.configfiles:
            settings.read_yaml(Path(file))
        check(EXPERIMENT)
except UserError as e:
    print(f"ddrep: {e}", file=sys.stderr)
    sys.exit(2)

if workflow.storage_settings.default_storage_provider:
    resolve_first()

NAME = EXPERIMENT.experiment
# What the user brings stays where it is, wherever the results go.
kept = lambda path: path if path.startswith("results/") else local(path)
DENOISER = kept(network_path("denoiser", EXPERIMENT))
EVALUATOR, SEGMENTER, INCEPTION = [
    local(str(path)) if (path := getattr(EXPERIMENT.evaluation, name)) else []
    for name in ("evaluator", "segmenter", "inception")
]
told = partial(params, EXPERIMENT)
shards_of = lambda w, scale: [f"<results>/{path}" for path in runs.shard_paths(w.subset, w.source, scale, EXPERIMENT)]
CONSTRAINTS = {
    "experiment": NAME.replace(".", r"\."),
    "subset": r"\d+|\d+-\d+",
    "split": "validation|test",
    "source": any_of(SOURCES),
    "index": r"\d{5}",
    "architecture": "[^/]+",
    "mix": "plain|mix",
    "scale": r"\d+",
    "train_seed": r"\d+",
    "run": r"\d+",
    "attribute": "[A-Za-z0-9_-]+",
    "part": "train|test|oracle",
    "reads": "features|pixels",
    "generator": any_of(generators()),
    "judge": any_of(judges()),
    "method": any_of(METHODS),
    "steps": r"\d+",
    "number": "[34]",
}
paths = partial(constrained, CONSTRAINTS)
# Guided and generated images lie in folders alike: which rule draws them is told by the method.
of_methods = lambda methods, **given: constrained(
    {**CONSTRAINTS, "method": any_of(methods)}, drawn="<run>/{method}/{steps}", **given
)
# `workflow.cores` would refuse what computes nothing and is given none: --unlock, --dag.
CORES = workflow.resource_settings.cores or 1
# Threads of the jobs that others wait for. With a small denoiser two are 1.4 times as fast as one, and more than 4 gain
# nothing, so the other half of the cores is left to jobs that wait for none of these.
WAITED_FOR = max(1, min(4, CORES // 2))
# `ddrep` is found beside the Python that runs Snakemake, activated or not.
shell.prefix(f'PATH="$PATH":{shlex.quote(str(Path(sys.executable).parent))}; '.replace("{", "{{").replace("}", "}}"))
# Jobs that ask for a turn (workflow/profiles/slurm) run one at a time in a group, on its one GPU, whatever --resources are.
workflow.register_resource("turn", 1)


resource_scopes:
    turn="local",


pathvars:
    **paths(
        results="results/{experiment}",
        subset="<results>/subset{subset}",
        run="<subset>/attributes/{attribute}/{run}",
        drawn="<run>/{method}/{steps}",
        job="job",
    ),


wildcard_constraints:
    **CONSTRAINTS,


onstart:
    if workflow.is_main_process:
        look_when_jobs_end(workflow.scheduler)
        if workflow.local_exec:
            warm.start(len([*workflow.dag.needrun_jobs()]))


rule all:
    default_target: True
    input:
        [f"results/{NAME}/{target}" for target in runs.targets(EXPERIMENT)],


include: "workflow/rules/job.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/denoiser.smk"
include: "workflow/rules/rejection.smk"
include: "workflow/rules/synthesis.smk"
include: "workflow/rules/classifiers.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/costs.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/attributes.smk"
include: "workflow/rules/masks.smk"
