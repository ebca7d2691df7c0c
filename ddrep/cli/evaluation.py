"""The verbs that train what generated images are measured with."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from ddrep import config
from ddrep.cli.base import Verb
from ddrep.cli.outputs import OutputFile
from ddrep.config import Stage
from ddrep.config.base import Natural


class Evaluator(Verb):
    """Train the classifier on whose features Fréchet distances are taken."""

    does = "training.evaluators:run_evaluator"
    stage: Stage[config.Evaluator]
    train: CliPositionalArg[list[Path]]
    """Shards of labelled images."""
    validation: Path | None = None
    """Shard of labelled images on which its accuracy is measured, for its metadata."""
    out: OutputFile
    """Evaluator (.safetensors) to write."""


class Segmenter(Verb):
    """Train the segmenter that says what a generated image shows, pixel by pixel."""

    does = "training.evaluators:run_segmenter"
    stage: Stage[config.Segmenter]
    train: CliPositionalArg[list[Path]]
    """Shards of images with masks."""
    validation: Path | None = None
    """Shard of images with masks on which its mIoU is measured, for its metadata."""
    out: OutputFile
    """Segmenter (.safetensors) to write."""


class Copies(Verb):
    """Look for near copies of labelled images among a source's."""

    does = "evaluation.copies:run"
    stage: Stage[config.Copies]
    denoiser: Path
    """The unconditional denoiser."""
    labelled: Path
    """Shard of labelled images."""
    validation: Path
    """Shard of real images that say what a near copy is."""
    test: Path
    """Shard of real images that say how many there are by chance."""
    shards: CliPositionalArg[list[Path]]
    """Shards, each in the folder of its source."""
    subset: Natural = 0
    """Labelled subset, for the rows."""
    out: OutputFile
    """Rows (.parquet) to write, one a source."""


class ScoreJudge(Verb):
    """Measure a judge by itself: its accuracy and calibration on test images."""

    does = "evaluation.judges:run"
    stage: Stage[config.JudgeScore]
    judge: Path
    """The judge."""
    denoiser: Path
    """The unconditional denoiser, whose features judge."""
    test: Path
    """Shard of test images."""
    name: str
    """Of the judge, for the row."""
    subset: Natural = 0
    """Labelled subset that it was trained on, for the row."""
    out: OutputFile
    """Row (.parquet) to write."""
