"""The verb that says what an experiment will cost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from ddrep.checks import check
from ddrep.cli.base import Light
from ddrep.config import load


class Plan(Light):
    """Print what the whole experiment will make and cost: jobs, images, network evaluations, disk and time."""

    configfile: list[Path] = []
    """Overlays on config.yaml, in their order, as for snakemake: --configfile a.yaml b.yaml."""
    cores: Annotated[int, Ge(1)] | None = None
    """Cores to run on; the default is all of this machine's."""
    gpus: Annotated[int, Ge(0)] | None = None
    """GPUs to run on; the default is all of this machine's."""

    def run(self) -> None:
        experiment, startup = load(Path("config.yaml"), *self.configfile), time.process_time()
        check(experiment, absent=False)
        from ddrep.planning.report import run

        run(experiment, self.cores, self.gpus, startup)
