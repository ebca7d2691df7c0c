"""The experiment as typed models: the only place where a setting has a name, a type and a default.

`config.yaml` and the overlays are read through `load`, by Snakemake and by the command line alike. Each stage of the
workflow is told of its own section and nothing else, as the JSON that `stage_json` makes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from annotated_types import Ge
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from ddrep.config.base import Section, merge
from ddrep.config.data import CelebA, Data, EmbeddedData, ImageFolder, TinyImageNet, WebDatasetFiles
from ddrep.config.evaluation import Evaluation, Evaluator, Oracle, Segmenter
from ddrep.config.guidance import (
    AttributeImages,
    Attributes,
    AttributeScores,
    GuidanceTable,
    Guide,
    Guided,
    GuidedShard,
    GuideTraining,
    Masks,
    Robustness,
    Table1,
    Table2,
    Taps,
)
from ddrep.config.masks import CELEBA_19, CelebAMaskHQ, EmbeddedMasks, FewShot, MaskData
from ddrep.config.stages import (
    Classifier,
    DenoiserChoice,
    DenoiserFile,
    Features,
    FineTune,
    Head,
    Mix,
    Network,
    PixelHead,
    Pretrain,
    Sampling,
    Shard,
    Synthesis,
    Training,
)
from ddrep.config.tables import AccuracyTable, Figures, Runs, Table3, Tables
from ddrep.errors import UserError
from ddrep.methods import METHODS
from ddrep.sources import SOURCES

__all__ = [
    "AccuracyTable", "AttributeImages", "AttributeScores", "Attributes", "CelebA",
    "CelebAMaskHQ", "Classifier", "Data", "DenoiserChoice", "DenoiserFile", "EmbeddedData", "EmbeddedMasks",
    "Evaluation", "Evaluator", "Experiment", "Features", "FewShot", "Figures", "FineTune", "GuidanceTable", "Guide",
    "GuideTraining", "Guided", "GuidedShard", "Head", "ImageFolder", "MaskData", "Masks", "Mix", "Network",
    "Oracle", "PixelHead", "Pretrain", "Robustness", "Runs", "Sampling", "Section", "Segmenter", "Shard",
    "Stage", "Synthesis", "Table1", "Table2", "Table3", "Tables", "Taps", "TinyImageNet", "Training",
    "WebDatasetFiles", "accuracy_table_of", "attribute_images_of", "data_of", "denoiser_path", "explain",
    "guidance_table_of", "guide_of", "guided_of", "load", "merge", "parse", "scores_of", "shard_of", "stage_json",
    "subset_seed", "training_of",
]  # fmt: skip

VERSIONS = {
    "data": 2,
    "masks": 2,
    "pretrain": 1,
    "finetune": 1,
    "attribute-images": 2,
    "guide": 1,
    "guided": 2,
    "attribute-scores": 1,
    "robustness": 2,
    "guidance-tables": 3,
    "features": 1,
    "rejection": 1,
    "pixel-rejection": 1,
    "pixel-threshold": 2,
    "synthesis": 2,
    "classifier": 1,
    "tables": 2,
    "figures": 2,
    "costs": 1,
    "evaluator": 1,
    "segmenter": 1,
}
"""Raised when ddrep's code changes what a stage computes: results of older versions are made anew."""


Part = Literal["augmentation", "attributes", "masks"]


class Experiment(Section):
    """The whole of config.yaml, which `ddrep config` writes from these defaults."""

    experiment: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "fashion-demo"
    """Name; results go to results/NAME."""
    seed: Annotated[int, Ge(0)] = 0
    """Of everything but the runs of tables, which have their own seeds below."""
    parts: tuple[Part, ...] = ("attributes", "masks", "augmentation")
    """Of the paper: Table 1 and what guides make of x0hat; Table 2 and Figure 2; Tables 3, 4 and Figures 1, 3, 4."""
    digest: Literal["times", "contents"] = "times"
    """By which a changed data set is noticed: its files' names, sizes and times; or their names and contents, for which
    all are read at every call."""
    data: Data = Data()
    denoiser: DenoiserChoice = DenoiserChoice()
    finetune: FineTune = FineTune()
    features: Features = Features()
    rejection: Head = Head()
    pixel_rejection: PixelHead = PixelHead()
    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()
    classifier: Classifier = Classifier()
    attributes: Attributes = Attributes()
    masks: Masks = Masks()
    evaluation: Evaluation = Evaluation()
    robustness: Robustness = Robustness()
    table1: Table1 = Table1()
    table2: Table2 = Table2()
    table3: Table3 = Table3()
    table4: tuple[Runs, ...] = (
        Runs(),
        Runs(mix=(False,), sources=("real-equal-steps",), scales=(1, 2, 3)),
        Runs(mix=(False,), sources=("ours",), scales=(4, 5, 6, 7)),
    )
    """Real images with k x synthetic ones: blocks of runs, each the product of its lists; scale 0 belongs to real, the
    others to all but real. The second block asks: is it the data, or the longer training? The third goes on to 7x, for
    Figure 4."""
    tables: Tables = Tables()
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _has_attributes(self) -> Experiment:
        if "attributes" in self.parts and not self.attributes.groups:
            raise ValueError("attributes.groups: empty; name one attribute at least, or leave attributes out of parts")
        return self


C = TypeVar("C", bound=BaseModel)


class Stage(BaseModel, Generic[C]):
    """What a command of the workflow is told: its section, the seed, and the version of the code it was made for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    stage: str = ""
    """Name of the stage, written by the workflow; leave it out by hand."""
    version: int = 0
    """Version of the stage's code, written by the workflow; leave it out by hand."""
    seed: int = 0
    """The experiment's seed, or the labelled subset's."""
    files: str = ""
    """Digest of the data set that the stage reads, written by the workflow; leave it out by hand."""
    config: C
    """The stage's section of config.yaml."""

    @model_serializer(mode="wrap")
    def _without_empty_files(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what is made without a data set is named as it was before there were digests
        return {key: value for key, value in handler(self).items() if key != "files" or value}

    @model_validator(mode="before")
    @classmethod
    def _defaults_by_hand(cls, given: Any) -> Any:
        return {"config": {}, **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _is_this_version(self) -> Stage[C]:
        if self.stage and self.version != VERSIONS.get(self.stage):
            raise ValueError(f"{self.stage} is at version {VERSIONS.get(self.stage)}, not {self.version}; plan again")
        return self


def subset_seed(seed: int, subset: int) -> int:
    """The seed of all that a labelled subset has to itself: fine-tune, heads, candidates, classifiers, guides.

    Shared by all sources of a subset, which are compared on the same noise, and by no two subsets, which are to be
    independent repeats. Subset 0 has the experiment's own, 0..2^32-1 the others.
    """
    if not subset:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/subset{subset}".encode()).digest()[:4], "big")


def stage_json(stage: str, config: BaseModel, seed: int, files: str = "") -> str:
    """The canonical JSON of a stage: equal exactly when the stage would do the same (inputs apart).

    files: digest of the data set that it reads, if any (ddrep.data.digest).
    """
    content = {"stage": stage, "version": VERSIONS[stage], "seed": seed, "config": config.model_dump(mode="json")}
    content |= {"files": files} if files else {}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def data_of(experiment: Experiment) -> Data:
    """The data section without the sub-tables that do not count: they may change and nothing is planned anew."""
    data = experiment.data
    # of other kinds, `embedded` as its default was when they were first made, or they would be planned again
    return Data.model_validate(
        {"embedded": {"per_class": 50}, "kind": data.kind, data.table: data.section.model_dump()}
    )


def shard_of(source: str, experiment: Experiment) -> Shard:
    """The shard section of a source: with settings of its own for sampling; at threshold 0 if it keeps every candidate.

    Writing these as settings, not as cases, keeps a changed threshold from replanning what has none.
    """
    own = SOURCES[source]
    sampling = experiment.sampling.model_copy(update=dict(own.sampling))
    accepts = {} if own.filtered else {"threshold": 0.0}
    return Shard(sampling=sampling, synthesis=experiment.synthesis.model_copy(update=accepts))


def training_of(source: str, mixed: bool, experiment: Experiment) -> Training:
    """The training section of a run: no Mixup settings for the unmixed, the size of 1x for equal steps alone."""
    classifier = experiment.classifier if mixed else experiment.classifier.model_copy(update={"mix": Mix()})
    per_class = experiment.synthesis.per_class if SOURCES[source].equal_steps else 0
    return Training(classifier=classifier, mixed=mixed, per_class=per_class)


def attribute_images_of(attribute: str, examples: bool, experiment: Experiment) -> AttributeImages:
    """All images of an attribute, or the examples that guides learn from."""
    section = experiment.attributes
    if attribute not in section.having:
        raise UserError(f"attributes.groups: no {attribute}; it has {', '.join(section.having)}")
    count = section.examples if examples else 0
    having = section.having[attribute]
    return AttributeImages(data=data_of(experiment), attribute=attribute, having=having, examples=count)


def scores_of(attribute: str, experiment: Experiment) -> AttributeScores:
    """Which of the evaluator's classes have an attribute: one trained for the attribute knows it by its name."""
    given = experiment.evaluation.evaluator is not None
    having = experiment.attributes.having[attribute] if given else (attribute,)
    return AttributeScores(attribute=attribute, having=having)


def guide_of(section: Attributes | Masks, reads: str) -> Guide:
    """The section of a guide on features, or on pixels, which has no taps."""
    return Guide(taps=section.taps if reads == "features" else None, training=section.training)


def guided_of(
    section: Attributes | Masks, method: str, steps: int, experiment: Experiment, first: int = 0
) -> GuidedShard:
    """The section of a shard of guided images: with a scale if the method steers, and a threshold if it refuses.

    first: of masks, as Table2.first has it.

    Writing these as settings keeps a changed scale from replanning what is not guided.
    """
    drawn, how = section.sampling, METHODS[method]
    sampling = Sampling(solver=drawn.solver, steps=steps, eta=drawn.eta, guidance_scale=0.0)
    shard = GuidedShard(sampling=sampling, scale=drawn.scale if how.steered else 0.0)
    if isinstance(section, Masks):
        return shard.model_copy(update={"images": experiment.table2.images, "first": first})
    table = experiment.table1
    refused = {"threshold": table.threshold, "max_attempts": table.max_attempts} if how.refused else {}
    return shard.model_copy(update={"images": table.images, **refused})


def accuracy_table_of(experiment: Experiment) -> AccuracyTable:
    """The section of Tables 3 and 4. The paper's figures stand beside its own data set and the embedded one, which the
    project compares with it; beside other images they would look comparable."""
    paper = experiment.data.kind in ("embedded", "tiny-imagenet")
    return AccuracyTable(**experiment.tables.model_dump(), paper=paper)


def guidance_table_of(number: int, experiment: Experiment) -> GuidanceTable:
    """The section of Table 1 or 2, with the paper's figures beside the same data sets and the embedded one."""
    masks = experiment.masks.data
    of_faces = masks.kind == "celebamask-hq" or (masks.few_shot is not None and masks.few_shot.classes == CELEBA_19)
    paper = {1: experiment.data.kind in ("embedded", "celeba"), 2: masks.kind == "embedded" or of_faces}[number]
    return GuidanceTable(minimum=experiment.evaluation.minimum, paper=paper)


def parse(raw: dict[str, Any], where: str = "config") -> Experiment:
    """A merged configuration -> Experiment. Raises UserError naming every key that is wrong, in one line."""
    try:
        return Experiment.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{where}: {explain(e)}") from None


def denoiser_path(experiment: Experiment) -> str:
    """Where the unconditional denoiser is, or will be."""
    if experiment.denoiser.kind == "pretrain":
        return f"results/{experiment.experiment}/denoiser.safetensors"
    return str(experiment.denoiser.file.path)


def explain(error: ValidationError) -> str:
    """All complaints of a ValidationError in one line: `key: what was expected, got what`."""
    return "; ".join(_complaint(dict(item)) for item in error.errors())


def _complaint(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(whole)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or see config.yaml for the names"
    if item["type"] == "missing":
        return f"{key}: missing; add it"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}, got {item['input']!r}"


def load(*files: Path) -> Experiment:
    """The experiment of config.yaml and the overlays after it. Raises UserError."""
    raw: dict[str, Any] = {}
    for path in files:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such configuration file") from None
        except UnicodeDecodeError as e:
            raise UserError(f"{path}: not UTF-8 at byte {e.start}; save it as UTF-8") from None
        except (yaml.YAMLError, ValueError) as e:  # of dates and numbers that are none
            raise UserError(f"{path}: not valid YAML ({' '.join(str(e).split())})") from None
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a table of settings")
        raw = merge(raw, content)
    return parse(raw, " + ".join(map(str, files)))
