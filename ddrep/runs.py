"""Which classifier runs and shards the tables ask for, and where they lie."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from ddrep.config import Experiment
from ddrep.methods import METHODS, Reads
from ddrep.sources import REJECTION, SOURCES, in_figure


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
        runs |= {Run(*values) for values in itertools.product(*lists) if SOURCES[values[3]].scaled == (values[4] > 0)}
    return sorted(runs)


def table3_runs(experiment: Experiment) -> list[Run]:
    """Real images alone (shared with Table 4), then each synthetic source alone; each run once."""
    t = experiment.table3
    pairs = list(itertools.product(t.subsets, t.seeds))
    real = [Run(k, t.architecture, False, "real", 0, s) for k, s in pairs]
    alone = [Run(k, t.architecture, False, source, 1, s, real=False) for source in t.sources for k, s in pairs]
    return list(dict.fromkeys(real + alone))


def table_runs(number: str, experiment: Experiment) -> list[Run]:
    """Those of Table 3 or 4."""
    return {"3": table3_runs, "4": table4_runs}[number](experiment)


def needs_shards(run: Run) -> bool:
    """Whether the run trains on synthetic images."""
    return SOURCES[run.source].synthetic


def shard_paths(subset: int, source: str, scale: int, shards_per_scale: int) -> list[Path]:
    """The shards of a source up to a scale, relative to results/{experiment}; none for real images."""
    count = scale * shards_per_scale if SOURCES[source].synthetic else 0
    return [Path(f"subset{subset}/synthetic/{source}/{index:05d}.tar") for index in range(count)]


def shards_asked(experiment: Experiment) -> dict[tuple[int, str], int]:
    """(subset, source) -> the largest scale that a run or a figure wants."""
    asked = {(0, source): 1 for number in (1, 3) for source in in_figure(number)}
    for run in table3_runs(experiment) + table4_runs(experiment):
        if needs_shards(run):
            asked[run.subset, run.source] = max(run.scale, asked.get((run.subset, run.source), 0))
    return asked


@dataclass(frozen=True, order=True)
class GuidedRun:
    """One shard of guided images: of an attribute and its absence, or (attribute None) of the target masks."""

    attribute: str | None
    subset: int
    seed: int
    method: str
    steps: int

    @property
    def folder(self) -> Path:
        """Of the run's guides, relative to results/{experiment}."""
        kind = f"attributes/{self.attribute}" if self.attribute else "masks"
        return Path(f"subset{self.subset}/{kind}/{self.seed}")

    @property
    def reads(self) -> Reads:
        """What the run's guide reads."""
        return METHODS[self.method].reads

    @property
    def guide(self) -> Path:
        return self.folder / f"{self.reads}.safetensors"

    @property
    def shard(self) -> Path:
        return self.folder / self.method / f"{self.steps}.tar"

    @property
    def attempts(self) -> Path:
        """Beside the shard, of an attribute alone."""
        return self.shard.with_suffix(".parquet")

    @property
    def score(self) -> Path:
        return self.folder / self.method / f"{self.steps}.score.parquet"

    @property
    def features(self) -> Path:
        """Of its images, for Fréchet distances."""
        return self.folder / self.method / f"{self.steps}.npz"

    @property
    def job(self) -> str:
        """Name of the job that draws it, as its log and its benchmark have it."""
        of = f"{self.attribute}-" if self.attribute else "masks/"
        return f"subset{self.subset}/{of}{self.seed}-{self.method}-{self.steps}"


def table1_runs(experiment: Experiment) -> list[GuidedRun]:
    """The runs of every attribute; a method's are together."""
    t = experiment.table1
    lists = (experiment.attributes.having, t.subsets, t.seeds, t.methods, t.steps)
    return [GuidedRun(*values) for values in itertools.product(*lists)]


def table2_runs(experiment: Experiment) -> list[GuidedRun]:
    """The runs of the target masks."""
    t = experiment.table2
    return [GuidedRun(None, *values) for values in itertools.product(t.subsets, t.seeds, t.methods, t.steps)]


def guided_runs(experiment: Experiment) -> list[GuidedRun]:
    """Those of both tables, as far as they are among the experiment's parts."""
    runs = table1_runs(experiment) if "attributes" in experiment.parts else []
    return runs + (table2_runs(experiment) if "masks" in experiment.parts else [])


def figure2_runs(experiment: Experiment) -> list[GuidedRun]:
    """The first subset's and seed's runs of the target masks: a row of Figure 2 each."""
    first = experiment.table2.subsets[0], experiment.table2.seeds[0]
    return [run for run in table2_runs(experiment) if (run.subset, run.seed) == first]


def guide_folders(experiment: Experiment) -> list[Path]:
    """The folders of all guides of attributes."""
    return list(dict.fromkeys(run.folder for run in table1_runs(experiment)))


REPORT = Path("report.html")
"""What is made of all other targets."""


def targets(experiment: Experiment) -> list[Path]:
    """What an experiment asks for, by its parts, relative to results/{experiment}."""
    asked: list[str | Path] = [REPORT, "tables/costs.parquet"]
    if _augments(experiment):
        asked += ["tables/table3.parquet", "tables/table4.parquet"]
        asked += [f"figures/figure{number}.png" for number in (1, 3, 4)]
        asked += [f"subset{subset}/synthetic/{source}/_info.json" for subset, source in shards_asked(experiment)]
    if "attributes" in experiment.parts:
        asked += ["tables/table1.parquet", "tables/robustness.parquet", "figures/robustness.png"]
    if "masks" in experiment.parts:
        asked += ["tables/table2.parquet", "figures/figure2.png"]
    return [Path(path) for path in asked]


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


def cost_attempts(experiment: Experiment) -> list[Path]:
    """The attempts that costs are counted from, relative to results/{experiment}."""
    found = [shard.with_suffix(".parquet") for shard in all_shards(experiment)] if _augments(experiment) else []
    return found + [run.attempts for run in guided_runs(experiment) if run.attribute]


def cost_jobs(experiment: Experiment) -> list[str]:
    """The jobs whose benchmarks costs are made of, .../benchmarks/{job}.tsv: all that have one."""
    jobs = ["pretrain/denoiser"] if experiment.denoiser.kind == "pretrain" else []
    jobs += _augmentation_jobs(experiment) if _augments(experiment) else []
    jobs += _attribute_jobs(experiment) if "attributes" in experiment.parts else []
    jobs += _mask_jobs(experiment) if "masks" in experiment.parts else []
    return list(dict.fromkeys(jobs))


def _augmentation_jobs(experiment: Experiment) -> list[str]:
    runs, asked, adapted = all_runs(experiment), shards_asked(experiment), adapted_subsets(experiment)
    labelled = sorted({run.subset for run in runs if run.real} | set(adapted))
    judges = {(subset, judge) for subset, source in asked for judge in (REJECTION, SOURCES[source].judge)}
    jobs = [f"data/{name}" for name in (*(f"subset{subset}" for subset in labelled), "validation", "test")]
    jobs += [f"finetune/subset{subset}" for subset in adapted]
    jobs += sorted(f"{stage}/subset{subset}" for subset, judge in judges for stage in judge.jobs)
    jobs += [f"synthesis/{shard.with_suffix('')}" for shard in all_shards(experiment)]
    jobs += [f"info/subset{subset}/{source}" for subset, source in asked]
    jobs += [f"classifier/{run.path.with_suffix('')}" for run in runs]
    return [*jobs, "tables/table3", "tables/table4", "figures/figure1", "figures/figure3", "figures/figure4"]


def _attribute_jobs(experiment: Experiment) -> list[str]:
    trained = experiment.evaluation.evaluator is None
    jobs = []
    for name in experiment.attributes.having:
        jobs += [f"attribute-images/{name}-test", f"score/{name}-real"]
        jobs += [f"attribute-images/{name}-train", f"evaluator/{name}"] if trained else []
    for run in (runs := table1_runs(experiment)):
        of = f"subset{run.subset}/{run.attribute}-{run.seed}"
        jobs += [f"attribute-images/{of}", f"robustness/{of}", f"guide/{of}-features", f"guide/{of}-pixels"]
    jobs += [f"{stage}/{run.job}" for stage in ("guided", "score") for run in runs]
    return [*jobs, "tables/table1", "tables/robustness", "figures/robustness"]


def _mask_jobs(experiment: Experiment) -> list[str]:
    jobs = ["masks/test", "score/masks/real"]
    jobs += ["masks/oracle", "segmenter/masks"] if experiment.evaluation.segmenter is None else []
    for run in (runs := table2_runs(experiment)):
        jobs += [f"masks/subset{run.subset}", f"guide/subset{run.subset}/masks/{run.seed}-{run.reads}"]
    jobs += [f"{stage}/{run.job}" for stage in ("guided", "score") for run in runs]
    return [*jobs, "tables/table2", "figures/figure2"]


def _augments(experiment: Experiment) -> bool:
    return "augmentation" in experiment.parts


def adapted_subsets(experiment: Experiment) -> list[int]:
    """The labelled subsets for which a denoiser is fine-tuned."""
    return sorted({subset for subset, _ in shards_asked(experiment)})
