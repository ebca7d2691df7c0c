"""What each stage of the workflow is told: the sections that follow from the experiment, and their canonical JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from ddrep import config
from ddrep.config import CELEBA_19, Attributes, Data, Experiment, Masks, Section
from ddrep.data.digest import digest, places
from ddrep.data.readers import has_unlabelled, reader_of, with_labels
from ddrep.errors import UserError
from ddrep.methods import METHODS
from ddrep.runs import subset_of
from ddrep.sources import SOURCES

F = TypeVar("F", config.Figure1, config.Figure2, config.Figure3)
P = TypeVar("P", config.Pretrain, config.PretrainDiffAE, config.PretrainD2C, config.PretrainNVAE)
Wildcards = Mapping[str, str]


def network_path(name: str, experiment: Experiment) -> str:
    """Where the unconditional `denoiser`, or a generator beside it, is or will be."""
    choice = experiment.denoiser if name == "denoiser" else getattr(experiment.generators, name)
    return f"results/{experiment.experiment}/{name}.safetensors" if choice.kind == "pretrain" else str(choice.file.path)


def pretrained_on_data(experiment: Experiment, section: config.UnlabelledImages) -> bool:
    """Whether a denoiser or generator is trained on a data set, beside which images are held out."""
    return section.data is not None and set(experiment.parts) != {"masks"}


def data_of(experiment: Experiment, labelled_set: str = "0") -> Data:
    """The data section without the sub-tables that do not count: they may change and nothing is planned anew."""
    labels = subset_of(labelled_set)[1]
    return _its_table(with_labels(experiment.data, labels) if labels else experiment.data)


def pretrain_of(section: P) -> P:
    """A section of pretraining, its data without sub-tables that do not count."""
    return section.model_copy(update={"data": _its_table(section.data)}) if section.data else section


def unlabelled_of(experiment: Experiment, labelled_set: str) -> Data:
    """Where real images without labels come from: the data set, or what the denoiser is trained on."""
    more = experiment.denoiser.pretrain.data
    if not has_unlabelled(experiment.data) and more and has_unlabelled(more):
        return _its_table(more)
    return data_of(experiment, labelled_set)


def _its_table(data: Data) -> Data:
    # of other kinds, `embedded` as its default was when they were first made, or they would be planned again
    return Data.model_validate(
        {"embedded": {"per_class": 50}, "kind": data.kind, "labels": data.labels, data.table: data.section.model_dump()}
    )


def shard_of(source: str, experiment: Experiment) -> config.Shard:
    """The shard section of a source: with settings of its own for sampling; at threshold 0 if it keeps every candidate.

    Writing these as settings, not as cases, keeps a changed threshold from replanning what has none.
    """
    own = SOURCES[source]
    scale = experiment.sampling.guidance_scale or own.guidance
    sampling = experiment.sampling.model_copy(update={"guidance_scale": scale, **own.sampling})
    accepts: dict[str, Any] = {} if own.filtered else {"threshold": 0.0, "early_refusal": 0.0}
    accepts |= {} if own.origin == "pretrained" else {"balance": False}
    synthesis = experiment.synthesis.model_copy(update=accepts)
    return config.Shard(sampling=sampling, synthesis=synthesis, labels=own.labels)


def labelling_of(source: str | None, experiment: Experiment) -> config.Synthesis:
    """The section of labelled images that a judge labels, or of a shard of a source's images without labels, of which
    only the size counts."""
    if source is None:
        return config.Synthesis()
    cfg = experiment.synthesis
    return config.Synthesis(per_class=cfg.per_class, shards_per_scale=cfg.shards_per_scale)


def training_of(source: str, mixed: bool, experiment: Experiment) -> config.Training:
    """The training section of a run: no Mixup settings for the unmixed, the size of 1x for equal steps alone."""
    classifier = experiment.classifier if mixed else experiment.classifier.model_copy(update={"mix": config.Mix()})
    per_class = experiment.synthesis.per_class if SOURCES[source].equal_steps else 0
    return config.Training(classifier=classifier, mixed=mixed, per_class=per_class)


def attribute_images_of(attribute: str, examples: bool, experiment: Experiment) -> config.AttributeImages:
    """All images of an attribute, or the examples that guides learn from."""
    section = experiment.attributes
    if attribute not in section.having:
        raise UserError(f"attributes.groups: no {attribute}; it has {', '.join(section.having)}")
    count = section.examples if examples else 0
    having = section.having[attribute]
    return config.AttributeImages(data=data_of(experiment), attribute=attribute, having=having, examples=count)


def scores_of(attribute: str, experiment: Experiment) -> config.AttributeScores:
    """Which of the evaluator's classes have an attribute: one trained for the attribute knows it by its name."""
    given = experiment.evaluation.evaluator is not None
    having = experiment.attributes.having[attribute] if given else (attribute,)
    return config.AttributeScores(attribute=attribute, having=having)


def guide_of(section: Attributes | Masks, reads: str) -> config.Guide:
    """The section of a guide on features, or on pixels, which has no taps."""
    return config.Guide(taps=section.taps if reads == "features" else None, training=section.training)


def guided_of(
    section: Attributes | Masks, method: str, steps: int, experiment: Experiment, first: int = 0
) -> config.GuidedShard:
    """The section of a shard of guided images: with a scale if the method steers, and a threshold if it refuses.

    first: of masks, as Table2.first has it.

    Writing these as settings keeps a changed scale from replanning what is not guided.
    """
    drawn, how = section.sampling, METHODS[method]
    sampling = config.EvenSampling(solver=drawn.solver, steps=steps, eta=drawn.eta)
    shard = config.GuidedShard(sampling=sampling, scale=drawn.scale if how.steered else 0.0)
    if isinstance(section, Masks):
        return shard.model_copy(update={"images": experiment.table2.images, "first": first})
    table = experiment.table1
    refused = {"threshold": table.threshold, "max_attempts": table.max_attempts} if how.refused else {}
    return shard.model_copy(update={"images": table.images, **refused})


def generated_of(
    section: Attributes | Masks, method: str, steps: int, experiment: Experiment, first: int = 0
) -> config.GeneratedShard | config.GeneratedMasks:
    """The section of a shard of a generator's images, drawn by the solver of guided ones. first: see `guided_of`."""
    drawn, own = section.sampling, METHODS[method]
    sampling = config.EvenSampling(solver=drawn.solver, steps=steps, eta=drawn.eta)
    told: dict[str, Any] = {"sampling": sampling}
    if not own.one_pass:  # without a setting of its own, the table's steps are those of latents
        told["latent_steps"] = getattr(getattr(experiment.generators, own.generator), "latent_steps", steps)
    if isinstance(section, Masks):
        masks = experiment.table2
        return config.GeneratedMasks(images=masks.images, candidates=masks.candidates, first=first, **told)
    t = experiment.table1
    return config.GeneratedShard(images=t.images, threshold=t.threshold, max_attempts=t.max_attempts, **told)


def accuracy_table_of(experiment: Experiment) -> config.AccuracyTable:
    """The section of Tables 3 and 4. The paper's figures stand beside its own data set and the embedded one, which the
    project compares with it; beside other images they would look comparable."""
    return config.AccuracyTable(**experiment.tables.model_dump(), paper=3 in reader_of(experiment.data).paper)


def guidance_table_of(number: int, experiment: Experiment) -> config.GuidanceTable:
    """The section of Table 1 or 2, with the paper's figures beside the same data sets and the embedded one."""
    masks = experiment.masks.data
    of_faces = masks.kind == "celebamask-hq" or (masks.few_shot is not None and masks.few_shot.classes == CELEBA_19)
    paper = {1: 1 in reader_of(experiment.data).paper, 2: masks.kind == "embedded" or of_faces}[number]
    return config.GuidanceTable(minimum=experiment.evaluation.minimum, paper=paper)


def figure_of(kind: type[F], experiment: Experiment) -> F:
    """The section of a figure: its own keys of figures."""
    return kind(**experiment.figures.model_dump(include=set(kind.model_fields)))


def _drawn(of: Callable[..., BaseModel], e: Experiment, w: Wildcards) -> BaseModel:
    """What `guided_of` or `generated_of` says of an attribute's shard, or of one for masks."""
    if "attribute" in w:
        return of(e.attributes, w["method"], int(w["steps"]), e)
    first = e.table2.first(subset_of(w["subset"])[0], int(w["run"]))
    return of(e.masks, w["method"], int(w["steps"]), e, first)


@dataclass(frozen=True)
class Told:
    """What a stage of the workflow is told."""

    version: int
    """Raised when ddrep's code changes what the stage computes: results of older versions are made anew."""
    section: Callable[[Experiment, Wildcards], BaseModel]
    of_subset: bool = False
    """Whether its seed is the labelled subset's, not the experiment's."""


STAGES: dict[str, Told] = {
    "data": Told(2, lambda e, w: data_of(e, w.get("subset", "0"))),
    "unlabelled": Told(1, lambda e, w: unlabelled_of(e, w["subset"])),
    "masks": Told(2, lambda e, w: e.masks.data),
    "pretrain": Told(1, lambda e, w: pretrain_of(e.denoiser.pretrain)),
    "pretrain-diffae": Told(1, lambda e, w: pretrain_of(e.generators.diffae.pretrain)),
    "pretrain-d2c": Told(1, lambda e, w: pretrain_of(e.generators.d2c.pretrain)),
    "pretrain-nvae": Told(1, lambda e, w: pretrain_of(e.generators.nvae.pretrain)),
    "finetune": Told(1, lambda e, w: e.finetune, of_subset=True),
    "fit-grid": Told(2, lambda e, w: config.FitGrid(steps=e.sampling.steps)),
    "features": Told(1, lambda e, w: e.features),
    "rejection": Told(1, lambda e, w: e.rejection, of_subset=True),
    "pixel-rejection": Told(1, lambda e, w: e.pixel_rejection, of_subset=True),
    "probe": Told(2, lambda e, w: e.probe, of_subset=True),
    "pixel-threshold": Told(2, lambda e, w: shard_of("pixel-rejection", e), of_subset=True),
    "synthesis": Told(2, lambda e, w: shard_of(w["source"], e), of_subset=True),
    "label": Told(1, lambda e, w: labelling_of(w.get("source"), e)),
    "judge-score": Told(1, lambda e, w: config.JudgeScore(images=e.tables.judged)),
    "judges-table": Told(1, lambda e, w: Section()),
    "copies": Told(1, lambda e, w: e.copies),
    "copies-table": Told(1, lambda e, w: Section()),
    "classifier": Told(2, lambda e, w: training_of(w["source"], w["mix"] == "mix", e), of_subset=True),
    "tables": Told(7, lambda e, w: accuracy_table_of(e)),
    "figure1": Told(3, lambda e, w: figure_of(config.Figure1, e)),
    "figure2": Told(2, lambda e, w: figure_of(config.Figure2, e)),
    "figure3": Told(2, lambda e, w: figure_of(config.Figure3, e)),
    "figure4": Told(2, lambda e, w: Section()),
    "figure5": Told(1, lambda e, w: Section()),
    "probe-figure": Told(1, lambda e, w: Section()),
    "costs": Told(2, lambda e, w: Section()),
    "report": Told(1, lambda e, w: e),
    "attribute-images": Told(2, lambda e, w: attribute_images_of(w["attribute"], "run" in w, e)),
    "guide": Told(1, lambda e, w: guide_of(e.attributes if "attribute" in w else e.masks, w["reads"]), of_subset=True),
    "guided": Told(3, lambda e, w: _drawn(guided_of, e, w), of_subset=True),
    "latent-judge": Told(1, lambda e, w: e.generators.judge, of_subset=True),
    "generated": Told(1, lambda e, w: _drawn(generated_of, e, w), of_subset=True),
    "evaluator": Told(1, lambda e, w: e.evaluation.evaluator_training),
    "segmenter": Told(1, lambda e, w: e.evaluation.segmenter_training),
    "real-features": Told(1, lambda e, w: Section()),
    "attribute-scores": Told(1, lambda e, w: scores_of(w["attribute"], e)),
    "mask-scores": Told(1, lambda e, w: Section()),
    "robustness": Told(2, lambda e, w: e.robustness, of_subset=True),
    "robustness-table": Told(1, lambda e, w: Section()),
    "robustness-figure": Told(1, lambda e, w: Section()),
    "guidance-tables": Told(4, lambda e, w: guidance_table_of(int(w["number"]), e)),
}


UNNAMED = {"synthesis": 2, "generated": 1}
"""Versions whose candidates are named without them, as all once were."""


def drawn_by(stage: str) -> list[str]:
    """What names the code that draws a stage's candidates, among all that determines them: what is made anew for a new
    version is not to be made of the candidates of an older one."""
    version = STAGES[stage].version
    return [] if UNNAMED.get(stage) == version else [f"{stage} {version}"]


def told(stage: str, experiment: Experiment, wildcards: Wildcards) -> str:
    """The canonical JSON of a stage's job: its section, seed and version, and its data set's digest."""
    section = STAGES[stage].section(experiment, wildcards)
    seed = experiment.seed
    if STAGES[stage].of_subset:
        seed = config.subset_seed(seed, subset_of(wildcards["subset"])[0])
    return stage_json(stage, section, seed, digest(places(section), experiment.digest))


def stage_json(stage: str, cfg: BaseModel, seed: int, files: str = "") -> str:
    """The canonical JSON of a stage: equal exactly when the stage would do the same (inputs apart).

    files: digest of the data set that it reads, if any (ddrep.data.digest).
    """
    content = {"stage": stage, "version": STAGES[stage].version, "seed": seed, "config": cfg.model_dump(mode="json")}
    content |= {"files": files} if files else {}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def check_version(stage: config.Stage[Any]) -> None:
    """Raises ValueError for a stage that was told for another version of its code."""
    now = STAGES[stage.stage].version if stage.stage in STAGES else None
    if stage.version != now:
        raise ValueError(f"{stage.stage} is at version {now}, not {stage.version}; plan again")
