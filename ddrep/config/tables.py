"""The sections of what is reported: which runs, tables and figures."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen

from ddrep.config.base import Block, Few, Name, Natural, Once, Pixels, Positive, Section, Seeds, Subsets, Timestep
from ddrep.sources import SourceName, SyntheticName


class Runs(Section):
    """A block of Table 4: the product of its lists."""

    architectures: Annotated[tuple[Name, ...], MinLen(1)] = ("resnet18",)
    """timm's names."""
    mix: Annotated[tuple[bool, ...], MinLen(1)] = (False, True)
    sources: Annotated[tuple[SourceName, ...], MinLen(1)] = ("real", "ours")
    scales: Annotated[tuple[Annotated[int, Ge(0), Le(1000)], ...], MinLen(1)] = (0, 1, 2, 3)
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)


class Table3(Section):
    """Classification accuracy score: one classifier on one source alone, at 1x."""

    architecture: Name = "resnet18"
    """timm's name."""
    sources: Annotated[tuple[SyntheticName, ...], MinLen(1)] = (
        "improved-ddpm", "classifier-free", "pixel-rejection", "ours", "probe-soft", "unconditional-soft"
    )  # fmt: skip
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)


class Table5(Section):
    """How many labels a source is worth: real images alone, and with a source, at several numbers of labels."""

    labels: Annotated[tuple[Annotated[Natural, Ge(2)], ...], Once] = ()
    """Labelled images a class; none: no Table 5."""
    architecture: str = "resnet18"
    """timm's name."""
    sources: Annotated[tuple[SyntheticName, ...], MinLen(1), Once] = ("ours",)
    scale: Positive = 3
    """Of every source."""
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)


class Tables(Section):
    """What the tables are made with."""

    resamples: Annotated[int, Gt(0), Le(10**6)] = 2000
    """Of the bootstrap."""
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95
    """Of the intervals of differences."""
    judged: Positive = 1000
    """Test images at most on which the judges themselves are measured, of each class its share."""


class JudgeScore(Section):
    """What the measuring of a judge is told."""

    images: Positive = 1000
    """Test images at most, of each class its share."""


class Copies(Section):
    """How near copies of the labelled images are looked for among a source's."""

    block: Block = "up1"
    """Of the denoiser, whose features are compared: middle, up1, up2, ..., or output_blocks.N."""
    timestep: Timestep = 50
    """To which images are noised, in embedded units, 0..1000 whatever the number of diffusion steps."""
    pool: Pixels = 4
    """Width and height that features are averaged to."""
    images: Positive = 500
    """Validation images, and test images, at most, of each class its share."""


class AccuracyTable(Tables):
    """What Tables 3 to 5 are told: their section, and what follows from others."""

    paper: bool = True
    """Whether the paper's figures, which are of Tiny ImageNet, stand beside the measured ones."""


class Figure1(Section):
    """One class by several sources, of subset 0."""

    figure1_class: Natural = 0
    """Number of the class."""
    figure1_images: Few = 12
    """Attempts side by side."""


class Figure2(Section):
    """Images drawn for target masks."""

    figure2_images: Few = 12
    """Target masks side by side."""


class Figure3(Section):
    """Accepted images of several classes, of subset 0."""

    figure3_classes: Annotated[tuple[Natural, ...], MinLen(1)] | None = None
    """Numbers of the classes, e.g. [0, 5]; null: the first four there are."""
    figure3_images: Few = 12
    """Accepted images of each class."""


class Figures(Figure3, Figure2, Figure1):
    """What the figures show, each of which is told of its own keys alone."""
