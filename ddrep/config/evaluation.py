"""The sections of the networks that generated images are measured with. They guide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import Field, StringConstraints

from ddrep.config.base import Batch, Epochs, Flip, Precision, Rate, Section, Warmup, WeightDecay

Width = Annotated[
    int,
    Gt(0),
    Le(2**13),
    Field(description="Channels at full resolution; they double with each halving of the resolution, up to 128."),
]


class Oracle(Section):
    """What training an evaluator and a segmenter have in common (AdamW, cosine decay of the learning rate)."""

    width: Width
    epochs: Epochs
    batch: Batch = 128
    lr: Rate = 3e-3
    weight_decay: WeightDecay = 0.02
    warmup: Warmup = 200
    flip: Flip = True
    shift: Annotated[int, Ge(0), Le(2**13)] = 1
    """Random shifts by at most so many pixels either way."""
    precision: Precision = "auto"


class Evaluator(Oracle):
    """Training of the classifier whose features Fréchet distances are taken on."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "cnn"
    """Its distances are called FD-NAME."""
    width: Width = 24
    epochs: Epochs = 14


class Segmenter(Oracle):
    """Training of the oracle that says what a generated image shows, pixel by pixel (paper, 5.2)."""

    width: Width = 16
    epochs: Epochs = 4


class Evaluation(Section):
    """By networks that take no part in making images (docs/evaluation.md)."""

    inception: Path | None = None
    """Inception's weights in torch-fidelity's format, for FID; null: distances are on the evaluator's features."""
    evaluator: Path | None = Path("ddrep/data/embedded/evaluator.safetensors")
    """A trained one whose classes are those of the data; null: one is trained for each attribute on all of its labelled
    training images."""
    segmenter: Path | None = Path("ddrep/data/embedded/segmenter.safetensors")
    """A trained one whose classes are those of the masks; null: one is trained on the images for an oracle."""
    minimum: Annotated[int, Ge(2), Le(10**9)] = 1000
    """Fewest images for a Fréchet distance."""
    evaluator_training: Evaluator = Evaluator()
    segmenter_training: Segmenter = Segmenter()
