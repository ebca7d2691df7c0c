"""The verbs of guidance by a few examples: images, guides, guided shards, scores (paper, 5.1 and 5.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Batch, Count, Light, Verb
from ddrep.cli.outputs import OutputArrays, OutputFile, OutputFolder, OutputWithAttempts
from ddrep.config import Stage
from ddrep.derived import guide_of, guided_of


class Attribute(Light):
    """Write images with and without an attribute as a shard; by hand, of train the guides' examples, of others all."""

    stage: Stage[config.AttributeImages]
    split: str = "train"
    """train, validation or test."""
    subset: Count = 0
    """Which of the disjoint labelled subsets (train only)."""
    run_seed: Count = 0
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

    stage: Stage[config.Guide] = Stage[config.Guide](config=guide_of(config.Attributes(), "features"))
    of: Literal["attribute", "mask"]
    """What is told of an image: one class, or one for each pixel."""
    denoiser: Path
    """The unconditional denoiser."""
    examples: Path
    """Shard of images with classes, or with masks."""
    run_seed: Count = 0
    """Seed of this run."""
    out: OutputFile
    """Guide (.safetensors) to write."""

    @classmethod
    def by_hand(cls, options: dict[str, Any]) -> dict[str, Any]:
        section = config.Masks() if options.get("of") == "mask" else config.Attributes()
        return {"config": guide_of(section, "features").model_dump()}

    def run(self) -> None:
        from ddrep.training.guides import run

        run(self.stage, self.of, self.denoiser, self.examples, self.run_seed, self.out)


def _ours(section: config.Attributes | config.Masks, steps: int) -> Stage[config.GuidedShard]:
    return Stage[config.GuidedShard](config=guided_of(section, "ours", steps, config.Experiment()))


class Guided(Verb):
    """Base of the verbs that draw guided images."""

    denoiser: Path
    """The unconditional denoiser."""
    guide: Path
    """What guides, where the section has a scale, and refuses, where it has a threshold."""
    subset: Count = 0
    """Labelled subset, and"""
    run_seed: Count = 0
    """seed, of this run: together they number the starting noise."""
    pool: OutputFolder
    """Folder in which candidates outlive this command."""
    out: OutputFile
    """Shard (.tar) to write."""
    batch: Batch | None = None
    """Images drawn at once; does not change them. The default bounds the memory."""


class GuideAttribute(Guided):
    """Draw images of an attribute, and as many of its absence; by hand, as method ours."""

    stage: Stage[config.GuidedShard] = _ours(config.Attributes(), config.Table1().steps[0])
    out: OutputWithAttempts
    """Shard (.tar) to write; its attempts are written beside it (.parquet)."""

    def run(self) -> None:
        from ddrep.sampling.guided import attribute_shard

        run = self.subset, self.run_seed
        attribute_shard(self.stage, self.denoiser, self.guide, *run, self.pool, self.out, self.batch)


class GuideMasks(Guided):
    """Draw an image for each of `--stage.config.images` target masks, from `--stage.config.first` on; by hand, ours."""

    stage: Stage[config.GuidedShard] = _ours(config.Masks(), config.Table2().steps[0])
    masks: Path
    """Shard of images with the target masks."""

    def run(self) -> None:
        from ddrep.sampling.guided import mask_shard

        inputs, run = (self.denoiser, self.guide, self.masks), (self.subset, self.run_seed)
        mask_shard(self.stage, *inputs, *run, self.pool, self.out, self.batch)


class Measured(Verb):
    """Base of the verbs that write features for Fréchet distances."""

    evaluator: Path | None = None
    """Its features are taken where there is no file of Inception's; neither: none."""
    inception: Path | None = None
    """Inception's weights, for FID."""


class RealFeatures(Measured):
    """Write the features of real images."""

    stage: Stage[config.Section]
    images: CliPositionalArg[Path]
    """Shard of images with classes, or with masks."""
    of: Literal["attribute", "mask"]
    """Which of the two the shard is of."""
    out: OutputArrays
    """Features (.npz) to write."""

    def run(self) -> None:
        from ddrep.evaluation.scores import real_features

        real_features(self.images, self.of, self.evaluator, self.inception, self.out)


class Score(Measured):
    """Base of the verbs that score guided images."""

    shard: Path
    """The guided images."""
    method: str
    """How they were made, for the row, as are the next three."""
    steps: Count
    """Solver steps."""
    subset: Count = 0
    """Labelled subset."""
    run_seed: Count = 0
    """Seed of the run."""
    out: OutputFile
    """Rows (.parquet) to write."""
    features_out: OutputArrays
    """Features of the images (.npz) to write."""


class ScoreAttribute(Score):
    """Score guided images of an attribute: the share that shows it, or does not where it should not."""

    stage: Stage[config.AttributeScores]

    def run(self) -> None:
        from ddrep.errors import UserError
        from ddrep.evaluation.scores import Cell, score_attribute

        if self.evaluator is None:
            raise UserError("--evaluator: missing; it says which images have the attribute")
        cell = Cell(self.method, self.steps, self.subset, self.run_seed)
        score_attribute(self.stage, self.shard, self.evaluator, self.inception, cell, self.out, self.features_out)


class ScoreMasks(Score):
    """Score mask-guided images: how well a segmenter's label maps of them agree with the targets."""

    stage: Stage[config.Section]
    segmenter: Path
    """The oracle."""

    def run(self) -> None:
        from ddrep.evaluation.scores import Cell, score_masks

        cell = Cell(self.method, self.steps, self.subset, self.run_seed)
        score_masks(self.shard, self.segmenter, self.evaluator, self.inception, cell, self.out, self.features_out)


class Robustness(Verb):
    """Measure the guides' accuracy on estimates of the clean image, from early in sampling to late (paper, 4.1)."""

    stage: Stage[config.Robustness]
    guides: CliPositionalArg[list[Path]]
    """Guides of one attribute."""
    denoiser: Path
    """The unconditional denoiser."""
    test: Path
    """Shard of test images with and without the attribute."""
    attribute: str
    """Its name, for the rows, as are the next two."""
    subset: Count = 0
    """Labelled subset."""
    run_seed: Count = 0
    """Seed of the run."""
    out: OutputFile
    """Rows (.parquet) to write."""

    def run(self) -> None:
        from ddrep.evaluation.robustness import run

        run_of = self.subset, self.run_seed
        run(self.stage, self.attribute, self.denoiser, self.guides, self.test, *run_of, self.out)
