"""`ddrep VERB`: one verb for each rule of the workflow, its options made from the typed config.

Every import that costs time is inside the verb that needs it, for the workflow starts many short commands.
"""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict, SettingsError

from ddrep import config
from ddrep.config import Stage, explain
from ddrep.errors import UserError

Count = Annotated[int, Ge(0)]
log = logging.getLogger("ddrep")


class Verb(BaseModel):
    """Base of all verbs."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    threads: int | None = None
    """CPU threads for torch; the default is torch's own."""
    log: Path | None = None
    """File for progress messages, instead of standard error."""

    @model_validator(mode="before")
    @classmethod
    def _stage_by_hand(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"stage": {}, **given} if "stage" in cls.model_fields else given

    def cli_cmd(self) -> None:
        """Run the verb: logging and threads first, for they are the same for all."""
        _log_to(self.log)
        log.info("ddrep %s", shlex.join(sys.argv[1:]))
        self.set_up()
        self.run()

    def set_up(self) -> None:
        from ddrep.device import set_threads

        set_threads(self.threads)

    def run(self) -> None:
        raise NotImplementedError


class Light(Verb):
    """Base of the verbs that do without torch, whose import takes longer than their work."""

    def set_up(self) -> None:
        pass


class Data(Light):
    """Write one split of the labelled images as a shard."""

    stage: Stage[config.Data]
    split: str = "train"
    """train, validation or test."""
    subset: Count = 0
    """Which of the disjoint labelled subsets (train only)."""
    out: Path
    """Shard (.tar) to write."""

    def run(self) -> None:
        from ddrep.data.datasets import labelled
        from ddrep.data.shards import write_shard

        write_shard(self.out, labelled(self.stage.config, self.split, self.subset, self.stage.seed))


class Pretrain(Verb):
    """Train an unconditional denoiser on unlabelled images."""

    stage: Stage[config.Pretrain]
    out: Path
    """Denoiser (.safetensors) to write."""
    grid: Path | None = None
    """PNG of 64 samples to write."""

    def run(self) -> None:
        from ddrep.training.pretrain import run

        run(self.stage, self.out, self.grid)


class Import(Verb):
    """Make a denoiser of a published checkpoint: a U-Net of improved-diffusion, guided-diffusion or ermongroup/ddim.

    Options are for what the file does not tell; for the published files it is known.
    """

    file: CliPositionalArg[Path]
    """The checkpoint (.pt, .pth): a state dict of tensors, or ddim's list."""
    image_size: Annotated[int, Gt(0)] | None = None
    """Pixels a side."""
    num_heads: Annotated[int, Gt(0)] | None = None
    """Attention heads of every layer."""
    num_head_channels: Annotated[int, Gt(0)] | None = None
    """Channels of an attention head, instead of the number of heads."""
    new_attention_order: bool | None = None
    """Whether q, k, v are split before the heads (guided-diffusion's use_new_attention_order)."""
    schedule: Literal["cosine", "linear"] | None = None
    """Noise schedule."""
    num_steps: Annotated[int, Gt(0)] | None = None
    """Steps of the schedule."""
    rescale_timesteps: bool | None = None
    """Whether the network is told times in 0..1000 whatever the number of steps."""
    out: Path
    """Denoiser (.safetensors) to write."""

    def run(self) -> None:
        from ddrep.denoiser.importers import Settings, run

        given = self.model_dump(exclude={"file", "out", "threads", "log"})
        run(self.file, self.out, Settings(**given))


class Finetune(Verb):
    """Make an unconditional denoiser class-conditional."""

    stage: Stage[config.FineTune]
    denoiser: Path
    """The unconditional denoiser."""
    train: Path
    """Shard of labelled training images."""
    validation: Path
    """Shard of labelled images on which it is logged whether the labels are heard."""
    out: Path
    """Denoiser (.safetensors) to write."""
    grid: Path
    """PNG with a row of samples a class to write."""
    history: Path
    """Loss and label margin by step (.parquet) to write."""

    def run(self) -> None:
        from ddrep.training.finetune import run

        run(self.stage, self.denoiser, self.train, self.validation, self.out, self.grid, self.history)


class Features(Verb):
    """Read the unconditional denoiser's features of labelled images."""

    stage: Stage[config.Features]
    denoiser: Path
    """The unconditional denoiser."""
    images: Path
    """Shard of images."""
    out: Path
    """Features (.safetensors) to write."""

    def run(self) -> None:
        from ddrep.training.heads import extract

        extract(self.stage, self.denoiser, self.images, self.out)


class Head(Verb):
    """Base of the verbs that train a rejection classifier."""

    train: Path
    """Shard of labelled training images."""
    out: Path
    """Classifier (.safetensors) to write."""
    report: Path
    """Accuracy, confusion and calibration on the held-out images (.json) to write."""


class Rejection(Head):
    """Train the rejection classifier on denoiser features."""

    stage: Stage[config.Head]
    features: Path
    """Features of the training images."""

    def run(self) -> None:
        from ddrep.training.heads import run_features

        run_features(self.stage, self.features, self.train, self.out, self.report)


class PixelRejection(Head):
    """Train the control: a rejection classifier on pixels."""

    stage: Stage[config.PixelHead]

    def run(self) -> None:
        from ddrep.training.heads import run_pixels

        run_pixels(self.stage, self.train, self.out, self.report)


class Drawing(Verb):
    """Base of the verbs that draw candidates and judge them."""

    stage: Stage[config.Shard]
    finetuned: Path
    """The class-conditional denoiser."""
    pretrained: Path
    """The unconditional denoiser, whose features judge."""
    judge: Path
    """The rejection classifier: on features or, for synthesize, on pixels."""
    pool: Path
    """Folder in which candidates outlive this command."""
    batch: Annotated[int, Ge(1)] = 250
    """Images drawn at once; does not change them."""


class Synthesize(Drawing):
    """Generate one shard of accepted images."""

    threshold_file: Annotated[Path | None, BeforeValidator(lambda given: given or None)] = None
    """JSON made by pixel-threshold; its threshold replaces the section's. Empty: none."""
    index: Count
    """Number of the shard."""
    out: Path
    """Shard (.tar) to write; its attempts are written beside it (.parquet)."""

    def run(self) -> None:
        from ddrep.sampling.synthesis import run

        inputs = self.finetuned, self.pretrained, self.judge, self.threshold_file
        run(self.stage, *inputs, self.index, self.pool, self.out, self.batch)


class PixelThreshold(Drawing):
    """Choose the threshold at which the control on pixels accepts as many candidates as the rejection classifier."""

    pixel_judge: Path
    """The control on pixels."""
    out: Path
    """Threshold and acceptance rates (.json) to write."""

    def run(self) -> None:
        from ddrep.sampling.synthesis import match_threshold

        judges = self.judge, self.pixel_judge
        match_threshold(self.stage, self.finetuned, self.pretrained, *judges, self.pool, self.out, self.batch)


class Info(Light):
    """Write _info.json, with which timm and webdataset read a folder of shards as splits 1x, 2x, ..."""

    stage: Stage[config.Shard]
    shards: CliPositionalArg[list[Path]]
    """The shards, in order."""
    out: Path
    """_info.json to write."""

    def run(self) -> None:
        from ddrep.data.shards import write_info

        write_info(self.out, self.shards, self.stage.config.synthesis.shards_per_scale)


class Classify(Verb):
    """Train one classifier and write its row, and its prediction for each test image."""

    stage: Stage[config.Training]
    synthetic: CliPositionalArg[list[Path]] = []
    """Synthetic shards to train on."""
    real: Path | None = None
    """Shard of labelled training images; leave out to train on the synthetic images alone (Table 3)."""
    test: Path
    """Shard of test images."""
    subset: Count = 0
    """Subset the real images are, for the row."""
    architecture: str = "resnet18"
    """timm's name."""
    source: str = "real"
    """Source of the synthetic images, for the row; real-equal-steps trains longer on real images alone."""
    scale: Count = 0
    """Scale of the synthetic images, for the row; real-equal-steps takes the steps of real + scale x 1x images."""
    train_seed: Count = 0
    """Seed of this run."""
    out: Path
    """Row (.parquet) to write."""
    predictions: Path
    """Predictions (.parquet) to write."""

    def run(self) -> None:
        from ddrep.runs import Run
        from ddrep.training.classifier import run

        kind = self.architecture, self.stage.config.mixed, self.source, self.scale, self.train_seed
        job = Run(self.subset, *kind, real=self.real is not None)
        run(self.stage, job, self.real, self.synthetic, self.test, self.out, self.predictions)


class Table(Light):
    """Write Table 3 or 4 (one row a run), its summary and its Markdown, and print it."""

    stage: Stage[config.Tables]
    rows: CliPositionalArg[list[Path]]
    """Rows (.parquet) of the table's runs, their predictions beside them."""
    number: Annotated[int, Ge(3), Le(4)]
    """Which table: 3 or 4."""
    out: Path
    """Table (.parquet) to write."""
    summary: Path
    """Mean, spread and paired differences of each cell (.parquet) to write."""
    markdown: Path
    """The same for reading (.md) to write."""

    def run(self) -> None:
        from ddrep.reporting.tables import run

        run(self.stage, self.number, self.rows, self.out, self.summary, self.markdown)


class Figure(Light):
    """Base of the verbs that draw a figure."""

    stage: Stage[config.Figures]
    out: Path
    """PNG to write; a PDF is written beside it."""


class Figure1(Figure):
    """Draw Figure 1: one class by three sources from the same starting noise."""

    shards: CliPositionalArg[list[Path]]
    """First shards of improved-ddpm, classifier-free and ours."""

    def run(self) -> None:
        from ddrep.reporting.figures import figure1

        figure1(self.stage, self.shards, self.out)


class Figure3(Figure):
    """Draw Figure 3: accepted images of several classes."""

    shard: Path
    """First shard of ours."""

    def run(self) -> None:
        from ddrep.reporting.figures import figure3

        figure3(self.stage, self.shard, self.out)


class Figure4(Figure):
    """Draw Figure 4: top-1 against the scale of the synthetic images."""

    table: Path
    """Table 4 (.parquet)."""

    def run(self) -> None:
        from ddrep.reporting.figures import figure4

        figure4(self.stage, self.table, self.out)


class Costs(Light):
    """Gather what the stages took: time and memory, images tried and kept."""

    files: CliPositionalArg[list[Path]]
    """Attempts (.parquet) of the synthetic shards and benchmarks (.tsv) of the jobs."""
    out: Path
    """Costs (.parquet) to write."""

    def run(self) -> None:
        from ddrep.reporting.costs import run

        benchmarks = [path for path in self.files if path.suffix == ".tsv"]
        run([path for path in self.files if path.suffix == ".parquet"], benchmarks, self.out)


class Ddrep(BaseSettings):
    """Labelled training images from an unconditional diffusion model."""

    model_config = SettingsConfigDict(
        cli_prog_name="ddrep",
        cli_enforce_required=False,
        cli_exit_on_error=False,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
    )
    data: CliSubCommand[Data]
    pretrain: CliSubCommand[Pretrain]
    import_: CliSubCommand[Import] = Field(alias="import")
    finetune: CliSubCommand[Finetune]
    features: CliSubCommand[Features]
    rejection: CliSubCommand[Rejection]
    pixel_rejection: CliSubCommand[PixelRejection]
    synthesize: CliSubCommand[Synthesize]
    pixel_threshold: CliSubCommand[PixelThreshold]
    info: CliSubCommand[Info]
    classify: CliSubCommand[Classify]
    table: CliSubCommand[Table]
    figure1: CliSubCommand[Figure1]
    figure3: CliSubCommand[Figure3]
    figure4: CliSubCommand[Figure4]
    costs: CliSubCommand[Costs]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def _log_to(path: Path | None) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="w") if path else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)


def main(args: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line on standard error for what the user can mend."""
    try:
        CliApp.run(Ddrep, cli_args=sys.argv[1:] if args is None else args)
    except ValidationError as e:
        message = explain(e)
    except (UserError, SettingsError) as e:
        message = " ".join(str(e).split()).split(" usage: ")[0]
    except Exception:
        log.exception("ddrep: a defect, or a machine at its limits; please report it with these lines")
        raise
    else:
        return 0
    if log.handlers and isinstance(log.handlers[0], logging.FileHandler):
        log.error("ddrep: %s", message)
    print(f"ddrep: {message}", file=sys.stderr)
    return 2
