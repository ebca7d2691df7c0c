"""Which classifier runs and shards the tables ask for, and where they lie."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from ddrep.config import SYNTHETIC, Experiment


@dataclass(frozen=True, order=True)
class Run:
    """One trained classifier. `real` is False for Table 3's classifiers, which see synthetic images alone."""

    subset: int
    architecture: str
    mix: bool
    source: str
    scale: int
    seed: int
    real: bool = True

    @property
    def path(self) -> Path:
        """Its row, relative to results/{experiment}; the predictions lie beside it."""
        group = "classifiers" if self.real else "cas"
        mix = "mix" if self.mix else "plain"
        return Path(
            f"subset{self.subset}/{group}/{self.architecture}/{mix}/{self.source}/{self.scale}x/{self.seed}.parquet"
        )

    @property
    def predictions(self) -> Path:
        return self.path.with_suffix(".predictions.parquet")


def table4_runs(experiment: Experiment) -> list[Run]:
    """The runs of every block, each once."""
    runs = set()
    for block in experiment.table4:
        lists = (block.subsets, block.architectures, block.mix, block.sources, block.scales, block.seeds)
        runs |= {Run(*values) for values in itertools.product(*lists) if (values[3] == "real") == (values[4] == 0)}
    return sorted(runs)


def table3_runs(experiment: Experiment) -> list[Run]:
    """Real images alone (shared with Table 4), then each synthetic source alone; each run once."""
    t = experiment.table3
    pairs = list(itertools.product(t.subsets, t.seeds))
    real = [Run(k, t.architecture, False, "real", 0, s) for k, s in pairs]
    alone = [Run(k, t.architecture, False, source, 1, s, real=False) for source in t.sources for k, s in pairs]
    return list(dict.fromkeys(real + alone))


def needs_shards(run: Run) -> bool:
    """Whether the run trains on synthetic images."""
    return run.source in SYNTHETIC


def shard_paths(subset: int, source: str, scale: int, shards_per_scale: int) -> list[Path]:
    """The shards of a source up to a scale, relative to results/{experiment}; none for real images."""
    count = scale * shards_per_scale if source in SYNTHETIC else 0
    return [Path(f"subset{subset}/synthetic/{source}/{index:05d}.tar") for index in range(count)]


def shards_asked(experiment: Experiment) -> dict[tuple[int, str], int]:
    """(subset, source) -> the largest scale that a run or a figure wants."""
    asked = {(0, source): 1 for source in ("improved-ddpm", "classifier-free", "ours")}
    for run in table3_runs(experiment) + table4_runs(experiment):
        if needs_shards(run):
            asked[run.subset, run.source] = max(run.scale, asked.get((run.subset, run.source), 0))
    return asked


def all_runs(experiment: Experiment) -> list[Run]:
    """Those of both tables, each once."""
    return list(dict.fromkeys(table3_runs(experiment) + table4_runs(experiment)))


def all_shards(experiment: Experiment) -> list[Path]:
    """Every synthetic shard, relative to results/{experiment}."""
    per_scale = experiment.synthesis.shards_per_scale
    return [
        shard
        for (subset, source), scale in shards_asked(experiment).items()
        for shard in shard_paths(subset, source, scale, per_scale)
    ]


def adapted_subsets(experiment: Experiment) -> list[int]:
    """The labelled subsets for which a denoiser is fine-tuned."""
    return sorted({subset for subset, _ in shards_asked(experiment)})
