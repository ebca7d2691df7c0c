"""The experiment as typed models: the only place where a setting has a name, a type and a default.

`config.yaml` and the overlays are read through `load`, by Snakemake and by the command line alike. Each stage of the
workflow is told of its own section and nothing else, as the JSON that `stage_json` makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from ddrep.errors import UserError

Positive = Annotated[int, Gt(0)]
Rate = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
Timestep = Annotated[float, Ge(0), Le(999)]
Name = Literal["improved-ddpm", "classifier-free", "pixel-rejection", "ours"]
Source = Literal["real", "real-equal-steps", "improved-ddpm", "classifier-free", "pixel-rejection", "ours"]
SYNTHETIC: tuple[Name, ...] = ("improved-ddpm", "classifier-free", "pixel-rejection", "ours")

VERSIONS = {
    "data": 1,
    "pretrain": 1,
    "finetune": 1,
    "features": 1,
    "rejection": 1,
    "pixel-rejection": 1,
    "pixel-threshold": 1,
    "synthesis": 1,
    "classifier": 1,
    "tables": 1,
    "figures": 1,
}
"""Raised when ddrep's code changes what a stage computes: results of older versions are made anew."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and the text below a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EmbeddedData(Section):
    """The subset of Fashion-MNIST that comes with ddrep."""

    per_class: Annotated[int, Gt(0), Le(50)] = 50
    """Labelled training images a class in each of the 3 disjoint subsets."""
    test_images: Annotated[int, Gt(0), Le(5000)] = 5000


class ImageFolder(Section):
    """Your own images: ROOT/train/CLASS/*, ROOT/test/CLASS/* and, if you have it, ROOT/validation/CLASS/*."""

    root: Path
    size: Positive = 64
    """Width and height in pixels; images are resized (shorter side) and centre-cropped."""
    channels: Literal[1, 3] = 3


class TinyImageNet(Section):
    """Tiny ImageNet as it is published; its official validation images, which have labels, are the test split."""

    path: Path
    """The folder tiny-imagenet-200, or the zip it comes in."""
    size: Positive = 64
    """Width and height in pixels that all images must have."""
    classes: Annotated[int, Ge(2)] = 200
    """Expected number of classes."""
    train_per_class: Annotated[int, Ge(2)] = 500
    """Expected number of training images a class."""
    test_per_class: Positive = 50
    """Expected number of official validation images a class."""
    validation_per_class: Positive = 10
    """Training images of each class held out for validation; they are not in train."""

    @model_validator(mode="after")
    def _leaves_some_for_training(self) -> TinyImageNet:
        if self.validation_per_class >= self.train_per_class:
            raise ValueError("validation_per_class: expected less than train_per_class")
        return self


class WebDatasetFiles(Section):
    """Any WebDataset of images with `cls`: tars, or folders of tars, by split."""

    train: Annotated[tuple[Path, ...], MinLen(1)]
    test: Annotated[tuple[Path, ...], MinLen(1)]
    validation: tuple[Path, ...] = ()
    """None given: a tenth of each class of train is held out."""
    classes: tuple[str, ...] = ()
    """Names in the order of cls; none given: cls itself, from 0 to the largest in train."""
    size: Positive = 64
    """Width and height in pixels; images are resized (shorter side) and centre-cropped."""
    channels: Literal[1, 3] = 3


class CelebA(Section):
    """CelebA's aligned images, with one attribute as the label."""

    root: Path
    """Holds img_align_celeba/, list_attr_celeba.txt and list_eval_partition.txt, or these in Img/, Anno/ and Eval/."""
    attribute: str
    """Name in list_attr_celeba.txt, such as Male or Blond_Hair: class 1 has it, class 0 has not."""
    partition: tuple[Positive, Positive, Positive] = (162_770, 19_867, 19_962)
    """Expected numbers of training, validation and test images."""
    size: Positive = 64
    """Width and height in pixels that the square crop is resized to."""


class Data(Section):
    """The labelled images. `kind` names the sub-table that counts."""

    kind: Literal["embedded", "image-folder", "tiny-imagenet", "webdataset", "celeba"] = "embedded"
    embedded: EmbeddedData = EmbeddedData()
    image_folder: ImageFolder | None = None
    tiny_imagenet: TinyImageNet | None = None
    webdataset: WebDatasetFiles | None = None
    celeba: CelebA | None = None

    @model_validator(mode="after")
    def _has_its_table(self) -> Data:
        if getattr(self, self.table) is None:
            raise ValueError(f"kind is {self.kind}: expected a table {self.table}; see config.yaml for its keys")
        return self

    @property
    def table(self) -> str:
        """Name of the sub-table that counts."""
        return self.kind.replace("-", "_")

    @model_serializer(mode="wrap")
    def _without_empty_tables(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # image_folder stays, so that what was made before there were other kinds is not planned again
        return {k: v for k, v in handler(self).items() if v is not None or k == "image_folder"}


class Network(Section):
    """An ADM U-Net (ddrep.denoiser.unet.UNetConfig) to be trained from scratch; size and channels are the images'."""

    model_channels: Positive = 32
    channel_mult: tuple[Positive, ...] = (1, 2, 2)
    num_res_blocks: Positive = 1
    attention_sizes: tuple[Positive, ...] = (7,)
    num_heads: Positive = 2


class Pretrain(Section):
    """Unconditional training from scratch (AdamW, cosine decay of the learning rate)."""

    images: Path | None = None
    """IDX file of unlabelled images, e.g. Fashion-MNIST's train-images-idx3-ubyte.gz."""
    network: Network = Network()
    schedule: Literal["cosine", "linear"] = "cosine"
    num_steps: Positive = 1000
    steps: Positive = 6400
    batch: Positive = 64
    lr: Rate = 1.2e-3
    weight_decay: Annotated[float, Ge(0)] = 0.0
    warmup: Annotated[int, Ge(0)] = 200
    clip: Annotated[float, Ge(0)] = 1.0
    ema_decay: Share = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class DenoiserFile(Section):
    """A denoiser that is there already."""

    path: Path = Path("ddrep/data/embedded/denoiser.safetensors")


class DenoiserChoice(Section):
    """The unconditional denoiser everything starts from. `kind` names the sub-table that counts."""

    kind: Literal["file", "pretrain"] = "file"
    file: DenoiserFile = DenoiserFile()
    pretrain: Pretrain = Pretrain()


class FineTune(Section):
    """Class-conditional fine-tuning of the whole network with a label table added (paper, 4.2 and 5.3.1)."""

    steps: Positive = 1200
    batch: Positive = 64
    lr: Rate = 1e-3
    warmup: Annotated[int, Ge(0)] = 50
    weight_decay: Annotated[float, Ge(0)] = 0.0
    embedding_std: Annotated[float, Ge(0)] = 1.0
    """Initial spread of the label table. Near the time embedding's own scale the labels are heard at once."""
    label_dropout: Share = 0.1
    """Share of labels replaced by the null row."""
    ema_decay: Share = 0.999
    clip: Annotated[float, Ge(0)] = 1.0
    flip: bool = False
    """Random left-right flips."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Features(Section):
    """What is read from the unconditional denoiser for the rejection classifier (paper, 5.3.1)."""

    timesteps: Annotated[tuple[Timestep, ...], MinLen(1)] = (300, 800)
    """In embedded units, 0..1000 whatever the schedule's number of steps."""
    noise: Literal["none", "fixed"] = "none"
    """Feed the clean image (the published code), or the image noised to t by one fixed noise."""
    pool: Positive | None = None
    """Average-pool features to this width and height; the paper's text has 4, its code none."""
    flip: bool = False
    """Read the mirrored images as well: the head then trains on random left-right flips."""


class Head(Section):
    """Training of a rejection classifier (published code's settings)."""

    hidden: Positive = 192
    """Width of the CNN; 192 gives the paper's 1.2M parameters on 1024 channels and 200 classes."""
    dropout: Share = 0.2
    epochs: Positive = 30
    batch: Positive = 128
    lr: Rate = 3e-4
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    holdout: Annotated[float, Gt(0), Le(0.5)] = 0.2
    """Share of each class's training images held out to choose the best epoch by."""


class PixelHead(Head):
    """Training of the control on pixels."""

    flip: bool = False
    """Random left-right flips."""


class Sampling(Section):
    """How candidates are drawn from the fine-tuned denoiser."""

    solver: Literal["ddim", "dpm-solver++"] = "dpm-solver++"
    steps: Annotated[int, Ge(2)] = 16
    eta: Share = 0.0
    """Fresh noise in every step: 0 is deterministic; 1 is DDPM's ancestral sampling, or SDE-DPM-Solver++."""
    guidance_scale: Annotated[float, Ge(0)] = 0.01
    """w in (1 + w) eps(x, t, y) - w eps(x, t); the source improved-ddpm has none."""
    unconditional: Literal["row", "pretrained"] = "row"
    """Where eps(x, t) comes from: the fine-tuned network's null row, or the pretrained network."""


class Synthesis(Section):
    """How many images, and which candidates are kept."""

    per_class: Positive = 50
    """Accepted images of each class in 1x."""
    shards_per_scale: Positive = 1
    """Shards that 1x is cut into, one job each."""
    threshold: Share = 0.2
    """A candidate is kept when p(its class) >= threshold."""
    max_attempts: Positive = 40
    """Budget: attempts a class for each accepted image asked for."""

    @model_validator(mode="after")
    def _shards_are_equal(self) -> Synthesis:
        if self.per_class % self.shards_per_scale:
            raise ValueError("per_class: expected a multiple of shards_per_scale")
        return self


class Shard(Section):
    """All that determines a synthetic shard, beside its inputs, number and the experiment's seed."""

    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()


class Mix(Section):
    """Mixup and CutMix, as timm applies them; the paper gives the probability alone, the alphas are ours."""

    prob: Share = 0.5
    switch_prob: Share = 0.5
    mixup_alpha: Annotated[float, Ge(0)] = 0.8
    cutmix_alpha: Annotated[float, Ge(0)] = 1.0

    @model_validator(mode="after")
    def _mixes_somehow(self) -> Mix:
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("mixup_alpha, cutmix_alpha: expected one above 0; to mix nothing set mix: [false]")
        return self


class Classifier(Section):
    """Training of the downstream classifiers (paper, 5.3.2)."""

    stem: Literal["stock", "small"] = "stock"
    """timm's first layers (7x7 stride 2 and pooling), or 3x3 stride 1 without pooling for small images."""
    epochs: Positive = 40
    batch: Annotated[int, Gt(0), MultipleOf(2)] = 256
    """Even, for Mixup pairs images within a batch."""
    lr: Rate = 1e-3
    drops: tuple[Share, ...] = (0.5, 0.75)
    """Shares of the training after which the learning rate is divided by 10 (epochs 20 and 30 of 40)."""
    flip: bool = False
    """Random left-right flips."""
    mix: Mix = Mix()
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Training(Section):
    """All that determines a classifier, beside its inputs, architecture and seed."""

    classifier: Classifier = Classifier()
    mixed: bool = False
    """Whether Mixup and CutMix are used."""
    per_class: Annotated[int, Ge(0)] = 0
    """Images a class in 1x; real-equal-steps takes as many steps as real + scale x 1x images would."""


class Runs(Section):
    """A block of Table 4: the product of its lists. Scale 0 belongs to source real, the others to all but real."""

    architectures: Annotated[tuple[str, ...], MinLen(1)] = ("resnet18",)
    mix: Annotated[tuple[bool, ...], MinLen(1)] = (False, True)
    sources: Annotated[tuple[Source, ...], MinLen(1)] = ("real", "real-equal-steps", "ours")
    scales: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0, 1, 2, 3)
    subsets: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)


class Table3(Section):
    """Classification accuracy score: one classifier on one source alone, at 1x."""

    architecture: str = "resnet18"
    sources: tuple[Name, ...] = SYNTHETIC
    subsets: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)


class Tables(Section):
    """What the tables are made with."""

    resamples: Positive = 2000
    """Bootstrap resamples."""
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95
    """Of the intervals of differences."""


class Figures(Section):
    """What the figures show. Figures 1 and 3 are of subset 0."""

    figure1_class: Annotated[int, Ge(0)] = 0
    """Number of the class."""
    figure1_images: Positive = 12
    """Attempts side by side."""
    figure3_classes: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0, 1, 2, 3)
    """Numbers of the classes."""
    figure3_images: Positive = 12
    """Accepted images of each class."""


class Experiment(Section):
    """The whole of config.yaml."""

    experiment: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name; results go to results/NAME."""
    seed: Annotated[int, Ge(0)] = 0
    data: Data = Data()
    denoiser: DenoiserChoice = DenoiserChoice()
    finetune: FineTune = FineTune()
    features: Features = Features()
    rejection: Head = Head()
    pixel_rejection: PixelHead = PixelHead()
    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()
    classifier: Classifier = Classifier()
    table3: Table3 = Table3()
    table4: tuple[Runs, ...] = (Runs(),)
    tables: Tables = Tables()
    figures: Figures = Figures()


C = TypeVar("C", bound=BaseModel)


class Stage(BaseModel, Generic[C]):
    """What a command of the workflow is told: its section, the seed, and the version of the code it was made for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    stage: str = ""
    """Name of the stage, written by the workflow; leave it out by hand."""
    version: int = 0
    """Version of the stage's code, written by the workflow; leave it out by hand."""
    seed: int = 0
    """The experiment's seed."""
    config: C
    """The stage's section of config.yaml."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_by_hand(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"config": {}, **given}

    @model_validator(mode="after")
    def _is_this_version(self) -> Stage[C]:
        if self.stage and self.version != VERSIONS.get(self.stage):
            raise ValueError(f"{self.stage} is at version {VERSIONS.get(self.stage)}, not {self.version}; plan again")
        return self


def stage_json(stage: str, config: BaseModel, seed: int) -> str:
    """The canonical JSON of a stage: equal exactly when the stage would do the same (inputs apart)."""
    content = {"stage": stage, "version": VERSIONS[stage], "seed": seed, "config": config.model_dump(mode="json")}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def data_of(experiment: Experiment) -> Data:
    """The data section without the sub-tables that do not count: they may change and nothing is planned anew."""
    data = experiment.data
    return Data.model_validate({"kind": data.kind, data.table: getattr(data, data.table)})


def shard_of(source: str, experiment: Experiment) -> Shard:
    """The shard section of a source: improved-ddpm samples without guidance; the unfiltered ones accept everything.

    Writing these as settings, not as cases, keeps a changed threshold from replanning what has none.
    """
    sampling, synthesis = experiment.sampling, experiment.synthesis
    if source == "improved-ddpm":
        sampling = sampling.model_copy(update={"guidance_scale": 0.0, "unconditional": "row"})
    if source in ("improved-ddpm", "classifier-free"):
        synthesis = synthesis.model_copy(update={"threshold": 0.0})
    return Shard(sampling=sampling, synthesis=synthesis)


def training_of(source: str, mixed: bool, experiment: Experiment) -> Training:
    """The training section of a run: no Mixup settings for the unmixed, the size of 1x for real-equal-steps alone."""
    classifier = experiment.classifier if mixed else experiment.classifier.model_copy(update={"mix": Mix()})
    per_class = experiment.synthesis.per_class if source == "real-equal-steps" else 0
    return Training(classifier=classifier, mixed=mixed, per_class=per_class)


def parse(raw: dict[str, Any], where: str = "config") -> Experiment:
    """A merged configuration -> Experiment. Raises UserError naming every key that is wrong, in one line."""
    try:
        return Experiment.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{where}: {explain(e)}") from None


def denoiser_path(experiment: Experiment) -> str:
    """Where the unconditional denoiser is, or will be. Raises UserError for a file that should be there and is not."""
    if experiment.denoiser.kind == "pretrain":
        return f"results/{experiment.experiment}/denoiser.safetensors"
    path = experiment.denoiser.file.path
    if not path.is_file():
        raise UserError(f"denoiser.file.path: no file {path}; give a denoiser's .safetensors, or set denoiser.kind")
    return str(path)


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


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`overlay` over `base`, deeply for tables and whole for everything else, as Snakemake's --configfile does."""
    tables = {k for k, v in overlay.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **overlay, **{k: merge(base[k], overlay[k]) for k in tables}}


def load(*files: Path) -> Experiment:
    """The experiment of config.yaml and the overlays after it. Raises UserError."""
    raw: dict[str, Any] = {}
    for path in files:
        try:
            content = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise UserError(f"{path}: no such configuration file") from None
        except yaml.YAMLError as e:
            raise UserError(f"{path}: not valid YAML ({' '.join(str(e).split())})") from None
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a table of settings")
        raw = merge(raw, content)
    return parse(raw, " + ".join(map(str, files)))
