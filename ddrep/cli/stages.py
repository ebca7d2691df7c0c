"""The verbs that make what the tables are of: data, denoisers, rejection classifiers, shards, classifier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Light, Verb, Workers, log, log_to
from ddrep.cli.outputs import OutputFile, OutputFolder, OutputImage, OutputWithAttempts
from ddrep.config import Stage
from ddrep.config.base import Batch, Name, Natural, Seed
from ddrep.derived import training_of
from ddrep.sources import SourceName


class Data(Light):
    """Write one split of the labelled images as a shard."""

    stage: Stage[config.Data]
    split: str = "train"
    """train, validation, test, or unlabelled: real images beside the labelled ones, written without their labels."""
    subset: Natural = 0
    """Which of the disjoint labelled subsets (train and unlabelled only)."""
    apart_from: CliPositionalArg[list[Path]] = []
    """Shards of held-out images: images with the same pixels are left out of this one."""
    out: OutputFile
    """Shard (.tar) to write."""

    def run(self) -> None:
        from ddrep.data.digest import unchanged
        from ddrep.data.disjoint import apart
        from ddrep.data.readers import UNLABELLED, labelled
        from ddrep.data.shards import read_shards, write_shard, write_unlabelled

        with unchanged(self.stage):
            images = labelled(self.stage.config, self.split, self.subset, self.stage.seed)
        write = write_unlabelled if self.split == UNLABELLED else write_shard
        write(self.out, apart(images, self.split, self.apart_from, read_shards))


class Masks(Light):
    """Write one split of the images with segmentation masks as a shard."""

    stage: Stage[config.MaskData]
    split: str = "train"
    """train, test, or oracle: images for a segmenter that is trained apart and judges."""
    subset: Natural = 0
    """Which of the disjoint labelled subsets (train only)."""
    apart_from: CliPositionalArg[list[Path]] = []
    """Shards of held-out images: images with the same pixels are left out of this one."""
    out: OutputFile
    """Shard (.tar) to write."""

    def run(self) -> None:
        from ddrep.data.datasets import masked
        from ddrep.data.digest import unchanged
        from ddrep.data.disjoint import apart
        from ddrep.data.masks import read_masked_shards, write_masked_shard

        with unchanged(self.stage):
            images = masked(self.stage.config, self.split, self.subset)
        write_masked_shard(self.out, apart(images, self.split, self.apart_from, read_masked_shards))


class Pretrain(Verb):
    """Train an unconditional denoiser on unlabelled images."""

    does = "training.pretrain:run"
    stage: Stage[config.Pretrain]
    apart_from: CliPositionalArg[list[Path]] = []
    """Shards of held-out images: images of a data set with the same pixels are left out."""
    out: OutputFile
    """Denoiser (.safetensors) to write."""
    grid: OutputImage | None = None
    """PNG of 64 samples to write."""


class PretrainGenerator(Verb):
    """Train a generator of Table 1 on unlabelled images."""

    does = "training.generators:run"
    apart_from: CliPositionalArg[list[Path]] = []
    """Shards of held-out images: images of a data set with the same pixels are left out."""
    half: bool = False
    """Write weights in half precision, at half the size."""
    out: OutputFile
    """Generator (.safetensors) to write."""
    grid: OutputImage | None = None
    """PNG of 64 samples to write."""


class PretrainDiffae(PretrainGenerator):
    """Train a DiffAE, the generator of method diffae, on unlabelled images."""

    stage: Stage[config.PretrainDiffAE]


class PretrainD2c(PretrainGenerator):
    """Train a D2C, the generator of Table 1's method d2c, on unlabelled images."""

    stage: Stage[config.PretrainD2C]


class PretrainNvae(PretrainGenerator):
    """Train an NVAE, the generator of Table 1's method nvae, on unlabelled images."""

    stage: Stage[config.PretrainNVAE]


class Finetune(Verb):
    """Make an unconditional denoiser class-conditional."""

    stage: Stage[config.FineTune]
    denoiser: Path
    """The unconditional denoiser."""
    train: Path
    """Shard of labelled training images."""
    validation: Path
    """Shard of labelled images on which it is logged whether the labels are heard."""
    out: OutputFile
    """Denoiser (.safetensors) to write."""
    grid: OutputImage
    """PNG with a row of samples a class to write."""
    history: OutputFile
    """Loss and label margin by step (.parquet) to write. Beside the log, if there is one, come grids of samples."""
    processes: Workers | None = None
    """Processes that share each batch; the default is one for each visible GPU, or one on a CPU."""
    micro_batch: Batch | None = None
    """Images a process computes at once, accumulating gradients; the default is all that fit the GPU's memory."""

    def run(self) -> None:
        from ddrep.training.parallel import in_processes

        in_processes(self.processes, _finetune, self.model_dump(mode="json"))


def _finetune(options: dict[str, Any]) -> None:
    """One process of `Finetune`, which need not be the one that read the command line."""
    from ddrep.training.finetune import run
    from ddrep.training.parallel import rank

    verb = Finetune.model_validate(options)
    if rank() == 0 and not log.handlers:
        log_to(verb.log, "a")
    given = {name: value for name, value in verb.options.items() if name != "processes"}
    run(**given, previews=verb.log and verb.log.with_suffix(""))


class FitGrid(Verb):
    """Fit the noise levels that sampling visits to the unconditional denoiser (GITS)."""

    does = "sampling.time_grid:run"
    stage: Stage[config.FitGrid]
    denoiser: Path
    """The unconditional denoiser."""
    out: OutputFile
    """Time grid (.json) to write."""


class Features(Verb):
    """Read the unconditional denoiser's features of labelled images."""

    does = "training.judges:extract"
    stage: Stage[config.Features]
    denoiser: Path
    """The unconditional denoiser."""
    images: Path
    """Shard of images."""
    out: OutputFile
    """Features (.safetensors) to write."""


class Head(Verb):
    """Base of the verbs that train a rejection classifier."""

    train: Path
    """Shard of labelled training images."""
    out: OutputFile
    """Classifier (.safetensors) to write."""
    report: OutputFile
    """Accuracy, confusion and calibration on the held-out images (.json) to write."""


class Rejection(Head):
    """Train the rejection classifier on denoiser features."""

    does = "training.judges:run_features"
    stage: Stage[config.Head]
    features: Path
    """Features of the training images."""


class PixelRejection(Head):
    """Train the control: a rejection classifier on pixels."""

    does = "training.judges:run_pixels"
    stage: Stage[config.PixelHead]


class Probe(Head):
    """Train the judge of probes: linear classifiers on several blocks and timesteps of the denoiser."""

    does = "training.probe:run"
    stage: Stage[config.Probe]
    denoiser: Path
    """The unconditional denoiser."""


class Drawing(Verb):
    """Base of the verbs that draw candidates and judge them."""

    stage: Stage[config.Shard]
    pretrained: Path
    """The unconditional denoiser, whose features judge."""
    judge: Path
    """The rejection classifier: on features or, for synthesize, on pixels."""
    grid: Path | None = None
    """Where sampling.grid is fitted: JSON made by fit-grid."""
    pool: OutputFolder
    """Folder in which candidates outlive this command."""
    batch: Batch = 250
    """Images drawn at once; does not change them."""


class Synthesize(Drawing):
    """Generate one shard of accepted images; by hand, as the source ours."""

    does = "sampling.synthesis:run"
    finetuned: Path | None = None
    """The class-conditional denoiser; leave out for images of no class, which the judge labels."""
    labelled: Path | None = None
    """Without --finetuned: a shard of labelled images, whose classes are meant."""
    threshold_file: Path | None = None
    """JSON made by pixel-threshold; its threshold replaces the section's."""
    index: Natural
    """Number of the shard."""
    out: OutputWithAttempts
    """Shard (.tar) to write; its attempts are written beside it (.parquet)."""


class PixelThreshold(Drawing):
    """Choose the threshold at which the control on pixels accepts as many candidates as the rejection classifier."""

    does = "sampling.synthesis:match_threshold"
    finetuned: Path
    """The class-conditional denoiser."""
    pixel_judge: Path
    """The control on pixels."""
    out: OutputFile
    """Threshold and acceptance rates (.json) to write."""


class Label(Verb):
    """Let a judge label images: a shard with its probabilities as soft labels."""

    does = "sampling.labelling:run"
    stage: Stage[config.Synthesis]
    images: Path
    """Shard of labelled images, which keep their classes; or, with --index, of images without labels."""
    denoiser: Path
    """The unconditional denoiser, whose features judge."""
    judge: Path
    """The judge."""
    index: Natural | None = None
    """Number of the part, as large as a synthetic shard; a row an image is written beside it (.parquet)."""
    labelled: Path | None = None
    """With --index: a shard of labelled images, whose classes are meant."""
    out: OutputWithAttempts
    """Shard (.tar) to write."""


class Info(Light):
    """Write _info.json, with which timm and webdataset read a folder of shards as splits 1x, 2x, ..."""

    stage: Stage[config.Shard]
    shards: CliPositionalArg[list[Path]]
    """The shards, in order."""
    out: OutputFile
    """_info.json to write."""

    def run(self) -> None:
        from ddrep.data.shards import write_info

        write_info(self.out, self.shards, self.stage.config.synthesis.shards_per_scale)


class Classify(Verb):
    """Train one classifier and write its row, its prediction for each test image, its weights, or some of these; by
    hand, an unmixed one."""

    does = "training.classifier:run"
    stage: Stage[config.Training]
    synthetic: CliPositionalArg[list[Path]] = []
    """Synthetic shards to train on."""
    real: Path | None = None
    """Shard of labelled training images; leave out to train on the synthetic images alone (Table 3)."""
    test: Path
    """Shard of test images."""
    subset: Natural = 0
    """Subset the real images are, for the row."""
    architecture: Name = "resnet18"
    """timm's name."""
    source: SourceName = "real"
    """Source of the images beside the real ones, for the row; real-equal-steps trains longer on real images alone."""
    scale: Natural = 0
    """Scale of the synthetic images, for the row; real-equal-steps takes the steps of real + scale x 1x images."""
    train_seed: Seed = 0
    """Seed of this run."""
    out: OutputFile | None = None
    """Row (.parquet) to write."""
    predictions: OutputFile | None = None
    """Predictions (.parquet) to write."""
    weights: OutputFile | None = None
    """Weights (.safetensors) to write, which timm reads."""

    @classmethod
    def by_hand(cls, options: dict[str, Any]) -> dict[str, Any]:
        source = options.get("source", cls.model_fields["source"].default)
        return {"config": training_of(source, False, config.Experiment()).model_dump()}
