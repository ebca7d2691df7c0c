"""The verbs of guidance by a few examples: images, guides, guided shards, scores (paper, 5.1 and 5.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Light, Verb
from ddrep.cli.outputs import OutputArrays, OutputFile, OutputFolder, OutputWithAttempts
from ddrep.config import Stage
from ddrep.config.base import Batch, Name, Natural, Seed
from ddrep.derived import generated_of, guide_of, guided_of


class Attribute(Light):
    """Write images with and without an attribute as a shard; by hand, of train the guides' examples, of others all."""

    stage: Stage[config.AttributeImages]
    split: str = "train"
    """train, validation or test."""
    subset: Natural = 0
    """Which of the disjoint labelled subsets (train only)."""
    run_seed: Seed = 0
    """Chooses the examples, where not all images are asked for."""
    apart_from: CliPositionalArg[list[Path]] = []
    """Shards of held-out images: images with the same pixels are left out of this one."""
    out: OutputFile
    """Shard (.tar) to write."""

    @classmethod
    def by_hand(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {"config": {"examples": config.Attributes().examples if options.get("split", "train") == "train" else 0}}

    def run(self) -> None:
        from ddrep.data.attributes import attribute_images
        from ddrep.data.digest import unchanged
        from ddrep.data.shards import write_shard

        which = self.split, self.subset, self.stage.seed, self.run_seed
        with unchanged(self.stage):
            chosen = attribute_images(self.stage.config, *which, self.apart_from)
        write_shard(self.out, chosen)


class Guide(Verb):
    """Train a guide: of an attribute or of masks; on denoiser features or, without taps, on pixels (DDIM-I's).

    The defaults of the stage are those of attributes, or with `--of mask` config.yaml's for masks.
    """

    does = "training.guides:run"
    stage: Stage[config.Guide] = Stage[config.Guide](config=guide_of(config.Attributes(), "features"))
    of: Literal["attribute", "mask"]
    """What is told of an image: one class, or one for each pixel."""
    denoiser: Path
    """The unconditional denoiser."""
    examples: Path
    """Shard of images with classes, or with masks."""
    run_seed: Seed = 0
    """Seed of this run."""
    out: OutputFile
    """Guide (.safetensors) to write."""

    @classmethod
    def by_hand(cls, options: dict[str, Any]) -> dict[str, Any]:
        section = config.Masks() if options.get("of") == "mask" else config.Attributes()
        return {"config": guide_of(section, "features").model_dump()}


def _ours(section: config.Attributes | config.Masks, steps: int) -> Stage[config.GuidedShard]:
    return Stage[config.GuidedShard](config=guided_of(section, "ours", steps, config.Experiment()))


class Drawn(Verb):
    """Base of the verbs that draw images of an attribute, or for masks."""

    subset: Natural = 0
    """Labelled subset, and"""
    run_seed: Seed = 0
    """seed, of this run: together they number the noise."""
    pool: OutputFolder
    """Folder in which candidates outlive this command."""
    out: OutputFile
    """Shard (.tar) to write."""


class Guided(Drawn):
    """Base of the verbs that draw guided images."""

    denoiser: Path
    """The unconditional denoiser."""
    guide: Path
    """What guides, where the section has a scale, and refuses, where it has a threshold."""
    batch: Batch | None = None
    """Images after which those drawn are kept; does not change them."""


class GuideAttribute(Guided):
    """Draw images of an attribute, and as many of its absence; by hand, as method ours."""

    does = "sampling.guided:attribute_shard"
    stage: Stage[config.GuidedShard] = _ours(config.Attributes(), config.Table1().steps[0])
    out: OutputWithAttempts
    """Shard (.tar) to write; its attempts are written beside it (.parquet)."""


class GuideMasks(Guided):
    """Draw an image for each of `--stage.config.images` target masks, from `--stage.config.first` on; by hand, ours."""

    does = "sampling.guided:mask_shard"
    stage: Stage[config.GuidedShard] = _ours(config.Masks(), config.Table2().steps[0])
    masks: Path
    """Shard of images with the target masks."""


class JudgeLatents(Verb):
    """Train a judge of an attribute, or of masks, on a generator's latents: a linear layer."""

    does = "training.latent_judges:run"
    stage: Stage[config.LatentJudge]
    generator: Path
    """The generator, whose latents of the examples are read."""
    of: Literal["attribute", "mask"]
    """What is told of an image: one class, or one for each pixel."""
    examples: Path
    """Shard of images with and without the attribute, or with masks."""
    run_seed: Seed = 0
    """Seed of this run."""
    out: OutputFile
    """Judge (.safetensors) to write."""


class Generated(Drawn):
    """Base of the verbs that draw images of a generator whose latents are judged."""

    generator: Path
    """The generator."""
    judge: Path
    """What decides which latents are made images."""
    batch: Batch = 250
    """Images drawn at once; does not change them."""


class GenerateAttribute(Generated):
    """Draw images of an attribute, and as many of its absence, of a generator whose latents are judged; as diffae."""

    does = "generators.shards:attribute_shard"
    stage: Stage[config.GeneratedShard] = Stage[config.GeneratedShard](
        config=generated_of(config.Attributes(), "diffae", config.Table1().steps[0], config.Experiment())
    )
    out: OutputWithAttempts
    """Shard (.tar) to write; its attempts are written beside it (.parquet)."""


class GenerateMasks(Generated):
    """Draw an image for each of `--stage.config.images` target masks of a generator whose latents are judged."""

    does = "generators.shards:mask_shard"
    stage: Stage[config.GeneratedMasks] = Stage[config.GeneratedMasks](
        config=generated_of(config.Masks(), "diffae", config.Table2().steps[0], config.Experiment())
    )
    masks: Path
    """Shard of images with the target masks."""


class Measured(Verb):
    """Base of the verbs that write features for Fréchet distances."""

    evaluator: Path | None = None
    """Its features are taken where there is no file of Inception's; neither: none."""
    inception: Path | None = None
    """Inception's weights, for FID."""


class RealFeatures(Measured):
    """Write the features of real images."""

    does = "evaluation.scores:real_features"
    stage: Stage[config.Section]
    images: CliPositionalArg[Path]
    """Shard of images with classes, or with masks."""
    of: Literal["attribute", "mask"]
    """Which of the two the shard is of."""
    out: OutputArrays
    """Features (.npz) to write."""


class Score(Measured):
    """Base of the verbs that score guided images."""

    shard: Path
    """The guided images."""
    method: Name
    """How they were made, for the row, as are the next three."""
    steps: Natural
    """Solver steps."""
    subset: Natural = 0
    """Labelled subset."""
    run_seed: Seed = 0
    """Seed of the run."""
    out: OutputFile
    """Rows (.parquet) to write."""
    features_out: OutputArrays
    """Features of the images (.npz) to write."""


class ScoreAttribute(Score):
    """Score guided images of an attribute: the share that shows it, or does not where it should not."""

    does = "evaluation.scores:score_attribute"
    stage: Stage[config.AttributeScores]


class ScoreMasks(Score):
    """Score mask-guided images: how well a segmenter's label maps of them agree with the targets."""

    does = "evaluation.scores:score_masks"
    stage: Stage[config.Section]
    segmenter: Path
    """The oracle."""


class Robustness(Verb):
    """Measure the guides' accuracy on estimates of the clean image, from early in sampling to late (paper, 4.1)."""

    does = "evaluation.robustness:run"
    stage: Stage[config.Robustness]
    guides: CliPositionalArg[list[Path]]
    """Guides of one attribute."""
    denoiser: Path
    """The unconditional denoiser."""
    test: Path
    """Shard of test images with and without the attribute."""
    attribute: Name
    """Its name, for the rows, as are the next two."""
    subset: Natural = 0
    """Labelled subset."""
    run_seed: Seed = 0
    """Seed of the run."""
    out: OutputFile
    """Rows (.parquet) to write."""
