"""The stages of the workflow as rows of a forecast: their jobs, and what each job passes through which network.

Names and numbers of jobs are those of `snakemake -n` before anything is made.
"""

from __future__ import annotations

from ddrep.planning import augmentation, guidance
from ddrep.planning.draws import ASSUMED
from ddrep.planning.plan import DENOISER, PRETRAINING, Plan, Row, weights

PARTS = {"attributes": guidance.attributes, "masks": guidance.masks, "augmentation": augmentation.rows}


def rows(plan: Plan, assumed: float = ASSUMED) -> list[Row]:
    """All stages in the order in which they run. `assumed`: the acceptance of candidates where none has been seen."""
    parts = [rows_of(plan, assumed) for part, rows_of in PARTS.items() if part in plan.experiment.parts]
    return [*_pretrain(plan), *(row for part in parts for row in part), Row("costs", ({},)), Row("all", ({},))]


def _pretrain(plan: Plan) -> list[Row]:
    cfg = plan.experiment.denoiser.pretrain
    if plan.experiment.denoiser.kind != "pretrain":
        return []
    job = {DENOISER + PRETRAINING: cfg.steps * cfg.batch, DENOISER: 64 * 20}  # the grid: 64 samples of 20 steps
    return [Row("pretrain", (job,), disk=weights(plan.network), threads=plan.cores)]
