"""Which classifier runs and shards the tables ask for, and where they lie.

A labelled set is named by its subset and, in Table 5, by the number of labelled images a class: "0", or "0-10".
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from ddrep.config import Experiment
from ddrep.data.readers import labels_of
from ddrep.methods import METHODS
from ddrep.sources import PROBE, REJECTION, SOURCES, Judge, in_figure, judges, of_origin


def subset_of(labelled_set: str) -> tuple[int, int | None]:
    """Its subset, and its labelled images a class where they are not those of section `data`."""
    subset, _, labels = labelled_set.partition("-")
    return int(subset), int(labels) if labels else None


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
    labels: int = 0
    """Labelled images a class; 0: those of section `data`."""

    @property
    def labelled_set(self) -> str:
        return f"{self.subset}-{self.labels}" if self.labels else str(self.subset)

    @property
    def path(self) -> Path:
        """Its row, relative to results/{experiment}; the predictions lie beside it."""
        group = "classifiers" if self.real else "cas"
        mix = "mix" if self.mix else "plain"
        cell = f"{self.architecture}/{mix}/{self.source}/{self.scale}x"
        return Path(f"subset{self.labelled_set}/{group}/{cell}/{self.seed}.parquet")

    @property
    def softly(self) -> bool:
        """Whether it sees the labelled images with a judge's probabilities."""
        return SOURCES[self.source].labels == "soft" and not SOURCES[self.source].has_shards

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


def table5_runs(experiment: Experiment) -> list[Run]:
    """At each number of labels real images alone, and with each source; those of section `data` are Table 4's."""
    t, own = experiment.table5, labels_of(experiment.data)
    cells = [("real", 0), *((source, t.scale) for source in t.sources)]
    return [
        Run(subset, t.architecture, False, source, scale, seed, labels=0 if labels == own else labels)
        for labels, subset, (source, scale), seed in itertools.product(t.labels, t.subsets, cells, t.seeds)
    ]


def judge_scores(experiment: Experiment) -> list[Path]:
    """The judges' own rows, of the labelled sets of section `data`, relative to results/{experiment}."""
    return [Path(f"subset{of}/{judge.name}/test.parquet") for of, judge in judges_asked(experiment) if of.isdigit()]


def probe_reports(experiment: Experiment) -> list[Path]:
    """What the judges of probes report of the labelled sets of section `data`, relative to results/{experiment}."""
    return [
        Path(f"subset{of}/probe/report.json")
        for of, judge in judges_asked(experiment)
        if judge is PROBE and of.isdigit()
    ]


def table_runs(number: str, experiment: Experiment) -> list[Run]:
    """Those of Table 3, 4 or 5."""
    return {"3": table3_runs, "4": table4_runs, "5": table5_runs}[number](experiment)


def shard_paths(labelled_set: str, source: str, scale: int, experiment: Experiment) -> list[Path]:
    """The shards of a source up to a scale, relative to results/{experiment}; none for real images."""
    count = scale * experiment.synthesis.shards_per_scale if SOURCES[source].has_shards else 0
    return [Path(f"subset{labelled_set}/synthetic/{source}/{index:05d}.tar") for index in range(count)]


def shards_asked(experiment: Experiment) -> dict[tuple[str, str], int]:
    """(labelled set, source) -> the largest scale that a run or a figure wants."""
    asked = {("0", source): 1 for number in (1, 3) for source in in_figure(number)}
    for run in all_runs(experiment):
        if SOURCES[run.source].has_shards:
            key = run.labelled_set, run.source
            asked[key] = max(run.scale, asked.get(key, 0))
    return asked


def judges_asked(experiment: Experiment) -> list[tuple[str, Judge]]:
    """(labelled set, judge) of all sources that are asked for, and the judge that a matched one is matched to."""
    asked = {(of, SOURCES[source].judge) for of, source in shards_asked(experiment)}
    asked |= {(of, REJECTION) for of, judge in asked if judge.matched}
    asked |= {(run.labelled_set, SOURCES[run.source].judge) for run in all_runs(experiment) if run.softly}
    return sorted(asked, key=lambda pair: (pair[0], judges().index(pair[1].name)))


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
    def guide(self) -> Path:
        method = METHODS[self.method]
        return self.folder / f"{method.generator or method.reads}.safetensors"

    @property
    def shard(self) -> Path:
        return self.folder / self.method / f"{self.steps}.tar"

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
    """The runs of every attribute; a method's are together. One without steps draws the same whatever their number, so
    it is run for the first alone."""
    t = experiment.table1
    lists = (experiment.attributes.having, t.subsets, t.seeds, t.methods, t.steps)
    runs = [GuidedRun(*values) for values in itertools.product(*lists)]
    return [run for run in runs if run.steps == t.steps[0] or not METHODS[run.method].one_pass]


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


REPORT = Path("report.html")
"""What is made of all other targets."""


def targets(experiment: Experiment) -> list[Path]:
    """What an experiment asks for, by its parts, relative to results/{experiment}."""
    asked: list[str | Path] = [REPORT, "tables/costs.parquet"]
    if "augmentation" in experiment.parts:
        asked += ["tables/table3.parquet", "tables/table4.parquet", "tables/judges.parquet", "tables/copies.parquet"]
        asked += [f"figures/figure{number}.png" for number in (1, 3, 4)]
        asked += ["tables/table5.parquet", "figures/figure5.png"] if experiment.table5.labels else []
        asked += ["figures/probe.png"] if probe_reports(experiment) else []
        asked += [f"subset{of}/synthetic/{source}/_info.json" for of, source in shards_asked(experiment)]
    if "attributes" in experiment.parts:
        asked += ["tables/table1.parquet", "tables/robustness.parquet", "figures/robustness.png"]
    if "masks" in experiment.parts:
        asked += ["tables/table2.parquet", "figures/figure2.png"]
    return [Path(path) for path in asked]


def all_runs(experiment: Experiment) -> list[Run]:
    """Those of Tables 3 to 5, each once."""
    return list(dict.fromkeys(table3_runs(experiment) + table4_runs(experiment) + table5_runs(experiment)))


def all_shards(experiment: Experiment) -> list[Path]:
    """Every synthetic shard, relative to results/{experiment}."""
    asked = shards_asked(experiment).items()
    return [path for (of, source), scale in asked for path in shard_paths(of, source, scale, experiment)]


def cost_attempts(experiment: Experiment) -> list[Path]:
    """The attempts that costs are counted from, relative to results/{experiment}."""
    shards = all_shards(experiment) if "augmentation" in experiment.parts else []
    shards += [run.shard for run in guided_runs(experiment) if run.attribute]
    return [shard.with_suffix(".parquet") for shard in shards]


def cost_jobs(experiment: Experiment) -> list[str]:
    """The jobs whose benchmarks costs are made of, .../benchmarks/{job}.tsv: all that have one."""
    jobs = ["pretrain/denoiser"] if experiment.denoiser.kind == "pretrain" else []
    asked = {name: getattr(experiment.generators, name) for name in generators_asked(experiment)}
    jobs += [f"pretrain/{name}" for name, generator in asked.items() if generator.kind == "pretrain"]
    jobs += _augmentation_jobs(experiment) if "augmentation" in experiment.parts else []
    jobs += _attribute_jobs(experiment) if "attributes" in experiment.parts else []
    jobs += _mask_jobs(experiment) if "masks" in experiment.parts else []
    return list(dict.fromkeys(jobs))


def _augmentation_jobs(experiment: Experiment) -> list[str]:
    runs, asked = all_runs(experiment), shards_asked(experiment)
    labelled = sorted({run.labelled_set for run in runs if run.real} | {of for of, _ in asked})
    jobs = [f"data/{name}" for name in (*(f"subset{of}" for of in labelled), "validation", "test")]
    jobs += [f"data/subset{of}-unlabelled" for of in _sets_of("unlabelled", experiment)]
    jobs += [f"finetune/subset{of}" for of in _sets_of("finetuned", experiment)]
    jobs += ["fit-grid"] if experiment.sampling.grid == "fitted" else []
    jobs += [f"{stage}/subset{of}" for of, judge in judges_asked(experiment) for stage in judge.jobs]
    jobs += [f"score-judge/{score.parent}" for score in judge_scores(experiment)]
    jobs += sorted({f"label/subset{run.labelled_set}/{SOURCES[run.source].judge.name}" for run in runs if run.softly})
    jobs += [f"synthesis/{shard.with_suffix('')}" for shard in all_shards(experiment)]
    jobs += [f"info/subset{of}/{source}" for of, source in asked]
    jobs += [f"classifier/{run.path.with_suffix('')}" for run in runs]
    numbers = [3, 4, *([5] if experiment.table5.labels else [])]
    jobs += [f"tables/{name}" for name in (*(f"table{number}" for number in numbers), "judges", "copies")]
    jobs += [f"copies/subset{of}" for of in compared_sets(experiment)]
    jobs += ["figures/probe"] if probe_reports(experiment) else []
    return [*jobs, *(f"figures/figure{number}" for number in (1, *numbers))]


def _attribute_jobs(experiment: Experiment) -> list[str]:
    trained = experiment.evaluation.evaluator is None
    jobs = []
    for name in experiment.attributes.having:
        jobs += [f"attribute-images/{name}-test", f"score/{name}-real"]
        jobs += [f"attribute-images/{name}-train", f"evaluator/{name}"] if trained else []
    for run in (runs := table1_runs(experiment)):
        of = f"subset{run.subset}/{run.attribute}-{run.seed}"
        jobs += [f"attribute-images/{of}", f"robustness/{of}", f"guide/{of}-features", f"guide/{of}-pixels"]
        jobs += [f"guide/{of}-{generator}"] if (generator := METHODS[run.method].generator) else []
    jobs += [f"{stage}/{run.job}" for stage in ("guided", "score") for run in runs]
    return [*jobs, "tables/table1", "tables/robustness", "figures/robustness"]


def _mask_jobs(experiment: Experiment) -> list[str]:
    jobs = ["masks/test", "score/masks/real"]
    jobs += ["masks/oracle", "segmenter/masks"] if experiment.evaluation.segmenter is None else []
    for run in (runs := table2_runs(experiment)):
        jobs += [f"masks/subset{run.subset}", f"guide/subset{run.subset}/masks/{run.seed}-{run.guide.stem}"]
    jobs += [f"{stage}/{run.job}" for stage in ("guided", "score") for run in runs]
    return [*jobs, "tables/table2", "figures/figure2"]


def generators_asked(experiment: Experiment) -> list[str]:
    """The generators beside the denoiser of which methods of Tables 1 and 2 draw."""
    asked = (METHODS[run.method].generator for run in guided_runs(experiment))
    return list(dict.fromkeys(filter(None, asked)))


def compared_sets(experiment: Experiment) -> list[str]:
    """The labelled sets of section `data` with other images beside them, which are compared with the labelled ones."""
    return sorted({of for of, _ in shards_asked(experiment) if of.isdigit()})


def first_shards(labelled_set: str, experiment: Experiment) -> list[Path]:
    """Those of 1x, of all sources that are asked for, relative to results/{experiment}."""
    sources = [source for of, source in shards_asked(experiment) if of == labelled_set]
    return [path for source in sources for path in shard_paths(labelled_set, source, 1, experiment)]


def _sets_of(origin: str, experiment: Experiment) -> list[str]:
    """The labelled sets whose classifiers see images of this origin."""
    return sorted({of for of, source in shards_asked(experiment) if source in of_origin(origin)})
