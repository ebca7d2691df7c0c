"""Labelled training images from an unconditional diffusion model: the whole experiment of config.yaml.

Every stage is one file of workflow/rules. A rule runs one `ddrep` command, and its one param is the canonical JSON of the
section that the command obeys: a changed setting replans its own stage, and what follows from it, alone.
"""

import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from ddrep import config as settings
from ddrep.config import (
    Section,
    accuracy_table_of,
    attribute_images_of,
    data_of,
    denoiser_path,
    guidance_table_of,
    guide_of,
    guided_of,
    scores_of,
    shard_of,
    stage_json,
    subset_seed,
    training_of,
)
from ddrep.data.digest import tracked_json
from ddrep.errors import UserError
from ddrep.runs import (
    cost_attempts,
    cost_jobs,
    figure2_runs,
    guide_folders,
    shard_paths,
    shards_asked,
    table1_runs,
    table2_runs,
    table3_runs,
    table4_runs,
    targets,
)

min_version("9.0")


configfile: "config.yaml"


try:
    EXPERIMENT = settings.parse(config)
    if workflow.is_main_process:  # not in every job as well
        from ddrep.checks import check

        check(EXPERIMENT)
except UserError as e:
    print(f"ddrep: {e}", file=sys.stderr)
    sys.exit(2)

NAME, SEED = EXPERIMENT.experiment, EXPERIMENT.seed
DENOISER = denoiser_path(EXPERIMENT)
SHARDS_PER_SCALE = EXPERIMENT.synthesis.shards_per_scale
# `workflow.cores` would refuse what computes nothing and is given none: --unlock, --dag.
CORES = workflow.resource_settings.cores or 1
# Threads of the jobs that others wait for; beyond 4 a small denoiser gains nothing.
WAITED_FOR = min(4, CORES)
# `ddrep` is found beside the Python that runs Snakemake, activated or not.
shell.prefix(f'PATH="$PATH":{shlex.quote(str(Path(sys.executable).parent))}; '.replace("{", "{{").replace("}", "}}"))
# Jobs that ask for a turn (workflow/profiles/slurm) run one at a time in a group, on its one GPU, whatever --resources are.
workflow.register_resource("turn", 1)


resource_scopes:
    turn="local",


wildcard_constraints:
    experiment=NAME.replace(".", r"\."),
    subset=r"\d+",
    split="validation|test",
    source="[a-z-]+",
    index=r"\d{5}",
    architecture="[^/]+",
    mix="plain|mix",
    scale=r"\d+",
    train_seed=r"\d+",
    run=r"\d+",
    attribute="[A-Za-z0-9_-]+",
    part="train|test|oracle",
    reads="features|pixels",
    method="unguided|rejection|ddim-i|ours",
    steps=r"\d+",
    number="[34]",


rule all:
    default_target: True
    input:
        [f"results/{NAME}/{target}" for target in targets(EXPERIMENT)],


include: "workflow/rules/plan.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/denoiser.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/rejection.smk"
include: "workflow/rules/synthesis.smk"
include: "workflow/rules/classifiers.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/costs.smk"
include: "workflow/rules/attributes.smk"
include: "workflow/rules/masks.smk"
