"""The sections of the networks that generated images are measured with. They guide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from pydantic import StringConstraints

from ddrep.config.base import Positive, Precision, Rate, Section


class Oracle(Section):
    """What training an evaluator and a segmenter have in common (AdamW, cosine decay of the learning rate)."""

    width: Positive
    """Channels at full resolution; they double with each halving of the resolution, up to 128."""
    epochs: Positive
    batch: Positive = 128
    lr: Rate = 3e-3
    weight_decay: Annotated[float, Ge(0)] = 0.02
    warmup: Annotated[int, Ge(0)] = 200
    """Steps in which the learning rate rises."""
    flip: bool = True
    """Random left-right flips."""
    shift: Annotated[int, Ge(0)] = 1
    """Random shifts by at most so many pixels either way."""
    precision: Precision = "auto"


class Evaluator(Oracle):
    """Training of the classifier whose features Fréchet distances are taken on."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "cnn"
    """Its distances are called FD-NAME."""
    width: Positive = 24
    epochs: Positive = 14


class Segmenter(Oracle):
    """Training of the oracle that says what a generated image shows, pixel by pixel (paper, 5.2)."""

    width: Positive = 16
    epochs: Positive = 4


class Evaluation(Section):
    """What Tables 1 and 2 are measured with."""

    inception: Path | None = None
    """Inception's weights in torch-fidelity's format, for FID; none: distances are on the evaluator's features."""
    evaluator: Path | None = None
    """A trained one whose classes are those of the data; none: one is trained for each attribute on all of its labelled
    training images."""
    segmenter: Path | None = None
    """A trained one whose classes are those of the masks; none: one is trained on the images for an oracle."""
    minimum: Annotated[int, Ge(2)] = 1000
    """Fewest images for a distance."""
    evaluator_training: Evaluator = Evaluator()
    segmenter_training: Segmenter = Segmenter()
